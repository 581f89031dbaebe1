// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/fragments.h"

#include <algorithm>

#include "dataplane/stages/handoff.h"
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

DatagramKey key_of(const Burst& burst, std::uint32_t i, const Piece& piece, const WorkerState& worker,
                   Direction direction) {
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
  observe_drop(worker, packet,
               {.endpoint = key.flow.endpoint(),
                .generation = key.flow.generation(),
                .direction = key.direction,
                .stage = Stage::fragments,
                .reason = reason});
}

// The endpoint that the datagram is of, if it is in service still.
const Endpoint* owner_of(const FragmentedDatagram& datagram, const WorkerState& worker) {
  const Endpoint* endpoint = worker.view->endpoint(datagram.key.flow.endpoint());
  const bool same =
      endpoint != nullptr && (endpoint->generation & FlowKey::kGenerationMask) == datagram.key.flow.generation();
  return same ? endpoint : nullptr;
}

void drop_held(FragmentedDatagram& datagram, DropReason reason, WorkerState& worker) {
  const Endpoint* owner = owner_of(datagram, worker);
  for (std::uint32_t i = 0; i < datagram.held_count; ++i) {
    if (owner != nullptr) worker.meter(*owner, datagram.key.direction).dropped(reason);
    observe_held_drop(datagram.key, *datagram.held[i], reason, worker);
    worker.outbox.discard(datagram.held[i]);
  }
  datagram.held_count = 0;
}

void hand_over_held(FragmentedDatagram& datagram, const Endpoint& owner, WorkerState& worker) {
  for (std::uint32_t i = 0; i < datagram.held_count; ++i) {
    const HandedPacket packet{datagram.held[i],       owner.id, owner.generation, HandoffKind::known,
                              datagram.key.direction, true};
    if (!worker.handoff.send(owner.worker, packet)) detail::drop_handed(packet, DropReason::handoff_full, worker);
  }
  datagram.held_count = 0;
}

// What the first fragment said holds for this one too.
void tell(Burst& burst, std::uint32_t i, const FragmentedDatagram& datagram) {
  burst.key[i].local_port = datagram.first.local_port;
  burst.key[i].remote_port = datagram.first.remote_port;
  burst.key[i].owner =
      (burst.key[i].owner & ~FlowKey::protocol_bits(0xff)) | FlowKey::protocol_bits(datagram.first.protocol);
  burst.headers[i].protocol = datagram.first.protocol;
  burst.headers[i].icmp_type = datagram.first.icmp_type;
  burst.headers[i].icmp_code = datagram.first.icmp_code;
  burst.headers[i].tcp_flags = datagram.first.tcp_flags;
}

// The held ones go on behind the first, in the same burst. They were counted and checked when they came.
void release(Burst& burst, std::uint32_t first, FragmentedDatagram& datagram, WorkerState& worker,
             Direction direction) {
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
    burst.services |= (burst.services >> first & 1) << at;
    tell(burst, at, datagram);
  }
  datagram.held_count = 0;
}

DropReason overlapped(FragmentedDatagram& datagram, WorkerState& worker) {
  datagram.state = State::overlapped;
  datagram.began = worker.now;
  drop_held(datagram, DropReason::fragment_overlap, worker);
  return DropReason::fragment_overlap;
}

void give_up(FragmentedDatagram& datagram, WorkerState& worker) {
  drop_held(datagram, DropReason::fragment_quota, worker);
}

FragmentedDatagram* add(const DatagramKey& key, std::uint64_t hash, WorkerState& worker) {
  return worker.fragments.add(key, hash, worker.now, [&](FragmentedDatagram& oldest) { give_up(oldest, worker); });
}

FirstFragment first_of(const Burst& burst, std::uint32_t i, const Piece& piece) {
  const Headers& headers = burst.headers[i];
  FirstFragment first;
  first.end = static_cast<std::uint16_t>(piece.end);
  first.local_port = burst.key[i].local_port;
  first.remote_port = burst.key[i].remote_port;
  // Read anew: the key of what came from a neighbour has its two ends exchanged, and of ICMP they are not of a kind
  // (track.h).
  if (detail::is_icmp(headers) && detail::has_connection(headers)) {
    first.local_port = detail::load_raw<std::uint16_t>(burst.bytes(i) + headers.layer4_offset + 4);
  }
  first.protocol = headers.protocol;
  first.icmp_type = headers.icmp_type;
  first.icmp_code = headers.icmp_code;
  first.tcp_flags = headers.tcp_flags;
  return first;
}

