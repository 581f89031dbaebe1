// SPDX-License-Identifier: BSD-3-Clause
//
// What the generator can do with its ports: a stream of frames, conversations, or carrying everything from one port to
// the other. Each ends by itself, by time or count, and answers with one JSON object; what it sees every second goes to
// `progress`. All on one thread, which polls without a pause.
//
// A packet is "lost" when it was sent and did not come before the line had been quiet for 0.2 s. "blocked" counts the
// bursts that found the device's ring full: a generator that is never blocked was itself the limit.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/generator/frames.h"
#include "bench/generator/ports.h"

namespace trunkline::generator {

using Json = nlohmann::ordered_json;
using Progress = std::function<void(const Json&)>;

struct Wires {
  Port trunk, task;
  Pools pools;
};

struct Timing {
  double seconds = 1;
  double warmup = 0;           // before the seconds, not counted in rates
  std::uint64_t count = 0;     // frames a direction, or connections; 0: no limit
  double rate = 0;             // a second and direction; 0: as fast as the device takes them
};

struct StreamSettings {
  Timing timing;
  Addressing addressing;
  Protocol protocol = Protocol::tcp;
  std::vector<std::uint32_t> order;   // of the flows; not empty
  std::vector<std::uint16_t> sizes;   // taken in turn
  bool inward = true, outward = false;  // trunk to task, task to trunk
  bool latency = false;
};
Json run_stream(Wires& wires, const StreamSettings& settings, const Progress& progress);

// Every flow says one thing and hears an answer, so that the device knows all connections: TCP's handshake, or one
// datagram each way. Flows that did not come through are tried again, `passes` times.
struct RampSettings {
  Addressing addressing;
  Protocol protocol = Protocol::tcp;
  std::uint32_t flows = 1;
  std::uint32_t window = 512;  // flows under way at once
  std::uint32_t passes = 6;
  double seconds = 60;         // at most
};
Json run_ramp(Wires& wires, const RampSettings& settings, const Progress& progress);

// TCP connections of six packets: SYN, SYN-ACK, ACK, FIN-ACK from the task, FIN-ACK, ACK. One counts when the sixth packet
// arrived. Every connection has a tuple that was not there before, from `first` on.
struct ConnectionSettings {
  Timing timing;
  Addressing addressing;
  std::uint32_t first = 0;
  std::uint32_t window = 512;  // under way at once, when there is no rate
};
Json run_connections(Wires& wires, const ConnectionSettings& settings, const Progress& progress);

// Carries everything to the other port: the device whose work is nothing, against which the generator proves itself.
Json run_reflector(Wires& wires, double seconds, const Progress& progress);

}  // namespace trunkline::generator
