// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/conntrack_netlink.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace trunkline::differential {
namespace {

std::runtime_error failure(const std::string& what, int error) {
  return std::runtime_error("ctnetlink: " + what + ": " + std::strerror(error));
}

bool is_echo_like(const FlowPacket& packet) { return packet.is_icmp() && !packet.quoted; }

void put_tuple(nlmsghdr* message, const FlowPacket& packet) {
  const bool ipv4 = packet.source.is_v4();
  nlattr* tuple = mnl_attr_nest_start(message, CTA_TUPLE_ORIG);
  nlattr* addresses = mnl_attr_nest_start(message, CTA_TUPLE_IP);
  const std::size_t at = ipv4 ? 12 : 0, bytes = ipv4 ? 4 : 16;
  mnl_attr_put(message, ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, bytes, &packet.source.bytes[at]);
  mnl_attr_put(message, ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, bytes, &packet.destination.bytes[at]);
  mnl_attr_nest_end(message, addresses);
  nlattr* protocol = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
  mnl_attr_put_u8(message, CTA_PROTO_NUM, packet.protocol);
  if (packet.protocol == proto::tcp || packet.protocol == proto::udp) {
    mnl_attr_put_u16(message, CTA_PROTO_SRC_PORT, htons(packet.source_port));
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(packet.destination_port));
  } else if (is_echo_like(packet)) {
    mnl_attr_put_u16(message, ipv4 ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID, htons(packet.icmp_id));
    mnl_attr_put_u8(message, ipv4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE, packet.icmp_type);
    mnl_attr_put_u8(message, ipv4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE, packet.icmp_code);
  }
  mnl_attr_nest_end(message, protocol);
  mnl_attr_nest_end(message, tuple);
}

// libmnl's own loops over attributes are macros that are not C++.
template <class Visit>
void for_each_attribute(const void* first, const void* end, Visit&& visit) {
  const auto* each = static_cast<const nlattr*>(first);
  while (mnl_attr_ok(each, static_cast<int>(static_cast<const char*>(end) - reinterpret_cast<const char*>(each)))) {
    visit(*each);
    each = mnl_attr_next(each);
  }
}

const nlattr* find_attribute(const nlattr* nest, std::uint16_t type) {
  const nlattr* found = nullptr;
  const auto* first = static_cast<const char*>(mnl_attr_get_payload(nest));
  for_each_attribute(first, first + mnl_attr_get_payload_len(nest), [&](const nlattr& each) {
    if (mnl_attr_get_type(&each) == type) found = &each;
  });
  return found;
}

std::array<const nlattr*, CTA_MAX + 1> attributes_of(const nlmsghdr* message) {
  std::array<const nlattr*, CTA_MAX + 1> all{};
  for_each_attribute(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)), mnl_nlmsg_get_payload_tail(message),
                     [&](const nlattr& each) {
                       if (mnl_attr_get_type(&each) <= CTA_MAX) all[mnl_attr_get_type(&each)] = &each;
                     });
  return all;
}

std::uint32_t number(const nlattr* attribute) { return attribute == nullptr ? 0 : ntohl(mnl_attr_get_u32(attribute)); }

// Whether the tuple of the flow's first packet is the packet's own.
bool is_of_first_packet(const nlattr* tuple, const FlowPacket& packet) {
  const bool ipv4 = packet.source.is_v4();
  const nlattr* addresses = find_attribute(tuple, CTA_TUPLE_IP);
  const nlattr* protocol = find_attribute(tuple, CTA_TUPLE_PROTO);
  if (addresses == nullptr || protocol == nullptr)
    throw std::runtime_error("ctnetlink: a tuple without addresses or protocol");
  const nlattr* source = find_attribute(addresses, ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
  if (source == nullptr ||
      std::memcmp(mnl_attr_get_payload(source), &packet.source.bytes[ipv4 ? 12 : 0], ipv4 ? 4 : 16) != 0)
    return false;
  if (packet.protocol == proto::tcp || packet.protocol == proto::udp) {
    const nlattr* port = find_attribute(protocol, CTA_PROTO_SRC_PORT);
    return port != nullptr && ntohs(mnl_attr_get_u16(port)) == packet.source_port;
  }
  return true;
}

}  // namespace

std::string text_of(const KernelEntry& entry) {
  if (!entry.exists) return "no entry";
  static constexpr const char* kNames[] = {"NONE",       "SYN_SENT", "SYN_RECV",  "ESTABLISHED", "FIN_WAIT",
                                           "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",       "SYN_SENT2"};
  const auto state = static_cast<std::size_t>(entry.tcp);
  return std::string(state < std::size(kNames) ? kNames[state] : "?") +
         (entry.seen_reply ? " answered" : " unanswered") + (entry.assured ? " assured" : "") +
         (entry.by_originator ? ", packet by the originator" : ", packet by the other end") + ", " +
         std::to_string(entry.timeout_s) + " s left";
}

