// SPDX-License-Identifier: BSD-3-Clause
//
// A NIC without hardware, with rte_flow: an ethdev of its own driver (net_mocknic0, net_mocknic1, ...) that a test feeds with
// frames as a wire would. It looks at its rules in software (destination MAC, VLAN, IPv4 and IPv6 destination), puts what matches
// into the queue that the rule says, marks and counts it; the rest goes to queue 0. Each queue has a receive interrupt. Faults make it as real devices are: full,
// slow, refusing, forgetful. Needs DPDK's environment and the driver SDK.
//
// receive() and sent() are the wire, for one thread; rules may come from another, workers poll from others.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/packets.h"

struct rte_mempool;

namespace trunkline::test {

struct MockNicFaults {
  std::atomic<bool> no_rte_flow{false};
  // Said when it is asked (rte_flow_validate) and when a rule comes.
  std::atomic<bool> refuses_mark{false}, refuses_count{false}, refuses_vlan{false}, refuses_mac{false}, refuses_address{false}, refuses_ipv6{false};
  std::atomic<bool> refuses_create{false};      // only when the rule comes
  std::atomic<bool> refuses_duplicates{false};  // a second rule of the same match
  std::atomic<std::size_t> room{SIZE_MAX};      // rules
  std::atomic<bool> holds_inserts{false};       // a rule that comes is kept waiting as long as this stands
  std::atomic<bool> forgets_at_stop{true};
  std::atomic<bool> refuses_interrupts{false};  // to arm them
  std::atomic<bool> announces_nothing{false};   // although they are armed
};

// Where opening or closing goes wrong, at the next device and until it is set anew.
enum class MockFault {
  none, refuses, refuses_and_leaves_port, refuses_and_leaves_half, makes_no_port, makes_two_ports, makes_other_name,
  no_information, refuses_configuration, refuses_receive_queue, refuses_send_queue, refuses_mtu, refuses_start, refuses_stop, refuses_close, refuses_removal,
};

class MockNic {
 public:
  static std::atomic<MockFault> fault;
  // Of an ethdev that this driver made. It lives until the ethdev is closed.
  static MockNic& of(std::uint16_t ethdev);

  MockNicFaults faults;

  // A frame from the wire. False: the queue was full, or there was no buffer.
  bool receive(const Frame& frame);
  // What was sent since this was last asked.
  std::vector<Frame> sent();
  // How many frames wait in a queue.
  std::size_t waiting(std::uint16_t queue) const;
  std::size_t rules() const;
  std::uint64_t rule_changes() const;  // created and destroyed
  // The marks of the frames that workers took, where a rule had put one; 0 is none.
  std::uint32_t last_mark() const;
  // Of a queue's receive interrupt: readable when it was announced, and whether the next frame will be. It is announced once.
  int interrupt(std::uint16_t queue) const;
  bool is_armed(std::uint16_t queue) const;
  // As a device does that comes back from a reset: its rules are gone, and it says so or not.
  void forget_rules();
  void announce_reset();

  struct State;
  explicit MockNic(std::unique_ptr<State> state);
  ~MockNic();
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace trunkline::test
