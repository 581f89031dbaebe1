// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "config/safe_file.h"

namespace trunkline {
namespace {

constexpr char kMagic[8] = {'T', 'R', 'U', 'N', 'K', 'L', 'N', 'E'};
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr long kHugetlbfsMagic = 0x958458f6;
// /dev/shm is as good a place as one of the engine's own.
constexpr config::FileRule kArenaFile{.folder = config::FolderRule::sticky};

std::size_t round_up(std::size_t bytes, std::size_t page) { return (bytes + page - 1) / page * page; }
std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

std::size_t page_of(int descriptor) {
  struct statfs info {};
  if (fstatfs(descriptor, &info) == 0 && info.f_type == kHugetlbfsMagic) return static_cast<std::size_t>(info.f_bsize);
  return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

// Maps the file with all its pages in place. On a file system of huge pages this fails if there are not enough.
void* map(int descriptor, std::size_t bytes, std::size_t page) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (page >= kHugePage ? MAP_POPULATE : 0), descriptor, 0);
  if (memory == MAP_FAILED || page >= kHugePage) return memory;
  madvise(memory, bytes, MADV_HUGEPAGE);  // shared memory may have huge pages too, if the host allows them
  if (madvise(memory, bytes, MADV_POPULATE_WRITE) == 0) return memory;
  const int why = errno;
  munmap(memory, bytes);
  errno = why;
  return MAP_FAILED;
}

}  // namespace

std::expected<Arena, std::string> Arena::create(std::size_t bytes, std::uint64_t layout, const std::string& path) {
  const std::string name = path.empty() ? "memory for connections" : path;
  std::string error;
  // An anonymous arena tries huge pages first; a file has what its file system gives.
  for (const bool huge : {true, false}) {
    if (!path.empty() && !huge) break;
    int descriptor;
    if (path.empty()) {
      descriptor = memfd_create("trunkline-connections", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
    } else {
      auto file = config::open_file(path, O_RDWR | O_CREAT, 0600, kArenaFile);
      if (!file) return std::unexpected("cannot make " + name + ": " + file.error().message);
      descriptor = file->release();
    }
    if (descriptor < 0) {
      error = because("cannot make " + name);
      continue;
    }
    const std::size_t page = page_of(descriptor);
    const std::size_t mapped = round_up(sizeof(Header) + bytes, page);
    // Shrunk first, so that nothing of an older one is left.
    void* memory = MAP_FAILED;
    if (ftruncate(descriptor, 0) == 0 && ftruncate(descriptor, static_cast<off_t>(mapped)) == 0) memory = map(descriptor, mapped, page);
    if (memory == MAP_FAILED) {
      error = because("no room for " + std::to_string(mapped >> 20) + " MB of " + name) +
              "; lower limits.connections, or give the host more memory (huge pages: sysctl vm.nr_hugepages)";
      close(descriptor);
      continue;
    }
    auto* header = new (memory) Header{};
    std::memcpy(header->magic, kMagic, sizeof kMagic);
    header->version = kVersion;
    header->header_bytes = sizeof(Header);
    header->layout = layout;
    header->bytes = bytes;
    return Arena(memory, mapped, page, descriptor);
  }
  return std::unexpected(error);
}

std::expected<Arena, std::string> Arena::take_over(int descriptor, const std::string& name, std::size_t bytes, std::uint64_t layout) {
  const auto refuse = [&](const std::string& why) {
    close(descriptor);
    return std::unexpected(name + " cannot be taken over: " + why);
  };
  struct stat info {};
  const std::size_t page = page_of(descriptor);
  const std::size_t mapped = round_up(sizeof(Header) + bytes, page);
  if (fstat(descriptor, &info) != 0) return refuse(std::strerror(errno));
  if (static_cast<std::size_t>(info.st_size) != mapped) {
    return refuse("it has " + std::to_string(info.st_size) + " bytes and " + std::to_string(mapped) + " are wanted; was limits.connections another?");
  }
  void* memory = map(descriptor, mapped, page);
  if (memory == MAP_FAILED) return refuse(std::strerror(errno));
  const auto* header = static_cast<const Header*>(memory);
  std::string why;
  if (std::memcmp(header->magic, kMagic, sizeof kMagic) != 0) {
    why = "it is not Trunkline's";
  } else if (header->version != kVersion || header->header_bytes != sizeof(Header)) {
    why = "its version is " + std::to_string(header->version) + ", this engine's is " + std::to_string(kVersion);
  } else if (header->layout != layout) {
    why = "its entries are laid out differently; another build of the engine made it";
  } else if (header->bytes != bytes) {
    why = "its contents have another size";
  }
  if (!why.empty()) {
    munmap(memory, mapped);
    return refuse(why);
  }
  return Arena(memory, mapped, page, descriptor);
}

std::expected<Arena, std::string> Arena::adopt(const std::string& path, std::size_t bytes, std::uint64_t layout) {
  auto file = config::open_file(path, O_RDWR, 0600, kArenaFile);
  if (!file) return std::unexpected(std::move(file.error().message));
  return take_over(file->release(), path, bytes, layout);
}

std::expected<Arena, std::string> Arena::adopt(int descriptor, std::size_t bytes, std::uint64_t layout) {
  const int own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return std::unexpected(because("not a descriptor"));
  return take_over(own, "descriptor " + std::to_string(descriptor), bytes, layout);
}

Arena::~Arena() {
  if (memory_ != nullptr) munmap(memory_, mapped_bytes_);
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace trunkline
