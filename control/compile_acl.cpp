// SPDX-License-Identifier: BSD-3-Clause
//
// The network ACLs of compile.h.
//
// RuleBits matches ICMP (1) in IPv4 alone and ICMPv6 (58) in IPv6 alone. To a network ACL each of them is also a number like any
// other in the other family, and there "deny 58" must not be passed over by an "allow all" behind it. So a family that has such an
// entry is written out: first what the list says of every other protocol, one by one and down to the fixed last entry; whatever
// passes all that is of the one protocol, and meets its entries as entries for any protocol.
#include <algorithm>
#include <numeric>

#include "config/protocol.h"
#include "control/compile.h"

namespace trunkline::control {
namespace {

using config::NetworkAclEntry;
using config::kAnyProtocol;
using config::kIcmp;
using config::kIcmp6;

constexpr int kProtocols = 256;

struct Line {
  NetworkAclEntry entry;
  std::optional<std::size_t> place;  // in the list; nullopt: the fixed last entry
};

// The ICMP that is only a number in this family.
constexpr int foreign_icmp(bool ipv4) { return ipv4 ? kIcmp6 : kIcmp; }

NetworkAclEntry all_of(int protocol, const NetworkAclEntry& entry) {
  NetworkAclEntry other = entry;
  other.protocol = protocol;
  other.from_port = config::has_ports(protocol) ? 0 : -1;
  other.to_port = config::has_ports(protocol) ? 65535 : -1;
  return other;
}

// The input is valid. Were it not, RuleBits would match nothing, which is safe for "allow"; "deny" denies more instead.
NetworkAclEntry safe(const NetworkAclEntry& entry) {
  if (entry.allow) return entry;
  if (entry.protocol < kAnyProtocol || entry.protocol >= kProtocols) return all_of(kAnyProtocol, entry);
  const bool is_icmp = entry.protocol == kIcmp || entry.protocol == kIcmp6;
  const int least = is_icmp ? -1 : 0, most = is_icmp ? 255 : 65535;
  const auto outside = [&](int number) { return number < least || number > most; };
  const bool reversed = config::has_ports(entry.protocol) && entry.from_port > entry.to_port;
  if ((is_icmp || config::has_ports(entry.protocol)) && (outside(entry.from_port) || outside(entry.to_port) || reversed)) {
    return all_of(entry.protocol, entry);
  }
  return entry;
}

std::vector<Line> written_out(const std::vector<Line>& list, bool ipv4) {
  const int foreign = foreign_icmp(ipv4);
  std::vector<Line> lines;
  for (const Line& line : list) {
    if (line.entry.protocol == kAnyProtocol) {
      for (int protocol = 0; protocol < kProtocols; ++protocol) {
        if (protocol != foreign) lines.push_back({all_of(protocol, line.entry), line.place});
      }
    } else if (line.entry.protocol != foreign) {
      lines.push_back(line);
    }
  }
  NetworkAclEntry rest;
  rest.range = IpPrefix{ipv4 ? IpAddress::from_v4(0) : IpAddress{}, 0};
  for (int protocol = 0; protocol < kProtocols; ++protocol) {
    if (protocol != foreign) lines.push_back({all_of(protocol, rest), std::nullopt});
  }
  for (const Line& line : list) {
    const bool concerns = line.entry.protocol == kAnyProtocol || line.entry.protocol == foreign;
    if (concerns) lines.push_back({all_of(kAnyProtocol, line.entry), line.place});
  }
  return lines;
}

// What RuleBits is given, in its order. The families have nothing to do with each other, so one may be told after the other.
std::vector<Line> lines_of(const std::vector<NetworkAclEntry>& entries) {
  std::vector<std::size_t> places(entries.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  std::ranges::stable_sort(places, {}, [&](std::size_t place) { return entries[place].number; });
  std::vector<Line> all, of_family[2];
  bool is_plain = true;
  for (const std::size_t place : places) {
    const bool ipv4 = entries[place].range.is_v4();
    all.push_back({safe(entries[place]), place});
    of_family[ipv4].push_back(all.back());
    is_plain = is_plain && all.back().entry.protocol != foreign_icmp(ipv4);
  }
  if (is_plain) return all;
  std::vector<Line> lines = written_out(of_family[true], true);
  for (Line& line : written_out(of_family[false], false)) lines.push_back(std::move(line));
  return lines;
}

NetworkAcl::Side compile_side(const std::vector<NetworkAclEntry>& entries) {
  const std::vector<Line> lines = lines_of(entries);
  std::vector<RuleSpec> specs;
  NetworkAcl::Side side;
  for (const Line& line : lines) {
    RuleSpec& spec = specs.emplace_back();
    spec.protocol = line.entry.protocol;
    spec.from_port = line.entry.from_port;
    spec.to_port = line.entry.to_port;
    spec.ranges = {&line.entry.range, 1};
    side.allows.push_back(line.entry.allow);
  }
  side.entries = RuleBits::compile(specs);
  return side;
}

}  // namespace

std::shared_ptr<const NetworkAcl> compile_network_acl(const config::NetworkAcl& acl, std::uint32_t generation) {
  auto compiled = std::make_shared<NetworkAcl>();
  compiled->generation = generation;
  compiled->ingress = compile_side(acl.ingress);
  compiled->egress = compile_side(acl.egress);
  return compiled;
}

std::vector<std::optional<std::size_t>> entry_places(const config::NetworkAcl& acl, Direction direction) {
  std::vector<std::optional<std::size_t>> places;
  for (const Line& line : lines_of(direction == Direction::ingress ? acl.ingress : acl.egress)) places.push_back(line.place);
  return places;
}

}  // namespace trunkline::control
