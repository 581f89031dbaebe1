// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/eal.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>

#include <algorithm>
#include <fstream>

#include "dataplane/io/dpdk_log.h"
#include "dataplane/state/worker_clock.h"

namespace trunkline {

std::uint32_t free_hugepages_mb() {
  std::uint32_t pages = 0;
  std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> pages;
  return pages * 2;
}

std::vector<std::string> Eal::arguments(const EalSettings& settings) {
  std::string lcores = std::to_string(settings.main_lcore);
  for (const std::uint16_t lcore : settings.worker_lcores) lcores += ',' + std::to_string(lcore);
  // The EAL takes one or the other: --lcores says also on which processors each of them runs.
  const bool mapped = std::ranges::any_of(settings.extra_args, [](const std::string& each) { return each.starts_with("--lcores"); });
  std::vector<std::string> arguments{"trunklined"};
  if (!mapped) arguments.insert(arguments.end(), {"-l", lcores});
  arguments.insert(arguments.end(), {
      "--main-lcore", std::to_string(settings.main_lcore),
      // No files left behind, no secondary process that could attach. DPDK refuses the first word without huge pages.
      settings.hugepages ? "--in-memory" : "--no-shconf", "--file-prefix", settings.file_prefix, "--no-telemetry",
      "-a", "ffff:ff:1f.7", "--iova-mode=va"});
  const std::string memory = std::to_string(settings.memory_mb);
  if (settings.hugepages) {
    arguments.insert(arguments.end(), {"--socket-mem", memory, "--socket-limit", memory, "--single-file-segments"});
  } else {
    arguments.insert(arguments.end(), {"--no-huge", "-m", memory});
  }
  arguments.insert(arguments.end(), settings.extra_args.begin(), settings.extra_args.end());
  return arguments;
}

std::expected<Eal, std::string> Eal::start(const EalSettings& settings) {
  if (settings.hugepages && free_hugepages_mb() < settings.memory_mb) {
    // DPDK would say "cannot allocate memory"; the reader wants to know which number to change.
    return std::unexpected("not enough hugepages: " + std::to_string(settings.memory_mb) + " MB wanted (eal.memory_mb), " +
                           std::to_string(free_hugepages_mb()) +
                           " MB free; reserve some (sysctl vm.nr_hugepages) or lower eal.memory_mb");
  }
  std::vector<std::string> arguments = Eal::arguments(settings);
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  direct_dpdk_log();  // before, so that --log-level among the raw extras has the last word
  if (rte_eal_init(static_cast<int>(raw.size()), raw.data()) < 0) {
    return std::unexpected(std::string("DPDK did not start: ") + rte_strerror(rte_errno) +
                           "; its own words are above, the arguments were made from the eal section of the config");
  }
  ClockOrigin::tell_rate(rte_get_tsc_hz());
  return Eal{};
}

Eal::~Eal() {
  if (started_) rte_eal_cleanup();
}

}  // namespace trunkline
