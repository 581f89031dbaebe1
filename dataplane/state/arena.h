// SPDX-License-Identifier: BSD-3-Clause
//
// Memory that can outlive the process which filled it: one mapping of a memfd or of a file on hugetlbfs or tmpfs, with a
// header that says what lies in it. There are no pointers inside, so it may be mapped anywhere. A mapping is
// taken over only if the header's magic, version, layout hash and size are the expected ones; otherwise the answer is a
// sentence that says which is not, and nothing was touched.
//
// Memory is given by the kernel at creation, all of it: no page fault is left for a worker. Huge pages (2 MB) are taken
// where they are free, ordinary ones otherwise; page_bytes() tells which.
//
// Not thread safe; made at start and moved to its owner. Errors are sentences for the operator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace trunkline {

class Arena {
 public:
  // The first line of every arena.
  struct alignas(64) Header {
    char magic[8];
    std::uint32_t version;
    std::uint32_t header_bytes;
    std::uint64_t layout;  // a hash of the types in it: their sizes and the places of their members
    std::uint64_t bytes;   // of the contents, without the header
  };
  static constexpr std::uint32_t kVersion = 1;

  // Zeroed memory. `path`: empty is a memfd, which lives as long as somebody holds its descriptor; otherwise a file that
  // is made, or made anew if it is there.
  static std::expected<Arena, std::string> create(std::size_t bytes, std::uint64_t layout, const std::string& path = {});
  // What create() left, by path or by a descriptor that another process handed on (it is duplicated).
  static std::expected<Arena, std::string> adopt(const std::string& path, std::size_t bytes, std::uint64_t layout);
  static std::expected<Arena, std::string> adopt(int descriptor, std::size_t bytes, std::uint64_t layout);

  Arena(Arena&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        mapped_bytes_(other.mapped_bytes_),
        page_bytes_(other.page_bytes_),
        descriptor_(std::exchange(other.descriptor_, -1)) {}
  Arena& operator=(Arena&&) = delete;
  ~Arena();

  std::byte* contents() const { return static_cast<std::byte*>(memory_) + sizeof(Header); }
  std::size_t memory_bytes() const { return mapped_bytes_; }
  std::size_t page_bytes() const { return page_bytes_; }
  int descriptor() const { return descriptor_; }

 private:
  Arena(void* memory, std::size_t mapped_bytes, std::size_t page_bytes, int descriptor)
      : memory_(memory), mapped_bytes_(mapped_bytes), page_bytes_(page_bytes), descriptor_(descriptor) {}
  static std::expected<Arena, std::string> take_over(int descriptor, const std::string& name, std::size_t bytes, std::uint64_t layout);

  void* memory_;
  std::size_t mapped_bytes_;
  std::size_t page_bytes_;
  int descriptor_;
};

}  // namespace trunkline
