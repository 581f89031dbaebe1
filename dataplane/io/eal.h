// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's environment: started once, here and nowhere else. The arguments are made from the settings, so that nobody
// writes EAL options by hand; what they were is kept for the log, and raw extras come last and win.
//
// Nothing is probed that was not asked for: the allow-list holds one address that no machine has. All memory is taken at
// the start and never grows, because growing it pauses every started virtio-user port.
//
// Main thread only, before any other thread exists. Errors are sentences for the operator.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

namespace trunkline {

struct EalSettings {
  std::uint16_t main_lcore = 0;
  std::vector<std::uint16_t> worker_lcores;
  std::uint32_t memory_mb = 256;
  std::string file_prefix = "trunkline";
  bool hugepages = true;
  std::vector<std::string> extra_args;
};

class Eal {
 public:
  static std::vector<std::string> arguments(const EalSettings& settings);
  static std::expected<Eal, std::string> start(const EalSettings& settings);

  Eal(Eal&& other) noexcept : started_(other.started_) { other.started_ = false; }
  Eal& operator=(Eal&&) = delete;
  ~Eal();

 private:
  Eal() = default;
  bool started_ = true;
};

// Hugepages of 2 MB that are free for this process, in MB; what a refusal for lack of memory tells.
std::uint32_t free_hugepages_mb();

}  // namespace trunkline
