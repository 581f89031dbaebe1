// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/tap_queue.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <rte_cycles.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>


namespace trunkline {

// What a thread knows of the queues that it polls. Its epoll descriptor is never closed: whoever polls does so as long as
// the process lives, and the number tells one thread from another.
struct TapPoller {
  // Microseconds. Between two bursts of the trunk, asking the kernel about the taps is the dearest thing that there is.
  static constexpr std::uint64_t kLookEvery = 5;
  static constexpr int kEvents = 64;  // the rest comes next time

  int epoll = -1;
  std::uint64_t round = 1;
  std::uint64_t looked_at = 0;  // TSC
  std::uint64_t interval = 0;

  void begin() {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    interval = kLookEvery * std::max<std::uint64_t>(1, rte_get_tsc_hz() / 1'000'000);
  }
  void next_round() {
    ++round;
    const std::uint64_t now = rte_rdtsc();
    if (now - looked_at < interval) return;
    epoll_event events[kEvents];
    const int count = epoll_wait(epoll, events, kEvents, 0);
    for (int i = 0; i < count; ++i) static_cast<TapQueue*>(events[i].data.ptr)->ready_.store(true, std::memory_order_relaxed);
    looked_at = now;
  }
};

namespace {

constinit thread_local TapPoller poller;
TapQueue* free_queues = nullptr;

int errno_of(int result) { return result < 0 ? -errno : 0; }

}  // namespace

TapQueue* TapQueue::take() {
  TapQueue* queue = free_queues;
  if (queue == nullptr) return new TapQueue;
  free_queues = queue->next_free_;
  queue->next_free_ = nullptr;
  return queue;
}

void TapQueue::give_back(TapQueue* queue) {
  queue->close();
  for (Counter* counter : {&queue->rx_packets, &queue->rx_bytes, &queue->rx_refused, &queue->rx_no_buffer, &queue->tx_packets,
                           &queue->tx_bytes, &queue->tx_refused}) {
    counter->add(-counter->read());
  }
  queue->next_free_ = free_queues;
  free_queues = queue;
}

// --- control ---------------------------------------------------------------------------------------------------------

int TapQueue::open(const char* interface, std::uint16_t port) {
  // Attaching would make the interface where there is none: one that goes with this descriptor.
  if (if_nametoindex(interface) == 0) return -ENODEV;
  fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) return -errno;
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  const int size = sizeof header_;
  if (ioctl(fd_, TUNSETIFF, &request) != 0 || ioctl(fd_, TUNSETVNETHDRSZ, &size) != 0) {
    const int result = -errno;
    close();
    return result;
  }
  port_ = port;
  epoll_ = -1;
  ready_ = false;
  gone_ = false;
  return 0;
}

void TapQueue::close() {
  stop();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool TapQueue::is_up() const {
  // The kernel calls a tap writable when its interface is up; that can be asked from any namespace.
  pollfd state{fd_, POLLOUT, 0};
  return !gone_ && poll(&state, 1, 0) == 1 && (state.revents & POLLOUT) != 0;
}

int TapQueue::set_offloads(bool offloads) {
  const unsigned long wanted = offloads ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0;
  return errno_of(ioctl(fd_, TUNSETOFFLOAD, wanted));
}

int TapQueue::read_mac(std::uint8_t (&mac)[6]) const {
  ifreq request{};
  if (ioctl(fd_, SIOCGIFHWADDR, &request) != 0) return -errno;
  std::memcpy(mac, request.ifr_hwaddr.sa_data, sizeof mac);
  return 0;
}

void TapQueue::arm(std::uint16_t index, rte_mbuf* buffer) {
  // Only the first buffer of a chain needs room before the frame.
  buffer->data_off = index == 0 ? RTE_PKTMBUF_HEADROOM : 0;
  ready_buffers_[index] = buffer;
  into_[1 + index] = {rte_pktmbuf_mtod(buffer, void*), std::size_t{buffer->buf_len} - buffer->data_off};
}

int TapQueue::start(rte_mempool& pool, std::uint32_t largest, bool chained, bool offloads) {
  const std::uint32_t room = rte_pktmbuf_data_room_size(&pool);
  if (room <= RTE_PKTMBUF_HEADROOM) return -EINVAL;
  const std::uint32_t first = room - RTE_PKTMBUF_HEADROOM;
  // One byte more than the largest frame: what fills them all may have been cut off.
  const std::uint32_t rest = largest + 1 > first ? largest + 1 - first : 0;
  const std::uint32_t count = 1 + (rest + room - 1) / room;
  if (count > kMaxSegments || (count > 1 && !chained)) return -EINVAL;
  rte_mbuf* fresh[kMaxSegments];
  if (rte_pktmbuf_alloc_bulk(&pool, fresh, count) != 0) return -ENOMEM;
  into_[0] = {&header_, sizeof header_};
  for (std::uint16_t i = 0; i < count; ++i) arm(i, fresh[i]);
  pool_ = &pool;
  capacity_ = first + (count - 1) * room;
  buffers_ = static_cast<std::uint16_t>(count);
  offloads_ = offloads;
  return 0;
}

void TapQueue::stop() {
  for (std::uint16_t i = 0; i < buffers_; ++i) rte_pktmbuf_free_seg(ready_buffers_[i]);
  buffers_ = 0;
}

// --- receiving -------------------------------------------------------------------------------------------------------

void TapQueue::join(int epoll) {
  if (epoll_ >= 0) epoll_ctl(epoll_, EPOLL_CTL_DEL, fd_, nullptr);
  // Edge by edge: named once for what has come since the last time, and at once for what lies there already.
  epoll_event event{EPOLLIN | EPOLLET, {}};
  event.data.ptr = this;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd_, &event);
  epoll_ = epoll;
}

