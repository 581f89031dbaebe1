// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/log_writer.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

namespace trunkline {
namespace {

constexpr auto kPatience = std::chrono::seconds(1);

void write_whole(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace

struct LogWriter::Shared {
  explicit Shared(int to) : descriptor(to) {}

  const int descriptor;
  std::mutex mutex;
  std::condition_variable news;  // a line came, or the end; or all is written
  std::deque<std::string> lines;
  std::size_t bytes = 0;
  std::uint64_t dropped = 0, told = 0;
  bool running = false, stopping = false, writing = false;
  bool abandoned = false;  // whoever leaves last frees this
};

LogWriter& LogWriter::of_process() {
  // Never destroyed: DPDK's threads may log while the process ends.
  static LogWriter& writer = *new LogWriter(STDERR_FILENO);
  return writer;
}

LogWriter::LogWriter(int descriptor) : shared_(new Shared(descriptor)) {}

LogWriter::~LogWriter() {
  stop();
  bool last;
  {
    const std::lock_guard lock(shared_->mutex);
    last = !shared_->running;
    shared_->abandoned = true;
  }
  if (last) delete shared_;
}

void LogWriter::start() {
  const std::lock_guard lock(shared_->mutex);
  if (shared_->running) return;
  shared_->running = true;
  shared_->stopping = false;
  // Signals are for the threads that wait for them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  std::thread([shared = shared_] { run(*shared); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void LogWriter::stop() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->news.notify_all();
  shared_->news.wait_for(lock, kPatience, [&] { return !shared_->running; });
}

void LogWriter::write(std::string line) {
  std::unique_lock lock(shared_->mutex);
  if (!shared_->running || shared_->stopping) {
    // With a writer that is stuck the caller would be, too.
    if (shared_->running) return ++shared_->dropped, void();
    lock.unlock();
    return write_whole(shared_->descriptor, line);
  }
  if (shared_->lines.size() >= kLines || shared_->bytes + line.size() > kBytes) return ++shared_->dropped, void();
  shared_->bytes += line.size();
  shared_->lines.push_back(std::move(line));
  if (!shared_->writing) shared_->news.notify_all();
}

std::uint64_t LogWriter::dropped() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->dropped;
}

void LogWriter::run(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  for (;;) {
    shared.writing = false;
    shared.news.wait(lock, [&] { return !shared.lines.empty() || shared.stopping; });
    if (shared.lines.empty()) break;
    shared.writing = true;
    std::string out;
    for (; !shared.lines.empty() && out.size() < (64U << 10); shared.lines.pop_front()) out += shared.lines.front();
    if (shared.dropped != shared.told) {
      out += "the log: " + std::to_string(shared.dropped - shared.told) +
             " line(s) were dropped, because nobody read fast enough\n";
      shared.told = shared.dropped;
    }
    lock.unlock();
    write_whole(shared.descriptor, out);
    lock.lock();
    shared.bytes = 0;
    for (const std::string& line : shared.lines) shared.bytes += line.size();
  }
  shared.running = false;
  const bool last = shared.abandoned;
  shared.news.notify_all();
  lock.unlock();
  if (last) delete &shared;
}

}  // namespace trunkline
