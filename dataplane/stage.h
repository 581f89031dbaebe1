// SPDX-License-Identifier: BSD-3-Clause
//
// The stages of the pipeline by name, in their order, for those who report where a packet was refused. `transmit` is no stage of a
// burst: it is the port's driver at the end of a turn (transmit.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace trunkline {

enum class Stage : std::uint8_t { parse, demux, edge, fragments, services, track, admit, limit, account, forward, transmit };

constexpr std::string_view to_string(Stage stage) {
  constexpr std::string_view names[] = {"parse", "demux", "edge", "fragments", "services", "track", "admit", "limit", "account", "forward", "transmit"};
  return names[static_cast<std::size_t>(stage)];
}

}  // namespace trunkline
