// SPDX-License-Identifier: BSD-3-Clause
#include "control/pcapng.h"

namespace trunkline::control::pcapng {
namespace {

constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a, kInterfaceDescription = 1, kEnhancedPacket = 6;
constexpr std::uint32_t kByteOrder = 0x1a2b3c4d;
constexpr std::uint16_t kEthernet = 1;
constexpr std::uint16_t kEndOfOptions = 0, kComment = 1;
constexpr std::uint16_t kApplication = 4;               // shb_userappl
constexpr std::uint16_t kName = 2, kTimeResolution = 9;  // if_name, if_tsresol
constexpr std::uint16_t kFlags = 2;                     // epb_flags
constexpr std::size_t kMostComment = 1000;

template <class Integer>
void put(std::string& block, Integer value) {
  for (std::size_t i = 0; i < sizeof value; ++i) block += static_cast<char>(value >> (8 * i) & 0xff);
}
void pad(std::string& block) { block.resize((block.size() + 3) & ~std::size_t{3}, '\0'); }

void put_option(std::string& block, std::uint16_t code, std::string_view value) {
  put(block, code), put(block, static_cast<std::uint16_t>(value.size()));
  block += value;
  pad(block);
}

std::string framed(std::uint32_t type, const std::string& body) {
  std::string block;
  const auto size = static_cast<std::uint32_t>(body.size() + 12);
  put(block, type), put(block, size);
  block += body;
  put(block, size);
  return block;
}

}  // namespace

std::string section_header(std::string_view application) {
  std::string body;
  put(body, kByteOrder);
  put(body, std::uint16_t{1}), put(body, std::uint16_t{0});  // version
  put(body, ~std::uint64_t{0});                              // length of the section: not said
  put_option(body, kApplication, application);
  put_option(body, kEndOfOptions, {});
  return framed(kSectionHeader, body);
}

std::string interface_description(std::string_view name, std::uint32_t snaplen) {
  std::string body;
  put(body, kEthernet), put(body, std::uint16_t{0});
  put(body, snaplen);
  put_option(body, kName, name);
  put_option(body, kTimeResolution, "\x09");
  put_option(body, kEndOfOptions, {});
  return framed(kInterfaceDescription, body);
}

std::string enhanced_packet(std::uint32_t interface, std::uint64_t time_ns, std::span<const std::uint8_t> bytes, std::uint32_t frame_bytes, Way way,
                            std::string_view comment) {
  std::string body;
  put(body, interface);
  put(body, static_cast<std::uint32_t>(time_ns >> 32)), put(body, static_cast<std::uint32_t>(time_ns));
  put(body, static_cast<std::uint32_t>(bytes.size())), put(body, frame_bytes);
  body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  pad(body);
  std::string flags;
  put(flags, static_cast<std::uint32_t>(way));
  put_option(body, kFlags, flags);
  if (!comment.empty()) put_option(body, kComment, comment.substr(0, kMostComment));
  put_option(body, kEndOfOptions, {});
  return framed(kEnhancedPacket, body);
}

}  // namespace trunkline::control::pcapng
