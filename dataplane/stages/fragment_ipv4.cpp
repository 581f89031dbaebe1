// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/fragment_ipv4.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "dataplane/stages/chain_reader.h"
#include "dataplane/stages/checksum.h"
#include "dataplane/stages/offload.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/segment.h"

namespace trunkline {
namespace {

constexpr std::uint32_t kMaxFragments = 128;  // of 65535 octets, at an MTU of 576 and with a header of 60
constexpr std::uint32_t kHeaderBytes = 20, kMaxHeaderBytes = 60;
constexpr std::uint32_t kLeastMtu = 68;  // RFC 791: what every way carries; the longest header and eight octets
constexpr std::uint32_t kMaxDatagram = 65535;
constexpr std::uint16_t kDontFragment = 0x4000, kMoreFragments = 0x2000, kReserved = 0x8000, kOffset = 0x1fff;

struct Ipv4Header {
  std::array<std::uint8_t, kMaxHeaderBytes> bytes{};
  std::uint32_t size = kHeaderBytes;

  std::uint32_t payload(std::uint32_t mtu) const { return (mtu - size) & ~7U; }  // in a fragment that is not the last
};

// The header of all fragments but the first: without the options whose copy bit is not set (RFC 791, 3.1). Options that
// end beyond the header, or have no length, end the list.
Ipv4Header without_first_only_options(const Ipv4Header& whole) {
  static constexpr std::uint8_t kEnd = 0, kNoOperation = 1, kCopied = 0x80;
  Ipv4Header later;
  std::memcpy(later.bytes.data(), whole.bytes.data(), kHeaderBytes);
  for (std::uint32_t at = kHeaderBytes; at < whole.size && whole.bytes[at] != kEnd;) {
    if (whole.bytes[at] == kNoOperation) {
      ++at;
      continue;
    }
    const std::uint32_t length = at + 1 < whole.size ? whole.bytes[at + 1] : 0U;
    if (length < 2 || at + length > whole.size) break;
    if ((whole.bytes[at] & kCopied) != 0) {
      std::memcpy(&later.bytes[later.size], &whole.bytes[at], length);
      later.size += length;
    }
    at += length;
  }
  later.size = (later.size + 3) & ~3U;  // what is behind the last one is kEnd
  later.bytes[0] = static_cast<std::uint8_t>(0x40 | later.size / 4);
  return later;
}

// A packet that is to be cut: both headers, and how its payload is laid out.
struct Plan {
  Ipv4Header first, later;
  std::uint32_t payload_bytes = 0, first_payload = 0, later_payload = 0, count = 0;
  std::uint16_t place = 0;  // the third word of the header: flags and offset
  bool wrong_checksum = false;

