// SPDX-License-Identifier: BSD-3-Clause
#include "bench/generator/flows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace trunkline::generator {

std::vector<std::uint32_t> shuffled_order(std::uint32_t flows, std::uint64_t seed) {
  std::vector<std::uint32_t> order(flows);
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::shuffle(order, std::mt19937_64(seed));
  return order;
}

std::vector<std::uint32_t> zipf_order(std::uint32_t flows, double exponent, std::uint32_t draws, std::uint64_t seed) {
  std::vector<double> reached(flows);
  double total = 0;
  for (std::uint32_t rank = 0; rank < flows; ++rank) reached[rank] = total += std::pow(rank + 1.0, -exponent);
  // Which flow has which rank is shuffled too: neighbours in number are no neighbours in frequency.
  const std::vector<std::uint32_t> flow_of_rank = shuffled_order(flows, seed + 1);
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> anywhere(0, total);
  std::vector<std::uint32_t> order(draws);
  for (std::uint32_t& flow : order) {
    const auto at = std::ranges::lower_bound(reached, anywhere(random)) - reached.begin();
    flow = flow_of_rank[std::min<std::size_t>(static_cast<std::size_t>(at), flows - 1)];
  }
  return order;
}

}  // namespace trunkline::generator
