// SPDX-License-Identifier: BSD-3-Clause
//
// Random worlds and conversations for the differential test. A flow is a conversation of two ends that know their
// sequence numbers; most of its packets are what such ends send next, some are retransmissions, and some are what
// nobody should send: any flags, either end, any sequence number. The same seed, and the same answers given to told(),
// make the same packets.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "tests/differential/flow_packet.h"

namespace trunkline::differential {

class RandomFlows {
 public:
  // What is the same for all packets of a world.
  struct Options {
    bool strict_syn = false, icmp_related = false;
  };

  explicit RandomFlows(std::uint64_t seed);

  const config::DesiredState& state() const { return state_; }
  const Options& options() const { return options_; }

  enum class Step { packet, edit, pass };
  Step next_step();
  // Changes the rules; says what was changed.
  std::string edit();
  // Seconds that go by without a packet: a multiple of kTimeStep.
  std::uint32_t duration();
  static constexpr std::uint32_t kTimeStep = 7;

  FlowPacket packet();
  // Whether the packet that packet() made last reached the other end.
  void told(bool passed);
  // The flow of that packet has been forgotten by both firewalls: its ends begin anew.
  void forgotten();

 private:
  enum class Stage { idle, syn_sent, syn_received, established, closing, closed };
  // [0]: the one that begins.
  struct End {
    std::uint32_t next = 0;  // sequence number
    bool fin_sent = false;
    FlowPacket last;  // what it sent last, to be sent again
  };
  struct Flow {
    std::string task;
    std::uint8_t protocol = 0;
    IpAddress remote, local;
    std::uint16_t remote_port = 0, local_port = 0;
    bool remote_begins = true;
    Stage stage = Stage::idle;
    std::array<End, 2> ends;
  };

  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }
  bool one_in(std::uint32_t bound) { return below(bound) == 0; }
  std::size_t choose(std::initializer_list<std::uint32_t> weights);

  config::SecurityGroupRule rule();
  Flow flow();
  FlowPacket from(const Flow& flow, std::size_t end);
  void tcp_packet(Flow& flow, FlowPacket& packet);
  void tcp_next(Flow& flow, FlowPacket& packet);
  void tcp_any(Flow& flow, FlowPacket& packet);
  void icmp_packet(Flow& flow, FlowPacket& packet);
  FlowPacket icmp_error(const Flow& about);
  FlowPacket tcp_from(Flow& flow, std::size_t end, std::uint8_t flags);

  std::mt19937_64 random_;
  Options options_;
  config::DesiredState state_;
  std::vector<Flow> flows_;
  std::uint16_t next_port_ = 20000;
  std::uint32_t packets_ = 0;
  // Of the last packet.
  Flow* current_ = nullptr;
  std::size_t current_end_ = 0;
  FlowPacket current_packet_;
};

}  // namespace trunkline::differential
