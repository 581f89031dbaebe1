// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/peer_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace trunkline {
namespace {

// What a line of /proc/self/maps says: "7f00-7f10 rw-s 00000000 00:01 1234  /memfd:x (deleted)".
struct Mapping {
  std::uint64_t begin = 0, end = 0, device = 0, file = 0;
  bool shared = false;

  bool is_of_file() const { return file != 0; }
  bool same_file(const Mapping& other) const { return device == other.device && file == other.file; }
};

// Reads the mappings one by one, with a buffer of its own and no allocation: it runs inside a signal handler as well.
class Maps {
 public:
  Maps() : file_(open("/proc/self/maps", O_RDONLY | O_CLOEXEC)) {}
  ~Maps() {
    if (file_ >= 0) close(file_);
  }
  Maps(const Maps&) = delete;
  Maps& operator=(const Maps&) = delete;

  bool is_open() const { return file_ >= 0; }

  bool next(Mapping& mapping) {
    mapping = {};
    if (!number(mapping.begin, 16, '-') || !number(mapping.end, 16, ' ')) return false;
    for (int i = 0; i < 4; ++i) mapping.shared = take() == 's';
    std::uint64_t offset = 0, minor = 0;
    if (take() != ' ' || !number(offset, 16, ' ') || !number(mapping.device, 16, ':') || !number(minor, 16, ' ')) return false;
    mapping.device = mapping.device << 32 | minor;
    // The file's number ends with the line where nothing has a name.
    int character = take();
    for (; character >= '0' && character <= '9'; character = take()) mapping.file = mapping.file * 10 + static_cast<std::uint64_t>(character - '0');
    while (character != '\n' && character != -1) character = take();
    return character == '\n';
  }

 private:
  int take() {
    if (at_ == filled_) {
      const ssize_t count = read(file_, buffer_, sizeof buffer_);
      if (count <= 0) return -1;
      at_ = 0, filled_ = static_cast<std::size_t>(count);
    }
    return static_cast<unsigned char>(buffer_[at_++]);
  }

  bool number(std::uint64_t& value, unsigned base, char end) {
    for (;;) {
      const int character = take();
      if (character == end) return true;
      const int digit = character >= '0' && character <= '9' ? character - '0' : character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
      if (digit < 0) return false;
      value = value * base + static_cast<std::uint64_t>(digit);
    }
  }

  int file_;
  std::size_t at_ = 0, filled_ = 0;
  char buffer_[1024];
};

// Written before the handler is set, and never again.
constexpr std::size_t kOwnFiles = 256;
std::array<Mapping, kOwnFiles> own_files;
std::size_t own_file_count = 0;

std::atomic<std::uint64_t> lost_mappings{0}, lost_address{0}, lost_bytes{0};

bool is_own(const Mapping& mapping) {
  return std::any_of(own_files.begin(), own_files.begin() + own_file_count, [&](const Mapping& own) { return own.same_file(mapping); });
}

bool replace_peers(std::uint64_t address) {
  Maps maps;
  if (!maps.is_open()) return false;
  for (Mapping mapping; maps.next(mapping);) {
    if (address < mapping.begin || address >= mapping.end) continue;
    // Two threads may fault on one mapping: the second finds it replaced, and only has to try again. Memory without a file has no
    // such faults of its own.
    if (!mapping.is_of_file()) return true;
    if (!mapping.shared || is_own(mapping)) return false;
    const std::uint64_t bytes = mapping.end - mapping.begin;
    if (mmap(reinterpret_cast<void*>(mapping.begin), bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0) == MAP_FAILED) {
      return false;
    }
    lost_address.store(mapping.begin);
    lost_bytes.store(bytes);
    lost_mappings.fetch_add(1);
    return true;
  }
  return false;
}

void on_bus_error(int number, siginfo_t* info, void*) {
  const int error = errno;
  if (info->si_code != BUS_ADRERR || !replace_peers(reinterpret_cast<std::uint64_t>(info->si_addr))) {
    // Returning repeats the access, which now ends the engine where it happened.
    signal(number, SIG_DFL);
  }
  errno = error;
}

}  // namespace

std::expected<void, std::string> guard_peer_memory() {
  Maps maps;
  if (!maps.is_open()) return std::unexpected(std::string("cannot read /proc/self/maps: ") + std::strerror(errno));
  own_file_count = 0;
  for (Mapping mapping; maps.next(mapping);) {
    if (!mapping.is_of_file() || !mapping.shared || is_own(mapping)) continue;
    if (own_file_count == kOwnFiles) return std::unexpected("the engine has memory in more than " + std::to_string(kOwnFiles) + " files");
    own_files[own_file_count++] = mapping;
  }
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigfillset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, nullptr) != 0) return std::unexpected(std::string("no handler for SIGBUS: ") + std::strerror(errno));
  return {};
}

LostMemory memory_lost() { return {lost_mappings.load(), lost_address.load(), lost_bytes.load()}; }

}  // namespace trunkline
