// SPDX-License-Identifier: BSD-3-Clause
#include "control/ctl/capture_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace trunkline::control {
namespace {

// pcap: IETF draft-ietf-opsawg-pcap, with the magic number of Alexey Kuznetzov's patch, whose record headers are eight bytes longer.
constexpr std::uint32_t kMicroseconds = 0xa1b2c3d4, kNanoseconds = 0xa1b23c4d, kPatched = 0xa1b2cd34;
constexpr std::size_t kFileHeader = 24;
// pcapng: draft-ietf-opsawg-pcapng.
constexpr std::uint32_t kSection = 0x0a0d0d0a, kByteOrder = 0x1a2b3c4d;
constexpr std::uint32_t kInterface = 1, kObsoletePacket = 2, kSimplePacket = 3, kEnhancedPacket = 6;
constexpr std::size_t kMostInterfaces = 65536;

constexpr std::uint16_t kEthernet = 1;

std::string link_name(std::uint16_t type) {
  switch (type) {
    case 0: return "BSD loopback";
    case 12: case 14: case 101: case 228: case 229: return "bare IP";
    case 9: return "PPP";
    case 105: case 119: case 127: case 163: return "802.11";
    case 113: case 276: return "Linux cooked";
    default: return "other";
  }
}

std::string not_ethernet(std::uint16_t type) {
  return link_name(type) + " frames (link type " + std::to_string(type) + "), not Ethernet; capture on the interface itself" +
         (type == 113 || type == 276 ? ", not on \"any\"" : "");
}

std::string missing(std::uint64_t there, std::uint64_t wanted) {
  return "the file ends within it: " + std::to_string(there) + " of " + std::to_string(wanted) + " bytes are there";
}

std::uint32_t swap32(std::uint32_t value) { return __builtin_bswap32(value); }

}  // namespace

std::expected<CaptureFile, std::string> CaptureFile::open(const std::string& path) {
  if (path == "-") return read_from(stdin, "standard input");
  std::FILE* stream = std::fopen(path.c_str(), "rb");
  if (stream == nullptr) return std::unexpected("cannot read " + path + ": " + std::strerror(errno));
  CaptureFile file(stream, true, path);
  if (auto begun = file.begin(); !begun) return std::unexpected(std::move(begun.error()));
  return file;
}

std::expected<CaptureFile, std::string> CaptureFile::read_from(std::FILE* stream, const std::string& name) {
  CaptureFile file(stream, false, name);
  if (auto begun = file.begin(); !begun) return std::unexpected(std::move(begun.error()));
  return file;
}

std::size_t CaptureFile::read(std::span<std::uint8_t> into) { return std::fread(into.data(), 1, into.size(), stream_.get()); }

std::uint64_t CaptureFile::read_body(std::uint64_t count, std::vector<std::uint8_t>& kept) {
  std::array<std::uint8_t, 16384> piece;
  std::uint64_t done = 0;
  while (done < count) {
    const std::size_t got = read(std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), count - done))));
    if (got == 0) break;
    const std::size_t keep = std::min(got, kKept - std::min(kKept, kept.size()));
    kept.insert(kept.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(keep));
    done += got;
  }
  return done;
}

std::uint16_t CaptureFile::number16(const std::uint8_t* at) const {
  std::uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return swapped_ ? __builtin_bswap16(value) : value;
}

std::uint32_t CaptureFile::number32(const std::uint8_t* at) const {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return swapped_ ? swap32(value) : value;
}

std::expected<void, std::string> CaptureFile::begin() {
  std::array<std::uint8_t, kFileHeader> header{};
  errno = 0;
  const std::size_t got = read(std::span(header).first(8));
  if (got == 0) {
    return std::unexpected(std::ferror(stream_.get()) != 0 ? "cannot read " + name_ + ": " + std::strerror(errno) : name_ + " is empty, not a capture file");
  }
  std::uint32_t magic;
  std::memcpy(&magic, header.data(), sizeof magic);
  if (got == 8 && magic == kSection) {
    is_pcapng_ = true;
    std::uint32_t length;
    std::memcpy(&length, header.data() + 4, sizeof length);
    if (!begin_section(magic, length)) return std::unexpected(name_ + " begins as a pcapng file and has no whole section header");
    return {};
  }
  if (header[0] == 0x1f && header[1] == 0x8b) return std::unexpected(name_ + " is compressed; unpack it first: gunzip");
  if (magic == 0xfd2fb528) return std::unexpected(name_ + " is compressed; unpack it first: unzstd");
  swapped_ = magic == swap32(kMicroseconds) || magic == swap32(kNanoseconds) || magic == swap32(kPatched);
  if (swapped_) magic = swap32(magic);
  if (magic != kMicroseconds && magic != kNanoseconds && magic != kPatched) {
    return std::unexpected(name_ + " is neither a pcap nor a pcapng file; others can be converted: editcap -F pcapng OLD NEW");
  }
  if (read(std::span(header).subspan(8)) != kFileHeader - 8) return std::unexpected(name_ + " ends within the header of a pcap file");
  if (const std::uint16_t major = number16(header.data() + 4); major != 2) {
    return std::unexpected(name_ + " is a pcap file of version " + std::to_string(major) + "; version 2 is read. Convert it: editcap -F pcapng OLD NEW");
  }
  if (magic == kPatched) record_header_bytes_ = 24;
  // Above the type there may be the length of a frame check sequence.
  const auto link_type = static_cast<std::uint16_t>(number32(header.data() + 20));
  if (link_type != kEthernet) return std::unexpected(name_ + " has " + not_ethernet(link_type));
  return {};
}

