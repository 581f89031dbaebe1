// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 2: whose packet is it? On the trunk the VLAN names the endpoint (or, untagged, the MAC address), and the frame
// must be for that endpoint's MAC and address. On a task's port the endpoint is known, and the frame must come from
// its MAC and address. No ENI can reach another's VLAN, and no task can speak for another.
//
// What nearly every packet is, a plain one (Burst::plain) of the ENI's first address, is settled with a few comparisons against one line
// of the endpoint; the rest is looked at in full (demux_any.h). Passing packets are sorted into the burst's `filtered` and `edge`. Of the filtered ones
// those to and from the address of a service that may need no rule are marked (`services`) for the stage of that name.
//
// Also where meters begin: every packet is counted as received here, once. And where a packet leaves for the worker that owns
// its endpoint (state/handoff.h), if that is another: then its place in the burst stays empty.
//
// Refuses: handoff_full, unknown_eni, no_policy, wrong_mac, dest_check, unexpected_vlan, spoof_mac, spoof_ip, martian, multicast,
// link_local, imds_blocked, dhcp_refused (what only a server says).
#pragma once

#include <immintrin.h>

#include <array>

#include "dataplane/packet.h"
#include "dataplane/stages/demux_any.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// The first bytes of IPv4 addresses at the other end that need a closer look: link-local (169.254), multicast, and no host's.
inline constexpr std::array<bool, 256> kUnusualFirstByte = [] {
  std::array<bool, 256> unusual{};
  for (unsigned byte = 0; byte < 256; ++byte) unusual[byte] = is_martian_byte(static_cast<std::uint8_t>(byte)) || byte == 169;
  return unusual;
}();

// What is common to both directions: the endpoint's first address at this end, and none of the addresses at the other that need a
// closer look: the router, the resolver, what is like a service's, and what no host has. `own` are Endpoint::own_bits().
[[gnu::always_inline]] inline bool has_plain_addresses(const FlowKey& key, __m128i own) {
  static constexpr int kLocalThenRemotes = 0x01 | 0 << 2 | 0 << 4 | 3 << 6;  // beside first_ipv4, router_ipv4, resolver_ipv4
  const __m128i equal = _mm_cmpeq_epi32(_mm_shuffle_epi32(key.bits(), kLocalThenRemotes), own);
  return (_mm_movemask_ps(_mm_castsi128_ps(equal)) & 7) == 1 && !kUnusualFirstByte[static_cast<std::uint8_t>(key.remote)];
}

// A plain packet for the ENI's MAC and first address, from a possible source.
[[gnu::always_inline]] inline bool is_plain_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint, __m128i own) {
  return mac_bits_at(burst.bytes(i)) == endpoint.mac_bits && has_plain_addresses(burst.key[i], own);
}

// A plain packet, untagged, from the ENI's MAC and first address to a unicast destination, and not what a DHCP server says.
[[gnu::always_inline]] inline bool is_plain_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint, __m128i own) {
  const std::uint8_t* frame = burst.bytes(i);
  return (burst.headers[i].tag_bytes | burst.headers[i].vlan) == 0 && mac_bits_at(frame + 6) == endpoint.mac_bits && (frame[0] & 1) == 0 &&
         has_plain_addresses(burst.key[i], own) && ports_of(burst.key[i]) != kDhcpServer;
}

// Takes in plain packets that the trunk brought. What it works on is read once a burst: a counter might alias it.
class PlainFromTrunk {
 public:
  explicit PlainFromTrunk(WorkerState& worker) : endpoints_(worker.view->endpoints.data()), meters_(worker.meters.get()), self_(worker.number) {}

  // False: it is to be looked at in full. Adds to `bytes`.
  [[gnu::always_inline]] bool take(Burst& burst, std::uint32_t i, EndpointId id, std::uint64_t& bytes) const {
    const Endpoint& endpoint = *endpoints_[id.value];
    const __m128i own = endpoint.own_bits();
    if (endpoint.served_by != self_ || !is_plain_from_trunk(burst, i, endpoint, own)) [[unlikely]] return false;
    const Frames frame{1, burst.mbuf[i]->pkt_len};
    meters_[id.value].ingress.received(frame);
    bytes += frame.bytes;
    burst.endpoint[i] = &endpoint;
    burst.key[i].belong_to(Endpoint::owner_of(own));
    return true;
  }