bool TapQueue::is_ready() {
  TapPoller& mine = poller;
  if (epoll_ != mine.epoll || epoll_ < 0) [[unlikely]] {
    if (mine.epoll < 0) mine.begin();
    join(mine.epoll);
  }
  if (seen_round_ == mine.round) mine.next_round();
  seen_round_ = mine.round;
  return ready_.load(std::memory_order_relaxed);
}

// The descriptor of a tap that was removed is readable for ever, and would keep a worker awake that waits for it. A silent
// one takes its place.
void TapQueue::lose_interface() {
  gone_ = true;
  const int silent = epoll_create1(EPOLL_CLOEXEC);
  if (silent < 0) return;
  dup3(silent, fd_, O_CLOEXEC);
  ::close(silent);
}

// The frame that was just read, as a chain; new buffers take the place of its own. nullptr: it is not to be had.
rte_mbuf* TapQueue::take_frame(std::size_t size) {
  if (size <= sizeof header_ || size - sizeof header_ >= capacity_) {
    rx_refused.add(1);
    return nullptr;
  }
  auto left = static_cast<std::uint32_t>(size - sizeof header_);
  rte_mbuf* const packet = ready_buffers_[0];
  packet->pkt_len = left;
  std::uint16_t count = 0;
  for (; left != 0; ++count) {
    rte_mbuf* segment = ready_buffers_[count];
    segment->data_len = static_cast<std::uint16_t>(std::min<std::size_t>(left, into_[1 + count].iov_len));
    left -= segment->data_len;
  }
  rte_mbuf* fresh[kMaxSegments];
  if (rte_pktmbuf_alloc_bulk(pool_, fresh, count) != 0) {
    rx_no_buffer.add(1);
    return nullptr;
  }
  packet->nb_segs = count;
  packet->port = port_;
  for (std::uint16_t i = 0; i < count; ++i) {
    ready_buffers_[i]->next = i + 1 < count ? ready_buffers_[i + 1] : nullptr;
    arm(i, fresh[i]);
  }
  if (!read_vnet_header(header_, offloads_, *packet)) [[unlikely]] {
    rx_refused.add(1);
    rte_pktmbuf_free(packet);
    return nullptr;
  }
  return packet;
}

std::uint16_t TapQueue::receive_burst(rte_mbuf** packets, std::uint16_t count) {
  if (!is_ready()) return 0;
  std::uint16_t received = 0;
  std::uint64_t bytes = 0;
  // Frames that are refused count as well: a task that sends nothing else has no more of the worker than others.
  for (std::uint16_t i = 0; i < count; ++i) {
    const ssize_t size = readv(fd_, into_, 1 + buffers_);
    if (size < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        ready_.store(false, std::memory_order_relaxed);
        break;
      }
      if (errno == EBADFD) {
        ready_.store(false, std::memory_order_relaxed);
        lose_interface();
        break;
      }
      rx_refused.add(1);  // the kernel had no header for it
      continue;
    }
    if (rte_mbuf* packet = take_frame(static_cast<std::size_t>(size))) {
      bytes += packet->pkt_len;
      packets[received++] = packet;
    }
  }
  rx_packets.add(received);
  rx_bytes.add(bytes);
  return received;
}

// --- sending ---------------------------------------------------------------------------------------------------------

std::uint16_t TapQueue::send_burst(rte_mbuf** packets, std::uint16_t count) {
  if (gone_.load(std::memory_order_relaxed)) return 0;
  std::uint16_t taken = 0;
  std::uint64_t sent = 0, bytes = 0;
  for (; taken < count; ++taken) {
    const rte_mbuf& packet = *packets[taken];
    VnetHeader header = offloads_ ? vnet_header_of(packet) : VnetHeader{};
    iovec from[1 + kMaxSegments];
    from[0] = {&header, sizeof header};
    int parts = 1;
    for (const rte_mbuf* segment = &packet; segment != nullptr && parts <= kMaxSegments; segment = segment->next) {
      from[parts++] = {rte_pktmbuf_mtod(segment, void*), segment->data_len};
    }
    if (packet.nb_segs > kMaxSegments) {
      tx_refused.add(1);
    } else if (writev(fd_, from, parts) >= 0) {
      ++sent;
      bytes += packet.pkt_len;
    } else if (errno == EINVAL || errno == E2BIG || errno == EMSGSIZE || errno == ERANGE) {
      tx_refused.add(1);  // this one, not those behind it
    } else {
      break;  // the interface is down, or the kernel has no memory
    }
  }
  rte_pktmbuf_free_bulk(packets, taken);
  tx_packets.add(sent);
  tx_bytes.add(bytes);
  return taken;
}

std::uint16_t TapQueue::receive(void* queue, rte_mbuf** packets, std::uint16_t count) {
  return static_cast<TapQueue*>(queue)->receive_burst(packets, count);
}

std::uint16_t TapQueue::send(void* queue, rte_mbuf** packets, std::uint16_t count) {
  return static_cast<TapQueue*>(queue)->send_burst(packets, count);
}

}  // namespace trunkline
