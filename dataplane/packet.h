// SPDX-License-Identifier: BSD-3-Clause
//
// The burst: at most 64 packets on their way through the stages, with what was parsed of them in parallel arrays. A
// header's lengths are read once, by the parse stage; every later stage works on these arrays.
//
// Rules:
//  * A packet's verdict is DropReason::none until a stage refuses it. A stage never removes a packet from the burst:
//    forward hands all of them on, the refused ones to be freed.
//  * demux sorts the packets that pass it by two bit sets: `edge` are ARP, neighbour discovery and DHCP, which the edge stage
//    looks at, `filtered` are the others, which the security groups are asked about. track, admit and account walk over `filtered`
//    and look at nothing else; a packet that is refused leaves it. Of `filtered` the services stage takes what needs no rule and puts it into
//    `exempt`, which only limit and forward look at.
//  * A packet's bytes were written by a stranger. Every offset in these arrays was checked against the packet's length
//    when it was parsed; nobody derives another offset without checking it.
//  * The first segment of the mbuf holds all parsed headers. The rest of a chain is payload.
//
// A burst belongs to one worker and lives on its stack or in its context; nothing here is shared.
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "config/net.h"
#include "dataplane/state/flow_key.h"
#include "dataplane/state/view.h"
#include "dataplane/verdict.h"
#include "dataplane/wire/ip_headers.h"

namespace trunkline {

struct Connection;

inline constexpr std::uint32_t kMaxBurst = 64;
inline constexpr std::uint32_t kPrefetchAhead = 4;  // packets that parse asks for before it needs them

enum class Layer3 : std::uint8_t { other, ipv4, ipv6, arp };

// Where a packet goes when no stage refused it.
enum class Route : std::uint8_t {
  undecided,
  task,    // to the endpoint's port
  trunk,   // out on the trunk
  local,   // to another endpoint of this host: its ingress half comes next
  answer,  // the edge turned it into an answer: back to where it came from
};

namespace tcp_flag {
inline constexpr std::uint8_t fin = 0x01;
inline constexpr std::uint8_t syn = 0x02;
inline constexpr std::uint8_t rst = 0x04;
inline constexpr std::uint8_t ack = 0x10;
inline constexpr std::uint8_t urg = 0x20;
}  // namespace tcp_flag

// What parse found out about one packet, 16 bytes so that it is stored at once. vlan 0 is untagged; tag_bytes is what the
// tag takes in the frame (0 when the port stripped it).
struct alignas(16) Headers {
  std::uint16_t vlan = 0;
  std::uint8_t tag_bytes = 0;
  Layer3 layer3 = Layer3::other;
  std::uint16_t layer3_offset = 0;
  std::uint16_t layer4_offset = 0;  // 0: there is none to look at
  std::uint16_t packet_bytes = 0;   // of the IP packet, by its own header; what flow logs count
  std::uint8_t protocol = 0;
  std::uint8_t tcp_flags = 0;
  std::uint8_t icmp_type = 0;
  std::uint8_t icmp_code = 0;
  bool whole_key = false;  // the key has all that parse knows; track need not look again (it does for ICMP and IPv6)
  Fragment fragment = Fragment::none;
};
static_assert(sizeof(Headers) == 16);

struct Burst {
  Burst() {}  // not = default, which would not do with the unions

  std::uint32_t size = 0;
  std::uint64_t filtered = 0;
  std::uint64_t edge = 0;

  rte_mbuf* mbuf[kMaxBurst + kPrefetchAhead];  // nullptr: it left for another worker, or waits for its first fragment
  DropReason verdict[kMaxBurst];
  Route route[kMaxBurst];
  const Endpoint* endpoint[kMaxBurst];     // set by demux for every packet; nullptr: nobody's
  Connection* connection[kMaxBurst];       // set by track for the filtered ones; nullptr: none
  std::uint64_t hash[kMaxBurst];           // set by track
  // In unions, so that nobody clears two kilobytes for a port that has nothing: parse writes both for every packet.
  union {
    Headers headers[kMaxBurst];
  };
  // Seen from the ENI: parse fills in ports, protocol and IPv4 addresses, demux the owner, track what is left for ICMP and IPv6. Before
  // that, and for what is not filtered, good for the IPv4 addresses only.
  union {
    FlowKey key[kMaxBurst];
  };
  // Of the filtered ones those that changed nothing of their connection, and passed (stages/steady.h). Set by track.
  std::uint64_t steady = 0;
  // What parse took the short way: sound IPv4 packets with a TCP or UDP header, whole and one frame each. Never refused by it.
  std::uint64_t plain = 0;
  // So that forward need not look at each of them: the ol_flags of all of the burst together, and the longest plain one's packet_bytes.
  std::uint64_t flags_of_all = 0;
  std::uint32_t longest_plain = 0;
  // Rare ones.
  std::uint64_t services = 0;  // set by demux: to or from the address of a service that needs no rule (stages/services.h)
  std::uint64_t exempt = 0;    // of these what the rules are not asked about
  std::uint64_t to_all = 0;    // set by edge: the other untagged ENIs are to have it too
  std::uint64_t fragments = 0;  // of all packets, set by parse
  std::uint64_t first_fragments = 0;  // set by fragments: whose datagrams are to hear what admit says of them
  std::uint64_t refused = 0;    // set by admit: what flow logs call REJECT
  std::uint64_t super_frames = 0;  // set by parse; see state/super_frame.h
  // Of the filtered ones those that are larger than the port takes which they leave by (stages/oversized.h). What becomes of them
  // forward decides, so forward accounts for them, too.
  std::uint64_t oversized = 0;

