// SPDX-License-Identifier: BSD-3-Clause
//
// What each ENI has asked of the services that need no rule (stages/services.h), so that only an answer comes back
// without one. Apart from the connections: a table that others have filled must not cost an ENI its DNS, and nothing of
// this is tracked or logged.
//
// An ENI has 1024 flows, in sets of eight by the flow's hash. A new one takes the place, in its set, of one that is
// over; else of a datagram that has its answer; else of the one that was asked longest ago. So an ENI that asks too
// much forgets questions of its own and nobody else's. At the 1024 packets a second that it may ask (Allowances), a
// question lives for a second even if none is answered.
//
// The time of a flow counts from the task's last packet: 30 seconds; TCP, once it was answered, 350. Nothing that comes
// in prolongs it.
//
// The key is the flow as the ENI sees it, with the endpoint's generation in it, so a detach forgets all. Of an IPv6
// flow it has the keyed digest of the addresses only, which is enough here: one end is one of the few addresses of a
// service.
//
// Owned by the worker that serves the endpoint. Memory is untouched pages until an ENI asks for something.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/flow_key.h"

namespace trunkline {

class AskedServices {
 public:
  static constexpr std::uint32_t kFlows = 1024;  // of an ENI
  static constexpr Tick kWait = seconds(30), kTcpIdle = seconds(350);

  // Throws std::bad_alloc.
  explicit AskedServices(std::size_t max_endpoints);
  ~AskedServices();
  AskedServices(const AskedServices&) = delete;
  AskedServices& operator=(const AskedServices&) = delete;

  enum class Packet : std::uint8_t {
    opens,
    goes_on,
    finishes
  };  // TCP: SYN, FIN, anything else; of other protocols each opens
  // The task sent a packet of the flow. `hash`: ConnectionTable::hash() of the key.
  void ask(const FlowKey& key, std::uint64_t hash, Packet packet, Tick now);
  // Whether the task has asked for it.
  bool was_asked(const FlowKey& key, std::uint64_t hash, Tick now) const { return live(key, hash, now) != kNone; }
  // The same of a packet towards the task, which then has its answer.
  bool answer(const FlowKey& key, std::uint64_t hash, Tick now);
  // The task ended the flow (RST), or another worker has it now. Answers whether it was there.
  bool forget(const FlowKey& key, std::uint64_t hash, Tick now);

 private:
  static constexpr std::uint32_t kWays = 8, kSets = kFlows / kWays;
  static constexpr std::uint32_t kNone = kWays;
  enum class State : std::uint8_t { free, asked, answered, finished };
  struct alignas(64) Set {
    FlowKey key[kWays];
    Tick asked_at[kWays];
    State state[kWays];
  };

  Set& set_of(const FlowKey& key, std::uint64_t hash) const {
    return sets_[std::size_t{key.endpoint().value} * kSets + (hash >> 16) % kSets];
  }
  static bool is_tcp(const FlowKey& key) { return key.protocol() == 6; }
  static bool is_over(const Set& set, std::uint32_t way, Tick now) {
    const Tick life = set.state[way] == State::answered && is_tcp(set.key[way]) ? kTcpIdle : kWait;
    return set.state[way] == State::free || now - set.asked_at[way] >= life;
  }
  // Its place in its set, if it is not over.
  std::uint32_t live(const FlowKey& key, std::uint64_t hash, Tick now) const;
  static std::uint32_t place_for(const Set& set, Tick now);

  std::size_t bytes_;
  Set* sets_;
};

}  // namespace trunkline
