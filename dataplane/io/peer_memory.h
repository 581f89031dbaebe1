// SPDX-License-Identifier: BSD-3-Clause
//
// Memory that a port's peer shows us and may take back. A vhost-user task hands over files, which DPDK maps and workers read and
// write; nothing keeps the task from truncating one, or from naming a size that the file never had. Whoever touches a page that
// is not there gets SIGBUS, of which the engine would die and with it every other task.
//
// Rules:
//   * From guard_peer_memory() on such a fault costs the peer its memory: the whole mapping that the address lies in is
//     replaced by private pages of zeros, and the access goes on. A ring of zeros is an empty one, or one whose index has jumped, both of which
//     DPDK's vhost library bears. Zeros are never shown to anybody but the peer's own port. Until the task comes again its port carries nothing.
//   * A whole mapping at a time: a peer can cause one fault for each region that it shows, not one for each page.
//   * Only mappings that a file stands behind, that are shared, and that were not there when guard_peer_memory() was
//     called: the engine's own memory (hugepages, connections) is all taken before. Everything else ends the engine, as it should.
//
// Threads: guard_peer_memory() once, on the control thread, before the first task's port is opened and before the workers run. The
// fault is handled on the thread that had it, a worker or one of DPDK's, with system calls alone; no such thread may block SIGBUS.
// memory_lost() may be read anywhere.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

namespace trunkline {

// The error is a sentence: /proc/self/maps could not be read, or the kernel refused the handler.
std::expected<void, std::string> guard_peer_memory();

// How many mappings have been replaced since the start, and where the last one began.
struct LostMemory {
  std::uint64_t mappings = 0;
  std::uint64_t address = 0, bytes = 0;
};
LostMemory memory_lost();

}  // namespace trunkline