ConntrackNetlink::ConntrackNetlink()
    : socket_(mnl_socket_open(NETLINK_NETFILTER)), request_(MNL_SOCKET_BUFFER_SIZE), answer_(MNL_SOCKET_BUFFER_SIZE) {
  if (socket_ == nullptr || mnl_socket_bind(socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0) throw failure("open", errno);
}

nlmsghdr* ConntrackNetlink::begin(std::uint8_t type, std::uint16_t flags, std::uint8_t family) {
  nlmsghdr* message = mnl_nlmsg_put_header(request_.data());
  message->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | type);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  message->nlmsg_seq = ++sequence_;
  auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  generic->nfgen_family = family;
  generic->version = NFNETLINK_V0;
  generic->res_id = 0;
  return message;
}

template <class Found>
int ConntrackNetlink::ask(nlmsghdr* message, Found&& found) {
  if (mnl_socket_sendto(socket_.get(), message, message->nlmsg_len) < 0) throw failure("send", errno);
  const bool dump = (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP,
             acknowledged = (message->nlmsg_flags & NLM_F_ACK) != 0;
  while (true) {
    const ssize_t received = mnl_socket_recvfrom(socket_.get(), answer_.data(), answer_.size());
    if (received < 0) throw failure("receive", errno);
    int left = static_cast<int>(received);
    for (auto* each = reinterpret_cast<nlmsghdr*>(answer_.data()); mnl_nlmsg_ok(each, left);
         each = mnl_nlmsg_next(each, &left)) {
      if (each->nlmsg_seq != sequence_) continue;
      if (each->nlmsg_type == NLMSG_DONE) return 0;
      if (each->nlmsg_type == NLMSG_ERROR) return -static_cast<nlmsgerr*>(mnl_nlmsg_get_payload(each))->error;
      found(each);
      if (!dump && !acknowledged) return 0;
    }
  }
}

KernelEntry ConntrackNetlink::find(const FlowPacket& packet) {
  KernelEntry entry;
  nlmsghdr* message = begin(IPCTNL_MSG_CT_GET, 0, packet.source.is_v4() ? AF_INET : AF_INET6);
  put_tuple(message, packet);
  const int error = ask(message, [&](const nlmsghdr* answer) {
    const auto attributes = attributes_of(answer);
    entry.exists = true;
    const std::uint32_t status = number(attributes[CTA_STATUS]);
    entry.seen_reply = (status & IPS_SEEN_REPLY) != 0;
    entry.assured = (status & IPS_ASSURED) != 0;
    entry.timeout_s = number(attributes[CTA_TIMEOUT]);
    entry.by_originator =
        attributes[CTA_TUPLE_ORIG] != nullptr && is_of_first_packet(attributes[CTA_TUPLE_ORIG], packet);
    const nlattr* info =
        attributes[CTA_PROTOINFO] == nullptr ? nullptr : find_attribute(attributes[CTA_PROTOINFO], CTA_PROTOINFO_TCP);
    const nlattr* state = info == nullptr ? nullptr : find_attribute(info, CTA_PROTOINFO_TCP_STATE);
    if (state != nullptr) entry.tcp = static_cast<KernelTcp>(mnl_attr_get_u8(state));
  });
  if (error != 0 && error != ENOENT) throw failure("find " + differential::text_of(packet), error);
  return entry;
}

void ConntrackNetlink::erase(const FlowPacket& packet) {
  nlmsghdr* message = begin(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, packet.source.is_v4() ? AF_INET : AF_INET6);
  put_tuple(message, packet);
  const int error = ask(message, [](const nlmsghdr*) {});
  if (error != 0 && error != ENOENT) throw failure("erase " + differential::text_of(packet), error);
}

void ConntrackNetlink::pass(std::uint32_t kernel_seconds) {
  struct Left {
    std::uint8_t family;
    std::uint32_t timeout_s;
    std::vector<char> tuple;  // CTA_TUPLE_ORIG as the kernel gave it
  };
  std::vector<Left> all;
  const int error = ask(begin(IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC), [&](const nlmsghdr* answer) {
    const auto attributes = attributes_of(answer);
    const nlattr* tuple = attributes[CTA_TUPLE_ORIG];
    if (tuple == nullptr) return;
    const auto* payload = static_cast<const char*>(mnl_attr_get_payload(tuple));
    all.push_back({static_cast<const nfgenmsg*>(mnl_nlmsg_get_payload(answer))->nfgen_family,
                   number(attributes[CTA_TIMEOUT]),
                   {payload, payload + mnl_attr_get_payload_len(tuple)}});
  });
  if (error != 0) throw failure("list", error);
  for (const Left& each : all) {
    const bool dies = each.timeout_s <= kernel_seconds;
    nlmsghdr* message = begin(dies ? IPCTNL_MSG_CT_DELETE : IPCTNL_MSG_CT_NEW, NLM_F_ACK, each.family);
    mnl_attr_put(message, CTA_TUPLE_ORIG | NLA_F_NESTED, each.tuple.size(), each.tuple.data());
    if (!dies) mnl_attr_put_u32(message, CTA_TIMEOUT, htonl(each.timeout_s - kernel_seconds));
    const int refused = ask(message, [](const nlmsghdr*) {});
    if (refused != 0 && refused != ENOENT)
      throw failure(dies ? "let an entry die" : "shorten an entry's time", refused);
  }
}

}  // namespace trunkline::differential
