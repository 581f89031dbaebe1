// SPDX-License-Identifier: BSD-3-Clause
//
// What became of one packet in one half of the pipeline, for people: what it was, what each stage said, the rule that decided, and the
// verdict with its sentence. The same words for explain (a packet that was made up), trace and captures (packets that came).
//
// Control thread only.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/json_reader.h"
#include "control/controller.h"
#include "dataplane/state/observer.h"

namespace trunkline::control {

// "tcp 198.51.100.9:4000 to 10.0.0.35:80, SYN, 40 octets, VLAN 101"
std::string packet_text(std::span<const std::uint8_t> bytes, std::size_t frame_bytes, Direction direction);

// "none", "held", "asked", or the reason of a drop; and the sentence of it.
std::string_view verdict_name(const Observation& seen);
std::string_view verdict_sentence(const Observation& seen);

// The short form: without the stages.
config::Json packet_summary(const Controller& controller, const Observation& seen);
// The whole: `bytes` are of the frame as it came.
config::Json packet_report(const Controller& controller, const Observation& seen, std::span<const std::uint8_t> bytes);

// Of an IP packet that parse found sound; the ends as the ENI sees them.
AddressPair ends_of(std::span<const std::uint8_t> bytes, std::size_t frame_bytes, Direction direction);

}  // namespace trunkline::control