 private:
  const std::shared_ptr<const Endpoint>* endpoints_;
  EndpointMeters* meters_;
  WorkerNumber self_;
};

// What is not plain, or not tagged. Answers which was not plain.
[[gnu::noinline]] inline std::uint64_t demux_rest_from_trunk(Burst& burst, std::uint64_t rest, WorkerState& worker, TrunkFrames& counted, std::uint64_t& bytes) {
  std::uint64_t others = 0;
  const PlainFromTrunk plain(worker);
  for_each_bit(rest, [&](std::uint32_t i) {
    if ((burst.plain >> i & 1) != 0 && burst.headers[i].vlan == 0) {
      const EndpointId id = worker.view->by_mac.find(mac_at(burst.bytes(i)).as_integer());
      if (id.is_valid() && plain.take(burst, i, id, bytes)) {
        burst.filtered |= std::uint64_t{1} << i;
        return;
      }
    }
    others |= std::uint64_t{1} << i;
    demux_one_from_trunk(burst, i, worker, counted);
  });
  return others;
}

}  // namespace detail

// `received_by_another`: another worker took it from the trunk, and counted it there.
inline void demux_from_trunk(Burst& burst, WorkerState& worker, bool received_by_another = false) {
  const View& view = *worker.view;
  const detail::PlainFromTrunk plain(worker);
  std::uint64_t rest = burst.all() & ~burst.plain, bytes = 0;
  for_each_bit(burst.plain, [&](std::uint32_t i) __attribute__((always_inline)) {
    const EndpointId id = view.by_vlan[burst.headers[i].vlan & 0xfff];
    if (!id.is_valid() || !plain.take(burst, i, id, bytes)) [[unlikely]] rest |= std::uint64_t{1} << i;
  });
  burst.filtered = burst.all() & ~rest;
  detail::TrunkFrames long_way;
  if (rest != 0) [[unlikely]] {
    std::uint64_t untagged = 0;  // apart, or the loop above would keep its sum in memory
    rest = detail::demux_rest_from_trunk(burst, rest, worker, long_way, untagged);
    bytes += untagged;
  }
  const Frames short_way{burst.size - static_cast<std::uint32_t>(std::popcount(rest)), bytes};
  if (!received_by_another) worker.trunk_in.received(short_way + long_way.received);
  worker.trunk_in.sent(short_way + long_way.ours);
}

inline void demux_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  const std::uint32_t size = burst.size;
  const __m128i own = endpoint.own_bits();
  for (std::uint32_t i = 0; i < size; ++i) burst.endpoint[i] = &endpoint;
  std::uint64_t rest = burst.all() & ~burst.plain, bytes = 0;
  for_each_bit(burst.plain, [&](std::uint32_t i) __attribute__((always_inline)) {
    if (detail::is_plain_from_task(burst, i, endpoint, own)) [[likely]] {
      // Where forward will put the tag: often a line that nobody has touched.
      __builtin_prefetch(burst.bytes(i) - ether::tag_bytes, 1);
      burst.key[i].belong_to(Endpoint::owner_of(own));
      bytes += burst.mbuf[i]->pkt_len;
    } else {
      rest |= std::uint64_t{1} << i;
    }
  });
  burst.filtered = burst.all() & ~rest;
  Frames received{size - static_cast<std::uint32_t>(std::popcount(rest)), bytes};
  if (rest != 0) [[unlikely]] for_each_bit(rest, [&](std::uint32_t i) {
    received += frames_of(*burst.mbuf[i]);
    if (burst.alive(i)) detail::sort_or_drop(burst, i, detail::check_from_task(burst, i, endpoint, *worker.view), Direction::egress, *worker.view);
  });
  worker.meter(endpoint, Direction::egress).received(received);
}

}  // namespace trunkline
