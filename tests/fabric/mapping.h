// SPDX-License-Identifier: BSD-3-Clause
//
// The VPC as seen from the far end of an instance's trunk: who owns which address, and what the network does with a
// frame. One frame goes in, at most one comes out, in the same buffer. No sockets here, so all of it can be tested
// with arrays of bytes.
//
// Rules:
//  * The mapping (address -> owner) is the only truth. It comes from the configuration; nothing is learned from
//    packets. ARP and neighbour discovery are answered from it, never by the peer. An address nobody owns is silent.
//  * A sender is known by its VLAN and source MAC on the trunk, by its port elsewhere. Senders on the trunk must use
//    an address of their own (AWS validates them); a host may use any source, so that tests can play the Internet.
//    One exception: the instance's engine stands where the subnet's router would and says in its name that a packet is
//    too big (ICMP 3/4 and ICMPv6 type 2 from .1 or ::1, and nothing else).
//  * Packets between subnets are forwarded by destination address only and show the router's MAC as their source;
//    within a subnet they keep the sender's. The TTL is left alone: the VPC router is not a visible hop.
//  * There is no broadcast and no multicast, and only IPv4, IPv6 and ARP exist.
//  * No length field of a packet is trusted.
//
// One thread at a time.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace trunkline::fabric {

using Mac = std::array<std::uint8_t, 6>;

struct Address {
  std::array<std::uint8_t, 16> bytes{};  // an IPv4 address is in the first four
  bool v6 = false;

  static Address from_v4(const std::uint8_t* wire);
  static Address from_v6(const std::uint8_t* wire);
  static std::optional<Address> parse(const std::string& text);
  std::string to_string() const;

  std::size_t size() const { return v6 ? 16 : 4; }
  bool is_zero() const { return bytes == std::array<std::uint8_t, 16>{}; }
  bool operator==(const Address&) const = default;
};

struct AddressHash {
  std::size_t operator()(const Address& address) const noexcept;
};

struct Prefix {
  Address address;
  unsigned length = 0;

  bool contains(const Address& other) const;
  Address router() const;  // the subnet's first address after its base: .1 or ::1
};

// What a VPC link-local address must be: the EUI-64 form of the interface's MAC.
Address link_local_of(const Mac& mac);
std::string to_string(const Mac& mac);

using Port = std::uint16_t;  // 0 is the trunk, n is the n-th host
constexpr Port kTrunk = 0;

// An ENI behind the trunk, or a host on a port of its own.
struct Inhabitant {
  std::string name;  // where it stands in the configuration
  Port port = kTrunk;
  std::uint16_t vlan = 0;  // 0: untagged
  Mac mac{};
  std::vector<Address> addresses;
  std::optional<Prefix> subnet;
  std::optional<Prefix> subnet6;
};

struct Frame {
  std::span<std::uint8_t> buffer;  // at least kMinimumBuffer bytes; the frame starts at its first byte, untagged
  std::size_t length = 0;
  Port port = kTrunk;      // in: where it came from; out: where it goes to
  std::uint16_t vlan = 0;  // the tag that it had, or is to get; 0: none
};

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kMinimumBuffer = 128;

// What became of a frame. Those up to and including kEchoAnswered leave a frame to be sent.
enum class Verdict : std::uint8_t {
  kForwarded,
  kArpAnswered,
  kNdAnswered,
  kEchoAnswered,
  kSpoofed,      // not the sender's VLAN, MAC or address
  kNoRoute,      // nobody owns the destination, or somebody else than the destination MAC says
  kUnknownVlan,  // no ENI on that VLAN
  kMalformed,    // headers and lengths contradict each other
  kTooBig,       // IP packet larger than the MTU
  kSwallowed,    // well-formed, and the VPC stays silent: broadcast, multicast, probes, unknown ether types
  kCount,
};
std::string_view name_of(Verdict verdict);
constexpr bool leaves_a_frame(Verdict verdict) { return verdict <= Verdict::kEchoAnswered; }

class Fabric {
 public:
  // The inhabitants have been checked against each other (config.h).
  Fabric(const Mac& router_mac, std::size_t mtu, std::vector<Inhabitant> inhabitants);

  void replace(std::vector<Inhabitant> inhabitants);

  // Decides about the frame and turns it into what is to be sent, if anything is.
  Verdict handle(Frame& frame);

  void count(Verdict verdict) { ++counts_[static_cast<std::size_t>(verdict)]; }
  std::uint64_t counted(Verdict verdict) const { return counts_[static_cast<std::size_t>(verdict)]; }

 private:
  struct Packet;  // the IP header's fields that matter here

  Verdict decide(Frame& frame) const;
  Verdict answer_arp(Frame& frame, const Inhabitant& sender) const;
  Verdict answer_neighbour_discovery(Frame& frame, const Inhabitant& sender, const Packet& packet) const;
  Verdict answer_echo(Frame& frame, const Inhabitant& sender, const Packet& packet) const;
  Verdict forward(Frame& frame, const Inhabitant& sender, const Packet& packet) const;

  const Inhabitant* sender_of(const Frame& frame) const;
  const Inhabitant* owner_of(const Address& address) const;
  bool may_send_from(const Inhabitant& sender, const Address& source) const;
  bool is_router(const Inhabitant& sender, const Address& address) const;
  bool is_routers_error(const Inhabitant& sender, const Packet& packet) const;

  Mac router_mac_;
  std::size_t mtu_;
  std::vector<Inhabitant> inhabitants_;
  std::unordered_map<Address, std::size_t, AddressHash> owners_;
  std::unordered_map<std::uint64_t, std::size_t> trunk_senders_;  // by VLAN and MAC
  std::unordered_map<Port, std::size_t> hosts_;
  std::bitset<4096> vlans_;
  std::array<std::uint64_t, static_cast<std::size_t>(Verdict::kCount)> counts_{};
};

}  // namespace trunkline::fabric
