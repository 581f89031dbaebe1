// SPDX-License-Identifier: BSD-3-Clause
//
// The one list of reasons for which a packet is dropped. Counters, the CLI, metrics and the documentation are made
// from it, so a reason exists everywhere or nowhere. The sentence is what an operator reads at 3 a.m.: what happened,
// and what to look at.
//
// Rules: a name says the cause, not the place. A new reason goes to the end of its section; nothing depends on the
// numbers outside one process. Any thread may use this header.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

// X(name, sentence)
#define TRUNKLINE_DROP_REASONS(X)                                                                                   \
  /* what the frame is */                                                                                           \
  X(malformed, "a header is cut short or a length in it is impossible; capture at the sender")                      \
  X(ethertype, "neither IPv4, IPv6 nor ARP; a VPC carries nothing else")                                            \
  X(unexpected_vlan, "the frame has a VLAN tag where none may be (from a task, or a second tag)")                   \
  X(fragment_tiny, "a first fragment without all of its headers, or a later one that would overwrite them")         \
  X(fragment_overlap, "fragments of one datagram overlap; the whole datagram is refused")                           \
  X(fragment_orphan, "a later fragment whose first one did not come in time, or was refused")                       \
  X(fragment_quota, "the ENI has as many datagrams in fragments under way as one may have")                         \
  X(ip_options, "IPv4 source routing, an IPv6 routing header, or an IPv6 header where none of its kind may be")     \
  X(tcp_flags, "TCP flags that no connection has (none, SYN+FIN, SYN+RST)")                                         \
  X(martian, "a source address that no host may have (loopback, multicast, 0/8, 240/4)")                            \
  X(multicast, "broadcast or multicast, which a VPC does not carry")                                                \
  X(bad_offload,                                                                                                    \
    "a checksum or segmentation left to the port that does not fit the packet; the task's kernel never does that")  \
  /* whom it is for, and from */                                                                                    \
  X(unknown_eni, "no endpoint here has this VLAN, or this MAC address; check task list")                            \
  X(wrong_mac, "the VLAN's endpoint has another MAC address than the frame's destination")                          \
  X(dest_check, "the destination is not an address of the ENI (source/destination check)")                          \
  X(spoof_mac, "the task sent from a MAC address that is not its ENI's")                                            \
  X(spoof_ip, "the task sent from an address that is not its ENI's (source/destination check)")                     \
  X(no_policy, "the ENI is known but not in service: it waits for its groups or its port; see task list")           \
  X(imds_blocked, "the task may not speak to the instance metadata service (block_imds)")                           \
  X(link_local, "a link-local address that nothing outside of the host has (169.254.0.0/16, fd00:ec2::/32)")        \
  X(dhcp_refused, "a DHCP message that a task may not send (a server's, another's), or that nobody here answers")   \
  /* ARP and ND */                                                                                                  \
  X(arp_spoof, "the task claimed another's address or MAC in ARP or ND")                                            \
  X(arp_gratuitous, "a gratuitous ARP or unsolicited ND announcement; it has no effect in a VPC")                   \
  X(arp_own_address, "an ARP or ND probe for the asker's own address; silence is the right answer")                 \
  X(arp_no_answer, "ARP or ND for an address that nobody here answers for")                                         \
  X(nd_refused, "an ND message that a task may not send (router advertisement, redirect)")                          \
  /* the rules */                                                                                                   \
  X(security_group_ingress, "no inbound rule of the ENI's security groups allows it")                               \
  X(security_group_egress, "no outbound rule of the ENI's security groups allows it")                               \
  X(network_acl_ingress, "the network ACL of the ENI's subnet does not let it in")                                  \
  X(network_acl_egress, "the network ACL of the ENI's subnet does not let it out")                                  \
  X(rule_revoked, "the rules that allowed this flow no longer do, and it is untracked or judged by each change")    \
  X(connection_closed, "strict_syn: a segment of a TCP connection that nobody opened here with a SYN")              \
  X(conntrack_full, "no room for another connection (limits.connections)")                                          \
  X(conntrack_quota, "the ENI has all the connections that one may have (limits.connections_per_endpoint)")         \
  X(conntrack_share,                                                                                                \
    "the ENI has more connections than its guaranteed share, and what is left is other ENIs' shares "               \
    "(limits.connections)")                                                                                         \
  /* what an ENI may use; the names are the ENA driver's */                                                         \
  X(bw_in_allowance_exceeded, "more octets a second towards the task than its ENI may receive")                     \
  X(bw_out_allowance_exceeded, "more octets a second from the task than its ENI may send")                          \
  X(pps_allowance_exceeded, "more packets a second than the ENI may have")                                          \
  X(linklocal_allowance_exceeded,                                                                                   \
    "more than 1024 packets a second to the DNS resolver, IMDS and time service, to the router, or of ARP, ND and " \
    "DHCP")                                                                                                         \
  X(cpu_allowance_exceeded,                                                                                         \
    "the worker's time: a frame written to the ENI's port takes too long, or its super-frames make too many; see "  \
    "share list")                                                                                                   \
  /* between workers */                                                                                             \
  X(handoff_full, "the worker that owns the ENI does not keep up with what others hand to it; see worker list")     \
  /* the way out */                                                                                                 \
  X(mtu_exceeded, "larger than the MTU of the port it must leave by")                                               \
  X(fragmenting_limit,                                                                                              \
    "larger than the MTU, and the ENI has had as many fragments made as one may in a tenth of a second")            \
  X(no_headroom, "no room in the buffer for a VLAN tag or an answer")                                               \
  X(no_buffer, "no buffers left to cut a super-frame or a large packet into (buffers.count)")                       \
  X(tx_full, "the port's transmit queue is full; its reader is slow or stopped")

namespace trunkline {

enum class DropReason : std::uint8_t {
  none,  // not dropped
#define TRUNKLINE_X(name, sentence) name,
  TRUNKLINE_DROP_REASONS(TRUNKLINE_X)
#undef TRUNKLINE_X
};

struct DropReasonText {
  std::string_view name;
  std::string_view sentence;
};

inline constexpr std::array kDropReasonTexts{
    DropReasonText{"none", "not dropped"},
#define TRUNKLINE_X(name, sentence) DropReasonText{#name, sentence},
    TRUNKLINE_DROP_REASONS(TRUNKLINE_X)
#undef TRUNKLINE_X
};

inline constexpr std::size_t kDropReasonCount = kDropReasonTexts.size();

// What a flow log calls REJECT: refused by security groups or a network ACL, or come after its connection was closed.
constexpr bool is_rejection(DropReason reason) {
  return reason >= DropReason::security_group_ingress && reason <= DropReason::connection_closed;
}
static_assert(is_rejection(DropReason::network_acl_ingress) && is_rejection(DropReason::network_acl_egress) &&
              is_rejection(DropReason::security_group_egress) && is_rejection(DropReason::rule_revoked) &&
              !is_rejection(DropReason::conntrack_full) && !is_rejection(DropReason::none));

constexpr const DropReasonText& text(DropReason reason) { return kDropReasonTexts[static_cast<std::size_t>(reason)]; }

}  // namespace trunkline
