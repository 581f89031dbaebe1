// SPDX-License-Identifier: BSD-3-Clause
//
// In which order the flows send. Flows are numbers; frames.h says what tuple a number is. The order is drawn before the
// traffic starts and read from front to back, so that choosing the next flow costs the generator nothing.
#pragma once

#include <cstdint>
#include <vector>

namespace trunkline::generator {

// Every flow once a round, in one shuffled order: the hardest order for a cache, and no flow is left out.
std::vector<std::uint32_t> shuffled_order(std::uint32_t flows, std::uint64_t seed);

// `draws` flows, the k-th most frequent in proportion to 1 / k^exponent.
std::vector<std::uint32_t> zipf_order(std::uint32_t flows, double exponent, std::uint32_t draws, std::uint64_t seed);

}  // namespace trunkline::generator
