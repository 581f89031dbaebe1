// SPDX-License-Identifier: BSD-3-Clause
//
// Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian: a section header, an interface description a port, an enhanced
// packet block a packet, with its direction in epb_flags and a comment. Times are nanoseconds since 1970.
//
// Pure functions; each gives one whole block.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace trunkline::control::pcapng {

enum class Way : std::uint8_t { unknown = 0, inbound = 1, outbound = 2 };

std::string section_header(std::string_view application);
// Ethernet. Interfaces are numbered in the order of their blocks, from 0.
std::string interface_description(std::string_view name, std::uint32_t snaplen);
std::string enhanced_packet(std::uint32_t interface, std::uint64_t time_ns, std::span<const std::uint8_t> bytes, std::uint32_t frame_bytes, Way way,
                            std::string_view comment);

}  // namespace trunkline::control::pcapng