DropReason take_first(Burst& burst, std::uint32_t i, const Piece& piece, const DatagramKey& key, WorkerState& worker) {
  FragmentTable& table = worker.fragments;
  const std::uint64_t hash = hash_of(key, worker.connections);
  const FirstFragment first = first_of(burst, i, piece);
  FragmentedDatagram* datagram = table.find(key, hash);
  if (datagram == nullptr) {
    datagram = add(key, hash, worker);
    if (datagram == nullptr) return DropReason::fragment_quota;
  } else if (datagram->state == State::overlapped && worker.now - datagram->began < FragmentTable::kOverlapped) {
    return DropReason::fragment_overlap;
  } else if (datagram->state == State::known && datagram->first == first) {
    datagram->came_again();
    table.touch(*datagram, worker.now);
    burst.first_fragments |= std::uint64_t{1} << i;
    return DropReason::none;
  } else if (datagram->state != State::waiting) {
    datagram->begin_anew();
    table.touch(*datagram, worker.now);
  } else if (datagram->place_of(piece.begin, piece.end, piece.last) != FragmentedDatagram::Place::fresh) {
    return overlapped(*datagram, worker);
  }
  datagram->add_piece(piece.begin, piece.end, piece.last);
  datagram->state = State::known;
  datagram->first = first;
  burst.first_fragments |= std::uint64_t{1} << i;
  release(burst, i, *datagram, worker, key.direction);
  if (datagram->is_whole()) table.erase(*datagram);
  return DropReason::none;
}

DropReason take_later(Burst& burst, std::uint32_t i, const Piece& piece, const DatagramKey& key, WorkerState& worker) {
  using Place = FragmentedDatagram::Place;
  FragmentTable& table = worker.fragments;
  const std::uint64_t hash = hash_of(key, worker.connections);
  FragmentedDatagram* datagram = table.find(key, hash);
  if (datagram == nullptr) datagram = add(key, hash, worker);
  if (datagram == nullptr) return DropReason::fragment_quota;
  if (datagram->state == State::overlapped) return DropReason::fragment_overlap;
  Place place = datagram->place_of(piece.begin, piece.end, piece.last);
  if (place == Place::contradicts_old) {
    datagram->forget_old();
    place = datagram->place_of(piece.begin, piece.end, piece.last);
  }
  const bool waits = datagram->state == State::waiting;
  switch (place) {
    case Place::copy:
      if (waits) return DropReason::fragment_orphan;
      break;
    case Place::too_many:
      return DropReason::fragment_quota;
    case Place::fresh:
      if (waits && datagram->held_count == FragmentedDatagram::kMaxHeld) return DropReason::fragment_orphan;
      datagram->add_piece(piece.begin, piece.end, piece.last);
      break;
    default:
      return overlapped(*datagram, worker);
  }
  if (waits) {
    datagram->held[datagram->held_count++] = burst.mbuf[i];
    burst.mbuf[i] = nullptr;
    burst.filtered &= ~(std::uint64_t{1} << i);
    return DropReason::none;
  }
  tell(burst, i, *datagram);
  if (datagram->is_whole()) table.erase(*datagram);
  return DropReason::none;
}

DropReason take(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Headers& headers = burst.headers[i];
  const Piece piece = piece_of(burst, i);
  if (!is_sound(piece)) return DropReason::malformed;
  // A second fragment this early would bring the TCP flags anew (RFC 3128).
  if (headers.protocol == protocol::tcp && piece.begin == 8) return DropReason::fragment_tiny;
  const DatagramKey key = key_of(burst, i, piece, worker, direction);
  return headers.fragment == Fragment::first ? take_first(burst, i, piece, key, worker)
                                             : take_later(burst, i, piece, key, worker);
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

void settle_first_fragments(Burst& burst, WorkerState& worker, Direction direction) {
  FragmentTable& table = worker.fragments;
  for_each_bit(burst.first_fragments, [&](std::uint32_t i) {
    if (burst.mbuf[i] == nullptr) return;  // it went to ask another worker, and comes back
    const DatagramKey key = key_of(burst, i, piece_of(burst, i), worker, direction);
    FragmentedDatagram* datagram = table.find(key, hash_of(key, worker.connections));
    if (datagram == nullptr || datagram->state != State::known) return;  // all of it has passed
    table.settle(*datagram, burst.alive(i), [&](FragmentedDatagram& oldest) { give_up(oldest, worker); });
  });
}

bool sweep_fragments(WorkerState& worker, std::uint32_t count) {
  bool handed_over = false;
  worker.fragments.sweep(count, [&](FragmentedDatagram& datagram) {
    const Endpoint* owner = owner_of(datagram, worker);
    if (owner != nullptr && owner->worker != worker.number) {
      handed_over |= datagram.held_count != 0;
      hand_over_held(datagram, *owner, worker);
      return true;
    }
    if (owner != nullptr && worker.now - datagram.began < FragmentTable::life_of(datagram)) return false;
    drop_held(datagram, DropReason::fragment_orphan, worker);
    return true;
  });
  return handed_over;
}

}  // namespace trunkline
