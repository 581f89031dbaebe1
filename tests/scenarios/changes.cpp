// SPDX-License-Identifier: BSD-3-Clause
// The steps that change the world, as an operator would: the desired state, which is then compiled as control does it.
#include <algorithm>

#include "tests/scenarios/steps.h"

namespace trunkline::test {
namespace {

// tcp 80, tcp 1000-2000, tcp all, icmp 8/*, icmp all, 50, all
int read_protocol(const std::string& text) {
  static const std::pair<const char*, int> kNames[] = {{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}, {"all", -1}, {"-1", -1}};
  for (const auto& [name, number] : kNames) {
    if (text == name) return number;
  }
  return static_cast<int>(read_number(text, 255));
}

// Takes the ports (or type and code) that a protocol with such has; both -1 otherwise.
std::pair<int, int> read_ports(const Words& words, std::size_t& at, int protocol) {
  if (protocol != 6 && protocol != 17 && protocol != 1 && protocol != 58) return {-1, -1};
  if (at >= words.size()) throw ScenarioError("ports are wanted: 80, 1000-2000 or all; of ICMP a type and code: 8/0, 8/* or all");
  const std::string& text = words[at++];
  const bool icmp = protocol == 1 || protocol == 58;
  if (text == "all") return icmp ? std::pair(-1, -1) : std::pair(0, 65535);
  const std::size_t middle = text.find(icmp ? '/' : '-');
  const auto number = [&](const std::string& part) { return part == "*" ? -1 : static_cast<int>(read_number(part, icmp ? 255 : 65535)); };
  if (middle == std::string::npos) return icmp ? std::pair(number(text), -1) : std::pair(number(text), number(text));
  return {number(text.substr(0, middle)), number(text.substr(middle + 1))};
}

IpPrefix read_prefix(const std::string& text) {
  const auto prefix = IpPrefix::parse(text);
  if (!prefix) throw ScenarioError("\"" + text + "\" is no CIDR");
  return prefix->network();
}

// Each source may be a CIDR, a group or a prefix list.
config::SecurityGroupRule read_rule(const Words& words, std::size_t at) {
  config::SecurityGroupRule rule;
  if (at >= words.size()) throw ScenarioError("write a protocol, its ports and sources: tcp 80 0.0.0.0/0");
  rule.protocol = read_protocol(words[at++]);
  std::tie(rule.from_port, rule.to_port) = read_ports(words, at, rule.protocol);
  for (; at < words.size(); ++at) {
    if (words[at].starts_with("sg-")) rule.group_ids.push_back(words[at]);
    else if (words[at].starts_with("pl-")) rule.prefix_list_ids.push_back(words[at]);
    else rule.ranges.push_back(read_prefix(words[at]));
  }
  return rule;
}

template <class Map>
auto& known(Map& map, const std::string& id, const char* what) {
  if (!map.contains(id)) throw ScenarioError("there is no " + std::string(what) + ' ' + id);
  return map[id];
}

}  // namespace

// add|delete rule GROUP ingress|egress RULE; delete rules GROUP ingress|egress
void Steps::change_rule(const Words& words, bool add) {
  if (words.size() < 4 || (words[3] != "ingress" && words[3] != "egress")) throw ScenarioError("write \"add rule GROUP ingress|egress tcp 80 0.0.0.0/0\"");
  config::SecurityGroup group = known(vpc_.state.security_groups, words[2], "security group");
  auto& rules = words[3] == "ingress" ? group.ingress : group.egress;
  if (words[1] == "rules") {
    rules.clear();
  } else if (const config::SecurityGroupRule rule = read_rule(words, 4); add) {
    rules.push_back(rule);
  } else if (const auto found = std::ranges::find(rules, rule); found != rules.end()) {
    rules.erase(found);
  } else {
    throw ScenarioError(words[2] + " has no such rule");
  }
  vpc_.state.security_groups.insert_or_assign(words[2], group);
}

// add entry ACL ingress|egress NUMBER allow|deny PROTOCOL PORTS CIDR; delete entry ACL ingress|egress NUMBER
void Steps::change_entry(const Words& words, bool add) {
  if (words.size() < 5) throw ScenarioError("write \"add entry ACL ingress|egress 100 allow tcp 80 0.0.0.0/0\"");
  config::NetworkAcl acl = known(vpc_.state.network_acls, words[2], "network ACL");
  auto& entries = words[3] == "ingress" ? acl.ingress : acl.egress;
  const auto number = static_cast<std::uint16_t>(read_number(words[4], 32766));
  const std::size_t before = entries.size();
  std::erase_if(entries, [&](const config::NetworkAclEntry& entry) { return entry.number == number; });
  if (!add && entries.size() == before) throw ScenarioError(words[2] + " has no entry " + words[4]);
  if (add) {
    if (words.size() < 8) throw ScenarioError("an entry says allow or deny, a protocol, its ports and a CIDR");
    config::NetworkAclEntry entry;
    entry.number = number;
    entry.allow = words[5] == "allow";
    entry.protocol = read_protocol(words[6]);
    std::size_t at = 7;
    std::tie(entry.from_port, entry.to_port) = read_ports(words, at, entry.protocol);
    if (at >= words.size()) throw ScenarioError("an entry has a CIDR");
    entry.range = read_prefix(words[at]);
    entries.push_back(entry);
    std::ranges::sort(entries, {}, &config::NetworkAclEntry::number);
  }
  vpc_.state.network_acls.insert_or_assign(words[2], acl);
}

// set NAME MEMBER VALUE, as scenario.json has it: set web groups ["sg-a","sg-b"], set web audit true
void Steps::set(const Words& words) {
  if (words.size() < 4) throw ScenarioError("write \"set NAME groups sg-a sg-b\" or \"set NAME audit true\"");
  config::Attachment attachment = known(vpc_.state.attachments, words[1], "attached task");
  if (words[2] == "groups") {
    attachment.group_ids.assign(words.begin() + 3, words.end());
    for (const std::string& group : attachment.group_ids) known(vpc_.state.security_groups, group, "security group");
  } else {
    std::string text;
    for (std::size_t i = 3; i < words.size(); ++i) text += words[i];
    auto value = config::parse_json(text);
    if (!value) value = config::Json(text);
    set_task(attachment, config::Json{{words[2], *value}}, "");
  }
  vpc_.state.attachments.insert_or_assign(words[1], attachment);
}

bool Steps::change(const Words& words) {
  const auto want = [&](std::size_t count, const char* form) {
    if (words.size() != count) throw ScenarioError(std::string("write \"") + form + '"');
  };
  config::DesiredState& state = vpc_.state;
  if (words[0] == "attach") {
    want(2, "attach NAME");
    const auto task = scenario_.tasks.find(words[1]);
    if (task == scenario_.tasks.end()) throw ScenarioError("scenario.json has no task " + words[1]);
    state.attachments.insert_or_assign(words[1], task->second);
  } else if (words[0] == "detach") {
    want(2, "detach NAME");
    known(state.attachments, words[1], "attached task");
    state.attachments.erase(words[1]);
  } else if (words[0] == "set") {
    set(words);
  } else if (words[0] == "put") {
    want(3, "put groups FILE or put acl FILE");
    const config::Json document = read_document(scenario_.folder / words[2]);
    const char* key = words[1] == "groups" ? "SecurityGroups" : "NetworkAcls";
    if (!document.is_object() || !document.contains(key)) throw ScenarioError(words[2] + " has no " + key);
    words[1] == "groups" ? put_security_groups(state, document[key], words[2]) : put_network_acls(state, document[key], words[2]);
  } else if ((words[0] == "add" || words[0] == "delete") && words.size() > 2) {
    const bool add = words[0] == "add";
    if (words[1] == "rule" || (words[1] == "rules" && !add)) {
      change_rule(words, add);
    } else if (words[1] == "entry") {
      change_entry(words, add);
    } else if (words[1] == "acl" && !add) {
      known(state.network_acls, words[2], "network ACL");
      state.network_acls.erase(words[2]);
    } else if (words[1] == "member") {
      want(4, "add member GROUP ADDRESS");
      config::AddressSet& members = state.remote_members[words[2]];
      const IpAddress address = read_address_and_port(words[3]).address;
      add ? static_cast<void>(members.insert(address)) : static_cast<void>(members.erase(address));
    } else if (words[1] == "prefix") {
      want(4, "add prefix LIST CIDR");
      config::PrefixList list = known(state.prefix_lists, words[2], "prefix list");
      add ? list.entries.push_back(read_prefix(words[3])) : static_cast<void>(std::erase(list.entries, read_prefix(words[3])));
      state.prefix_lists.insert_or_assign(words[2], list);
    } else {
      return false;
    }
  } else {
    return false;
  }
  return true;
}

}  // namespace trunkline::test
