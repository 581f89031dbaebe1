// SPDX-License-Identifier: BSD-3-Clause
//
// Somebody looks at packets: an Observer is what control wants to see of one worker, and the ring by which it gets there. The
// stages do not know of it; the observe hooks between them (stages/observe.h) do, and only while there is one.
//
// Points. A packet between two tasks of this host passes two halves of the pipeline, the sender's egress and the receiver's ingress, and
// is seen in both.
//   in     as it came to the half. Once a packet: when it has left the half, or when it stays behind (Fate::held, Fate::asked).
//   again  as it comes back to the half that it stayed behind in: behind its first fragment, or with the answer of another worker.
//   out    as it left the half, into the queue of a port or to the other half.
//   drop   as it came, or as it was when it ended outside of a burst: held for too long, not taken by another worker, or refused by
//          its port's driver (Stage::transmit; that one was at `out` before).
// Each observation carries what the stages found, and the packet's fate in this half.
//
// What the engine makes is seen as well (Observation::made_here): the answers of the edge and the router's errors at `in` and `out` of the
// direction that they go, the pieces of a packet that was too large at `out`. So of an ENI's meters, in frames (a super-frame counts as
// those that it stands for), while an observer without filter looks and loses nothing:
//   ingress: rx = in;                 drops = drop;  tx + drops by transmit = out
//   egress:  rx = in, not made here;  drops = drop;  tx = out, but for errors, + in with Route::answer
//   trunk:   rx of its outgoing meter = out by the trunk
// A fragment that an ENI left behind when it went is at `drop`, and no meter counts it.
//
// Rules:
//  * One worker writes, control reads: a single-producer, single-consumer ring of equal slots, made by control. A full ring loses
//    observations, counts them, and holds up nobody.
//  * A filter is libpcap's, run by its bpf_filter() over the frame without a VLAN tag: "tcp port 80" means the same on the trunk
//    and on a task's port. It reads the first segment, and of a chain at least 512 bytes.
//  * After `limit` observations an Observer looks at nothing more.
//  * Control publishes a set of observers and frees it when the worker has said that it goes by another one (ObserverSlot).
#pragma once

#include <sys/types.h>  // pcap/bpf.h wants it

#include <pcap/bpf.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/packet.h"
#include "dataplane/stage.h"
#include "dataplane/state/connection_table.h"
#include "dataplane/state/counters.h"

namespace trunkline {

enum class Point : std::uint8_t { in, out, drop, again };
constexpr std::string_view to_string(Point point) {
  constexpr std::string_view names[] = {"in", "out", "drop", "again"};
  return names[static_cast<std::size_t>(point)];
}
constexpr std::uint8_t point_bit(Point point) { return static_cast<std::uint8_t>(1U << static_cast<unsigned>(point)); }

// What a half of the pipeline did with a packet.
enum class Fate : std::uint8_t {
  passed,
  dropped,
  held,   // a later fragment, until its first one comes (FragmentTable::kHold)
  asked,  // it went to the worker that had its ENI before, with the question for its connection, and comes back
};

// One packet at one point; its bytes are beside it.
struct Observation {
  std::uint64_t cycles = 0;  // TSC, when it left the half
  Headers headers;           // of the frame as it came
  FlowKey key;               // whole where `filtered`
  Connection connection;     // a copy, where `has_connection`: after this packet
  EndpointId endpoint;       // not valid: nobody's
  EndpointId peer;           // Route::local: whose ingress half comes next
  std::uint16_t generation = 0;
  Direction direction = Direction::ingress;
  Point point = Point::in;
  Stage stage = Stage::forward;  // the last that it reached: where it was refused, or the way out
  DropReason verdict = DropReason::none;
  Route route = Route::undecided;
  Fate fate = Fate::passed;
  bool made_here = false;       // by the engine: an answer, an error of the router's, a piece of a larger packet
  bool piece = false;           // the last of these
  bool outside_burst = false;   // of what the stages found only `stage`, `verdict` and `route` are known
  bool filtered = false;        // it reached track
  bool service = false;         // its other end has the address of a service that may need no rule
  bool exempt = false;          // and the rules are not asked
  bool has_connection = false;  // it belongs to one, or opened it
  bool known = false;           // the connection was there before
  bool from_task_here = false;  // the second half of a packet between two tasks: neither parsed nor demultiplexed again
  WorkerNumber worker = 0;      // that saw it
  std::uint32_t frame_bytes = 0;
  std::uint32_t frames = 1;  // that a super-frame stands for (super_frame.h)
};

struct ObserverSettings {
  std::vector<bpf_insn> filter;  // empty: everything
  EndpointId endpoint;           // not valid: any
  std::uint16_t generation = 0;
  std::uint8_t points = point_bit(Point::in);
  std::uint8_t directions = 3;  // a bit per Direction
  std::uint32_t snaplen = 256;
  std::uint32_t capacity = 1024;  // observations that wait to be read
  std::uint64_t limit = ~std::uint64_t{0};
};

class Observer {
 public:
  explicit Observer(ObserverSettings settings)
      : settings_(std::move(settings)),
        slot_bytes_((sizeof(Observation) + sizeof(std::uint32_t) + settings_.snaplen + 63) & ~std::size_t{63}),
        slots_(new std::byte[slot_bytes_ * settings_.capacity]),
        staged_bytes_(new std::uint8_t[std::size_t{settings_.snaplen} * kMaxBurst]) {}

