// SPDX-License-Identifier: BSD-3-Clause
//
// A capture filter as tcpdump takes it ("tcp port 80 and host 10.0.0.35"), compiled by libpcap for workers to run. Frames are looked
// at without their VLAN tag, so a filter that names one would match nothing, and is refused with what to say instead.
//
// Control thread only. An error is a sentence.
#pragma once

#include <sys/types.h>  // pcap/bpf.h wants it

#include <pcap/bpf.h>

#include <expected>
#include <string>
#include <vector>

namespace trunkline::control {

// Empty text: an empty program, which everything passes.
std::expected<std::vector<bpf_insn>, std::string> compile_filter(const std::string& text);

}  // namespace trunkline::control