std::optional<CaptureRecord> CaptureFile::next() {
  if (ended_) return std::nullopt;
  auto record = is_pcapng_ ? next_of_pcapng() : next_of_pcap();
  if (!record) ended_ = true;
  return record;
}

std::optional<CaptureRecord> CaptureFile::next_of_pcap() {
  std::array<std::uint8_t, 24> header{};
  const std::size_t got = read(std::span(header).first(record_header_bytes_));
  if (got == 0) return std::nullopt;
  CaptureRecord record;
  if (got != record_header_bytes_) {
    ended_ = true;
    record.unusable = "the file ends within its header";
    return record;
  }
  const std::uint32_t captured = number32(header.data() + 8);
  record.frame_bytes = number32(header.data() + 12);
  record.captured_bytes = read_body(captured, record.bytes);
  if (record.captured_bytes != captured) {
    ended_ = true;
    record.unusable = missing(record.captured_bytes, captured);
  }
  return record;
}

// The byte order is known only when the block's third word has been read.
bool CaptureFile::begin_section(std::uint32_t first_word, std::uint32_t second_word) {
  std::array<std::uint8_t, 4> order{};
  if (first_word != kSection || read(order) != order.size()) return false;
  std::uint32_t magic;
  std::memcpy(&magic, order.data(), sizeof magic);
  if (magic != kByteOrder && magic != swap32(kByteOrder)) return false;
  swapped_ = magic != kByteOrder;
  const std::uint32_t length = swapped_ ? swap32(second_word) : second_word;
  constexpr std::uint32_t kLeast = 28;
  if (length < kLeast || length % 4 != 0) return false;
  std::vector<std::uint8_t> rest;
  interfaces_.clear();
  return read_body(length - 12, rest) == length - 12;
}

std::optional<CaptureRecord> CaptureFile::next_of_pcapng() {
  while (true) {
    std::array<std::uint8_t, 8> header{};
    const std::size_t got = read(header);
    if (got == 0) return std::nullopt;
    if (got != header.size()) return trouble_ = "the file ends in the middle of a block's header", std::nullopt;
    std::uint32_t raw_type, raw_length;
    std::memcpy(&raw_type, header.data(), sizeof raw_type);
    std::memcpy(&raw_length, header.data() + 4, sizeof raw_length);
    if (raw_type == kSection) {
      if (!begin_section(raw_type, raw_length)) return trouble_ = "a section header is not whole; what is behind it was not read", std::nullopt;
      continue;
    }
    const std::uint32_t type = number32(header.data()), length = number32(header.data() + 4);
    if (length < 12 || length % 4 != 0) {
      trouble_ = "a block says that it is " + std::to_string(length) + " bytes long, which none can be; what is behind it was not read";
      return std::nullopt;
    }
    std::vector<std::uint8_t> body;
    const std::uint64_t body_bytes = length - 12;
    const std::uint64_t there = read_body(body_bytes, body);
    std::array<std::uint8_t, 4> again{};
    const bool whole = there == body_bytes && read(again) == again.size();
    if (!whole) ended_ = true;
    if (type == kInterface && body.size() >= 8 && interfaces_.size() < kMostInterfaces) {
      interfaces_.push_back({number16(body.data()), number32(body.data() + 4)});
    } else if (type == kObsoletePacket || type == kSimplePacket || type == kEnhancedPacket) {
      return packet_of_block(type, body, there, whole);
    }
    if (!whole) return trouble_ = "the file ends in the middle of a block", std::nullopt;
  }
}

// `body_bytes`: that the file has; `body` are the first of them.
std::optional<CaptureRecord> CaptureFile::packet_of_block(std::uint32_t type, std::span<const std::uint8_t> body, std::uint64_t body_bytes, bool whole) {
  CaptureRecord record;
  const std::uint32_t head = type == kSimplePacket ? 4 : 20;
  if (body.size() < head) {
    record.unusable = whole ? "its block is too short for a packet's header" : "the file ends within its header";
    return record;
  }
  std::uint32_t interface = 0, captured = 0;
  if (type == kSimplePacket) {
    captured = number32(body.data());
    record.frame_bytes = captured;
    if (!interfaces_.empty() && interfaces_[0].snaplen != 0) captured = std::min(captured, interfaces_[0].snaplen);
    captured = static_cast<std::uint32_t>(std::min<std::uint64_t>(captured, whole ? body_bytes - head : captured));
  } else {
    interface = type == kEnhancedPacket ? number32(body.data()) : number16(body.data());
    captured = number32(body.data() + 12);
    record.frame_bytes = number32(body.data() + 16);
  }
  record.captured_bytes = std::min<std::uint64_t>(captured, body_bytes - head);
  const std::span<const std::uint8_t> frame = body.subspan(head, static_cast<std::size_t>(std::min<std::uint64_t>(record.captured_bytes, body.size() - head)));
  record.bytes.assign(frame.begin(), frame.end());
  if (record.captured_bytes != captured) {
    record.unusable = whole ? "its block has " + std::to_string(record.captured_bytes) + " of the " + std::to_string(captured) + " bytes that it speaks of"
                            : missing(record.captured_bytes, captured);
  } else if (interface >= interfaces_.size()) {
    record.unusable = "it names interface " + std::to_string(interface) + ", which the file does not describe";
  } else if (interfaces_[interface].link_type != kEthernet) {
    record.unusable = "its interface has " + not_ethernet(interfaces_[interface].link_type);
  }
  return record;
}

}  // namespace trunkline::control
