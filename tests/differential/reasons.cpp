// SPDX-License-Identifier: BSD-3-Clause
//
// What conntrack does is read off net/netfilter/nf_conntrack_proto_tcp.c (its table of states, its treatment of RST and
// of SYNs on entries that are there) and net/netfilter/nf_conntrack_core.c; what the engine does is
// docs/connections.md.
#include "tests/differential/reasons.h"

#include <initializer_list>

namespace trunkline::differential {
namespace {

using enum ConnectionState;

bool is_one_of(KernelTcp state, std::initializer_list<KernelTcp> states) {
  for (const KernelTcp each : states) {
    if (each == state) return true;
  }
  return false;
}

bool is_tcp(const Comparison& it) { return it.packet.protocol == proto::tcp; }
std::uint8_t kind_of(const Comparison& it) {
  return it.packet.tcp_flags & (flag::syn | flag::ack | flag::rst | flag::fin);
}
bool is_rst(const Comparison& it) { return is_tcp(it) && (it.packet.tcp_flags & flag::rst) != 0; }
bool is_syn_ack(const Comparison& it) { return is_tcp(it) && kind_of(it) == (flag::syn | flag::ack); }
bool is_first_packet(const Comparison& it) { return !it.engine_before.exists && !it.kernel_before.exists; }
bool is_known_to_both(const Comparison& it) { return it.engine_before.exists && it.kernel_before.exists; }
bool only_engine_passes(const Comparison& it) { return !it.idle && it.engine.passed && !it.kernel_passed; }
bool only_kernel_passes(const Comparison& it) { return !it.idle && !it.engine.passed && it.kernel_passed; }
bool both_pass(const Comparison& it) { return !it.idle && it.engine.passed && it.kernel_passed; }
bool both_refuse(const Comparison& it) { return !it.idle && !it.engine.passed && !it.kernel_passed; }
// Seconds since the last packet that the engine passed.
std::uint32_t silence_of(const Comparison& it) { return it.engine_before.idle_s + it.idle_s; }
// Time alone made one of them forget.
bool engine_forgot(const Comparison& it) {
  return it.idle && is_known_to_both(it) && !it.engine_after.exists && it.kernel_after.exists;
}
bool kernel_forgot(const Comparison& it) {
  return it.idle && is_known_to_both(it) && it.engine_after.exists && !it.kernel_after.exists &&
         it.kernel_before.timeout_s <= it.idle_s * KernelFirewall::kScale + KernelFirewall::kScale;
}

// Neither in a handshake nor ended by RST.
bool is_begun(KernelTcp state) {
  return is_one_of(state, {KernelTcp::established, KernelTcp::fin_wait, KernelTcp::close_wait, KernelTcp::last_ack,
                           KernelTcp::time_wait});
}
// Where the RST's sequence number is not the one that is due, conntrack leaves the state and only shortens the time.
bool is_after_rst(const KernelEntry& entry) {
  return entry.tcp == KernelTcp::close || entry.timeout_s <= 10 * KernelFirewall::kScale;
}

constexpr Reason kReasons[] = {
    // --- the rules
    {"a_beginning_meets_the_rules",
     "A bare SYN is put to the rules as they are, on every connection and from either end (AWS: what is new meets "
     "the rules); conntrack lets it pass as part of the connection.",
     [](const Comparison& it) {
       return only_kernel_passes(it) && it.packet.is_bare_syn() && !it.rules_allow && is_known_to_both(it);
     }},
    {"a_refused_beginning_ends_nothing",
     "A SYN on a connection that is over makes conntrack forget it before the rules refuse the SYN; the engine "
     "keeps what it knows.",
     [](const Comparison& it) {
       return both_refuse(it) && it.packet.is_bare_syn() && !it.rules_allow && is_known_to_both(it) &&
              is_one_of(it.kernel_before.tcp, {KernelTcp::time_wait, KernelTcp::close}) && !it.kernel_after.exists &&
              it.engine_after.exists;
     }},
    {"untracked_flows_follow_the_rules",
     "A flow that AWS would not track is judged anew by each new policy; conntrack has only tracked ones.",
     [](const Comparison& it) {
       return only_kernel_passes(it) && it.engine.reason == "rule_revoked" && it.engine_before.untracked &&
              it.kernel_before.exists;
     }},
    {"revalidation",
     "The ENI says on_change revalidate: its tracked connections are judged by each new policy; conntrack does not"
     " look again.",
     [](const Comparison& it) {
       return only_kernel_passes(it) && it.engine.reason == "rule_revoked" && it.revalidates &&
              !it.engine_before.untracked && it.kernel_before.exists;
     }},
    {"unanswered_is_new",
     "To nftables every packet of a flow that nobody has answered is new and meets the rules; to the engine only "
     "the first one, or a bare SYN (AWS: a tracked connection outlives its rule).",
     [](const Comparison& it) {
       return only_engine_passes(it) && !it.packet.is_bare_syn() && !it.rules_allow && is_known_to_both(it) &&
              it.kernel_before.by_originator && !it.kernel_before.seen_reply;
     }},
    {"strict_syn_spares_untracked",
     "strict_syn is about tracked connections: what AWS would not track passes by its rules alone.",
     [](const Comparison& it) {
       return only_engine_passes(it) && it.strict_syn && is_first_packet(it) && is_tcp(it) && it.rules_allow &&
              it.may_be_untracked;
     }},

    // --- how TCP begins
    {"picked_up_by_fin",
     "FIN and ACK may be the first that is seen of a connection (after a restart); conntrack picks up only by ACK "
     "without FIN.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_first_packet(it) && is_tcp(it) && kind_of(it) == (flag::fin | flag::ack) &&
              it.rules_allow && it.engine_after.exists && it.engine_after.state == picked_up;
     }},
    {"a_lone_rst_meets_the_rules",
     "A RST of no connection opens nothing, and passes if the rules allow it; conntrack calls it invalid.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_first_packet(it) && is_rst(it) && it.rules_allow && !it.engine_after.exists;
     }},
    {"a_lone_syn_ack_of_an_untracked_flow",
     "A SYN-ACK of no connection passes only where AWS would not track its flow; conntrack calls it invalid.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_first_packet(it) && is_syn_ack(it) && it.rules_allow &&
              it.may_be_untracked && !it.engine_after.exists;
     }},
    {"the_handshake_is_not_enforced",
     "Between a SYN and its SYN-ACK conntrack takes no ACK or FIN, but an ACK from the other end; the engine "
     "refuses nothing of a live entry. None of these alone makes an unanswered SYN an established connection.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_known_to_both(it) && is_tcp(it) &&
              is_one_of(it.kernel_before.tcp, {KernelTcp::syn_sent, KernelTcp::syn_sent2}) &&
              (it.packet.tcp_flags & (flag::syn | flag::rst)) == 0 &&
              !(it.engine_before.state == syn_sent && it.engine_after.state == established);
     }},
    {"syn_ack_by_the_originator",
     "conntrack takes no SYN-ACK from the end that began, but after a simultaneous open; the engine refuses "
     "nothing of a live entry.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_known_to_both(it) && is_syn_ack(it) && it.kernel_before.by_originator;
     }},
    {"syn_by_the_other_end",
     "A new SYN from the end that did not begin passes if the rules allow it; conntrack takes it only in SYN_SENT "
     "(simultaneous open) and calls it invalid else.",
     [](const Comparison& it) {
       return only_engine_passes(it) && is_known_to_both(it) && it.packet.is_bare_syn() &&
              !it.kernel_before.by_originator && it.rules_allow;
     }},

    {"confirmed_by_payload",
     "conntrack waits for the initiator's ACK; payload from the other end, which it sends only when it was confirmed, "
     "says the same.",
     [](const Comparison& it) {
       return both_pass(it) && is_tcp(it) && it.engine_before.state == syn_received && !it.engine_before.by_initiator &&
              it.packet.has_payload && it.kernel_after.tcp == KernelTcp::syn_recv;
     }},
    {"confirmed_by_a_syn_ack",
     "In a simultaneous open each end answers with a SYN-ACK; the initiator's confirms. conntrack waits for an ACK.",
     [](const Comparison& it) {
       return both_pass(it) && is_syn_ack(it) && it.engine_before.state == syn_received &&
              it.engine_before.by_initiator && it.kernel_after.tcp == KernelTcp::syn_recv;
     }},

    // --- how it ends
    {"refused_before_an_answer",
     "conntrack forgets at once what is reset before it was answered; the engine keeps it for a while, and a "
     "connection that a new SYN was to begin anew as one that was reset.",
     [](const Comparison& it) {
       return both_pass(it) && is_rst(it) && is_known_to_both(it) && !it.kernel_before.seen_reply &&
              it.engine_after.exists &&
              (it.engine_after.state == refused ||
               (it.engine_before.state == reopening && it.engine_after.state == reset));
     }},
    {"a_refused_rst_ends_nothing",
     "The same where the rules do not let the RST pass: conntrack forgets the flow before nftables refuses the "
     "packet.",
     [](const Comparison& it) {
       return both_refuse(it) && is_rst(it) && is_known_to_both(it) && !it.kernel_before.seen_reply &&
              it.engine_after.exists && it.engine.reason == "rule_revoked";
     }},

    // --- how long it is remembered
    {"picked_up_is_short",
     "What was begun in the middle is kept for 30 s until both ends have been heard; in conntrack it is "
     "ESTABLISHED at once.",
     [](const Comparison& it) {
       return engine_forgot(it) && is_tcp(it) && it.engine_before.state == picked_up && silence_of(it) >= 30;
     }},
    {"a_handshake_is_short",
     "A handshake is kept for 30 s; to conntrack its SYN met an entry that it had picked up, and changed nothing.",
     [](const Comparison& it) {
       return engine_forgot(it) && is_tcp(it) && is_one_of(it.engine_before.state, {syn_sent, syn_received}) &&
              silence_of(it) >= 30 &&
              !is_one_of(it.kernel_before.tcp, {KernelTcp::syn_sent, KernelTcp::syn_recv, KernelTcp::syn_sent2});
     }},
    {"a_rst_before_both_were_heard",
     "What is reset before both ends were heard is forgotten after 10 s unless both go on; conntrack calls it "
     "ESTABLISHED as soon as it is picked up or after a simultaneous open, and one end that goes on is enough for "
     "it.",
     [](const Comparison& it) {
       return engine_forgot(it) && is_tcp(it) && it.engine_before.state == refused && silence_of(it) >= 10 &&
              is_begun(it.kernel_before.tcp);
     }},
    {"a_refused_packet_is_not_heard",
     "A packet that the rules refuse keeps nothing alive; conntrack has counted it before nftables refuses it.",
     [](const Comparison& it) {
       return engine_forgot(it) && it.engine_before.idle_s > 0 && !it.kernel_before.seen_reply;
     }},
    {"a_rst_is_not_believed",
     "After RST conntrack keeps an entry for 10 s; the engine keeps what was established, because the RST may be "
     "forged.",
     [](const Comparison& it) {
       return kernel_forgot(it) && is_tcp(it) && is_after_rst(it.kernel_before) &&
              is_one_of(it.engine_before.state, {established, closing, closed, reset, reopening});
     }},
    {"a_fin_is_not_believed",
     "After a FIN conntrack keeps an entry for 120 s; the engine keeps a connection that is half closed, or whose "
     "FIN was taken back by payload, as an established one.",
     [](const Comparison& it) {
       return kernel_forgot(it) && is_tcp(it) &&
              is_one_of(it.kernel_before.tcp,
                        {KernelTcp::fin_wait, KernelTcp::close_wait, KernelTcp::last_ack, KernelTcp::time_wait}) &&
              is_one_of(it.engine_before.state, {established, closing, reset, reopening});
     }},
    {"what_is_ignored_is_heard",
     "Each packet that passes keeps an entry alive; conntrack does not count a SYN or SYN-ACK that is sent again, "
     "a new SYN on an established connection, nor what else it lets pass as ignored.",
     [](const Comparison& it) {
       if (!kernel_forgot(it) || !is_tcp(it)) return false;
       if (is_begun(it.kernel_before.tcp)) {
         return (it.packet.tcp_flags & flag::syn) != 0 &&
                is_one_of(it.engine_before.state, {established, reopening, closing, closed});
       }
       return is_one_of(it.kernel_before.tcp, {KernelTcp::syn_sent, KernelTcp::syn_recv, KernelTcp::syn_sent2}) &&
              is_one_of(it.engine_before.state, {syn_sent, syn_received, picked_up});
     }},
    {"a_new_syn_on_a_closed_entry",
     "A SYN that the rules allow begins anew what RST has ended; conntrack lets it pass and keeps the old entry "
     "for what is left of its 10 s, unless the RST was the last packet.",
     [](const Comparison& it) {
       return kernel_forgot(it) && is_tcp(it) && is_after_rst(it.kernel_before) &&
              is_one_of(it.engine_before.state, {syn_sent, syn_received, picked_up});
     }},
    {"a_new_syn_is_not_believed",
     "A new SYN does not end what was established or half closed until the other end has answered it; to conntrack"
     " the connection was over, and what the SYN began lasts 30 s.",
     [](const Comparison& it) {
       if (!kernel_forgot(it) || !is_tcp(it)) return false;
       if (it.kernel_before.tcp == KernelTcp::syn_recv) return it.engine_before.state == reopening;
       return is_one_of(it.kernel_before.tcp, {KernelTcp::syn_sent, KernelTcp::syn_sent2}) &&
              is_one_of(it.engine_before.state, {reopening, established, closing, reset});
     }},
    {"confirmed_for_longer",
     "A handshake that payload or a SYN-ACK has confirmed lasts as a connection does; conntrack keeps it for 30 s.",
     [](const Comparison& it) {
       return kernel_forgot(it) && is_tcp(it) && it.kernel_before.tcp == KernelTcp::syn_recv &&
              is_one_of(it.engine_before.state, {established, closing});
     }},
    {"stream_after_two_seconds",
     "UDP is a stream to the engine with its second request and answer, to conntrack two seconds after it began.",
     [](const Comparison& it) {
       return kernel_forgot(it) && it.packet.protocol == proto::udp && it.engine_before.state == udp_stream &&
              silence_of(it) >= 30 && silence_of(it) < 180;
     }},
    {"no_stream_before_the_second_answer",
     "The same, seen from the other side: conntrack has made a stream of one request and answer.",
     [](const Comparison& it) {
       return engine_forgot(it) && it.packet.protocol == proto::udp && it.kernel_before.seen_reply &&
              is_one_of(it.engine_before.state, {udp_answered, udp_again}) && silence_of(it) >= 30;
     }},
};

}  // namespace

