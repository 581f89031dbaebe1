// SPDX-License-Identifier: BSD-3-Clause
#include "control/packet_filter.h"

#include <pcap/pcap.h>

#include <memory>
#include <sstream>

#include "config/words.h"

namespace trunkline::control {

std::expected<std::vector<bpf_insn>, std::string> compile_filter(const std::string& text) {
  std::vector<bpf_insn> program;
  std::istringstream words(text);
  bool says_something = false;
  for (std::string word; words >> word; says_something = true) {
    if (word == "vlan" || word.ends_with("(vlan")) return std::unexpected("filters see frames without their VLAN tag; say --task for the ENI of a VLAN");
  }
  if (!says_something) return program;
  constexpr int kWholeFrame = 65535;
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> handle(pcap_open_dead(DLT_EN10MB, kWholeFrame), pcap_close);
  if (handle == nullptr) return std::unexpected("libpcap has no memory for a filter");
  bpf_program compiled{};
  if (pcap_compile(handle.get(), &compiled, text.c_str(), 1, PCAP_NETMASK_UNKNOWN) != 0) {
    return std::unexpected("the filter " + config::words::in_quotes(text) + " is not one: " + pcap_geterr(handle.get()) + "; see man 7 pcap-filter");
  }
  program.assign(compiled.bf_insns, compiled.bf_insns + compiled.bf_len);
  pcap_freecode(&compiled);
  return program;
}

}  // namespace trunkline::control
