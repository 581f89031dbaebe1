// SPDX-License-Identifier: BSD-3-Clause
#include "io.h"

#include <linux/if_packet.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace trunkline::fabric {
namespace {

constexpr std::uint32_t kSignals = 0xffffffff;  // beside ports in epoll's user data
constexpr int kBatchesPerWake = 8;              // then the other descriptors have their turn

FileDescriptor open_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  FileDescriptor result(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (result.get() < 0) throw std::runtime_error("cannot open a signal descriptor");
  return result;
}

bool would_block() { return errno == EAGAIN || errno == EINTR; }

// The tag that the kernel has taken off, as (TPID, TCI); TPID 0 when there was none.
std::pair<std::uint16_t, std::uint16_t> stripped_tag(msghdr& message) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_PACKET || control->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata aux;
    std::memcpy(&aux, CMSG_DATA(control), sizeof aux);
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) return {0, 0};
    const bool has_tpid = (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    return {has_tpid ? aux.tp_vlan_tpid : std::uint16_t{0x8100}, aux.tp_vlan_tci};
  }
  return {0, 0};
}

}  // namespace

Loop::Loop(Config config, std::string path, bool verbose)
    : config_(std::move(config)),
      path_(std::move(path)),
      verbose_(verbose),
      fabric_(config_.router_mac, config_.mtu, config_.inhabitants),
      signals_(open_signals()),
      trunk_(open_trunk(config_)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      slot_size_((kTag + kEthernetHeader + kTag + config_.mtu + kMinimumBuffer) / 64 * 64 + 64),
      storage_(slot_size_ * kBatch) {
  for (const HostConfig& host : config_.hosts) hosts_.push_back(open_host(host, config_.mtu));
  const auto watch = [this](const FileDescriptor& descriptor, std::uint32_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = tag;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor.get(), &event) != 0) {
      throw std::runtime_error("cannot watch a descriptor");
    }
  };
  watch(signals_, kSignals);
  watch(trunk_, kTrunk);
  for (std::size_t i = 0; i < hosts_.size(); ++i) watch(hosts_[i], static_cast<std::uint32_t>(i + 1));
}

void Loop::run() {
  std::array<epoll_event, 32> events;
  for (;;) {
    const int ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (ready < 0 && errno != EINTR) throw std::runtime_error("epoll_wait failed");
    for (int i = 0; i < ready; ++i) {
      const std::uint32_t source = events[static_cast<std::size_t>(i)].data.u32;
      if (source == kSignals) {
        if (!obey_signals()) return;
      } else if (source == kTrunk) {
        receive_from_trunk();
      } else {
        receive_from_host(static_cast<Port>(source));
      }
    }
  }
}

bool Loop::obey_signals() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM) return false;
    if (info.ssi_signo == SIGUSR1) std::fprintf(stderr, "%s\n", counters().c_str());
    if (info.ssi_signo == SIGHUP) reload();
  }
  return true;
}

