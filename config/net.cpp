// SPDX-License-Identifier: BSD-3-Clause
#include "config/net.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace trunkline {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// inet_pton is strict about IPv4 already (four decimal parts, no leading zeros); it wants a terminated string.
template <std::size_t Size>
bool inet_parse(int family, std::string_view text, std::array<std::uint8_t, Size>& out) {
  if (text.empty() || text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos) return false;
  char terminated[INET6_ADDRSTRLEN]{};
  text.copy(terminated, text.size());
  return inet_pton(family, terminated, out.data()) == 1;
}

}  // namespace

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  if (text.size() != 17) return std::nullopt;
  MacAddress mac;
  for (std::size_t i = 0; i < 6; ++i) {
    const int high = hex_digit(text[3 * i]);
    const int low = hex_digit(text[3 * i + 1]);
    if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':')) return std::nullopt;
    mac.bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return mac;
}

std::string MacAddress::to_string() const {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < 6; ++i) {
    if (i != 0) text += ':';
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.find(':') == std::string_view::npos) {
    std::array<std::uint8_t, 4> v4{};
    if (!inet_parse(AF_INET, text, v4)) return std::nullopt;
    return from_v4_bytes(v4.data());
  }
  IpAddress address;
  if (!inet_parse(AF_INET6, text, address.bytes)) return std::nullopt;
  // "::ffff:10.0.0.1" names no IPv6 host; letting it through would make two spellings of one IPv4 address.
  if (address.is_v4()) return std::nullopt;
  return address;
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN];
  if (is_v4()) {
    inet_ntop(AF_INET, &bytes[12], text, sizeof text);
  } else {
    inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
  }
  return text;
}

std::optional<IpPrefix> IpPrefix::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  const std::string_view digits = text.substr(slash + 1);
  if (digits.empty() || digits.size() > 3 || (digits.size() > 1 && digits[0] == '0')) return std::nullopt;
  unsigned length = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  if (length > (address->is_v4() ? 32U : 128U)) return std::nullopt;
  return IpPrefix{*address, static_cast<std::uint8_t>(length)};
}

std::string IpPrefix::to_string() const { return address.to_string() + '/' + std::to_string(length); }

IpPrefix IpPrefix::network() const {
  IpPrefix result = *this;
  const unsigned bits = mapped_length();
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned kept = std::clamp<int>(static_cast<int>(bits) - static_cast<int>(8 * i), 0, 8);
    result.address.bytes[i] &= static_cast<std::uint8_t>(0xff00 >> kept);
  }
  return result;
}

IpAddress IpPrefix::last() const {
  IpAddress result = network().address;
  const unsigned bits = mapped_length();
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned kept = std::clamp<int>(static_cast<int>(bits) - static_cast<int>(8 * i), 0, 8);
    result.bytes[i] |= static_cast<std::uint8_t>(0xff >> kept);
  }
  return result;
}

}  // namespace trunkline
