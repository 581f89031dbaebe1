// SPDX-License-Identifier: BSD-3-Clause
//
// A conversation with the kernel's routing tables (rtnetlink, over libmnl): a request is put together, sent, and the answer
// is handed on message by message. What the messages say is for others: interface_state.h reads them, task_interface.h asks for changes.
//
// A RouteSocket speaks of the network namespace of the thread that opened it, and is for that thread.
//
// Errors are values: what the kernel answered (KernelRefusal), or in words for the operator (InterfaceError).
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/net.h"
#include "control/netns.h"

namespace trunkline {

// The kernel's answer: an errno, and with luck a sentence of its own (extended acknowledgement).
struct KernelRefusal {
  int code = 0;
  std::string words;
};

// In words: what could not be done, and why.
std::unexpected<InterfaceError> refuse(std::string_view what, const KernelRefusal& refusal);
std::unexpected<InterfaceError> refuse(InterfaceError::Kind kind, std::string message);

// A request under construction. The largest one is a link with an alias of 255 bytes.
class NetlinkRequest {
 public:
  NetlinkRequest(int type, int flags) : header_(mnl_nlmsg_put_header(buffer_)) {
    header_->nlmsg_type = static_cast<std::uint16_t>(type);
    header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  }
  NetlinkRequest(const NetlinkRequest&) = delete;
  NetlinkRequest& operator=(const NetlinkRequest&) = delete;

  template <class Body>
  Body& body() {
    return *static_cast<Body*>(mnl_nlmsg_put_extra_header(header_, sizeof(Body)));
  }
  void put(int type, const void* data, std::size_t size) {
    mnl_attr_put(header_, static_cast<std::uint16_t>(type), size, data);
  }
  void put(int type, const std::string& text) { put(type, text.c_str(), text.size() + 1); }
  void put(int type, std::uint32_t number) { put(type, &number, sizeof number); }
  void put(int type, const IpAddress& address) {
    if (address.is_v4())
      put(type, &address.bytes[12], 4);
    else
      put(type, address.bytes.data(), address.bytes.size());
  }
  nlmsghdr* header() { return header_; }

 private:
  alignas(nlmsghdr) char buffer_[1024] = {};
  nlmsghdr* header_;
};

std::string text_of(const nlattr* attribute);

// Attributes are copied out: what the kernel sends is not always of the size one thinks it is.
template <class Number>
Number number_of(const nlattr* attribute) {
  Number number{};
  std::memcpy(&number, mnl_attr_get_payload(attribute),
              std::min<std::size_t>(sizeof number, mnl_attr_get_payload_len(attribute)));
  return number;
}

// nullopt: it is none, by its size.
std::optional<IpAddress> address_of(const nlattr* attribute);

// libmnl's own loops are macros for C.
template <class Each>
void each_attribute(const void* start, std::size_t size, Each each) {
  const auto* attribute = static_cast<const nlattr*>(start);
  for (int left = static_cast<int>(size); mnl_attr_ok(attribute, left); attribute = mnl_attr_next(attribute)) {
    each(attribute);
    left -= MNL_ALIGN(attribute->nla_len);
  }
}

// The attributes of a message, behind a body of `offset` bytes.
template <class Each>
void each_attribute(const nlmsghdr* message, std::size_t offset, Each each) {
  const std::size_t payload = mnl_nlmsg_get_payload_len(message);
  offset = MNL_ALIGN(offset);
  if (offset < payload) each_attribute(mnl_nlmsg_get_payload_offset(message, offset), payload - offset, each);
}

template <class Each>
void each_attribute(const nlattr* nest, Each each) {
  each_attribute(mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest), each);
}

// A conversation with the kernel's routing tables, in the namespace of the thread that opened it.
class RouteSocket {
 public:
  static std::expected<RouteSocket, InterfaceError> open();

  std::expected<void, KernelRefusal> send(NetlinkRequest& request) {
    request.header()->nlmsg_flags |= NLM_F_ACK;
    return talk(request, [](const nlmsghdr*) {});
  }

  // Calls `each` for every message of the answer. A dump that the kernel marks as torn is taken again from the start,
  // after `restart`.
  template <class Restart, class Each>
  std::expected<void, KernelRefusal> dump(NetlinkRequest& request, Restart restart, Each each) {
    std::expected<void, KernelRefusal> result;
    for (int attempt = 0; attempt < 8; ++attempt) {
      restart();
      result = talk(request, each);
      if (result || result.error().code != EINTR) break;
    }
    return result;
  }

  template <class Each>
  std::expected<void, KernelRefusal> talk(NetlinkRequest& request, Each each) {
    nlmsghdr* header = request.header();
    header->nlmsg_seq = ++sequence_;
    if (mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0) return std::unexpected(KernelRefusal{errno, {}});
    bool torn = false;
    for (;;) {
      const ssize_t received = mnl_socket_recvfrom(socket_.get(), buffer_.data(), buffer_.size());
      if (received < 0 && errno == EINTR) continue;
      if (received < 0) return std::unexpected(KernelRefusal{errno, {}});
      int left = static_cast<int>(received);
      const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
      for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        if (message->nlmsg_seq != sequence_) continue;
        torn |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (message->nlmsg_type == NLMSG_ERROR) return outcome(message);
        if (message->nlmsg_type == NLMSG_DONE) {
          if (torn) return std::unexpected(KernelRefusal{EINTR, "the tables changed while they were read"});
          return {};
        }
        if (message->nlmsg_type >= NLMSG_MIN_TYPE) each(message);
      }
    }
  }

 private:
  struct Close {
    void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
  };

  static std::expected<void, KernelRefusal> outcome(const nlmsghdr* message);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::vector<char> buffer_ = std::vector<char>(65536);
  unsigned sequence_ = 0;
};

}  // namespace trunkline
