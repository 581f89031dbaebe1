// SPDX-License-Identifier: BSD-3-Clause
//
// The log's thread: lines come out in order, and nobody who logs waits for a reader that does not read.
#include "dataplane/io/log_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

namespace trunkline {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  Pipe() { EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0); }
  ~Pipe() {
    close_reader();
    close(ends[1]);
  }
  void close_reader() {
    if (ends[0] >= 0) close(ends[0]);
    ends[0] = -1;
  }
  // All that comes until this has come.
  std::string read_until(const std::string& wanted) {
    std::string text;
    char buffer[65536];
    while (!text.contains(wanted)) {
      const ssize_t n = read(ends[0], buffer, sizeof buffer);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }
  int ends[2] = {-1, -1};
};

TEST(LogWriter, LinesComeOutInOrder) {
  Pipe pipe;
  LogWriter writer(pipe.ends[1]);
  writer.write("before\n");
  writer.start();
  std::string expected = "before\n";
  for (int i = 0; i < 1000; ++i) {
    const std::string line = "line " + std::to_string(i) + '\n';
    writer.write(line);
    expected += line;
  }
  EXPECT_EQ(pipe.read_until("line 999\n"), expected);
  writer.stop();
  writer.write("after\n");
  EXPECT_EQ(pipe.read_until("after\n"), "after\n");
  EXPECT_EQ(writer.dropped(), 0U);
}

TEST(LogWriter, NobodyWaitsForAReaderThatDoesNotRead) {
  Pipe pipe;
  {
    LogWriter writer(pipe.ends[1]);
    writer.start();
    const auto began = Clock::now();
    const std::string line(500, 'x');
    for (int i = 0; i < 20'000; ++i) writer.write(line + '\n');
    EXPECT_LT(Clock::now() - began, std::chrono::seconds(2));
    EXPECT_GT(writer.dropped(), 15'000U);
    // Somebody reads again: what waits comes, and then how much was lost.
    std::thread reader([&] {
      const std::string text = pipe.read_until("nobody read fast enough\n");
      EXPECT_NE(text.find(std::to_string(writer.dropped()) + " line(s) were dropped"), std::string::npos);
    });
    reader.join();
    writer.stop();
  }
}

TEST(LogWriter, TheEndWaitsASecondAtMost) {
  Pipe pipe;
  const auto began = Clock::now();
  {
    LogWriter writer(pipe.ends[1]);
    writer.start();
    for (int i = 0; i < 2000; ++i) writer.write(std::string(400, 'y') + '\n');
    writer.stop();
    writer.write("nobody waits for this one\n");
    EXPECT_EQ(writer.dropped(), 1U);
  }
  EXPECT_LT(Clock::now() - began, std::chrono::seconds(3));
  pipe.close_reader();  // its thread ends with an error
}

}  // namespace
}  // namespace trunkline
