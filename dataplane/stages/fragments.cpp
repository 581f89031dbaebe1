// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/fragments.h"

#include <algorithm>

#include "dataplane/stages/observe_drop.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/track.h"

namespace trunkline {
namespace {

using State = FragmentedDatagram::State;

struct Piece {
  std::uint32_t identification = 0;
  std::uint32_t begin = 0, end = 0;  // octets of the datagram's payload
  bool last = false;
};

// Parse has checked that all of these headers are there.
Piece piece_of(const Burst& burst, std::uint32_t i) {
  const Headers& headers = burst.headers[i];
  const std::uint8_t* frame = burst.bytes(i);
  Piece piece;
  std::uint32_t word;
  if (headers.layer3 == Layer3::ipv4) {
    const std::uint8_t* ip = frame + headers.layer3_offset;
    piece.identification = load16(ip + 4);
    word = load16(ip + 6);
    piece.begin = (word & 0x1fff) * 8;
    piece.last = (word & 0x2000) == 0;
    piece.end = piece.begin + headers.layer3_offset + headers.packet_bytes - headers.layer4_offset;
  } else {
    const std::uint8_t* ip = frame + headers.layer3_offset;
    const std::uint32_t room = burst.mbuf[i]->data_len - std::uint32_t{headers.layer3_offset};
    const std::uint32_t at = walk_ipv6(ip, std::min<std::uint32_t>(room, headers.packet_bytes)).fragment_header;
    word = load16(ip + at + 2);
    piece.identification = detail::load32(ip + at + 4);
    piece.begin = word & 0xfff8;
    piece.last = (word & 1) == 0;
    piece.end = piece.begin + headers.packet_bytes - (at + 8);
  }
  return piece;
}

bool is_sound(const Piece& piece) {
  return piece.end > piece.begin && piece.end <= 65535 && (piece.last || (piece.end - piece.begin) % 8 == 0);
}

DatagramKey key_of(const Burst& burst, std::uint32_t i, const Piece& piece, const WorkerState& worker, Direction direction) {
  DatagramKey key;
  key.flow.owner = burst.endpoint[i]->flow_owner;
  if (burst.headers[i].layer3 == Layer3::ipv4) {
    key.flow.owner |= FlowKey::protocol_bits(burst.headers[i].protocol);
    key.flow.remote = burst.key[i].remote;
    key.flow.local = burst.key[i].local;
  } else {
    // Without the protocol: a later fragment may name another one than its first (RFC 8200, 4.5).
    key.flow.owner |= FlowKey::kIpv6;
    key.ipv6 = detail::addresses6(burst, i, direction);
    worker.connections.set_digest(key.flow, key.ipv6);
    key.flow.local_port = key.flow.remote_port = 0;
  }
  key.identification = piece.identification;
  key.direction = direction;
  return key;
}

void observe_held_drop(const DatagramKey& key, rte_mbuf& packet, DropReason reason, WorkerState& worker) {
  observe_drop(worker, packet, {.endpoint = key.flow.endpoint(), .generation = key.flow.generation(), .direction = key.direction, .stage = Stage::fragments,
                                .reason = reason});
}

void drop_held(FragmentedDatagram& datagram, DropReason reason, WorkerState& worker) {
  Meter& meter = worker.meters[datagram.key.flow.endpoint().value].side(datagram.key.direction);
  for (std::uint32_t i = 0; i < datagram.held_count; ++i) {
    meter.dropped(reason);
    observe_held_drop(datagram.key, *datagram.held[i], reason, worker);
    worker.outbox.discard(datagram.held[i]);
  }
  datagram.held_count = 0;
}

// What the first fragment said holds for this one too.
void tell(Burst& burst, std::uint32_t i, const FragmentedDatagram& datagram) {
  burst.key[i].local_port = datagram.local_port;
  burst.key[i].remote_port = datagram.remote_port;
  burst.key[i].owner = (burst.key[i].owner & ~FlowKey::protocol_bits(0xff)) | FlowKey::protocol_bits(datagram.protocol);
  burst.headers[i].protocol = datagram.protocol;
  burst.headers[i].icmp_type = datagram.icmp_type;
  burst.headers[i].icmp_code = datagram.icmp_code;
}

// The held ones go on behind the first, in the same burst. They were counted and checked when they came.
void release(Burst& burst, std::uint32_t first, FragmentedDatagram& datagram, WorkerState& worker, Direction direction) {
  for (std::uint32_t n = 0; n < datagram.held_count; ++n) {
    rte_mbuf* packet = datagram.held[n];
    if (burst.size == kMaxBurst) {
      worker.meter(*burst.endpoint[first], direction).dropped(DropReason::fragment_quota);
      observe_held_drop(datagram.key, *packet, DropReason::fragment_quota, worker);
      worker.outbox.discard(packet);
      continue;
    }
    const std::uint32_t at = burst.size;
    burst.add(packet);
    burst.endpoint[at] = burst.endpoint[first];
    burst.verdict[at] = detail::parse_any(burst, at, direction);
    if (!burst.alive(at)) continue;
    burst.filter(at, *burst.endpoint[first]);
    tell(burst, at, datagram);
  }
  datagram.held_count = 0;
}

enum class Place : std::uint8_t { fresh, copy, overlap, too_many };

Place place_of(const FragmentedDatagram& datagram, const Piece& piece) {
  for (std::uint32_t n = 0; n < datagram.piece_count; ++n) {
    const FragmentedDatagram::Piece& other = datagram.pieces[n];
    if (piece.begin == other.begin && piece.end == other.end) return Place::copy;
    if (piece.begin < other.end && other.begin < piece.end) return Place::overlap;
  }
  // Two ends, or a piece behind the end.
  if (datagram.total_bytes != 0 && (piece.last || piece.end > datagram.total_bytes)) return Place::overlap;
  if (piece.last) {
    for (std::uint32_t n = 0; n < datagram.piece_count; ++n) {
      if (datagram.pieces[n].end > piece.end) return Place::overlap;
    }
  }
  return datagram.piece_count == FragmentedDatagram::kMaxPieces ? Place::too_many : Place::fresh;
}

DropReason take(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Headers& headers = burst.headers[i];
  const Piece piece = piece_of(burst, i);
  if (!is_sound(piece)) return DropReason::malformed;
  // A second fragment this early would bring the TCP flags anew (RFC 3128).
  if (headers.protocol == protocol::tcp && piece.begin == 8) return DropReason::fragment_tiny;

  FragmentTable& table = worker.fragments;
  const DatagramKey key = key_of(burst, i, piece, worker, direction);
  const std::uint64_t hash = hash_of(key, worker.connections);
  FragmentedDatagram* datagram = table.find(key, hash);
  if (datagram == nullptr) {
    datagram = table.add(key, hash, worker.now, [&](FragmentedDatagram& oldest) { drop_held(oldest, DropReason::fragment_quota, worker); });
    if (datagram == nullptr) return DropReason::fragment_quota;
  }
  if (datagram->state == State::refused) return DropReason::fragment_overlap;
  switch (place_of(*datagram, piece)) {
    case Place::overlap:
      datagram->state = State::refused;
      drop_held(*datagram, DropReason::fragment_overlap, worker);
      return DropReason::fragment_overlap;
    case Place::too_many: return DropReason::fragment_quota;
    case Place::copy:
      if (datagram->state != State::known) return DropReason::fragment_orphan;
      if (headers.fragment == Fragment::later) tell(burst, i, *datagram);
      return DropReason::none;
    case Place::fresh: break;
  }
  if (headers.fragment == Fragment::later && datagram->state == State::waiting && datagram->held_count == FragmentedDatagram::kMaxHeld) {
    return DropReason::fragment_orphan;
  }
  datagram->pieces[datagram->piece_count++] = {static_cast<std::uint16_t>(piece.begin), static_cast<std::uint16_t>(piece.end)};
  datagram->passed_bytes += piece.end - piece.begin;
  if (piece.last) datagram->total_bytes = piece.end;
  if (headers.fragment == Fragment::first) {
    datagram->state = State::known;
    datagram->protocol = headers.protocol;
    datagram->local_port = burst.key[i].local_port;
    datagram->remote_port = burst.key[i].remote_port;
    // Read anew: the key of what came from a neighbour has its two ends exchanged, and of ICMP they are not of a kind (track.h).
    if (detail::is_icmp(headers) && detail::has_connection(headers)) {
      datagram->local_port = detail::load_raw<std::uint16_t>(burst.bytes(i) + headers.layer4_offset + 4);
    }
    datagram->icmp_type = headers.icmp_type;
    datagram->icmp_code = headers.icmp_code;
    release(burst, i, *datagram, worker, direction);
  } else if (datagram->state == State::waiting) {
    datagram->held[datagram->held_count++] = burst.mbuf[i];
    burst.mbuf[i] = nullptr;
    burst.filtered &= ~(std::uint64_t{1} << i);
    return DropReason::none;
  } else {
    tell(burst, i, *datagram);
  }
  if (datagram->is_whole()) table.erase(*datagram);
  return DropReason::none;
}

}  // namespace

DatagramKey datagram_of(const Burst& burst, std::uint32_t i, const WorkerState& worker, Direction direction) {
  return key_of(burst, i, piece_of(burst, i), worker, direction);
}

void take_fragments(Burst& burst, WorkerState& worker, Direction direction) {
  for_each_bit(burst.fragments & burst.filtered, [&](std::uint32_t i) {
    const DropReason reason = take(burst, i, worker, direction);
    if (reason != DropReason::none) burst.drop(i, reason);
  });
}

void sweep_fragments(WorkerState& worker, std::uint32_t count) {
  worker.fragments.sweep(count, [&](FragmentedDatagram& datagram) {
    const Tick age = worker.now - datagram.began;
    const bool over = age >= (datagram.key.flow.is_ipv6() ? FragmentTable::kLife6 : FragmentTable::kLife4);
    if (datagram.state == State::waiting && age >= FragmentTable::kHold) drop_held(datagram, DropReason::fragment_orphan, worker);
    return over || (datagram.state == State::waiting && age >= FragmentTable::kHold);
  });
}

}  // namespace trunkline
