// SPDX-License-Identifier: BSD-3-Clause
//
// A capture filter as tcpdump takes it ("tcp port 80 and host 10.0.0.35"), compiled by libpcap for workers to run. Frames are looked
// at without their VLAN tag, so a filter that names one would match nothing, and is refused with what to say instead.
//
// Rules, for whoever may look may ask for one, and the control thread compiles it:
//  * It has kMaxFilterBytes and is kMaxFilterInstructions at most, before libpcap makes it shorter, so that it takes
//    some milliseconds.
//  * No host's name is looked up: the DNS may take seconds. Names of ports and protocols are (/etc/services,
//    /etc/protocols).
//
// Control thread only. An error is a sentence.
#pragma once

#include <pcap/bpf.h>
#include <sys/types.h>  // pcap/bpf.h wants it

#include <cstddef>
#include <expected>
#include <string>
#include <vector>

namespace trunkline::control {

inline constexpr std::size_t kMaxFilterBytes = 1024, kMaxFilterInstructions = 768;

// Empty text: an empty program, which everything passes.
std::expected<std::vector<bpf_insn>, std::string> compile_filter(const std::string& text);

}  // namespace trunkline::control
