// SPDX-License-Identifier: BSD-3-Clause
//
// The generator's words: `GENERAL... COMMAND TRAFFIC...` on the command line, `COMMAND TRAFFIC...` a line on stdin.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "bench/generator/traffic.h"

namespace trunkline::generator {

struct General {
  std::string trunk, task;        // devargs
  std::string prefix = "generator";
  unsigned lcore = 0;
  unsigned reflector_lcore = 1;   // of --self-test
  std::uint32_t memory_mb = 256;
  std::uint32_t buffers = 16384;
  std::uint16_t rx_queues = 1;
  std::uint16_t descriptors = 1024;
  bool self_test = false;
  bool help = false;
};

struct Traffic {
  std::string command;  // stream, ramp, connections, reflect, commands, quit
  Timing timing;
  Addressing addressing;
  Protocol protocol = Protocol::tcp;
  std::uint32_t flows = 1000;
  std::uint32_t first = 0;
  std::uint32_t window = 512;
  std::string order = "uniform";
  double zipf_exponent = 1.0;
  std::uint64_t seed = 1;
  std::vector<std::uint16_t> sizes{64};
  bool inward = true, outward = false;
  bool latency = false;
};

struct CommandLine {
  General general;
  Traffic traffic;
};

std::expected<CommandLine, std::string> parse(int argc, const char* const* argv);
std::expected<Traffic, std::string> parse_line(const std::string& line);
std::string usage();

}  // namespace trunkline::generator