  std::uint64_t all() const { return size == 0 ? 0 : ~std::uint64_t{0} >> (kMaxBurst - size); }
  bool alive(std::uint32_t i) const { return verdict[i] == DropReason::none; }
  void drop(std::uint32_t i, DropReason reason) {
    verdict[i] = reason;
    filtered &= ~(std::uint64_t{reason != DropReason::none} << i);
  }
  // The security groups of this endpoint are asked about it.
  void filter(std::uint32_t i, const Endpoint& asked) {
    endpoint[i] = &asked;
    key[i].belong_to(asked.owner_bits());
    filtered |= std::uint64_t{1} << i;
  }
  bool is_filtered(std::uint32_t i) const { return (filtered >> i & 1) != 0; }
  bool is_oversized(std::uint32_t i) const { return (oversized >> i & 1) != 0; }
  bool has_service_address(std::uint32_t i) const { return (services >> i & 1) != 0; }
  bool is_super_frame(std::uint32_t i) const { return (super_frames >> i & 1) != 0; }
  std::uint8_t* bytes(std::uint32_t i) const { return rte_pktmbuf_mtod(mbuf[i], std::uint8_t*); }

  // Read off the packet where parse found it sound; for ARP the sender's and the target's protocol address. Not after the
  // edge or forward have turned the packet into something else.
  IpAddress source(std::uint32_t i) const { return address(i, 12, 8, 14); }
  IpAddress destination(std::uint32_t i) const { return address(i, 16, 24, 24); }
  std::uint16_t source_port(std::uint32_t i, Direction direction) const {
    return direction == Direction::ingress ? key[i].remote_port_number() : key[i].local_port_number();
  }
  std::uint16_t destination_port(std::uint32_t i, Direction direction) const {
    return direction == Direction::ingress ? key[i].local_port_number() : key[i].remote_port_number();
  }

  // A packet enters with nothing known of it.
  void add(rte_mbuf* packet) {
    mbuf[size] = packet;
    verdict[size] = DropReason::none;
    route[size] = Route::undecided;
    ++size;
  }
  // The same for packets that a driver has put into `mbuf` itself.
  void received(std::uint32_t count) {
    std::memset(verdict, 0, sizeof verdict);  // all of it: a few wide stores cost less than knowing where to end
    std::memset(route, 0, sizeof route);
    size = count;
  }

  // A packet that was parsed in another burst goes on in this one, as its receiver sees it: what was read of it comes
  // along. The key's ends change places; what is not in the key by address (IPv6, ICMP) track makes anew.
  void adopt(const Burst& other, std::uint32_t i, const Endpoint& receiver) {
    const std::uint32_t at = size;
    add(other.mbuf[i]);
    headers[at] = other.headers[i];
    fragments |= std::uint64_t{headers[at].fragment != Fragment::none} << at;
    super_frames |= (other.super_frames >> i & 1) << at;
    key[at].set_bits(other.key[i].from_the_other_end().bits());
    filter(at, receiver);
    plain |= (other.plain >> i & 1) << at;
    flags_of_all |= other.flags_of_all;
    longest_plain = std::max(longest_plain, other.longest_plain);
  }
  // Another receiver's of what the edge has let pass towards `other.endpoint[i]`: the same bytes, which nothing is to change any more.
  void adopt_for_edge(const Burst& other, std::uint32_t i, const Endpoint& receiver) {
    const std::uint32_t at = size;
    add(other.mbuf[i]);
    headers[at] = other.headers[i];
    key[at] = other.key[i];
    endpoint[at] = &receiver;
    edge |= std::uint64_t{1} << at;
    route[at] = Route::task;
    flags_of_all |= other.flags_of_all;
  }

 private:
  IpAddress address(std::uint32_t i, std::uint32_t in_ipv4, std::uint32_t in_ipv6, std::uint32_t in_arp) const {
    const std::uint8_t* header = bytes(i) + headers[i].layer3_offset;
    switch (headers[i].layer3) {
      case Layer3::ipv4: return IpAddress::from_v4_bytes(header + in_ipv4);
      case Layer3::ipv6: return IpAddress::from_v6_bytes(header + in_ipv6);
      case Layer3::arp: return IpAddress::from_v4_bytes(header + in_arp);
      default: return {};
    }
  }
};
static_assert(static_cast<int>(DropReason::none) == 0 && static_cast<int>(Route::undecided) == 0);

// Calls visit(i) for each set bit, lowest first. The bits are those of the moment of the call. Nearly always they are those of a whole
// burst, and then counting costs less than looking for the next bit. It is visited from two places, so what is to be inlined has to say so.
template <class Visit>
[[gnu::always_inline]] inline void for_each_bit(std::uint64_t bits, Visit&& visit) {
  if ((bits & (bits + 1)) == 0) [[likely]] {
    const auto count = static_cast<std::uint32_t>(std::popcount(bits));
    for (std::uint32_t i = 0; i < count; ++i) visit(i);
  } else {
    for (; bits != 0; bits &= bits - 1) visit(static_cast<std::uint32_t>(std::countr_zero(bits)));
  }
}

}  // namespace trunkline
