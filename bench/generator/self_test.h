// SPDX-License-Identifier: BSD-3-Clause
//
// The reflector of --self-test: this program once more, on another lcore, at the other ends of two memif links. Start it
// before DPDK; it ends when it is destroyed.
#pragma once

#include <expected>
#include <memory>
#include <string>

#include "bench/generator/options.h"

namespace trunkline::generator {

class ReflectorProcess {
 public:
  // Sets `general.trunk` and `general.task` to the near ends.
  static std::expected<std::unique_ptr<ReflectorProcess>, std::string> start(General& general);
  ~ReflectorProcess();
  ReflectorProcess(const ReflectorProcess&) = delete;
  ReflectorProcess& operator=(const ReflectorProcess&) = delete;

 private:
  ReflectorProcess(std::string directory, int process, int input)
      : directory_(std::move(directory)), process_(process), input_(input) {}
  std::string directory_;
  int process_, input_;
};

}  // namespace trunkline::generator
