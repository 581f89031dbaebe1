// SPDX-License-Identifier: BSD-3-Clause
// Capture files as others write them, cut, bent and lied about: each record is read for itself, no more memory is taken than the file has
// bytes, and how the file ends is said.
#include "control/ctl/capture_file.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <iostream>
#include <random>

namespace trunkline::control {
namespace {

using Bytes = std::string;

class Writer {
 public:
  explicit Writer(bool swapped = false) : swapped_(swapped) {}
  Writer& u16(std::uint16_t value) {
    for (int i = 0; i < 2; ++i) bytes += static_cast<char>(value >> 8 * (swapped_ ? 1 - i : i));
    return *this;
  }
  Writer& u32(std::uint32_t value) {
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> 8 * (swapped_ ? 3 - i : i));
    return *this;
  }
  Writer& raw(const Bytes& more) {
    bytes += more;
    return *this;
  }
  Bytes bytes;

 private:
  const bool swapped_;
};

Bytes pcap_header(bool swapped = false, std::uint32_t magic = 0xa1b2c3d4, std::uint32_t link = 1, std::uint32_t snaplen = 262144, std::uint16_t major = 2) {
  return Writer(swapped).u32(magic).u16(major).u16(4).u32(0).u32(0).u32(snaplen).u32(link).bytes;
}
Bytes pcap_record(const Bytes& frame, std::uint32_t wire, bool swapped = false) {
  return Writer(swapped).u32(1).u32(2).u32(static_cast<std::uint32_t>(frame.size())).u32(wire).raw(frame).bytes;
}

Bytes block(std::uint32_t type, Bytes body, bool swapped = false) {
  body.resize((body.size() + 3) / 4 * 4);
  const auto length = static_cast<std::uint32_t>(body.size() + 12);
  return Writer(swapped).u32(type).u32(length).raw(body).u32(length).bytes;
}
Bytes section(bool swapped = false) { return block(0x0a0d0d0a, Writer(swapped).u32(0x1a2b3c4d).u16(1).u16(0).u32(0xffffffff).u32(0xffffffff).bytes, swapped); }
Bytes interface(std::uint16_t link, std::uint32_t snaplen = 0, bool swapped = false) { return block(1, Writer(swapped).u16(link).u16(0).u32(snaplen).bytes, swapped); }
Bytes enhanced(std::uint32_t number, const Bytes& frame, std::uint32_t wire, bool swapped = false) {
  return block(6, Writer(swapped).u32(number).u32(0).u32(0).u32(static_cast<std::uint32_t>(frame.size())).u32(wire).raw(frame).bytes, swapped);
}

struct Read {
  std::string error;
  std::vector<CaptureRecord> records;
  std::string trouble;
};

Read read_all(const Bytes& content) {
  Read result;
  Bytes copy = content;
  std::FILE* stream = copy.empty() ? std::fopen("/dev/null", "rb") : ::fmemopen(copy.data(), copy.size(), "rb");
  auto file = CaptureFile::read_from(stream, "f");
  if (!file) {
    result.error = file.error();
  } else {
    while (auto record = file->next()) result.records.push_back(std::move(*record));
    EXPECT_FALSE(file->next());
    result.trouble = file->trouble();
  }
  std::fclose(stream);
  return result;
}

Bytes text(const CaptureRecord& record) { return {record.bytes.begin(), record.bytes.end()}; }

TEST(CaptureFile, PcapOfBothByteOrdersAndAllTimes) {
  for (const bool swapped : {false, true}) {
    for (const std::uint32_t magic : {0xa1b2c3d4U, 0xa1b23c4dU}) {
      const Read read = read_all(pcap_header(swapped, magic) + pcap_record("first", 5, swapped) + pcap_record("", 0, swapped) + pcap_record("third", 900, swapped));
      ASSERT_EQ(read.error, "");
      ASSERT_EQ(read.records.size(), 3U);
      EXPECT_EQ(text(read.records[0]), "first");
      EXPECT_EQ(read.records[1].captured_bytes, 0U) << "an empty record is one";
      EXPECT_EQ(text(read.records[2]), "third");
      EXPECT_EQ(read.records[2].frame_bytes, 900U);
      for (const CaptureRecord& record : read.records) EXPECT_EQ(record.unusable, "");
      EXPECT_EQ(read.trouble, "");
    }
    // The longer record headers of a patched libpcap.
    const Bytes record = Writer(swapped).u32(1).u32(2).u32(3).u32(3).u32(0).u32(0).raw("abc").bytes;
    EXPECT_EQ(text(read_all(pcap_header(swapped, 0xa1b2cd34) + record + record).records.at(1)), "abc");
  }
}

TEST(CaptureFile, ASnaplenThatLiesClipsNothing) {
  EXPECT_EQ(text(read_all(pcap_header(false, 0xa1b2c3d4, 1, 2) + pcap_record("more than two", 13)).records.at(0)), "more than two");
  EXPECT_EQ(text(read_all(section() + interface(1, 2) + enhanced(0, "more than two", 13)).records.at(0)), "more than two");
}

TEST(CaptureFile, ALengthIsBelievedAsFarAsThereAreBytes) {
  const Bytes start = pcap_header() + pcap_record("whole", 0xfffffff0);
  Read read = read_all(start);
  ASSERT_EQ(read.records.size(), 1U);
  EXPECT_EQ(text(read.records[0]), "whole");
  EXPECT_EQ(read.records[0].frame_bytes, 0xfffffff0U);
  // The same of the captured length: here the file ends.
  const std::size_t before = ::mallinfo2().uordblks;
  read = read_all(start + Writer().u32(1).u32(2).u32(0xfffffff0).u32(5).raw("part").bytes);
  EXPECT_LT(::mallinfo2().uordblks, before + (std::size_t{1} << 20));
  ASSERT_EQ(read.records.size(), 2U);
  EXPECT_EQ(read.records[1].unusable, "the file ends within it: 4 of 4294967280 bytes are there");
  read = read_all(start + "half a header");
  ASSERT_EQ(read.records.size(), 2U);
  EXPECT_EQ(read.records[1].unusable, "the file ends within its header");
}

TEST(CaptureFile, ALargeRecordIsCountedAndTheNextOneRead) {
  const Read read = read_all(pcap_header() + pcap_record(Bytes(400'000, 'x'), 400'000) + pcap_record("next", 4));
  ASSERT_EQ(read.records.size(), 2U);
  EXPECT_EQ(read.records[0].captured_bytes, 400'000U);
  EXPECT_EQ(read.records[0].bytes.size(), CaptureFile::kKept);
  EXPECT_EQ(text(read.records[1]), "next");
}

TEST(CaptureFile, PcapngOfBothByteOrdersWithAllKindsOfPackets) {
  for (const bool swapped : {false, true}) {
    const Bytes simple = block(3, Writer(swapped).u32(6).raw("simple").bytes, swapped);
    const Bytes obsolete = block(2, Writer(swapped).u16(0).u16(0).u32(0).u32(0).u32(3).u32(3).raw("old").bytes, swapped);
    const Bytes names = block(4, Bytes(40, 'n'), swapped), unknown = block(0x0bad, Bytes(100, 'u'), swapped);
    // A second section of the other byte order describes its interfaces anew.
    const Read read = read_all(section(swapped) + names + interface(1, 0, swapped) + unknown + enhanced(0, "enhanced", 8, swapped) + simple + obsolete + section(!swapped) +
                               interface(1, 0, !swapped) + enhanced(0, "other", 5, !swapped));
    ASSERT_EQ(read.error, "");
    ASSERT_EQ(read.records.size(), 4U);
    EXPECT_EQ(text(read.records[0]), "enhanced");
    EXPECT_EQ(text(read.records[1]), "simple");
    EXPECT_EQ(text(read.records[2]), "old");
    EXPECT_EQ(text(read.records[3]), "other");
    for (const CaptureRecord& record : read.records) EXPECT_EQ(record.unusable, "");
    EXPECT_EQ(read.trouble, "");
  }
}

TEST(CaptureFile, WhatIsNoFrameOfOursSaysWhyAndTheRestGoesOn) {
  Bytes short_block = block(6, Writer().u32(0).bytes);
  Bytes lying = enhanced(0, "lying", 5);
  lying[20] = 100;  // the captured length
  const Read read = read_all(section() + interface(1) + interface(113) + enhanced(1, "cooked", 6) + enhanced(7, "nowhere", 7) + short_block + lying + enhanced(0, "fine", 4));
  ASSERT_EQ(read.records.size(), 5U);
  EXPECT_EQ(read.records[0].unusable, "its interface has Linux cooked frames (link type 113), not Ethernet; capture on the interface itself, not on \"any\"");
  EXPECT_EQ(read.records[1].unusable, "it names interface 7, which the file does not describe");
  EXPECT_EQ(read.records[2].unusable, "its block is too short for a packet's header");
  EXPECT_EQ(read.records[3].unusable, "its block has 8 of the 100 bytes that it speaks of");
  EXPECT_EQ(text(read.records[4]), "fine");
}

TEST(CaptureFile, HowAPcapngFileEndsIsSaid) {
  const Bytes start = section() + interface(1) + enhanced(0, "one", 3);
  EXPECT_EQ(read_all(start + "abc").trouble, "the file ends in the middle of a block's header");
  EXPECT_EQ(read_all(start + Bytes("\4\0\0\0\x40\0\0\0ab", 10)).trouble, "the file ends in the middle of a block");
  EXPECT_EQ(read_all(start + Bytes("\4\0\0\0\x05\0\0\0ab", 10)).trouble, "a block says that it is 5 bytes long, which none can be; what is behind it was not read");
  EXPECT_EQ(read_all(start + section().substr(0, 20)).trouble, "a section header is not whole; what is behind it was not read");
  const Bytes cut = enhanced(0, "a longer one", 12);
  const Read read = read_all(start + cut.substr(0, 8 + 20 + 5));
  ASSERT_EQ(read.records.size(), 2U);
  EXPECT_EQ(read.records[1].unusable, "the file ends within it: 5 of 12 bytes are there");
}

TEST(CaptureFile, OtherFilesAreRefusedInWords) {
  EXPECT_EQ(read_all("").error, "f is empty, not a capture file");
  EXPECT_NE(read_all("PK\3\4").error.find("neither a pcap nor a pcapng file"), std::string::npos);
  EXPECT_NE(read_all("\x1f\x8b\x08 and more").error.find("gunzip"), std::string::npos);
  EXPECT_NE(read_all(pcap_header(false, 0xa1b2c3d4, 113)).error.find("Linux cooked frames (link type 113), not Ethernet"), std::string::npos);
  EXPECT_NE(read_all(pcap_header(true, 0xa1b2c3d4, 101)).error.find("bare IP frames (link type 101)"), std::string::npos);
  EXPECT_NE(read_all(pcap_header(false, 0xa1b2c3d4, 1, 9, 543)).error.find("version 543"), std::string::npos);
  EXPECT_NE(read_all(pcap_header().substr(0, 20)).error.find("ends within the header"), std::string::npos);
  EXPECT_NE(read_all(section().substr(0, 20)).error.find("no whole section header"), std::string::npos);
  EXPECT_NE(CaptureFile::open("/nonexistent").error().find("cannot read /nonexistent: No such file"), std::string::npos);
  EXPECT_NE(CaptureFile::open("/").error().find("Is a directory"), std::string::npos);
  EXPECT_EQ(read_all(pcap_header(false, 0xa1b2c3d4, 0x50000001)).error, "") << "with the length of a frame check sequence";
}

// Never more records than there are bytes, never more bytes than there are, and always an end.
TEST(CaptureFile, RandomDamage) {
  const char* fixed = std::getenv("TRUNKLINE_SEED");
  const std::uint64_t seed = fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : std::random_device{}();
  std::cout << "again: TRUNKLINE_SEED=" << seed << " capture_file_test\n";
  std::mt19937_64 random(seed);
  const Bytes files[] = {pcap_header() + pcap_record("first", 5) + pcap_record("second one", 10),
                         pcap_header(true, 0xa1b23c4d) + pcap_record(Bytes(300, 'x'), 300, true) + pcap_record("", 0, true),
                         section() + interface(1) + enhanced(0, "enhanced", 8) + block(3, Writer().u32(6).raw("simple").bytes) + section(true) + interface(1, 4, true) + enhanced(0, "x", 1, true)};
  for (int round = 0; round < 20'000; ++round) {
    Bytes file = files[random() % std::size(files)];
    for (auto times = 1 + random() % 4; times > 0; --times) {
      switch (random() % 3) {
        case 0: file[random() % file.size()] = static_cast<char>(random()); break;
        case 1: file.resize(1 + random() % file.size()); break;
        default: file.insert(random() % file.size(), Bytes(random() % 9, static_cast<char>(random()))); break;
      }
    }
    const Read read = read_all(file);
    ASSERT_LE(read.records.size(), file.size());
    for (const CaptureRecord& record : read.records) {
      ASSERT_LE(record.bytes.size(), file.size());
      ASSERT_EQ(record.captured_bytes, record.bytes.size());
    }
  }
}

}  // namespace
}  // namespace trunkline::control
