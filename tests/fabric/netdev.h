// SPDX-License-Identifier: BSD-3-Clause
//
// Interfaces: the packet socket on the trunk and the taps of the hosts, each set up inside its network namespace.
// A namespace is entered by a short-lived thread, so that the caller's own never changes; the descriptors outlive it.
// Everything throws std::runtime_error with one sentence.
#pragma once

#include <string>
#include <utility>

#include "config.h"

namespace trunkline::fabric {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }

 private:
  int fd_;
};

// Brings the existing interface up with the MTU, and opens a non-blocking packet socket that sees what arrives on it.
FileDescriptor open_trunk(const Config& config);

// Creates the host's tap with its MAC, MTU, addresses and default routes. It goes when the descriptor is closed.
FileDescriptor open_host(const HostConfig& host, unsigned mtu);

}  // namespace trunkline::fabric
