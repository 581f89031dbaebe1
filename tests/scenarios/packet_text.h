// SPDX-License-Identifier: BSD-3-Clause
//
// Packets as a person writes them, and as a person reads them (the language is in README.md). A line becomes the bytes of a frame;
// a frame becomes a line again in one fixed form, so that what was expected and what came can be compared and shown side by side.
//
// What is wrong in a line is told by a ScenarioError with a sentence; who knows the place adds it. For tests.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/packets.h"

namespace trunkline::test {

struct ScenarioError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Words = std::vector<std::string>;
Words split(const std::string& text);

// `l2` is what the frame's header is unless the words say otherwise. `repetition`: added to each port written with a "+".
Frame read_packet(const Words& words, const L2& l2, std::uint32_t repetition = 0);

// Without its Ethernet header and tag, which describe_l2() tells.
std::string describe(const Frame& frame);
std::string describe_l2(const Frame& frame);

// "10.0.0.35:80", "[2001:db8::35]:80", or an address alone.
struct AddressAndPort {
  IpAddress address;
  int port = -1;
};
AddressAndPort read_address_and_port(const std::string& text, std::uint32_t repetition = 0);
std::uint32_t read_number(const std::string& text, std::uint32_t most = 0xffffffff);

}  // namespace trunkline::test
