// SPDX-License-Identifier: BSD-3-Clause
//
// What stands between an IP header and the transport header, read by all who read it: the walker (wire/ip_headers.h) against a naive
// reader that knows nothing of it, and then parse, fragments, related and explain against the same naive reader, on random packets with
// options, extension headers, fragments, impossible lengths, and ends in the middle.
//
// TRUNKLINE_SEED repeats a run.
#include "dataplane/wire/ip_headers.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <optional>
#include <random>
#include <set>

#include "control/packet_report.h"
#include "dataplane/stages/related.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

// --- the naive reader ------------------------------------------------------------------------------------------------

// Thrown by Frame::at where the packet ends.
using Ends = std::out_of_range;

struct Naive {
  bool reached = false, forbidden = false, impossible = false;
  bool first = false, later = false;
  int protocol = -1;
  std::size_t transport = 0;
  std::optional<std::size_t> fragment_header;
};

Naive read4(const Frame& packet) try {
  Naive naive;
  const std::size_t end = 4U * (packet.at(0) % 16U);
  if (packet.at(0) / 16 != 4 || end < 20) return naive;
  packet.at(end - 1), packet.at(19);
  const unsigned word = packet.at(6) * 256U + packet.at(7);
  const bool more = (word & 0x2000) != 0, offset = (word & 0x1fff) != 0;
  naive.later = offset, naive.first = more && !offset;
  naive.reached = true, naive.protocol = packet.at(9), naive.transport = end;
  std::vector<std::uint8_t> options(packet.begin() + 20, packet.begin() + static_cast<std::ptrdiff_t>(end));
  while (!options.empty() && options[0] != 0) {
    if (options[0] == 1) {
      options.erase(options.begin());
      continue;
    }
    if (options.size() < 2 || options[1] < 2 || options[1] > options.size()) {
      naive.impossible = true;
      break;
    }
    if (options[0] == 131 || options[0] == 137) {
      naive.forbidden = true;
      break;
    }
    options.erase(options.begin(), options.begin() + options[1]);
  }
  return naive;
} catch (const Ends&) {
  return {};
}

Naive read6(const Frame& packet) {
  Naive naive;
  try {
    if (packet.at(0) / 16 != 6) return naive;
    packet.at(39);
    int next = packet.at(6);
    std::size_t at = 40;
    std::vector<int> chain;
    while (next == 0 || next == 43 || next == 44 || next == 60) {
      if (chain.size() == 8) {
        naive.impossible = !naive.forbidden;
        return naive;
      }
      if (next == 43) naive.forbidden = true;
      if (next == 0 && !chain.empty()) naive.forbidden = true;
      if (next == 44 && std::ranges::count(chain, 44) != 0) naive.forbidden = true;
      packet.at(at + 7);
      const std::size_t length = next == 44 ? 8 : 8 + 8U * packet.at(at + 1);
      packet.at(at + length - 1);
      chain.push_back(next);
      if (next == 44) {
        const unsigned word = packet.at(at + 2) * 256U + packet.at(at + 3);
        const unsigned offset = word / 8;
        naive.fragment_header = at;
        if (offset != 0 || word % 2 != 0) naive.first = offset == 0, naive.later = offset != 0;
      }
      next = packet.at(at);
      at += length;
      if (naive.later) break;
    }
    naive.reached = true, naive.protocol = next, naive.transport = at;
  } catch (const Ends&) {
  }
  return naive;
}

Naive read(const Frame& packet, bool ipv4) { return ipv4 ? read4(packet) : read6(packet); }

// --- random packets --------------------------------------------------------------------------------------------------

constexpr const char* kOwnMac = "0a:00:00:00:00:0a";
constexpr const char* kRouterMac = "0a:00:00:00:00:01";
constexpr std::uint16_t kRemotePort = 443, kOwnPort = 40000, kEchoId = 7;

class Packets {
 public:
  explicit Packets(std::uint64_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }
  bool one_in(std::uint32_t times) { return below(times) == 0; }

  // A transport header of the flow between the two, and what protocol it is.
  std::uint8_t transport(Frame& bytes, bool ipv4, bool to_task) {
    const std::uint16_t source = to_task ? kRemotePort : kOwnPort, destination = to_task ? kOwnPort : kRemotePort;
    switch (below(8)) {
      case 0: case 1: bytes = tcp_segment(source, destination, to_task ? 0x12 : 0x10); return 6;
      case 2: case 3: bytes = udp_datagram(source, destination, 8); return 17;
      case 4: case 5: bytes = icmp_message(ipv4 ? (to_task ? 0 : 8) : (to_task ? 129 : 128), one_in(3) ? 1 : 0, kEchoId); return ipv4 ? 1 : 58;
      case 6: bytes = Frame(16, 'e'); return one_in(2) ? 50 : 51;
      default: bytes = Frame(16, 'o'); return std::array<std::uint8_t, 4>{59, 135, 132, static_cast<std::uint8_t>(ipv4 ? 58 : 1)}[below(4)];
    }
  }

