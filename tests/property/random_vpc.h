// SPDX-License-Identifier: BSD-3-Clause
//
// Random worlds and packets for pipeline_property_test: few addresses, ports, groups and entries, so that they meet. The same seed
// makes the same story. A packet is a struct for the model and, by frame_of(), bytes for the pipeline; its number is in its last four.
#pragma once

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "tests/oracle/pipeline_model.h"
#include "tests/support/packets.h"

namespace trunkline::test {

class RandomVpc {
 public:
  struct Engine {
    bool strict_syn = false, icmp_related = false;
    std::uint32_t connections_per_endpoint = 0xffffffff;
  };

  explicit RandomVpc(std::uint64_t seed);

  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }
  bool one_in(std::uint32_t bound) { return below(bound) == 0; }
  // The place of one of the weights, as likely as it is heavy.
  std::size_t choose(std::initializer_list<std::uint32_t> weights);
  std::uint64_t duration();  // microseconds, often at the edge of a timeout

  // Changes `state`, and says what; "": nothing.
  std::string edit();
  std::string sender();  // a task, or "" for the trunk
  oracle::ModelPacket packet(const std::string& sender);
  // The same again, under another number.
  oracle::ModelPacket again(const oracle::ModelPacket& packet);
  // What the other end says to it: a SYN-ACK to a SYN, an answer to a query, else the same protocol's next. None: the other end is not here.
  std::optional<oracle::ModelPacket> answer(const oracle::ModelPacket& packet);
  // Another fragment of the datagram that the last one was of.
  oracle::ModelPacket another_piece();

  Engine engine;
  config::DesiredState state;

 private:
  config::SecurityGroupRule rule();
  config::NetworkAclEntry entry();
  config::NetworkAcl acl(int number);
  config::Attachment attachment(int number);
  std::string attach();
  // What a conversation that has just been heard may say next, if `sender` is one of its ends: answers, repetitions,
  // and what no end should send: a SYN from the other end, data behind a FIN or a RST, flags that do not go together.
  std::optional<oracle::ModelPacket> next_of_conversation(const std::string& sender);
  std::uint8_t next_flags(const oracle::ModelPacket& last, bool same_end);
  void choose_flow(oracle::ModelPacket& packet, const config::Attachment& task);
  void choose_headers(oracle::ModelPacket& packet);
  void choose_size(oracle::ModelPacket& packet);
  void choose_fragment(oracle::ModelPacket& packet);
  void spoil(oracle::ModelPacket& packet);
  const config::Attachment& some_task();

  std::mt19937_64 random_;
  std::uint32_t packets_ = 0;
  oracle::ModelPacket whole_;  // what the last fragment was of, with its identification
  std::deque<oracle::ModelPacket> heard_;  // the last TCP packets that were whole and unspoilt, the newest first
};

Frame frame_of(const oracle::ModelPacket& packet);
std::string text_of_packet(const oracle::ModelPacket& packet);

}  // namespace trunkline::test
