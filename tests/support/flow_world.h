// SPDX-License-Identifier: BSD-3-Clause
//
// What tests of flow logs share: records as a worker would tell them, ENIs, a source that ends intervals when the test says
// so, a sink that keeps lines, and a temporary folder. Time is the test's.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "control/flow_logs.h"

namespace trunkline::test {

inline constexpr std::uint8_t kTcp = 6, kUdp = 17, kIcmp = 1;

struct RecordOf {
  std::uint16_t endpoint = 0, generation = 1;
  std::string remote = "10.0.1.20", local = "10.0.0.35";
  std::uint16_t remote_port = 40122, local_port = 80;
  std::uint8_t protocol = kTcp;
  FlowRecord::Way in{}, out{};
  FlowAction action = FlowAction::accept;

  FlowRecord make() const {
    FlowRecord record;
    const IpAddress far = IpAddress::parse(remote).value(), near = IpAddress::parse(local).value();
    record.key.owner = FlowKey::owner_of({endpoint}, generation) | FlowKey::protocol_bits(protocol);
    record.key.remote_port = __builtin_bswap16(remote_port);
    record.key.local_port = __builtin_bswap16(local_port);
    if (far.is_v4()) {
      record.key.remote = __builtin_bswap32(far.v4());
      record.key.local = __builtin_bswap32(near.v4());
    } else {
      record.key.owner |= FlowKey::kIpv6;
      record.key.remote = endpoint + 77U;  // a digest, different with each worker
      record.ipv6 = {far, near};
    }
    record.way[0] = in;
    record.way[1] = out;
    record.action = action;
    return record;
  }
};

inline FlowRecord::Way way(std::uint32_t packets, std::uint64_t bytes, Tick first, Tick last, std::uint8_t flags = 0) {
  return {.bytes = bytes, .packets = packets, .first = first, .last = last, .tcp_flags = flags};
}

// Keeps what it takes; refuses when it is told to.
struct KeptLines final : control::FlowSink {
  Written write(std::int64_t slot, std::span<const std::string> lines) override {
    if (!error.empty()) return {0, error};
    const std::size_t count = std::min(lines.size(), room);
    for (const std::string& line : lines.first(count)) kept.push_back(line), slots.insert(slot);
    room -= count;
    return {count, {}};
  }
  std::string finish(std::int64_t before) override {
    finished_before = before;
    return error;
  }
  std::uint64_t files() const override { return 0; }

  std::string take() {
    std::string all;
    for (const std::string& line : kept) all += line;
    kept.clear();
    return all;
  }

  std::vector<std::string> kept;
  std::set<std::int64_t> slots;
  std::string error;
  std::size_t room = SIZE_MAX;
  std::int64_t finished_before = 0;
};

class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("trunkline-" + name + "-" + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ / name; }
  std::string path() const { return path_; }

  // Files below, relative, in order.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_)) {
      if (!entry.is_directory()) names.push_back(std::filesystem::relative(entry.path(), path_));
    }
    std::ranges::sort(names);
    return names;
  }

 private:
  std::filesystem::path path_;
};

inline std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What one gzip member holds; a file that is cut short, or has something behind the member, is a failure.
inline std::string gunzip(const std::string& path) {
  const std::string data = text_of(path);
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    char block[65536];
    stream.next_out = reinterpret_cast<Bytef*>(block);
    stream.avail_out = sizeof block;
    result = inflate(&stream, Z_NO_FLUSH);
    out.append(block, sizeof block - stream.avail_out);
  }
  EXPECT_EQ(result, Z_STREAM_END) << path << " is not a whole member";
  EXPECT_EQ(stream.avail_in, 0U) << path << " has something behind the member";
  inflateEnd(&stream);
  return out;
}

}  // namespace trunkline::test