bool Comparison::same_belief() const {
  const bool waits = is_one_of(kernel_after.tcp, {KernelTcp::syn_sent, KernelTcp::syn_recv, KernelTcp::syn_sent2}) &&
                     kernel_after.exists;
  const bool has_begun = engine_after.exists && engine_after.state == established;
  const bool had_not = !engine_before.exists || is_one_of(engine_before.state, {syn_sent, syn_received});
  return !(waits && has_begun && had_not);
}

std::string text_of(const Comparison& it) {
  std::string text = text_of(it.packet) + '\n';
  if (it.idle) text += "    after " + std::to_string(it.idle_s) + " s without a packet\n";
  text += std::string("    rules, as of a first packet: ") + (it.rules_allow ? "allow" : "refuse") + '\n';
  text += "    engine before: " + text_of(it.engine_before) + "\n    engine after:  " + text_of(it.engine_after) + '\n';
  text += "    kernel before: " + text_of(it.kernel_before) + "\n    kernel after:  " + text_of(it.kernel_after);
  if (!it.idle)
    text += "\n    engine " + (it.engine.passed ? "passed" : "refused as " + it.engine.reason) + ", kernel " +
            (it.kernel_passed ? "passed" : "refused");
  return text;
}

const Reason* reason_of(const Comparison& difference) {
  for (const Reason& reason : kReasons) {
    if (reason.describes(difference)) return &reason;
  }
  return nullptr;
}

}  // namespace trunkline::differential
