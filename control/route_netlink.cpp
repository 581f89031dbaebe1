// SPDX-License-Identifier: BSD-3-Clause
#include "control/route_netlink.h"

#include <system_error>
#include <utility>

namespace trunkline {

std::unexpected<InterfaceError> refuse(InterfaceError::Kind kind, std::string message) {
  return std::unexpected(InterfaceError{kind, std::move(message)});
}

std::unexpected<InterfaceError> refuse(std::string_view what, const KernelRefusal& refusal) {
  std::string message = "cannot " + std::string(what) + ": " + std::generic_category().message(refusal.code);
  if (!refusal.words.empty()) message += " (" + refusal.words + ")";
  if (refusal.code != EPERM && refusal.code != EACCES) return refuse(InterfaceError::Kind::kernel, std::move(message));
  return refuse(InterfaceError::Kind::permission, message + "; run as root or give CAP_NET_ADMIN");
}

std::string text_of(const nlattr* attribute) {
  const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
  return {text, ::strnlen(text, mnl_attr_get_payload_len(attribute))};
}

std::optional<IpAddress> address_of(const nlattr* attribute) {
  switch (mnl_attr_get_payload_len(attribute)) {
    case 4: return IpAddress::from_v4_bytes(mnl_attr_get_payload(attribute));
    case 16: return IpAddress::from_v6_bytes(mnl_attr_get_payload(attribute));
    default: return std::nullopt;
  }
}

std::expected<RouteSocket, InterfaceError> RouteSocket::open() {
  RouteSocket opened;
  opened.socket_.reset(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
  if (!opened.socket_ || mnl_socket_bind(opened.socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return refuse("open a netlink socket", KernelRefusal{errno, {}});
  int on = 1;  // Only for better words; a kernel without it says errno alone.
  (void)mnl_socket_setsockopt(opened.socket_.get(), NETLINK_EXT_ACK, &on, sizeof on);
  return opened;
}

std::expected<void, KernelRefusal> RouteSocket::outcome(const nlmsghdr* message) {
  const std::size_t payload = mnl_nlmsg_get_payload_len(message);
  const auto* error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(message));
  if (payload < sizeof *error) return std::unexpected(KernelRefusal{EBADMSG, {}});
  if (error->error == 0) return {};
  KernelRefusal refusal{-error->error, {}};
  if ((message->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
    // The request comes back ahead of the attributes, unless the kernel capped it to its header.
    std::size_t offset = sizeof *error;
    if ((message->nlmsg_flags & NLM_F_CAPPED) == 0) offset += MNL_ALIGN(error->msg.nlmsg_len) - MNL_NLMSG_HDRLEN;
    each_attribute(message, offset, [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG) refusal.words = text_of(attribute);
    });
  }
  return std::unexpected(std::move(refusal));
}

}  // namespace trunkline