  Plan(const std::uint8_t* ip, std::uint32_t mtu) {
    first.size = (ip[0] & 15) * 4U;
    std::memcpy(first.bytes.data(), ip, first.size);
    wrong_checksum = fold(sum16(first.bytes.data(), first.size)) != 0;
    later = without_first_only_options(first);
    place = load16(ip + 6);
    payload_bytes = load16(ip + 2) - first.size;
    first_payload = first.payload(mtu);
    later_payload = later.payload(mtu);
    const std::uint32_t behind_first = payload_bytes - std::min(payload_bytes, first_payload);
    // The last one may have up to seven octets more.
    const std::uint32_t last_most = mtu - later.size;
    count = 1;
    if (behind_first == 0) return;
    count += 1 + (behind_first <= last_most ? 0 : (behind_first - last_most + later_payload - 1) / later_payload);
  }
  std::uint32_t ends_at() const { return (place & kOffset) * 8U + payload_bytes; }  // of the datagram's payload
  std::uint32_t ip_bytes() const { return payload_bytes + first.size + (count - 1) * later.size; }
  // Of fragment n, of `bytes` from octet `offset` of the packet's payload on.
  Ipv4Header header(std::uint32_t n, std::uint32_t offset, std::uint32_t bytes) const {
    Ipv4Header header = n == 0 ? first : later;
    const bool more = n + 1 < count || (place & kMoreFragments) != 0;
    store16(&header.bytes[2], static_cast<std::uint16_t>(header.size + bytes));
    store16(&header.bytes[6], static_cast<std::uint16_t>((place & kReserved) | (more ? kMoreFragments : 0) |
                                                         ((place & kOffset) + offset / 8)));
    store16(&header.bytes[10], 0);
    const std::uint16_t checksum = fold(sum16(header.bytes.data(), header.size));
    store16(&header.bytes[10], static_cast<std::uint16_t>(checksum ^ (wrong_checksum ? 1 : 0)));
    return header;
  }
};

void append(rte_mbuf& packet, const std::uint8_t* bytes, std::uint32_t count) {
  std::memcpy(rte_pktmbuf_mtod_offset(&packet, std::uint8_t*, packet.data_len), bytes, count);
  packet.data_len = static_cast<std::uint16_t>(packet.data_len + count);
  packet.pkt_len += count;
}

std::uint32_t cut(const rte_mbuf& frame, std::uint32_t ether_bytes, const Plan& plan, BufferSource& buffers,
                  std::span<rte_mbuf*, kMaxFragments> fragments) {
  const auto* start = rte_pktmbuf_mtod(&frame, const std::uint8_t*);
  ChainReader payload(frame, ether_bytes + plan.first.size);
  const auto take = [&] { return buffers.take(frame); };
  std::uint32_t offset = 0, made = 0;
  bool whole = true;
  while (whole && made < plan.count) {
    rte_mbuf* fragment = buffers.take(frame);
    if (fragment == nullptr) break;
    fragments[made] = fragment;
    const std::uint32_t most = made == 0 ? plan.first_payload : plan.later_payload;
    const std::uint32_t bytes = made + 1 == plan.count ? plan.payload_bytes - offset : most;
    const Ipv4Header header = plan.header(made, offset, bytes);
    whole = ether_bytes + header.size <= rte_pktmbuf_tailroom(fragment);
    if (whole) {
      append(*fragment, start, ether_bytes);
      append(*fragment, header.bytes.data(), header.size);
      whole = payload.append_to(*fragment, bytes, take);
    }
    offset += bytes;
    ++made;
  }
  if (whole && made == plan.count) return made;
  for (std::uint32_t n = 0; n < made; ++n) buffers.give_back(fragments[n]);
  return 0;
}

}  // namespace

bool may_be_fragmented(const Burst& burst, std::uint32_t i) {
  const Headers& headers = burst.headers[i];
  if (headers.layer3 != Layer3::ipv4 || burst.is_super_frame(i)) return false;
  return (load16(burst.bytes(i) + headers.layer3_offset + 6) & kDontFragment) == 0;
}

Fragmented send_in_fragments(Burst& burst, std::uint32_t i, WorkerState& worker, std::uint32_t ether_bytes,
                             std::uint16_t mtu, PortSlot port) {
  rte_mbuf& packet = *burst.mbuf[i];
  if (mtu < kLeastMtu) return {DropReason::mtu_exceeded, {}, {}};
  const Plan plan(rte_pktmbuf_mtod_offset(&packet, const std::uint8_t*, ether_bytes), mtu);
  // A fragment that ends beyond the longest datagram; the offsets of its pieces would not fit their field.
  if (plan.ends_at() > kMaxDatagram) return {DropReason::malformed, {}, {}};
  const Endpoint& endpoint = *burst.endpoint[i];
  Allowances& allowances = worker.allowances[endpoint.id.value];
  allowances.of(endpoint.generation);
  if (plan.count > kMaxFragments || !worker.outbox.has_room(plan.count) ||
      !allowances.take_fragments(worker.now, plan.count)) {
    return {DropReason::fragmenting_limit, {}, {}};
  }
  // A checksum over all of it is none that a port could make of a part.
  if (detail::is_left_undone(packet)) {
    if (!detail::request_offloads(burst, i, ether_bytes) || !complete_checksum(packet))
      return {DropReason::bad_offload, {}, {}};
  }
  std::array<rte_mbuf*, kMaxFragments> fragments;
  const std::uint32_t count =
      worker.buffers != nullptr ? cut(packet, ether_bytes, plan, *worker.buffers, fragments) : 0;
  if (count == 0) return {DropReason::no_buffer, {}, {}};
  for (std::uint32_t n = 0; n < count; ++n) worker.outbox.send(port, fragments[n]);
  worker.outbox.discard(&packet);
  worker.fragmented_packets.add(1);
  worker.fragments_made.add(count);
  const std::uint64_t ip_bytes = plan.ip_bytes();
  return {DropReason::none, {count, ip_bytes + std::uint64_t{count} * ether_bytes}, {count, ip_bytes}};
}

}  // namespace trunkline
