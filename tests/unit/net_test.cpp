// SPDX-License-Identifier: BSD-3-Clause
//
// The text forms of addresses: what is read, what is refused beside it, and what comes out again.
#include "config/net.h"

#include <gtest/gtest.h>

#include <random>

namespace trunkline {
namespace {

TEST(MacAddress, ReadsSixPairsAndNothingElse) {
  EXPECT_EQ(MacAddress::parse("0A:47:e4:7a:2b:02")->to_string(), "0a:47:e4:7a:2b:02");
  for (const char* text : {"", "0a:47:e4:7a:2b", "0a:47:e4:7a:2b:02:", "0a-47-e4-7a-2b-02", "0a:47:e4:7a:2b:0g",
                           "a:47:e4:7a:2b:02", "0a47e47a2b02"}) {
    EXPECT_FALSE(MacAddress::parse(text)) << text;
  }
}

TEST(MacAddress, KnowsZeroAndMulticast) {
  EXPECT_TRUE(MacAddress{}.is_zero());
  EXPECT_FALSE(MacAddress{}.is_multicast());
  EXPECT_TRUE(MacAddress::parse("01:00:5e:00:00:01")->is_multicast());
  EXPECT_FALSE(MacAddress::parse("02:00:00:00:00:01")->is_multicast());
  EXPECT_EQ(MacAddress::parse("01:02:03:04:05:06")->as_integer(), 0x010203040506U);
}

TEST(IpAddress, ReadsBothFamilies) {
  EXPECT_EQ(IpAddress::parse("10.0.0.35")->v4(), 0x0a000023U);
  EXPECT_TRUE(IpAddress::parse("10.0.0.35")->is_v4());
  EXPECT_EQ(IpAddress::parse("2001:DB8:0:0::1")->to_string(), "2001:db8::1");
  EXPECT_FALSE(IpAddress::parse("::")->is_v4());
  for (const char* text : {"", "10.1", "10.0.0.035", "10.0.0.256", " 10.0.0.1", "10.0.0.1 ", "10.0.0.1/8",
                           ":::", "1::2::3", "fe80::1%eth0", "::ffff:10.0.0.1"}) {
    EXPECT_FALSE(IpAddress::parse(text)) << text;
  }
  EXPECT_FALSE(IpAddress::parse(std::string_view("10.0.0.1\0", 9)));
}

TEST(IpPrefix, ReadsTheLengthStrictly) {
  EXPECT_EQ(IpPrefix::parse("10.0.0.35/24")->to_string(), "10.0.0.35/24");
  EXPECT_EQ(IpPrefix::parse("10.0.0.35/24")->network().to_string(), "10.0.0.0/24");
  for (const char* text : {"10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/024", "10.0.0.0/-1", "10.0.0.0/+8",
                           "::/129", "::/0x8", "/8"}) {
    EXPECT_FALSE(IpPrefix::parse(text)) << text;
  }
}

TEST(IpPrefix, EverythingOfOneFamilyHoldsNothingOfTheOther) {
  const auto all4 = *IpPrefix::parse("0.0.0.0/0");
  const auto all6 = *IpPrefix::parse("::/0");
  EXPECT_TRUE(all4.contains(*IpAddress::parse("255.255.255.255")));
  EXPECT_FALSE(all4.contains(*IpAddress::parse("::1")));
  EXPECT_TRUE(all6.contains(*IpAddress::parse("::1")));
  EXPECT_FALSE(all6.contains(*IpAddress::parse("10.0.0.1")));
  EXPECT_EQ(all4.last().to_string(), "255.255.255.255");
  EXPECT_EQ(all6.last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

TEST(IpPrefix, FirstAndLastAreInsideAndTheirNeighboursAreNot) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const IpPrefix prefix =
        IpPrefix{IpAddress::from_v4(static_cast<std::uint32_t>(random())), static_cast<std::uint8_t>(random() % 33)}
            .network();
    ASSERT_EQ(IpPrefix::parse(prefix.to_string()), prefix);
    ASSERT_TRUE(prefix.contains(prefix.address) && prefix.contains(prefix.last()));
    if (prefix.address.v4() != 0) {
      ASSERT_FALSE(prefix.contains(IpAddress::from_v4(prefix.address.v4() - 1)));
    }
    if (prefix.last().v4() != 0xffffffff) {
      ASSERT_FALSE(prefix.contains(IpAddress::from_v4(prefix.last().v4() + 1)));
    }
  }
}

TEST(VlanId, IsOneOf4094) {
  EXPECT_TRUE(VlanId::is_valid(1) && VlanId::is_valid(4094));
  EXPECT_FALSE(VlanId::is_valid(0) || VlanId::is_valid(4095) || VlanId::is_valid(-1));
}

// Against the definition, with addresses that share their first bits with the prefix and then may not.
TEST(IpPrefix, ContainsWhatHasItsNetwork) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  unsigned inside = 0;
  for (int round = 0; round < 100'000; ++round) {
    const bool ipv4 = random() % 2 == 0;
    IpPrefix prefix;
    if (ipv4) {
      prefix.address = IpAddress::from_v4(static_cast<std::uint32_t>(random()));
    } else {
      for (auto& byte : prefix.address.bytes) byte = static_cast<std::uint8_t>(random());
    }
    prefix.length = static_cast<std::uint8_t>(random() % (ipv4 ? 33 : 129));
    IpAddress other = prefix.address;
    const unsigned first = ipv4 ? 96 : 0, bit = first + static_cast<unsigned>(random()) % (128 - first);
    other.bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80 >> bit % 8);
    const bool expected = IpPrefix{other, prefix.length}.network().address == prefix.network().address;
    ASSERT_EQ(prefix.contains(other), expected) << prefix.to_string() << ' ' << other.to_string();
    ASSERT_TRUE(prefix.contains(prefix.address));
    inside += expected;
  }
  EXPECT_GT(inside, 10'000U);
}

}  // namespace
}  // namespace trunkline
