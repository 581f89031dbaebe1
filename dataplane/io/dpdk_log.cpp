// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/dpdk_log.h"

#include <rte_log.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <utility>

#include "dataplane/io/log_writer.h"

namespace trunkline {
namespace {

std::mutex mutex;
LogBudget budget;
bool to_journal = false;

// A cookie's writer gets whole lines, one or more: DPDK flushes after each.
ssize_t write_lines(void*, const char* data, std::size_t size) {
  const auto now = std::chrono::duration_cast<LogBudget::Time>(std::chrono::steady_clock::now().time_since_epoch());
  std::string out;
  for (std::string_view rest(data, size); !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size() - 1) + 1;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end);
    const std::lock_guard lock(mutex);
    if (!budget.admit(log_subject(line), now)) continue;
    if (to_journal) out += '<' + std::to_string(std::clamp(rte_log_cur_msg_loglevel() - 1, 0, 7)) + '>';
    out += line;
  }
  LogWriter::of_process().write(std::move(out));
  return static_cast<ssize_t>(size);  // what is withheld is done with
}

}  // namespace

std::string_view log_subject(std::string_view line) {
  const std::size_t colon = line.find(": ");
  if (colon == std::string_view::npos) return "DPDK";
  if (line.size() > colon + 2 && line[colon + 2] == '(') {
    const std::size_t begin = colon + 3, end = line.find(')', begin);
    if (end != std::string_view::npos) return line.substr(begin, end - begin);
  }
  return line.substr(0, colon);
}

void direct_dpdk_log() {
  to_journal = std::getenv("JOURNAL_STREAM") != nullptr;
  cookie_io_functions_t functions{};
  functions.write = write_lines;
  if (FILE* stream = fopencookie(nullptr, "w", functions); stream != nullptr) rte_openlog_stream(stream);
  // Said by workers, for packets: what a peer does wrong there is no line a packet.
  rte_log_set_level_pattern("lib.vhost.data", RTE_LOG_EMERG);
}

LogBudget::Withheld take_withheld_dpdk_lines() {
  const std::lock_guard lock(mutex);
  return budget.take_withheld();
}

}  // namespace trunkline
