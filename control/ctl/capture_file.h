// SPDX-License-Identifier: BSD-3-Clause
//
// Reads the records of a capture file, of pcap (both byte orders, micro- and nanoseconds) and of pcapng (sections of either byte order,
// enhanced, simple and obsolete packet blocks), one after the other to the file's end.
//
// The file is a stranger's. A length in it is believed as far as there are bytes; no memory is taken for what is not there, and
// at most kKept bytes a record. A record that holds no Ethernet frame says why, and the ones behind it are still read. libpcap is not used
// here because it gives a file up at the first such record, clips frames to the file header's snaplen, and refuses a pcapng file whose
// interfaces differ.
//
// Only a length that leads past the file's end, or a pcapng block whose length is impossible, ends the reading early; trouble() says so.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace trunkline::control {

struct CaptureRecord {
  std::vector<std::uint8_t> bytes;   // what the file has of the frame, kKept at most
  std::uint64_t captured_bytes = 0;  // how many the file has
  std::uint64_t frame_bytes = 0;     // how many the frame had, as the file says
  std::string unusable;              // why there is no frame to look at; empty: there is one
};

class CaptureFile {
 public:
  static constexpr std::size_t kKept = 65536;

  // "-" is standard input. An error is a sentence that names the file.
  static std::expected<CaptureFile, std::string> open(const std::string& path);
  // For tests: reads what `stream` has.
  static std::expected<CaptureFile, std::string> read_from(std::FILE* stream, const std::string& name);

  // nullopt: there are no more.
  std::optional<CaptureRecord> next();
  // How the file ended, if not after a whole record: "the file ends in the middle of ...".
  const std::string& trouble() const { return trouble_; }

 private:
  struct Close {
    bool owned = true;
    void operator()(std::FILE* file) const {
      if (owned) std::fclose(file);
    }
  };
  CaptureFile(std::FILE* stream, bool owned, std::string name) : stream_(stream, Close{owned}), name_(std::move(name)) {}

  std::expected<void, std::string> begin();
  std::optional<CaptureRecord> next_of_pcap();
  std::optional<CaptureRecord> next_of_pcapng();
  std::optional<CaptureRecord> packet_of_block(std::uint32_t type, std::span<const std::uint8_t> body, std::uint64_t body_bytes, bool whole);
  bool begin_section(std::uint32_t first_word, std::uint32_t second_word);

  std::size_t read(std::span<std::uint8_t> into);
  // Reads `count` bytes and keeps the first kKept of them. Answers how many there were.
  std::uint64_t read_body(std::uint64_t count, std::vector<std::uint8_t>& kept);
  std::uint16_t number16(const std::uint8_t* at) const;
  std::uint32_t number32(const std::uint8_t* at) const;

  std::unique_ptr<std::FILE, Close> stream_;
  std::string name_;
  std::string trouble_;
  bool is_pcapng_ = false, swapped_ = false, ended_ = false;
  std::uint32_t record_header_bytes_ = 16;
  struct Interface {
    std::uint16_t link_type = 0;
    std::uint32_t snaplen = 0;
  };
  std::vector<Interface> interfaces_;  // of the pcapng section
};

}  // namespace trunkline::control
