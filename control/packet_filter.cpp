// SPDX-License-Identifier: BSD-3-Clause
#include "control/packet_filter.h"

#include <pcap/pcap.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "config/words.h"

namespace trunkline::control {
namespace {

// The words of pcap-filter(7), without "gateway", which takes the name of a host, and "vlan".
constexpr std::string_view kWords =
    " "
    "aarp action ah and arp atalk broadcast byte carp clnp csnp decnet direction dst esis es-is esp ether geneve "
    "greater host icmp icmp-echo icmp-echoreply icmp-ireq icmp-ireqreply icmp-maskreply icmp-maskreq "
    "icmp-paramprob icmp-redirect icmp-routeradvert icmp-routersolicit icmp-sourcequench icmp-timxceed icmp-tstamp "
    "icmp-tstampreply icmp-unreach icmp6 icmp6-destinationunreach icmp6-echo icmp6-echoreply icmp6-neighboradvert "
    "icmp6-neighborsolicit icmp6-packettoobig icmp6-parameterproblem icmp6-redirect icmp6-routeradvert "
    "icmp6-routersolicit icmp6-timeexceeded icmp6code icmp6type icmpcode icmptype igmp igrp iih inbound ip ip6 "
    "ipx iso isis is-is lat len less link llc lsp mask mopdl moprc mpls multicast net netbeui not or outbound pim "
    "port portrange ppp pppoed pppoes proto protochain psnp radio rarp sca sctp slip snp src stp tcp tcpflags tr "
    "udp vrrp tcp-ack tcp-cwr tcp-ece tcp-fin tcp-push tcp-rst tcp-syn tcp-urg ";

bool is_word_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == ':' || c == '\\';
}

// Why the text must not come to libpcap: a host's name would be looked up in the DNS, for as long as that takes.
std::optional<std::string> unfit_word(std::string_view text) {
  std::string_view before;
  for (std::size_t at = 0; at < text.size();) {
    if (!is_word_character(text[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && is_word_character(text[end])) ++end;
    std::string_view word = text.substr(at, end - at);
    at = end;
    if (word.starts_with('\\')) word.remove_prefix(1);
    if (word == "vlan") return "filters see frames without their VLAN tag; say --task for the ENI of a VLAN";
    const bool is_number =
        std::isdigit(static_cast<unsigned char>(word.front())) != 0 || word.find(':') != std::string_view::npos;
    // Ports and protocols have names in files of this machine.
    const bool has_name_here = before == "port" || before == "portrange" || before == "proto" || before == "protochain";
    const bool is_known = kWords.find(' ' + std::string(word) + ' ') != std::string_view::npos;
    if (!is_number && !is_known && !has_name_here) {
      return "the filter has the word " + config::words::in_quotes(std::string(word)) +
             ", which is none of pcap-filter's; names of hosts are not looked up: write the address";
    }
    before = word;
  }
  return std::nullopt;
}

struct Program {
  ~Program() { pcap_freecode(&code); }
  bpf_program code{};
};

}  // namespace

std::expected<std::vector<bpf_insn>, std::string> compile_filter(const std::string& text) {
  if (text.size() > kMaxFilterBytes) {
    return std::unexpected("the filter has " + std::to_string(text.size()) + " bytes; at most " +
                           std::to_string(kMaxFilterBytes) + " are compiled: say it shorter (portrange, net)");
  }
  if (text.find('\0') != std::string::npos) return std::unexpected("the filter has a NUL byte in it");
  if (std::ranges::all_of(text, [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }))
    return std::vector<bpf_insn>{};
  if (auto unfit = unfit_word(text)) return std::unexpected(std::move(*unfit));
  constexpr int kWholeFrame = 65535;
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> handle(pcap_open_dead(DLT_EN10MB, kWholeFrame), pcap_close);
  if (handle == nullptr) return std::unexpected("libpcap has no memory for a filter");
  // What it is before libpcap makes it better takes a moment, and says how long that would take.
  for (const int optimise : {0, 1}) {
    Program program;
    if (pcap_compile(handle.get(), &program.code, text.c_str(), optimise, PCAP_NETMASK_UNKNOWN) != 0) {
      return std::unexpected("the filter " + config::words::in_quotes(text) +
                             " is not one: " + pcap_geterr(handle.get()) + "; see man 7 pcap-filter");
    }
    if (program.code.bf_len > kMaxFilterInstructions) {
      return std::unexpected("the filter is " + std::to_string(program.code.bf_len) + " instructions; at most " +
                             std::to_string(kMaxFilterInstructions) +
                             " are run for each packet: say it shorter (portrange, net)");
    }
    if (optimise == 1) return std::vector<bpf_insn>(program.code.bf_insns, program.code.bf_insns + program.code.bf_len);
  }
  std::unreachable();
}

}  // namespace trunkline::control
