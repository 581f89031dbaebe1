// SPDX-License-Identifier: BSD-3-Clause
//
// How the control thread looks into a running worker's connection table without a lock: it does not look, it asks. It fills in a
// request, hands it over by one pointer, and the worker answers between two turns of its loop, a bounded piece a turn.
//
//     control                                      worker, at the end of each turn
//     Inspection request(kind, filter, capacity);
//     box.post(&request); worker.wake();           if (box.has_request()) box.step(inspected, now, budget);
//     ... until box.is_free() ...                  (the last piece frees the box)
//     request.found(), request.matched()
//
// Rules:
//  * A box holds one request. From post() until is_free() the request is the worker's: control neither reads nor frees it,
//    however long that takes. abandon() is the one exception: the worker then frees the box with the next piece.
//  * The worker allocates nothing: what matches is copied into room that control made. What did not fit is counted (matched()).
//  * What is there all the while is seen once; what comes, goes or moves to another worker meanwhile may be seen or not.
//  * Dead entries (idle for too long, or of an endpoint that went) are neither shown nor counted.
//
// Times are Ticks, sizes octets of IP packets. A table of a million entries takes an idle worker some 250 turns.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/state/asked_services.h"
#include "dataplane/state/connection_table.h"
#include "dataplane/state/fragment_table.h"
#include "dataplane/state/handoff.h"
#include "dataplane/state/view.h"

namespace trunkline {

// Which connections are meant. All that is said has to hold.
struct FlowFilter {
  static constexpr std::uint32_t kAnyState = 0xffffffff;

  EndpointId endpoint;  // not valid: any
  bool by_remote = false;
  IpPrefix remote;
  int protocol = -1;  // -1: any
  int port = -1;      // TCP and UDP, of either end; -1: any
  std::uint32_t states = kAnyState;  // a bit per ConnectionState
  Tick min_idle = 0;

  static constexpr std::uint32_t bit(ConnectionState state) { return 1U << static_cast<unsigned>(state); }
  // `remote_address`: of the connection's other end.
  bool matches(const Connection& connection, const IpAddress& remote_address, Tick now) const;
};
static_assert(kConnectionStates <= 32);

// What of a worker is looked at.
struct Inspected {
  ConnectionTable& connections;
  FragmentTable& fragments;
  const AskedServices& asked;
  const View& view;
};

class Inspection {
 public:
  enum class Kind : std::uint8_t {
    list,   // copies what matches
    find,   // copies the connections of the given keys, tells which of these flows the task asked of a service, and
            // copies what is known of the given datagrams in fragments
    flush,  // erases what matches
  };

  // list and flush. `capacity`: connections that a list may hold.
  Inspection(Kind kind, const FlowFilter& filter, std::size_t capacity);
  // find. The addresses are those of an IPv6 flow; its key's digest is the worker's to make.
  struct Flow {
    FlowKey key;
    AddressPair addresses;
  };
  explicit Inspection(std::span<const Flow> flows, std::span<const DatagramKey> datagrams = {});

  // --- control, once the box is free again ---
  std::span<const ConnectionRecord> found() const { return {records_.data(), count_}; }
  // The fragments that they hold are the worker's own: not to be looked at.
  std::span<const FragmentedDatagram> found_datagrams() const { return {known_datagrams_.data(), datagram_count_}; }
  // Those of the given flows that the task asked of a service that needs no rule.
  std::span<const Flow> found_asked() const { return asked_; }
  std::uint64_t matched() const { return matched_; }  // copied, erased, or without room
  bool is_cut() const { return kind_ != Kind::flush && matched_ > count_; }
  Tick now() const { return now_; }  // the worker's time when it was done
  bool was_abandoned() const { return abandoned_.load(std::memory_order_relaxed); }

  // --- control, at any time ---
  void abandon() { abandoned_.store(true, std::memory_order_relaxed); }

  // --- worker ---
  // Looks at `budget` entries. True: done.
  bool step(const Inspected& inspected, Tick now, std::uint32_t budget);

 private:
  void find(const Inspected& inspected, Tick now);
  void find_datagrams(const ConnectionTable& table, FragmentTable& fragments);
  void take(const ConnectionTable& table, const Connection& connection);

  const Kind kind_;
  const FlowFilter filter_;
  const std::vector<Flow> flows_;
  const std::vector<DatagramKey> datagrams_;
  std::vector<ConnectionRecord> records_;            // never grows
  std::vector<FragmentedDatagram> known_datagrams_;  // never grows
  std::vector<Flow> asked_;                          // has the room from the start
  std::size_t count_ = 0, datagram_count_ = 0;
  std::uint64_t matched_ = 0;
  std::uint32_t at_ = 0;
  Tick now_ = 0;
  std::atomic<bool> abandoned_{false};
};

class InspectionBox {
 public:
  // --- control ---
  bool is_free() const { return request_.load(std::memory_order_acquire) == nullptr; }
  void post(Inspection* request) { request_.store(request, std::memory_order_release); }

  // --- worker ---
  bool has_request() const { return request_.load(std::memory_order_relaxed) != nullptr; }
  void step(const Inspected& inspected, Tick now, std::uint32_t budget) {
    Inspection* request = request_.load(std::memory_order_acquire);
    if (request != nullptr && request->step(inspected, now, budget)) request_.store(nullptr, std::memory_order_release);
  }

 private:
  std::atomic<Inspection*> request_{nullptr};  // set by control, taken away by the worker
};

}  // namespace trunkline