  // --- control ---
  // Calls visit(observation, bytes) for the oldest ones, at most so many.
  template <class Visit>
  std::size_t read(std::size_t most, Visit&& visit) {
    const std::uint64_t first = read_.load(std::memory_order_relaxed);
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(most, written_.load(std::memory_order_acquire) - first));
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* slot = slot_at(first + i);
      Observation observation;
      std::memcpy(static_cast<void*>(&observation), slot, sizeof observation);
      std::uint32_t caught;
      std::memcpy(&caught, slot + sizeof observation, sizeof caught);
      visit(observation, std::span(reinterpret_cast<const std::uint8_t*>(slot + sizeof observation + sizeof caught), caught));
    }
    read_.store(first + count, std::memory_order_release);
    return count;
  }
  std::uint64_t lost() const { return lost_.read(); }
  bool is_finished() const { return written_.load(std::memory_order_relaxed) >= settings_.limit; }
  const ObserverSettings& settings() const { return settings_; }

  // --- worker ---
  // A packet as it came, into place i of what is staged. Later ones of the same place take its place.
  void stage(std::uint32_t i, rte_mbuf* packet) {
    if (!passes_filter(*packet)) return;
    staged_ |= std::uint64_t{1} << i;
    staged_size_[i] = copy(packet, staged_bytes_.get() + std::size_t{settings_.snaplen} * i, settings_.snaplen);
    staged_frame_[i] = packet->pkt_len;
  }
  void forget_staged() { staged_ = 0; }
  std::uint64_t staged() const { return staged_; }
  bool wants(Direction direction, const Endpoint* endpoint) const {
    return !is_finished() && (settings_.directions >> index(direction) & 1) != 0 && (endpoint == nullptr || is_of(endpoint));
  }
  bool is_of(const Endpoint* endpoint) const {
    return !settings_.endpoint.is_valid() ||
           (endpoint != nullptr && endpoint->id == settings_.endpoint && endpoint->generation == settings_.generation);
  }
  // The same for who knows only what a FlowKey keeps of the generation.
  bool is_of(EndpointId endpoint, std::uint16_t generation) const {
    return !settings_.endpoint.is_valid() ||
           (endpoint == settings_.endpoint && ((generation ^ settings_.generation) & FlowKey::kGenerationMask) == 0);
  }
  bool wants(Point point) const { return (settings_.points & point_bit(point)) != 0; }
  // With the staged bytes of place i.
  void write_staged(const Observation& observation, std::uint32_t i) {
    write(observation, staged_frame_[i], [&](std::uint8_t* bytes) {
      std::memcpy(bytes, staged_bytes_.get() + std::size_t{settings_.snaplen} * i, staged_size_[i]);
      return staged_size_[i];
    });
  }
  // With the packet's bytes as they are now.
  void write_packet(const Observation& observation, const rte_mbuf& packet) {
    write(observation, packet.pkt_len, [&](std::uint8_t* bytes) { return copy(&packet, bytes, settings_.snaplen); });
  }
  // Of a packet that was not staged. A tag is stepped over by moving the addresses before it, for as long as the filter looks.
  bool passes_filter(rte_mbuf& packet) const {
    if (settings_.filter.empty()) return true;
    constexpr std::uint32_t kAddresses = 12, kTag = 4, kLookedAt = 512;
    auto* frame = rte_pktmbuf_mtod(&packet, std::uint8_t*);
    std::uint32_t there = packet.data_len;
    // The first segment may have the Ethernet and IP headers only (a piece of a larger packet).
    std::uint8_t beginning[kLookedAt];
    if (packet.next != nullptr && there < kLookedAt) there = copy(&packet, beginning, kLookedAt), frame = beginning;
    const bool tagged = there >= kAddresses + kTag + 2 && frame[12] == 0x81 && frame[13] == 0;
    if (!tagged) return bpf_filter(settings_.filter.data(), frame, packet.pkt_len, there) != 0;
    std::uint8_t before[kAddresses + kTag];
    std::memcpy(before, frame, sizeof before);
    std::memcpy(frame + kTag, before, kAddresses);
    const bool passes = bpf_filter(settings_.filter.data(), frame + kTag, packet.pkt_len - kTag, there - kTag) != 0;
    std::memcpy(frame, before, sizeof before);
    return passes;
  }

 private:
  // fill(bytes) puts at most snaplen bytes there, and answers how many.
  template <class Fill>
  void write(const Observation& observation, std::uint32_t frame_bytes, Fill&& fill) {
    const std::uint64_t at = written_.load(std::memory_order_relaxed);
    if (at >= settings_.limit) return;
    if (at - read_.load(std::memory_order_acquire) >= settings_.capacity) return lost_.add(1);
    std::byte* slot = slot_at(at);
    const std::uint32_t caught = fill(reinterpret_cast<std::uint8_t*>(slot + sizeof observation + sizeof(std::uint32_t)));
    std::memcpy(slot, &observation, sizeof observation);
    std::memcpy(slot + offsetof(Observation, frame_bytes), &frame_bytes, sizeof frame_bytes);
    std::memcpy(slot + sizeof observation, &caught, sizeof caught);
    written_.store(at + 1, std::memory_order_release);
  }

  std::byte* slot_at(std::uint64_t number) const { return slots_.get() + slot_bytes_ * (number % settings_.capacity); }

  static std::uint32_t copy(const rte_mbuf* packet, std::uint8_t* to, std::uint32_t most) {
    std::uint32_t count = 0;
    for (; packet != nullptr && count < most; packet = packet->next) {
      const std::uint32_t piece = std::min<std::uint32_t>(packet->data_len, most - count);
      std::memcpy(to + count, rte_pktmbuf_mtod(packet, const std::uint8_t*), piece);
      count += piece;
    }
    return count;
  }

  const ObserverSettings settings_;
  const std::size_t slot_bytes_;
  const std::unique_ptr<std::byte[]> slots_;
  // The worker's own: the packets of the half that is under way, as they came.
  const std::unique_ptr<std::uint8_t[]> staged_bytes_;
  std::uint64_t staged_ = 0;
  std::array<std::uint32_t, kMaxBurst> staged_size_{}, staged_frame_{};
  Counter lost_;
  alignas(64) std::atomic<std::uint64_t> written_{0};
  alignas(64) std::atomic<std::uint64_t> read_{0};
};
static_assert(std::is_trivially_copyable_v<Observation>);

// All that look at one worker. Never changes; its observers do.
struct ObserverSet {
  static constexpr std::size_t kMost = 4;
  std::vector<Observer*> observers;  // at most kMost
};

// How a worker learns who looks at it, and control that it is over.
class ObserverSlot {
 public:
  // --- control ---
  void post(const ObserverSet* wanted) { wanted_.store(wanted, std::memory_order_release); }
  // Whether the worker may still look at the set.
  bool is_used(const ObserverSet* set) const { return used_.load(std::memory_order_acquire) == set || wanted_.load(std::memory_order_relaxed) == set; }

  // --- worker, between two turns ---
  bool has_news() const { return wanted_.load(std::memory_order_relaxed) != used_.load(std::memory_order_relaxed); }
  const ObserverSet* take() {
    const ObserverSet* wanted = wanted_.load(std::memory_order_acquire);
    used_.store(wanted, std::memory_order_release);
    return wanted;
  }

 private:
  std::atomic<const ObserverSet*> wanted_{nullptr};  // written by control
  std::atomic<const ObserverSet*> used_{nullptr};    // written by the worker
};

}  // namespace trunkline