  Frame ipv4(const IpAddress& source, const IpAddress& destination, bool to_task) {
    Frame payload;
    const std::uint8_t protocol = transport(payload, true, to_task);
    Frame options;
    while (one_in(2) && options.size() < 32) {
      switch (below(8)) {
        case 0: options.push_back(0); break;
        case 1: case 2: options.push_back(1); break;
        case 3: put(options, one_in(2) ? "\x83\3\4" : "\x89\3\4", 3); break;
        case 4: put(options, "\7\7\4\0\0\0\0", 7); break;
        case 5: put(options, "\x94\4\0\0", 4); break;
        default: options.push_back(static_cast<std::uint8_t>(below(256)));
      }
    }
    while (options.size() % 4 != 0) options.push_back(static_cast<std::uint8_t>(one_in(4) ? 7 : 0));
    payload.insert(payload.begin(), options.begin(), options.end());
    Frame packet = ip_packet({}, source, destination, protocol, payload, false);
    packet.erase(packet.begin(), packet.begin() + 14);
    packet[0] = static_cast<std::uint8_t>(0x45 + options.size() / 4);
    if (one_in(3)) packet[6] = static_cast<std::uint8_t>(below(64)), packet[7] = static_cast<std::uint8_t>(one_in(2) ? 0 : below(256));
    return packet;
  }

  Frame ipv6(const IpAddress& source, const IpAddress& destination, bool to_task) {
    Frame payload;
    std::uint8_t next = transport(payload, false, to_task);
    for (std::uint32_t count = one_in(20) ? 7 + below(4) : below(5); count != 0; --count) {
      static constexpr std::uint8_t kKinds[] = {60, 60, 60, 60, 44, 44, 44, 0, 43};
      const std::uint8_t kind = one_in(3) && count == 1 ? 0 : kKinds[below(one_in(4) ? 9 : 7)];
      Frame header{next, static_cast<std::uint8_t>(one_in(3) ? below(3) : 0)};
      if (kind == 44) {
        header[1] = static_cast<std::uint8_t>(below(256));
        put16(header, static_cast<std::uint16_t>(one_in(3) ? below(65536) : one_in(2) ? 1 : below(8)));
        header.resize(8, 9);
      } else {
        header.resize(8U * (header[1] + 1U), 0);
      }
      payload.insert(payload.begin(), header.begin(), header.end());
      next = kind;
    }
    Frame packet = ip_packet({}, source, destination, next, payload);
    packet.erase(packet.begin(), packet.begin() + 14);
    packet[7] = 64;
    return packet;
  }

  Frame any(bool v4, const IpAddress& source, const IpAddress& destination, bool to_task) {
    return v4 ? ipv4(source, destination, to_task) : ipv6(source, destination, to_task);
  }

  // Cut anywhere; its own length says so, if it is to be believed.
  void cut(Frame& packet, bool v4, bool believable) {
    packet.resize(1 + below(static_cast<std::uint32_t>(packet.size())));
    const std::size_t header = v4 ? 20 : 40;
    if (!believable || packet.size() < header) return;
    const auto length = static_cast<std::uint16_t>(packet.size() - (v4 ? 0 : 40));
    packet[v4 ? 2 : 4] = static_cast<std::uint8_t>(length >> 8), packet[v4 ? 3 : 5] = static_cast<std::uint8_t>(length);
  }

 private:
  std::mt19937_64 random_;
};