void Loop::reload() {
  try {
    Config next = read_config(path_);
    if (next.fixed != config_.fixed) throw ConfigError("only /enis may change while the program runs");
    config_ = std::move(next);
    fabric_.replace(config_.inhabitants);
    std::fprintf(stderr, "reloaded %s\n", path_.c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s; the old configuration stays\n", path_.c_str(), error.what());
  }
}

void Loop::receive_from_trunk() {
  struct alignas(cmsghdr) Control {
    std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
  };
  std::array<Control, kBatch> controls;
  std::array<iovec, kBatch> vectors;
  std::array<mmsghdr, kBatch> messages;

  for (int batch = 0; batch < kBatchesPerWake; ++batch) {
    for (std::size_t i = 0; i < kBatch; ++i) {
      vectors[i] = {slot(i) + kTag, slot_size_ - kTag};
      messages[i] = {};
      messages[i].msg_hdr.msg_iov = &vectors[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = controls[i].bytes.data();
      messages[i].msg_hdr.msg_controllen = controls[i].bytes.size();
    }
    // An error other than "nothing there" means that the interface went down; the socket works on when it is back.
    const int received = recvmmsg(trunk_.get(), messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (received <= 0) return;
    for (std::size_t i = 0; i < static_cast<std::size_t>(received); ++i) {
      ++trunk_rx_;
      std::size_t length = messages[i].msg_len;
      auto [tpid, tci] = stripped_tag(messages[i].msg_hdr);
      std::uint8_t* const frame = slot(i) + kTag;
      if ((messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0) {
        fabric_.count(Verdict::kTooBig);
        continue;
      }
      if (tpid == 0 && length >= kEthernetHeader + kTag && frame[12] == 0x81 && frame[13] == 0) {
        tpid = 0x8100;
        tci = static_cast<std::uint16_t>(frame[14] << 8 | frame[15]);
        std::memmove(frame + 12, frame + 12 + kTag, length - 12 - kTag);
        length -= kTag;
      }
      if (tpid != 0 && tpid != 0x8100) {
        fabric_.count(Verdict::kMalformed);
        continue;
      }
      process(i, length, kTrunk, static_cast<std::uint16_t>(tci & 0xfff));
    }
    flush_trunk();
    if (static_cast<std::size_t>(received) < kBatch) return;
  }
}

void Loop::receive_from_host(Port port) {
  const int fd = hosts_[port - 1U].get();
  for (std::size_t i = 0; i < kBatch; ++i) {
    const ssize_t length = read(fd, slot(i) + kTag, slot_size_ - kTag);
    if (length < 0) {
      if (!would_block()) {
        // The tap is gone, most likely together with its namespace.
        std::fprintf(stderr, "host %s: %s\n", config_.hosts[port - 1U].ifname.c_str(), std::strerror(errno));
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
      }
      break;
    }
    ++hosts_rx_;
    process(i, static_cast<std::size_t>(length), port, 0);
  }
  flush_trunk();
}

void Loop::process(std::size_t index, std::size_t length, Port port, std::uint16_t vlan) {
  std::uint8_t* const start = slot(index) + kTag;
  Frame frame{{start, slot_size_ - kTag}, length, port, vlan};
  const Verdict verdict = fabric_.handle(frame);
  if (verbose_ && length >= kEthernetHeader) {
    std::fprintf(stderr, "%.*s: from port %u vlan %u, %zu bytes, ether type %02x%02x\n",
                 static_cast<int>(name_of(verdict).size()), name_of(verdict).data(), port, vlan, length, start[12],
                 start[13]);
  }
  if (!leaves_a_frame(verdict)) return;

  if (frame.port != kTrunk) {
    const bool written = write(hosts_[frame.port - 1U].get(), start, frame.length) >= 0;
    ++(written ? hosts_tx_ : tx_dropped_);
    return;
  }
  std::uint8_t* head = start;
  if (frame.vlan != 0) {
    head -= kTag;
    std::memmove(head, start, 12);
    const std::uint8_t tag[kTag] = {0x81, 0, static_cast<std::uint8_t>(frame.vlan >> 8),
                                    static_cast<std::uint8_t>(frame.vlan)};
    std::memcpy(head + 12, tag, kTag);
    frame.length += kTag;
  }
  to_trunk_[pending_++] = {head, frame.length};
}

void Loop::flush_trunk() {
  std::array<mmsghdr, kBatch> messages;
  for (std::size_t i = 0; i < pending_; ++i) {
    messages[i] = {};
    messages[i].msg_hdr.msg_iov = &to_trunk_[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  for (std::size_t done = 0; done < pending_;) {
    const int sent = sendmmsg(trunk_.get(), &messages[done], static_cast<unsigned>(pending_ - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
      trunk_tx_ += static_cast<std::uint64_t>(sent);
    } else {
      ++done;  // the first of them is what failed
      ++tx_dropped_;
    }
  }
  pending_ = 0;
}

std::string Loop::counters() {
  tpacket_stats statistics{};  // reading them sets them to zero
  socklen_t size = sizeof statistics;
  if (getsockopt(trunk_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0) {
    rx_dropped_ += statistics.tp_drops;
  }
  nlohmann::ordered_json out;
  out["trunk_rx"] = trunk_rx_;
  out["trunk_tx"] = trunk_tx_;
  out["hosts_rx"] = hosts_rx_;
  out["hosts_tx"] = hosts_tx_;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Verdict::kCount); ++i) {
    out[std::string(name_of(static_cast<Verdict>(i)))] = fabric_.counted(static_cast<Verdict>(i));
  }
  out["rx_dropped"] = rx_dropped_;
  out["tx_dropped"] = tx_dropped_;
  return out.dump();
}

}  // namespace trunkline::fabric
