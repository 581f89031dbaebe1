// SPDX-License-Identifier: BSD-3-Clause
#include "control/packet_report.h"

#include "control/compile.h"
#include "control/flow_words.h"
#include "control/flows.h"
#include "control/network_acls.h"
#include "control/reconcile.h"
#include "control/scratch_packet.h"
#include "dataplane/stages/admit.h"
#include "dataplane/stages/parse.h"

namespace trunkline::control {
namespace {

using config::Json;

constexpr std::string_view kHeld = "held: waits for its first fragment, at most 0.2 s";
static_assert(FragmentTable::kHold * 10 == 2 * kTicksPerSecond);
constexpr std::string_view kAsked = "asks the worker that had its ENI until now for its connection, and comes back";

std::string flags_text(std::uint8_t flags) {
  static constexpr std::pair<std::uint8_t, const char*> names[] = {{0x02, "SYN"}, {0x10, "ACK"}, {0x01, "FIN"}, {0x04, "RST"}, {0x08, "PSH"}, {0x20, "URG"}};
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((flags & bit) != 0) text += (text.empty() ? "" : " ") + std::string(name);
  }
  return text.empty() ? "no flags" : text;
}

// Which ENI an observation speaks of, if it is in service still.
struct Whose {
  std::string eni;
  const ActiveEndpoint* active = nullptr;
  explicit operator bool() const { return active != nullptr; }
};
Whose find_endpoint(const Controller& controller, EndpointId id, std::uint16_t generation) {
  for (const auto& [eni, active] : controller.active()) {
    if (active.endpoint->id == id && active.endpoint->generation == generation) return {eni, &active};
  }
  return {};
}
Whose find_endpoint(const Controller& controller, EndpointId id) {
  for (const auto& [eni, active] : controller.active()) {
    if (active.endpoint->id == id) return {eni, &active};
  }
  return {};
}

std::string port_of(const Controller& controller, const std::string& eni) {
  const config::Attachment* attachment = controller.desired().attachments.get(eni);
  return attachment != nullptr && attachment->port ? port_name(*attachment->port) : "its port";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string connection_text(const Connection& connection) {
  return std::string(state_name(connection.state)) + ", began " + std::string(to_string(connection.initiator_direction())) +
         (connection.untracked ? ", untracked" : ", tracked");
}

std::string rule_words(const Json& rule) {
  if (rule.is_null()) return "a rule that is not there any more";
  return "rule " + std::to_string(rule.at("index").get<std::size_t>()) + " of " + rule.at("group").get<std::string>() + " (" + rule.at("direction").get<std::string>() +
         "): " + rule.at("rule").get<std::string>();
}

// What stands in the answer for one packet, gathered once.
class Report {
 public:
  Report(const Controller& controller, const Observation& seen, std::span<const std::uint8_t> bytes)
      : controller_(controller), seen_(seen), bytes_(bytes), whose_(find_endpoint(controller, seen.endpoint, seen.generation)) {
    if (seen.filtered && whose_) ends_ = ends_of(bytes, seen.frame_bytes, seen.direction);
    rule_ = find_rule();
  }

  Json json() {
    if (seen_.outside_burst) {
      say(seen_.stage, true, [&] { return made_here(); });
    } else {
      say_stages();
    }
    Json result = packet_summary(controller_, seen_);
    result["packet"] = packet_text(bytes_, seen_.frame_bytes, seen_.direction);
    result["rule"] = rule_;
    result["stages"] = std::move(stages_);
    return result;
  }

 private:
  void say_stages() {
    say(Stage::parse, !seen_.from_task_here, [&] { return packet_text(bytes_, seen_.frame_bytes, seen_.direction); });
    say(Stage::demux, !seen_.from_task_here, [&] { return demux(); });
    say(Stage::edge, !seen_.from_task_here, [&] { return edge(); });
    say(Stage::fragments, seen_.fate == Fate::held || (seen_.filtered && seen_.headers.fragment != Fragment::none), [&] { return fragments(); });
    say(Stage::services, seen_.service, [&] { return services(); });
    say(Stage::track, seen_.filtered, [&] { return track(); });
    say(Stage::admit, seen_.filtered || seen_.fate == Fate::asked, [&] { return admit(); });
    say(Stage::limit, false, [] { return std::string(); });  // only where it refuses
    say(Stage::account, seen_.filtered && seen_.has_connection, [&] { return std::string("counted with the connection"); });
    say(Stage::forward, true, [&] { return forward(); });
  }

  template <class Words>
  void say(Stage stage, bool took_part, Words&& words) {
    if (seen_.stage < stage || (!took_part && !(refused() && seen_.stage == stage))) return;
    const bool refuses = refused() && seen_.stage == stage;
    stages_.push_back({{"stage", to_string(stage)}, {"refused", refuses}, {"said", refuses ? refusal() : words()}});
  }
  bool refused() const { return seen_.verdict != DropReason::none; }

  FlowQuery query() const {
    const bool icmp = seen_.headers.protocol == (ends_.remote.is_v4() ? 1 : 58);
    const bool inbound = seen_.direction == Direction::ingress;
    FlowQuery query{ends_.remote, seen_.headers.protocol, inbound ? seen_.key.local_port_number() : seen_.key.remote_port_number()};
    if (icmp) query.port = static_cast<std::uint16_t>(seen_.headers.icmp_type << 8 | seen_.headers.icmp_code);
    return query;
  }

  Json find_rule() const {
    if (!seen_.filtered || !whose_) return nullptr;
    const Endpoint& endpoint = *whose_.active->endpoint;
    if (seen_.has_connection) return rule_json(controller_, whose_.eni, endpoint, seen_.connection, ends_.remote);
    if (refused()) return nullptr;
    const Members::Groups groups = controller_.view().members->find(ends_.remote);
    return named_rule_json(controller_, whose_.eni, seen_.direction, endpoint.policy->rules(seen_.direction).match(query(), groups.view()).rule);
  }

  std::string refusal() const {
    std::string sentence = std::string(text(seen_.verdict).name) + ": " + std::string(text(seen_.verdict).sentence);
    const bool by_groups = seen_.verdict == DropReason::security_group_ingress || seen_.verdict == DropReason::security_group_egress;
    if (!whose_) return sentence;
    if (seen_.verdict == DropReason::network_acl_ingress || seen_.verdict == DropReason::network_acl_egress) return sentence + acl_entry();
    if (!by_groups) return sentence;
    const config::Attachment& attachment = controller_.desired().attachments.at(whose_.eni);
    const bool inbound = seen_.direction == Direction::ingress;
    std::size_t rules = 0;
    for (const std::string& id : attachment.group_ids) {
      if (const config::SecurityGroup* group = controller_.desired().security_groups.get(id)) rules += inbound ? group->ingress.size() : group->egress.size();
    }
    const FlowQuery asked = query();
    std::string what = protocol_name(asked.protocol);
    if (asked.protocol == 6 || asked.protocol == 17) what += " " + std::to_string(asked.port);
    if (asked.protocol == (asked.remote.is_v4() ? 1 : 58)) what += " type " + std::to_string(asked.port >> 8) + " code " + std::to_string(asked.port & 0xff);
    return sentence + ". Asked: " + what + (inbound ? " from " : " to ") + asked.remote.to_string() + ", " + std::to_string(rules) + " rule(s) of " +
           joined(attachment.group_ids);
  }

  // Which entry of the subnet's network ACL decided, as it is now.
  std::string acl_entry() const {
    const config::Attachment& attachment = controller_.desired().attachments.at(whose_.eni);
    const config::NetworkAcl* acl = find_network_acl(controller_.desired(), attachment.subnet_id);
    const Endpoint& endpoint = *whose_.active->endpoint;
    if (acl == nullptr || endpoint.network_acl == nullptr) return "";
    const NetworkAcl::Answer answer = endpoint.network_acl->ask(query(), seen_.direction);
    if (answer.allowed) return "";
    const auto places = entry_places(*acl, seen_.direction);
    const auto place = answer.entry < places.size() ? places[answer.entry] : std::nullopt;
    if (!place) return ". No entry of " + acl->id + " matches, so its last one (*) denies";
    const auto& entries = seen_.direction == Direction::ingress ? acl->ingress : acl->egress;
    return ". Entry " + std::to_string(entries.at(*place).number) + " of " + acl->id + " denies";
  }

  std::string demux() const {
    if (!whose_) return "an ENI that is gone by now";
    const Endpoint& endpoint = *whose_.active->endpoint;
    // Where there are several workers, what comes in at another one is handed to this one.
    const std::string at = controller_.workers().size() > 1 ? ", at worker " + std::to_string(endpoint.worker) : "";
    if (seen_.direction == Direction::egress) return "from " + whose_.eni + ": its port, its MAC and its address" + at;
    return "for " + whose_.eni + ": " + (endpoint.vlan.is_untagged() ? "no tag" : "VLAN " + std::to_string(endpoint.vlan.value)) + ", its MAC and its address" + at;
  }

  std::string fragments() const {
    if (seen_.fate == Fate::held) return std::string(kHeld) + "; if that one passes, this one has its ports and goes on behind it, else it is dropped: fragment_orphan";
    return seen_.headers.fragment == Fragment::first ? "a first fragment: decides for the later ones" : "a later fragment: has the ports of its first one";
  }

  std::string made_here() const {
    const std::string to = seen_.route == Route::trunk ? "out on the trunk" : "to " + (whose_ ? port_of(controller_, whose_.eni) : "the task's port");
    return (seen_.piece ? "made by the engine: a piece of a packet larger than the MTU; " : "made by the engine: an answer, or an error of the router's; ") + to;
  }

  std::string edge() const {
    if (seen_.filtered || seen_.exempt || seen_.fate == Fate::held) return "neither ARP, neighbour discovery nor DHCP";
    return seen_.route == Route::answer ? "answered here; the rules are not asked" : "goes on as it is; the rules are not asked";
  }

  std::string services() const {
    if (!seen_.exempt) {
      return seen_.direction == Direction::egress ? "to a service of the VPC (router, DNS, time, metadata), but not what it is there for: the rules are asked"
                                                  : "from a service of the VPC, but no answer to what the task is known to have asked: the rules are asked";
    }
    return seen_.direction == Direction::egress ? "asks a service of the VPC (router, DNS, time, metadata), which needs no rule"
                                                : "from a service of the VPC, about what the task asked or sent, which needs no rule";
  }

  std::string track() const {
    if (!seen_.known) return "no connection";
    // One that refuses is not told: what it was is not kept.
    return seen_.has_connection ? "belongs to a connection: " + connection_text(seen_.connection) : "belongs to a connection";
  }

  std::string admit() const {
    if (seen_.fate == Fate::asked) return std::string(kAsked);
    if (seen_.has_connection && seen_.connection.rule == kAuditedRule) return "the rules would refuse it, and the ENI is in audit mode: it passes";
    if (!seen_.has_connection) return rule_words(rule_) + " lets it pass; it opens no connection";
    if (!seen_.known) return rule_words(rule_) + "; it opens a connection: " + connection_text(seen_.connection);
    if (seen_.connection.untracked) return "untracked: the present rules let this direction pass";
    return "the connection lets it pass; the rules are not asked";
  }

  std::string forward() const {
    switch (seen_.route) {
      case Route::task: return "to " + (whose_ ? port_of(controller_, whose_.eni) : "the task's port");
      case Route::answer: return "back to " + (whose_ ? port_of(controller_, whose_.eni) : "the task's port");
      case Route::local: {
        const Whose peer = find_endpoint(controller_, seen_.peer);
        return "to " + (peer ? peer.eni : "an ENI") + " on this host, whose ingress half comes next";
      }
      default: {
        const bool tagged = whose_ && !whose_.active->endpoint->vlan.is_untagged();
        return tagged ? "out on the trunk, with VLAN " + std::to_string(whose_.active->endpoint->vlan.value) : "out on the trunk";
      }
    }
  }

  const Controller& controller_;
  const Observation& seen_;
  std::span<const std::uint8_t> bytes_;
  Whose whose_;
  AddressPair ends_;
  Json rule_;
  Json stages_ = Json::array();
};

}  // namespace

AddressPair ends_of(std::span<const std::uint8_t> bytes, std::size_t frame_bytes, Direction direction) {
  ScratchPacket packet(bytes, frame_bytes);
  Burst burst;
  burst.add(packet.mbuf());
  parse(burst, direction);
  const bool ingress = direction == Direction::ingress;
  return {ingress ? burst.source(0) : burst.destination(0), ingress ? burst.destination(0) : burst.source(0)};
}

std::string packet_text(std::span<const std::uint8_t> bytes, std::size_t frame_bytes, Direction direction) {
  ScratchPacket packet(bytes, frame_bytes);
  Burst burst;
  burst.add(packet.mbuf());
  parse(burst, direction);
  const Headers& headers = burst.headers[0];
  const std::string tag = headers.vlan != 0 ? ", VLAN " + std::to_string(headers.vlan) : "";
  if (headers.layer3 == Layer3::arp) return "ARP of " + burst.source(0).to_string() + " about " + burst.destination(0).to_string() + tag;
  if (headers.layer3 == Layer3::other) return "a frame of " + std::to_string(frame_bytes) + " bytes that is neither whole IP nor ARP" + tag;
  const bool ipv4 = headers.layer3 == Layer3::ipv4;
  const std::uint8_t protocol = headers.protocol;
  std::string result = protocol_name(protocol) + " " + end_text(burst.source(0), protocol, burst.source_port(0, direction)) + " to " +
                       end_text(burst.destination(0), protocol, burst.destination_port(0, direction));
  if (headers.layer4_offset != 0 && protocol == protocol::tcp) result += ", " + flags_text(headers.tcp_flags);
  if (headers.layer4_offset != 0 && protocol == (ipv4 ? protocol::icmp : protocol::icmpv6)) {
    result += ", type " + std::to_string(headers.icmp_type) + " code " + std::to_string(headers.icmp_code);
  }
  return result + ", " + std::to_string(headers.packet_bytes) + " octets" + tag;
}

std::string_view verdict_name(const Observation& seen) {
  return seen.fate == Fate::held ? "held" : seen.fate == Fate::asked ? "asked" : text(seen.verdict).name;
}

std::string_view verdict_sentence(const Observation& seen) {
  return seen.fate == Fate::held ? kHeld : seen.fate == Fate::asked ? kAsked : text(seen.verdict).sentence;
}

Json packet_summary(const Controller& controller, const Observation& seen) {
  static constexpr const char* kRoutes[] = {"undecided", "task", "trunk", "local", "answer"};
  const Whose whose = find_endpoint(controller, seen.endpoint, seen.generation);
  const bool refused = seen.verdict != DropReason::none;
  Json connection = nullptr;
  if (seen.has_connection) {
    connection = {{"state", state_name(seen.connection.state)},
                  {"direction", to_string(seen.connection.initiator_direction())},
                  {"tracked", !seen.connection.untracked},
                  {"new", !seen.known}};
  }
  return {{"direction", to_string(seen.direction)},
          {"point", to_string(seen.point)},
          {"eni", whose ? Json(whose.eni) : Json(nullptr)},
          {"verdict", verdict_name(seen)},
          {"sentence", verdict_sentence(seen)},
          {"refused_by", refused ? Json(to_string(seen.stage)) : Json(nullptr)},
          {"route", seen.fate != Fate::passed ? Json(nullptr) : Json(kRoutes[static_cast<std::size_t>(seen.route)])},
          {"made_here", seen.made_here},
          {"worker", seen.worker},
          {"frames", seen.frames},
          {"connection", std::move(connection)}};
}

Json packet_report(const Controller& controller, const Observation& seen, std::span<const std::uint8_t> bytes) {
  return Report(controller, seen, bytes).json();
}

}  // namespace trunkline::control