std::uint64_t seed_of_run() {
  const char* given = std::getenv("TRUNKLINE_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "TRUNKLINE_SEED=" << seed << std::endl;
  return seed;
}

const IpAddress kOwn4 = ip("10.0.0.35"), kRemote4 = ip("198.51.100.9"), kOwn6 = ip("2001:db8:0:a::35"), kRemote6 = ip("2001:db8:9::9");

Frame framed(const Frame& packet, bool v4, bool to_task) {
  Frame frame = ethernet(to_task ? L2{mac(kOwnMac), mac(kRouterMac), 101} : L2{mac(kRouterMac), mac(kOwnMac), -1}, v4 ? 0x0800 : 0x86dd);
  put(frame, packet.data(), packet.size());
  return frame;
}

// --- the walker ------------------------------------------------------------------------------------------------------

TEST(IpHeaders, AreReadAsTheNaiveReaderReadsThem) {
  Packets packets(seed_of_run());
  std::set<std::string> kinds;
  for (int round = 0; round < 200'000; ++round) {
    const bool v4 = packets.one_in(2);
    Frame packet = packets.any(v4, v4 ? kRemote4 : kRemote6, v4 ? kOwn4 : kOwn6, true);
    for (std::uint32_t changes = packets.one_in(3) ? packets.below(4) : 0; changes != 0; --changes) {
      packet[packets.below(static_cast<std::uint32_t>(packet.size()))] = static_cast<std::uint8_t>(packets.below(256));
    }
    if (packets.one_in(3)) packets.cut(packet, v4, false);
    // In memory of exactly its size, so that a sanitizer sees a byte too many.
    const auto exact = std::make_unique<std::uint8_t[]>(packet.size());
    std::memcpy(exact.get(), packet.data(), packet.size());
    const auto room = static_cast<std::uint32_t>(packet.size());
    const IpHeaders found = v4 ? walk_ipv4(exact.get(), room) : walk_ipv6(exact.get(), room);
    const Naive naive = read(packet, v4);
    ASSERT_EQ(found.reached, naive.reached);
    ASSERT_EQ(found.options == IpHeaders::Options::not_allowed, naive.forbidden);
    ASSERT_EQ(found.options == IpHeaders::Options::malformed, naive.impossible);
    ASSERT_EQ(found.fragment == Fragment::first, naive.first);
    ASSERT_EQ(found.fragment == Fragment::later, naive.later);
    ASSERT_EQ(found.fragment_header, naive.fragment_header.value_or(0));
    if (naive.reached) {
      ASSERT_EQ(found.protocol, naive.protocol);
      ASSERT_EQ(found.transport, naive.transport);
    }
    kinds.insert(std::string(v4 ? "4" : "6") + (naive.reached ? " reached" : "") + (naive.forbidden ? " forbidden" : "") +
                 (naive.impossible ? " impossible" : "") + (naive.first ? " first" : naive.later ? " later" : ""));
  }
  EXPECT_GE(kinds.size(), 20U) << "the packets are not as different as they should be";
}

TEST(IpHeaders, EveryLengthOfAChainIsCutSafely) {
  Frame packet = ip_packet({}, kRemote6, kOwn6, 0, Frame{60, 0, 1, 4, 0, 0, 0, 0,  44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                         60, 0, 0, 1, 0, 0, 0, 7,  6, 0, 1, 4, 0, 0, 0, 0});
  packet.erase(packet.begin(), packet.begin() + 14);
  for (std::uint32_t room = 0; room < packet.size(); ++room) {
    const auto exact = std::make_unique<std::uint8_t[]>(room);
    std::memcpy(exact.get(), packet.data(), room);
    EXPECT_FALSE(walk_ipv6(exact.get(), room).reached) << room;
  }
  const IpHeaders found = walk_ipv6(packet.data(), static_cast<std::uint32_t>(packet.size()));
  EXPECT_TRUE(found.reached && found.fragment == Fragment::first && found.options == IpHeaders::Options::allowed);
  EXPECT_EQ(found.protocol, 6);
  EXPECT_EQ(found.fragment_header, 64U);
  EXPECT_EQ(found.transport, 80U);
}

// --- all who read them ------------------------------------------------------------------------------------------------

class Readers : public ::testing::Test {
 protected:
  Readers() {
    World::Task task;
    task.name = "web";
    task.vlan = 101;
    task.mac = kOwnMac;
    task.addresses = {kOwn4.to_string(), kOwn6.to_string()};
    task.subnet6 = "2001:db8:0:a::/64";
    world.adjust = [](const World::Task&, Endpoint& endpoint) { endpoint.icmp_related = true; };
    config::SecurityGroup group;
    group.id = "sg-0000000a";
    group.egress = {everything()};
    task.groups = {group};
    world.add(task);
  }
  // The task speaks to the other end in every protocol that Packets knows; nothing may come in but what is related, or answers.
  void open_all() {
    for (const bool v4 : {true, false}) {
      const IpAddress from = v4 ? kOwn4 : kOwn6, to = v4 ? kRemote4 : kRemote6;
      const auto send = [&](std::uint8_t protocol, const Frame& payload) {
        ASSERT_EQ(world.from_task(0, {ip_packet({mac(kRouterMac), mac(kOwnMac), -1}, from, to, protocol, payload)}).trunk.size(), 1U) << int{protocol};
      };
      send(6, tcp_segment(kOwnPort, kRemotePort, 0x02));
      send(17, udp_datagram(kOwnPort, kRemotePort, 8));
      send(v4 ? 1 : 58, icmp_message(v4 ? 8 : 128, 0, kEchoId));
      for (const std::uint8_t protocol : {50, 51, 59, 135, 132, v4 ? 58 : 1}) send(static_cast<std::uint8_t>(protocol), Frame(16, 'x'));
    }
  }
  World world;
};

// The naive reader's verdict on a packet whose transport header is as Packets makes it, or cut.
DropReason naive_verdict(const Naive& naive, const Frame& packet, bool v4) {
  if (naive.impossible) return DropReason::malformed;
  if (naive.forbidden) return DropReason::ip_options;
  if (!naive.reached) return naive.first ? DropReason::fragment_tiny : DropReason::malformed;
  if (naive.later) return DropReason::none;
  const std::size_t room = packet.size() - naive.transport;
  const DropReason too_short = naive.first ? DropReason::fragment_tiny : DropReason::malformed;
  if (naive.protocol == 6 && room < 20) return too_short;
  if (naive.protocol == (v4 ? 1 : 58) && room < 8) return too_short;
  if (naive.protocol == 17 && room < 8) return too_short;
  if (naive.protocol == 17 && !naive.first && room < 16) return DropReason::malformed;  // less than it says
  return DropReason::none;
}

TEST_F(Readers, ParseAndExplainAgree) {
  Packets packets(seed_of_run());
  std::map<DropReason, int> seen;
  for (int round = 0; round < 100'000; ++round) {
    const bool v4 = packets.one_in(2), to_task = packets.one_in(2);
    const IpAddress remote = v4 ? kRemote4 : kRemote6, own = v4 ? kOwn4 : kOwn6;
    Frame packet = packets.any(v4, to_task ? remote : own, to_task ? own : remote, to_task);
    if (packets.one_in(4)) packets.cut(packet, v4, true);
    if (packet.size() < (v4 ? 20U : 40U)) continue;
    const Naive naive = read(packet, v4);
    const Frame frame = framed(packet, v4, to_task);
    const Direction direction = to_task ? Direction::ingress : Direction::egress;
    Mbufs mbufs;
    Burst burst;
    burst.add(mbufs.make(frame));
    parse(burst, direction);
    ASSERT_EQ(text(burst.verdict[0]).name, text(naive_verdict(naive, packet, v4)).name);
    ++seen[burst.verdict[0]];
    if (!burst.alive(0)) continue;
    const Headers& headers = burst.headers[0];
    ASSERT_EQ(headers.layer4_offset, (to_task ? 18U : 14U) + naive.transport);
    ASSERT_EQ(headers.protocol, naive.protocol);
    ASSERT_EQ(headers.fragment, naive.first ? Fragment::first : naive.later ? Fragment::later : Fragment::none);
    ASSERT_EQ(burst.key[0].protocol(), naive.protocol);
    const bool ports = (naive.protocol == 6 || naive.protocol == 17) && !naive.later;
    const std::string told = control::packet_text(frame, frame.size(), direction);
    if (ports) {
      ASSERT_EQ(burst.key[0].remote_port_number(), kRemotePort);
      ASSERT_TRUE(told.starts_with(naive.protocol == 6 ? "tcp " : "udp ") && told.find(":443") != std::string::npos) << told;
    }
    if (naive.protocol == (v4 ? 1 : 58) && !naive.later) {
      ASSERT_NE(told.find(" type "), std::string::npos) << told;
    }
  }
  for (const DropReason reason : {DropReason::none, DropReason::malformed, DropReason::ip_options, DropReason::fragment_tiny}) {
    EXPECT_GT(seen[reason], 100) << text(reason).name;
  }
}

// An error that quotes the packet passes if, and only if, the packet is one of the task's connections. Cut anywhere.
TEST_F(Readers, RelatedAgrees) {
  Packets packets(seed_of_run());
  open_all();
  int passed = 0, refused = 0;
  for (int round = 0; round < 60'000; ++round) {
    const bool v4 = packets.one_in(2);
    Frame quoted = packets.any(v4, v4 ? kOwn4 : kOwn6, v4 ? kRemote4 : kRemote6, false);
    if (packets.one_in(3)) packets.cut(quoted, v4, packets.one_in(2));
    const Naive naive = read(quoted, v4);
    bool expected = naive.reached && !naive.later;
    if (expected) {
      const std::size_t room = quoted.size() - naive.transport;
      if (naive.protocol == 6 || naive.protocol == 17) expected = room >= 4;
      if (naive.protocol == (v4 ? 1 : 58)) expected = room >= 8 && quoted[naive.transport + 1] == 0;  // the code that was asked with
      const std::set<int> spoken{6, 17, v4 ? 1 : 58, 50, 51, 59, 135, 132, v4 ? 58 : 1};
      expected = expected && spoken.contains(naive.protocol);
    }
    Frame message = v4 ? Frame{3, 4, 0, 0, 0, 0, 5, 0} : Frame{2, 0, 0, 0, 0, 0, 5, 0};
    put(message, quoted.data(), quoted.size());
    const Frame error = ip_packet({mac(kOwnMac), mac(kRouterMac), 101}, ip(v4 ? "203.0.113.7" : "2001:db8:7::7"), v4 ? kOwn4 : kOwn6, v4 ? 1 : 58, message);
    const bool passes = world.from_trunk({error}).task["web"].size() == 1;
    ASSERT_EQ(passes, expected) << control::packet_text(framed(quoted, v4, false), quoted.size() + 14, Direction::egress) << " of which "
                                << quoted.size() << " are quoted";
    ++(passes ? passed : refused);
  }
  EXPECT_GT(passed, 5'000);
  EXPECT_GT(refused, 5'000);
}

// A first fragment and one that follows it, which names any header as its next one: both go the same way, with the first one's ports.
TEST_F(Readers, FragmentsAgree) {
  Packets packets(seed_of_run());
  open_all();
  int passed = 0, refused = 0;
  for (int round = 0; round < 60'000; ++round) {
    const bool v4 = packets.one_in(4);
    Frame first = packets.any(v4, v4 ? kRemote4 : kRemote6, v4 ? kOwn4 : kOwn6, true);
    const Naive naive = read(first, v4);
    if (!naive.first || naive_verdict(naive, first, v4) != DropReason::none) continue;
    const std::size_t data = v4 ? naive.transport : *naive.fragment_header + 8;
    first.resize(data + (first.size() - data + 7) / 8 * 8);
    const auto length = static_cast<std::uint16_t>(first.size() - (v4 ? 0 : 40));
    first[v4 ? 2 : 4] = static_cast<std::uint8_t>(length >> 8), first[v4 ? 3 : 5] = static_cast<std::uint8_t>(length);
    if (naive.protocol == 17) first[naive.transport + 4] = 0, first[naive.transport + 5] = 80;
    Frame next(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(data));
    next.resize(data + 16, 'n');
    const auto offset = static_cast<std::uint16_t>((first.size() - data) / 8);
    const auto total = static_cast<std::uint16_t>(next.size() - (v4 ? 0 : 40));
    next[v4 ? 2 : 4] = static_cast<std::uint8_t>(total >> 8), next[v4 ? 3 : 5] = static_cast<std::uint8_t>(total);
    const auto id = static_cast<std::uint16_t>(round);
    for (Frame* piece : {&first, &next}) {
      const std::size_t at = v4 ? 4 : *naive.fragment_header + 6;
      (*piece)[at] = static_cast<std::uint8_t>(id >> 8), (*piece)[at + 1] = static_cast<std::uint8_t>(id);
    }
    if (v4) {
      next[6] = static_cast<std::uint8_t>(offset >> 8), next[7] = static_cast<std::uint8_t>(offset);
    } else {
      const std::size_t at = *naive.fragment_header;
      next[at] = static_cast<std::uint8_t>(std::array{60, 6, 17, 58, 50, 59, 0, 44}[packets.below(8)]);
      if (next[at] == 6 && offset == 1) continue;  // refused for the sake of RFC 3128
      next[at + 2] = static_cast<std::uint8_t>(offset >> 5), next[at + 3] = static_cast<std::uint8_t>(offset << 3);
    }
    // Answers of what the task asked pass. An ICMP code that was not asked with does not, nor do replies in what it never spoke.
    const bool expected = naive.protocol != (v4 ? 1 : 58) || first[naive.transport + 1] == 0;
    std::vector<Frame> pieces{framed(first, v4, true), framed(next, v4, true)};
    if (packets.one_in(3)) std::swap(pieces[0], pieces[1]);
    ASSERT_EQ(world.from_trunk(pieces).task["web"].size(), expected ? 2U : 0U) << control::packet_text(framed(first, v4, true), first.size() + 18, Direction::ingress);
    ASSERT_TRUE(world.worker.fragments.empty());
    ++(expected ? passed : refused);
  }
  EXPECT_GT(passed, 1'000);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace trunkline::test
