// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/worker_time.h"

#include <sys/resource.h>

namespace trunkline {

std::uint64_t WorkerTime::count_preemptions() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<std::uint64_t>(usage.ru_nivcsw);
}

}  // namespace trunkline
