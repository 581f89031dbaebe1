// SPDX-License-Identifier: BSD-3-Clause
//
// Memory that its peer takes back: zeros instead of the end of the process, and nothing of the kind for memory of our own.
#include "dataplane/io/peer_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

namespace trunkline {
namespace {

constexpr std::size_t kBytes = 16 * 4096;

// A file in memory, mapped as vhost maps what a task shows.
struct Shown {
  int file = memfd_create("shown", MFD_CLOEXEC);
  volatile char* memory = nullptr;

  explicit Shown(std::size_t file_bytes = kBytes) {
    EXPECT_EQ(ftruncate(file, static_cast<off_t>(file_bytes)), 0);
    memory = static_cast<volatile char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  }
  ~Shown() {
    munmap(const_cast<char*>(memory), kBytes);
    close(file);
  }
  void take_back(std::size_t left) { EXPECT_EQ(ftruncate(file, static_cast<off_t>(left)), 0); }
};

struct PeerMemory : testing::Test {
  void SetUp() override { ASSERT_TRUE(guard_peer_memory().has_value()); }
};

TEST_F(PeerMemory, TruncatedReadsAsZeros) {
  Shown shown;
  shown.memory[0] = 'a';
  shown.memory[8 * 4096] = 'b';
  const std::uint64_t before = memory_lost().mappings;
  EXPECT_EQ(shown.memory[0], 'a');
  EXPECT_EQ(memory_lost().mappings, before);
  shown.take_back(4096);
  EXPECT_EQ(shown.memory[8 * 4096], 0);
  EXPECT_EQ(memory_lost().mappings, before + 1);
  EXPECT_EQ(memory_lost().address, reinterpret_cast<std::uint64_t>(shown.memory));
  EXPECT_EQ(memory_lost().bytes, kBytes);
  // The whole mapping, so that there is one fault and no more; and nobody else's memory any longer.
  EXPECT_EQ(shown.memory[0], 0);
  for (std::size_t at = 0; at < kBytes; at += 4096) shown.memory[at] = 'c';
  EXPECT_EQ(shown.memory[15 * 4096], 'c');
  EXPECT_EQ(memory_lost().mappings, before + 1);
}

TEST_F(PeerMemory, SizeThatTheFileNeverHad) {
  Shown shown(4096);
  const std::uint64_t before = memory_lost().mappings;
  shown.memory[4096] = 'a';
  EXPECT_EQ(shown.memory[4096], 'a');
  EXPECT_EQ(memory_lost().mappings, before + 1);
}

TEST_F(PeerMemory, TwoThreadsAtOnce) {
  for (int turn = 0; turn < 50; ++turn) {
    Shown shown;
    shown.take_back(0);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { shown.memory[i * 4096] = 'x'; });
    for (std::thread& each : threads) each.join();
  }
}

TEST_F(PeerMemory, OtherPeersKeepTheirs) {
  Shown shown, other;
  other.memory[0] = 'o';
  shown.take_back(0);
  EXPECT_EQ(shown.memory[0], 0);
  EXPECT_EQ(other.memory[0], 'o');
}

using PeerMemoryDeath = PeerMemory;

// What was there before is the engine's own: connections in zeros would be worse than none.
TEST_F(PeerMemoryDeath, OursEndsTheProcess) {
  Shown ours;
  ours.memory[0] = 'a';
  ASSERT_TRUE(guard_peer_memory().has_value());
  ours.take_back(0);
  EXPECT_EXIT(ours.memory[0] = 'b', testing::KilledBySignal(SIGBUS), "");
}

TEST_F(PeerMemoryDeath, PrivateMappingEndsTheProcess) {
  const int file = memfd_create("private", MFD_CLOEXEC);
  auto* memory = static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
  EXPECT_EXIT(memory[0] = 'b', testing::KilledBySignal(SIGBUS), "");
  munmap(const_cast<char*>(memory), 4096);
  close(file);
}

}  // namespace
}  // namespace trunkline
