// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled network ACLs against the contract written as plainly as it reads: entry by entry, the first that matches decides. On
// random ACLs, among them those whose ICMP entries are of the wrong family, and packets at the edges of their entries.
//
// TRUNKLINE_SEED repeats a run; TRUNKLINE_PAIRS changes the number of (ACL, packet) pairs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>

#include "control/compile.h"

namespace trunkline {
namespace {

using config::NetworkAclEntry;

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// --- the oracle ---

bool covers(const IpPrefix& range, const IpAddress& address) {
  if (range.address.is_v4() != address.is_v4()) return false;
  const unsigned first = address.is_v4() ? 96 : 0;
  for (unsigned bit = first; bit < first + range.length; ++bit) {
    if (((range.address.bytes[bit / 8] ^ address.bytes[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

bool matches(const NetworkAclEntry& entry, const FlowQuery& packet) {
  if (!covers(entry.range, packet.remote)) return false;
  if (entry.protocol == -1) return true;
  if (entry.protocol != packet.protocol) return false;
  if (entry.protocol == 6 || entry.protocol == 17) return entry.from_port <= packet.port && packet.port <= entry.to_port;
  const bool typed = (entry.protocol == 1 && packet.remote.is_v4()) || (entry.protocol == 58 && !packet.remote.is_v4());
  if (!typed) return true;  // any other number, and ICMP of the other family: type and code are ignored
  return (entry.from_port == -1 || entry.from_port == packet.port / 256) && (entry.to_port == -1 || entry.to_port == packet.port % 256);
}

struct Expected {
  bool allowed = false;
  std::optional<std::size_t> place;
};

Expected judge(const std::vector<NetworkAclEntry>& entries, const FlowQuery& packet) {
  std::optional<std::size_t> lowest;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (matches(entries[i], packet) && (!lowest || entries[i].number < entries[*lowest].number)) lowest = i;
  }
  return {lowest && entries[*lowest].allow, lowest};
}

// --- chance ---

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}
  int between(int low, int high) { return low + static_cast<int>(random_() % static_cast<std::uint64_t>(high - low + 1)); }
  bool one_in(int n) { return between(1, n) == 1; }

  IpAddress address() {
    if (one_in(2)) return IpAddress::from_v4(0x0a000000U + (static_cast<std::uint32_t>(random_()) & (one_in(3) ? 0xffffffU : 0x3ffU)));
    IpAddress result = *IpAddress::parse("2001:db8::");
    for (std::size_t i = one_in(3) ? 4 : 14; i < 16; ++i) result.bytes[i] = static_cast<std::uint8_t>(random_());
    return result;
  }
  int protocol(int foreign_icmp_one_in, bool ipv4) {
    if (one_in(foreign_icmp_one_in)) return ipv4 ? 58 : 1;
    static constexpr int common[] = {-1, -1, 6, 6, 17, 50, 47};
    const int chosen = one_in(4) ? (ipv4 ? 1 : 58) : one_in(10) ? between(0, 255) : common[between(0, 6)];
    return foreign_icmp_one_in > 100 && chosen == (ipv4 ? 58 : 1) ? 6 : chosen;
  }
  std::vector<NetworkAclEntry> entries(int most, int foreign_icmp_one_in) {
    std::vector<NetworkAclEntry> result;
    for (int count = between(0, most), number = 0; count > 0; --count) {
      NetworkAclEntry entry;
      entry.number = static_cast<std::uint16_t>(number += between(1, 100));
      entry.allow = !one_in(3);
      const IpAddress base = address();
      const int width = base.is_v4() ? 32 : 128;
      entry.range = IpPrefix{base, static_cast<std::uint8_t>(one_in(2) ? 0 : one_in(2) ? width - between(0, 10) : between(0, width))}.network();
      entry.protocol = protocol(foreign_icmp_one_in, base.is_v4());
      if (entry.protocol == 6 || entry.protocol == 17) {
        entry.from_port = one_in(3) ? 0 : between(0, 100);
        entry.to_port = one_in(3) ? 65535 : between(entry.from_port, 200);
      } else if (entry.protocol == 1 || entry.protocol == 58) {
        entry.from_port = one_in(3) ? -1 : between(0, 9);
        entry.to_port = entry.from_port == -1 || one_in(2) ? -1 : between(0, 4);
      } else if (one_in(3)) {
        entry.from_port = entry.to_port = between(0, 100);  // to be ignored
      }
      result.push_back(entry);
    }
    return result;
  }
  FlowQuery packet(const std::vector<NetworkAclEntry>& entries) {
    FlowQuery query;
    const NetworkAclEntry* aim = entries.empty() ? nullptr : &entries[static_cast<std::size_t>(between(0, static_cast<int>(entries.size()) - 1))];
    query.remote = aim == nullptr || one_in(3) ? address() : one_in(2) ? aim->range.address : aim->range.last();
    if (aim != nullptr && query.remote.is_v4() != aim->range.is_v4()) query.remote = aim->range.address;  // the last of ::/0 and the like
    const int protocols[] = {6, 17, 1, 58, 50, between(0, 255)};
    query.protocol = static_cast<std::uint8_t>(aim != nullptr && aim->protocol >= 0 && one_in(2) ? aim->protocol : protocols[between(0, 5)]);
    int port = aim == nullptr || one_in(3) ? between(0, 210) : one_in(2) ? aim->from_port : aim->to_port;
    if (one_in(3)) port += between(-1, 1);
    if (query.protocol == 6 || query.protocol == 17) {
      query.port = static_cast<std::uint16_t>(port);
    } else if ((query.protocol == 1 && query.remote.is_v4()) || (query.protocol == 58 && !query.remote.is_v4())) {
      const int type = aim == nullptr || one_in(3) ? between(0, 10) : aim->from_port;
      const int code = aim == nullptr || one_in(3) ? between(0, 5) : aim->to_port;
      query.port = static_cast<std::uint16_t>((type & 0xff) << 8 | (code & 0xff));
    }
    return query;
  }

 private:
  std::mt19937_64 random_;
};

TEST(NetworkAclProperty, CompiledAclsAgreeWithEntryByEntryEvaluation) {
  const std::uint64_t seed = environment("TRUNKLINE_SEED", std::random_device{}());
  const std::uint64_t wanted = environment("TRUNKLINE_PAIRS", 400'000);
  std::cout << "TRUNKLINE_SEED=" << seed << " TRUNKLINE_PAIRS=" << wanted << std::endl;
  Generator generator(seed);
  std::uint64_t pairs = 0, acls = 0, allowed = 0, denied = 0, fixed = 0, foreign_denied = 0, foreign_allowed = 0;
  while (pairs < wanted) {
    config::NetworkAcl acl;
    const int most = generator.one_in(10) ? 78 : 6;
    const int foreign = generator.one_in(4) ? 6 : 1'000'000;
    acl.ingress = generator.entries(most, foreign);
    acl.egress = generator.entries(most, foreign);
    const auto compiled = control::compile_network_acl(acl, 7);
    ASSERT_EQ(compiled->generation, 7U);
    ++acls;
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      const auto& entries = direction == Direction::ingress ? acl.ingress : acl.egress;
      const auto places = control::entry_places(acl, direction);
      for (int i = 0; i < (most > 6 ? 200 : 40); ++i, ++pairs) {
        const FlowQuery packet = generator.packet(entries);
        const Expected expected = judge(entries, packet);
        const NetworkAcl::Answer answer = compiled->ask(packet, direction);
        const std::string what = "ACL " + std::to_string(acls) + ", " + packet.remote.to_string() + " protocol " +
                                 std::to_string(packet.protocol) + " port " + std::to_string(packet.port);
        ASSERT_EQ(answer.allowed, expected.allowed) << what;
        ASSERT_EQ(answer.entry == kNoRule ? std::nullopt : places.at(answer.entry), expected.place) << what;
        const bool is_foreign = packet.protocol == (packet.remote.is_v4() ? 58 : 1);
        if (!expected.place) ++fixed;
        if (expected.place) ++(expected.allowed ? is_foreign ? foreign_allowed : allowed : is_foreign ? foreign_denied : denied);
      }
    }
  }
  std::cout << pairs << " pairs, " << acls << " ACLs, " << allowed << " allowed, " << denied << " denied, " << fixed
            << " by the fixed entry; ICMP of the wrong family: " << foreign_allowed << " allowed, " << foreign_denied << " denied\n";
  // A generator that only ever makes one answer tests nothing.
  for (const std::uint64_t count : {allowed, denied, fixed}) EXPECT_GT(count, pairs / 50);
  for (const std::uint64_t count : {foreign_allowed, foreign_denied}) EXPECT_GT(count, pairs / 1000);
}

// The table of the contract: an ACL that lets tcp/80 in from anywhere but one network, and answers out to high ports.
TEST(NetworkAcl, TheExampleOfTheContract) {
  const IpPrefix everyone = *IpPrefix::parse("0.0.0.0/0");
  config::NetworkAcl acl;
  acl.ingress = {{90, false, 6, 80, 80, *IpPrefix::parse("203.0.113.0/24")},
                 {100, true, 6, 80, 80, everyone},
                 {110, true, 1, 3, 4, everyone},
                 {120, true, 1, 8, -1, everyone}};
  acl.egress = {{100, true, 6, 1024, 65535, everyone}};
  const auto compiled = control::compile_network_acl(acl, 1);
  const auto ask = [&](Direction direction, const char* remote, std::uint8_t protocol, std::uint16_t port) {
    return compiled->ask({*IpAddress::parse(remote), protocol, port}, direction);
  };
  EXPECT_TRUE(ask(Direction::ingress, "198.51.100.9", 6, 80).allowed);
  EXPECT_EQ(ask(Direction::ingress, "198.51.100.9", 6, 80).entry, 1);
  EXPECT_FALSE(ask(Direction::ingress, "203.0.113.5", 6, 80).allowed);
  EXPECT_EQ(ask(Direction::ingress, "203.0.113.5", 6, 80).entry, 0);
  EXPECT_TRUE(ask(Direction::egress, "198.51.100.9", 6, 40000).allowed);
  EXPECT_FALSE(ask(Direction::egress, "198.51.100.9", 6, 1000).allowed);
  EXPECT_EQ(ask(Direction::egress, "198.51.100.9", 6, 1000).entry, kNoRule);
  EXPECT_TRUE(ask(Direction::ingress, "198.51.100.9", 1, 8 << 8).allowed);
  EXPECT_TRUE(ask(Direction::ingress, "198.51.100.9", 1, 3 << 8 | 4).allowed);
  EXPECT_FALSE(ask(Direction::ingress, "198.51.100.9", 1, 0).allowed) << "type 0 is no wildcard";
  EXPECT_FALSE(ask(Direction::egress, "198.51.100.9", 1, 0).allowed);
  EXPECT_FALSE(ask(Direction::ingress, "2001:db8::9", 6, 80).allowed) << "0.0.0.0/0 says nothing of IPv6";
}

// "58 with an IPv4 CIDR" is a number there; an "allow all" behind a "deny 58" must not let it pass.
TEST(NetworkAcl, ADenyOfIcmpOfTheOtherFamilyIsNotLost) {
  config::NetworkAcl acl;
  const IpPrefix ipv4 = *IpPrefix::parse("0.0.0.0/0"), ipv6 = *IpPrefix::parse("::/0");
  acl.ingress = {{1, false, 58, -1, -1, ipv4}, {2, false, 1, 8, 0, ipv6}, {3, true, -1, -1, -1, ipv4}, {4, true, -1, -1, -1, ipv6}};
  const auto compiled = control::compile_network_acl(acl, 1);
  const auto allowed = [&](const char* remote, std::uint8_t protocol) {
    return compiled->ask({*IpAddress::parse(remote), protocol, 0}, Direction::ingress).allowed;
  };
  EXPECT_FALSE(allowed("192.0.2.1", 58));
  EXPECT_FALSE(allowed("2001:db8::1", 1));
  for (const int protocol : {1, 6, 17, 50, 255}) EXPECT_TRUE(allowed("192.0.2.1", static_cast<std::uint8_t>(protocol))) << protocol;
  for (const int protocol : {58, 6, 17, 50, 0}) EXPECT_TRUE(allowed("2001:db8::1", static_cast<std::uint8_t>(protocol))) << protocol;
}

// Validation keeps such entries out; should one come by, "deny" denies more and "allow" allows nothing.
TEST(NetworkAcl, WhatCannotBeOpensNothing) {
  const IpPrefix everyone = *IpPrefix::parse("0.0.0.0/0");
  const NetworkAclEntry allow_all{2, true, -1, -1, -1, everyone};
  const auto allowed = [&](const NetworkAclEntry& first, bool with_allow_all, std::uint8_t protocol, std::uint16_t port) {
    config::NetworkAcl acl;
    acl.ingress = {first};
    if (with_allow_all) acl.ingress.push_back(allow_all);
    return control::compile_network_acl(acl, 1)->ask({*IpAddress::parse("192.0.2.1"), protocol, port}, Direction::ingress).allowed;
  };
  EXPECT_FALSE(allowed({1, false, 6, 90, 80, everyone}, true, 6, 85));
  EXPECT_TRUE(allowed({1, false, 6, 90, 80, everyone}, true, 17, 85));
  EXPECT_FALSE(allowed({1, false, 6, -1, -1, everyone}, true, 6, 85));
  EXPECT_FALSE(allowed({1, false, 1, 300, 0, everyone}, true, 1, 0));
  EXPECT_FALSE(allowed({1, false, 256, -1, -1, everyone}, true, 50, 0));
  EXPECT_FALSE(allowed({1, true, 256, -1, -1, everyone}, false, 50, 0));
  EXPECT_FALSE(allowed({1, true, 6, 90, 80, everyone}, false, 6, 85));
  EXPECT_FALSE(NetworkAcl{}.ask({*IpAddress::parse("192.0.2.1"), 6, 80}, Direction::ingress).allowed);
}

// By number, not by place.
TEST(NetworkAcl, TheLowestNumberDecidesWhereverItStands) {
  const IpPrefix everyone = *IpPrefix::parse("0.0.0.0/0");
  config::NetworkAcl acl;
  acl.egress = {{200, true, -1, -1, -1, everyone}, {100, false, 6, 22, 22, everyone}};
  const auto compiled = control::compile_network_acl(acl, 1);
  EXPECT_FALSE(compiled->ask({*IpAddress::parse("192.0.2.1"), 6, 22}, Direction::egress).allowed);
  EXPECT_TRUE(compiled->ask({*IpAddress::parse("192.0.2.1"), 6, 23}, Direction::egress).allowed);
  EXPECT_EQ(control::entry_places(acl, Direction::egress), (std::vector<std::optional<std::size_t>>{1, 0}));
}

}  // namespace
}  // namespace trunkline
