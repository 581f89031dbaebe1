// SPDX-License-Identifier: BSD-3-Clause
//
// Time as the packet path knows it: a tick is a tenth of a second since the engine started, coarse enough to be read
// once per turn of the loop and fine enough for every timeout that AWS names. 32 bits last 13 years.
//
// A worker is given the time; it never asks. Tests give whatever time they like.
#pragma once

#include <cstdint>

namespace trunkline {

using Tick = std::uint32_t;
inline constexpr Tick kTicksPerSecond = 10;

constexpr Tick seconds(std::uint32_t n) { return n * kTicksPerSecond; }

}  // namespace trunkline
