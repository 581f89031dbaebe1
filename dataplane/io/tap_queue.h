// SPDX-License-Identifier: BSD-3-Clause
//
// One queue of a tap: a descriptor of /dev/net/tun, from which frames are read into chains of mbufs and to which they are
// written, each behind a virtio-net header (vnet_header.h). A frame is one system call, whether it has 60 bytes or 64 KB.
//
// Quiet queues cost no system call. A thread that polls queues has one epoll descriptor for all of them, and asks it once a
// round, that is when it comes to a queue for the second time, and not within kLookEvery microseconds of the last time. Queues
// that it did not name are not read.
//
// Threads: open(), start(), stop(), close() and descriptor() belong to the control thread, or to one that it waits for while that
// stands in the task's namespace; nobody polls the queue meanwhile. receive() and send() belong to the worker that polls the
// queue; it may be another one later. Counters have one writer, and readers everywhere.
//
// Errors are negative errno values.
#pragma once

#include <rte_mbuf.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>

#include "dataplane/io/vnet_header.h"
#include "dataplane/state/counters.h"

namespace trunkline {

class alignas(64) TapQueue {
  // First, on one line: all that the poll of a quiet queue looks at.
  std::uint64_t seen_round_ = 0;    // of the thread that polls this queue
  int epoll_ = -1;                  // of that thread
  int fd_ = -1;
  std::atomic<bool> ready_{false};  // also written by the thread that polled it before
  std::atomic<bool> gone_{false};   // written by the worker, read by control

 public:
  // Queues are used again and never freed: a thread that polled one before may still be told about it.
  static TapQueue* take();
  static void give_back(TapQueue* queue);

  // Attaches to the tap of that name in the calling thread's namespace, which must exist, be multi-queue and have vnet headers.
  int open(const char* interface, std::uint16_t port);
  void close();
  bool is_open() const { return fd_ >= 0; }
  // Readable when a frame has come. Keeps its number until close(), also when the interface is gone.
  int descriptor() const { return fd_; }
  // The interface is there and up.
  bool is_up() const;
  // Checksums and segments of TCP may be left to the other side, each way. Holds for all queues of the tap.
  int set_offloads(bool offloads);
  int read_mac(std::uint8_t (&mac)[6]) const;

  // Receives from then on, frames of up to `largest` bytes (chained or not). -EINVAL: more than a buffer holds, and not chained.
  int start(rte_mempool& pool, std::uint32_t largest, bool chained, bool offloads);
  void stop();

  static std::uint16_t receive(void* queue, rte_mbuf** packets, std::uint16_t count);
  static std::uint16_t send(void* queue, rte_mbuf** packets, std::uint16_t count);

  Counter rx_packets, rx_bytes;
  Counter rx_refused;    // by their header, or larger than was to be expected
  Counter rx_no_buffer;  // the pool was empty
  Counter tx_packets, tx_bytes;
  Counter tx_refused;  // by the kernel, for what they are

 private:
  // 64 KB in buffers of 2176 bytes and less; a chain from elsewhere may be longer.
  static constexpr std::uint16_t kMaxSegments = 160;

  std::uint16_t receive_burst(rte_mbuf** packets, std::uint16_t count);
  std::uint16_t send_burst(rte_mbuf** packets, std::uint16_t count);
  bool is_ready();
  void join(int epoll);
  void arm(std::uint16_t index, rte_mbuf* buffer);
  rte_mbuf* take_frame(std::size_t size);
  void lose_interface();
  friend struct TapPoller;

  bool offloads_ = false;
  std::uint16_t port_ = 0;
  std::uint16_t buffers_ = 0;       // of a chain that is ready for the next frame
  std::uint32_t capacity_ = 0;      // bytes in them
  rte_mempool* pool_ = nullptr;
  TapQueue* next_free_ = nullptr;
  VnetHeader header_{};
  rte_mbuf* ready_buffers_[kMaxSegments] = {};
  iovec into_[1 + kMaxSegments] = {};  // the header, then each buffer
};

}  // namespace trunkline
