// SPDX-License-Identifier: BSD-3-Clause
#include <poll.h>
#include <rte_mbuf.h>

#include "bench/generator/clock.h"
#include "bench/generator/traffic.h"

namespace trunkline::generator {
namespace {

bool input_has_ended() {
  pollfd input{0, POLLIN, 0};
  char byte;
  return poll(&input, 1, 0) > 0 && (input.revents & (POLLIN | POLLHUP)) != 0 && ::read(0, &byte, 1) <= 0;
}

}  // namespace

Json run_reflector(Wires& wires, double seconds, const Progress& progress) {
  std::uint64_t carried = 0, dropped = 0, last = 0, busy = 0;
  const auto carry = [&](Port& from, const Port& to) {
    rte_mbuf* packets[Port::kBurst];
    const std::uint16_t count = from.receive(packets);
    if (count == 0) return false;
    const std::uint16_t sent = to.send({packets, count});
    carried += sent;
    dropped += static_cast<std::uint64_t>(count - sent);
    rte_pktmbuf_free_bulk(packets + sent, static_cast<unsigned>(count - sent));
    return true;
  };
  LoopClock clock;
  while (clock.elapsed() < to_cycles(seconds)) {
    const std::uint64_t now = clock.turn();
    const bool inward = carry(wires.trunk, wires.task);
    const bool outward = carry(wires.task, wires.trunk);
    if (inward || outward) busy += rte_rdtsc() - now;
    if (clock.second_passed()) {
      progress({{"event", "second"}, {"elapsed", to_seconds(clock.elapsed())}, {"carried", carried - last}, {"busy_cycles", busy}});
      last = carried;
      if (input_has_ended()) break;
    }
  }
  return {{"event", "result"}, {"mode", "reflect"}, {"seconds", to_seconds(clock.elapsed())}, {"carried", carried},
          {"dropped", dropped}, {"busy_cycles", busy}};
}

}  // namespace trunkline::generator
