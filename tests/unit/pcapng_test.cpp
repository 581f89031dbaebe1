// SPDX-License-Identifier: BSD-3-Clause
// The blocks byte for byte, as the pcapng draft has them.
#include "control/pcapng.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace trunkline::control::pcapng {
namespace {

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    char two[4];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(byte));
    text += two;
  }
  return text;
}

TEST(Pcapng, SectionHeader) {
  EXPECT_EQ(hex(section_header("abc")),
            "0a0d0d0a" "28000000" "4d3c2b1a" "01000000" "ffffffffffffffff"
            "04000300" "61626300" "00000000" "28000000");
}

TEST(Pcapng, InterfaceInNanoseconds) {
  EXPECT_EQ(hex(interface_description("trunk", 9216)),
            "01000000" "2c000000" "0100" "0000" "00240000"
            "02000500" "7472756e6b000000" "09000100" "09000000" "00000000" "2c000000");
}

TEST(Pcapng, PacketWithDirectionAndComment) {
  const std::vector<std::uint8_t> bytes{1, 2, 3, 4, 5};
  EXPECT_EQ(hex(enhanced_packet(3, 0x0123456789abcdef, bytes, 60, Way::inbound, "why")),
            "06000000" "3c000000" "03000000" "67452301" "efcdab89" "05000000" "3c000000" "0102030405000000"
            "02000400" "01000000" "01000300" "77687900" "00000000" "3c000000");
  EXPECT_EQ(hex(enhanced_packet(0, 0, {}, 0, Way::outbound, "")),
            "06000000" "2c000000" "00000000" "00000000" "00000000" "00000000" "00000000" "02000400" "02000000" "00000000" "2c000000");
}

TEST(Pcapng, EveryBlockSaysItsLengthTwice) {
  for (std::size_t size = 0; size < 9; ++size) {
    const std::vector<std::uint8_t> bytes(size, 7);
    const std::string block = enhanced_packet(0, 1, bytes, 100, Way::unknown, std::string(size, 'c'));
    std::uint32_t first, last;
    std::memcpy(&first, block.data() + 4, 4), std::memcpy(&last, block.data() + block.size() - 4, 4);
    EXPECT_EQ(first, block.size());
    EXPECT_EQ(last, block.size());
    EXPECT_EQ(block.size() % 4, 0U);
  }
  EXPECT_LT(enhanced_packet(0, 1, {}, 0, Way::unknown, std::string(100'000, 'c')).size(), 1100U) << "a comment is not the packet";
}

}  // namespace
}  // namespace trunkline::control::pcapng
