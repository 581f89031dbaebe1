// SPDX-License-Identifier: BSD-3-Clause
//
// What a valid state is, in this order: subnets, groups and prefix lists, network ACLs, each attachment by itself, attachments among
// each other. The rules are AWS's where AWS has one.
#include "config/validate.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "config/json_reader.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

std::string place(std::string_view collection, const std::string& id) {
  return pointer_to(pointer_to("", collection), id);
}

// How many rules a group costs an interface, in AWS's count: one for each range, group and entry of a prefix list.
struct RuleCount {
  std::size_t of[2][2] = {};  // [direction][family]: ingress, egress; IPv4, IPv6
};

// The same before the prefix lists are known: what the rules say themselves, and how often they name which list.
struct RuleFacts {
  RuleCount own;
  std::map<std::string, std::array<std::size_t, 2>> lists;  // id -> uses in ingress, egress
  RuleCount total;                                          // with the lists as they are
};

RuleFacts facts_of(const SecurityGroup& group) {
  RuleFacts facts;
  for (const std::size_t direction : {0U, 1U}) {
    for (const SecurityGroupRule& rule : direction == 0 ? group.ingress : group.egress) {
      for (const IpPrefix& range : rule.ranges) ++facts.own.of[direction][range.is_v4() ? 0 : 1];
      for (std::size_t& family : facts.own.of[direction]) family += rule.group_ids.size();
      for (const std::string& id : rule.prefix_list_ids) ++facts.lists[id][direction];
    }
  }
  return facts;
}

RuleCount total_of(const RuleFacts& facts, const DesiredState& state) {
  RuleCount total = facts.own;
  for (const auto& [id, uses] : facts.lists) {
    const PrefixList* list = state.prefix_lists.get(id);
    if (list == nullptr) continue;
    const auto ipv4 = static_cast<std::size_t>(std::ranges::count_if(list->entries, &IpPrefix::is_v4));
    for (const std::size_t direction : {0U, 1U}) {
      total.of[direction][0] += uses[direction] * ipv4;
      total.of[direction][1] += uses[direction] * (list->entries.size() - ipv4);
    }
  }
  return total;
}

bool exceeds(const RuleCount& count, const RuleCount& other) {
  for (const std::size_t direction : {0U, 1U}) {
    for (const std::size_t family : {0U, 1U}) {
      if (count.of[direction][family] > other.of[direction][family]) return true;
    }
  }
  return false;
}

// What an ENI has for itself alone, and which ENI has it; and which network ACL has a subnet.
struct Claims {
  std::map<VlanId, std::string> vlans;
  std::map<MacAddress, std::string> macs;
  std::map<IpAddress, std::string> addresses;
  std::map<std::string, std::string> interfaces;
  std::map<std::string, std::string> subnets;

  template <class Act>
  static void for_each_kind(Claims& a, Claims& b, Act act) {
    act(a.vlans, b.vlans);
    act(a.macs, b.macs);
    act(a.addresses, b.addresses);
    act(a.interfaces, b.interfaces);
    act(a.subnets, b.subnets);
  }
};

// "nginx" and "/run/netns/nginx" are one namespace, "/run//a.sock" and "/run/a.sock" one socket.
std::string plain_path(const std::string& path) { return std::filesystem::path(path).lexically_normal().string(); }
std::string plain_netns(const std::string& netns) {
  std::string path = plain_path(netns);
  for (const std::string_view folder : {"/run/netns/", "/var/run/netns/"}) {
    if (path.starts_with(folder)) return path.substr(folder.size());
  }
  return path;
}

// What of this host a port takes for itself, as words for a complaint.
std::string interface_of(const PortSpec& port) {
  switch (port.kind) {
    case PortKind::tap:
    case PortKind::virtio_user:
      return "interface " + words::in_quotes(port.ifname) +
             (port.netns.empty() ? " in the engine's own network namespace"
                                 : " in network namespace " + words::in_quotes(plain_netns(port.netns)));
    case PortKind::vhost_user: return "socket " + words::dump(plain_path(port.socket));
    case PortKind::vdev: return "device " + words::in_quotes(vdev_name(port.devargs));
  }
  return {};
}

}  // namespace

struct StateValidator::Memory {
  DesiredState state;
  Claims claims;
  std::map<std::string, RuleFacts> rules;  // by group
};

namespace {

// Looks at a whole state, or, with a memory, at what differs from the valid state that is remembered there.
class Validator {
 public:
  using Memory = StateValidator::Memory;
  Validator(const DesiredState& state, const EngineConfig& config, const Memory* memory = nullptr)
      : state_(state), config_(config), memory_(memory) {}

  Problems run(std::string_view subject) {
    check_all_subnets();
    for (const auto& [id, group] : state_.security_groups) check_group(id, group);
    for (const auto& [id, list] : state_.prefix_lists) check_prefix_list(id, list);
    for (const auto& [id, acl] : state_.network_acls) check_acl(id, acl);
    for (const auto& [id, members] : state_.remote_members) check_id("sg", "remote_members", id);
    check_attachment_count();
    // The subject goes last, so that in a quarrel the complaint is about it.
    const auto last = state_.attachments.find(std::string(subject));
    for (auto each = state_.attachments.begin(); each != state_.attachments.end(); ++each) {
      if (each != last) check_attachment(each->first, each->second);
    }
    if (last != state_.attachments.end()) check_attachment(last->first, last->second);
    return std::move(problems_);
  }

  // Whether there is no problem, with a memory. Subnets are the same as there.
  bool run_on_differences() {
    for_each_unshared(memory_->state.security_groups, state_.security_groups,
                        [&](const std::string& id, const SecurityGroup*, const SecurityGroup* group) {
                          group != nullptr ? check_group(id, *group) : static_cast<void>(rules_[id]);
                        });
    std::set<std::string> lists;
    for_each_unshared(memory_->state.prefix_lists, state_.prefix_lists,
                        [&](const std::string& id, const PrefixList*, const PrefixList* list) {
                          lists.insert(id);
                          if (list != nullptr) check_prefix_list(id, *list);
                        });
    if (!lists.empty()) count_users_again(lists);
    for_each_unshared(memory_->state.remote_members, state_.remote_members,
                        [&](const std::string& id, const AddressSet*, const AddressSet*) { check_id("sg", "remote_members", id); });
    for_each_unshared(memory_->state.network_acls, state_.network_acls,
                        [&](const std::string& id, const NetworkAcl*, const NetworkAcl*) { touched_.insert(id); });
    for (const std::string& id : touched_) {
      if (const NetworkAcl* acl = state_.network_acls.get(id)) check_acl(id, *acl);
    }
    check_attachment_count();
    for_each_unshared(memory_->state.attachments, state_.attachments,
                        [&](const std::string& eni, const Attachment*, const Attachment*) { touched_.insert(eni); });
    for (const std::string& eni : touched_) {
      if (const Attachment* attachment = state_.attachments.get(eni)) check_attachment(eni, *attachment);
    }
    check_carriers_of_grown_groups();
    return problems_.empty();
  }

  // What run_on_differences() has found out becomes what is remembered.
  void remember(Memory& memory) && {
    Validator before(memory.state, config_);
    for (const std::string& eni : touched_) {
      if (const Attachment* attachment = memory.state.attachments.get(eni)) before.check_attachment(eni, *attachment);
      if (const NetworkAcl* acl = memory.state.network_acls.get(eni)) before.check_acl(eni, *acl);
    }
    Claims::for_each_kind(memory.claims, before.claims_, [](auto& known, const auto& released) {
      for (const auto& [key, eni] : released) known.erase(key);
    });
    Claims::for_each_kind(memory.claims, claims_, [](auto& known, auto& taken) { known.merge(taken); });
    for (auto& [id, facts] : rules_) {
      if (state_.security_groups.contains(id)) {
        memory.rules.insert_or_assign(id, std::move(facts));
      } else {
        memory.rules.erase(id);
      }
    }
    memory.state = state_;
  }

 private:
  void complain(std::string name, std::string pointer, std::string message) {
    add_problem(problems_, {std::move(name), std::move(pointer), std::move(message)});
  }

  void check_id(std::string_view kind, std::string_view collection, const std::string& id) {
    if (is_resource_id(kind, id)) return;
    complain("invalid_params", place(collection, id),
             words::in_quotes(id) + " is no id here; wanted " + std::string(kind) +
                 "- and letters and digits, as AWS has it");
  }

  void check_all_subnets() {
    std::vector<PlacedSubnet> all;
    for (const auto& [id, subnet] : state_.subnets) {
      check_id("subnet", "subnets", id);
      all.push_back({&subnet, place("subnets", id)});
    }
    for (const Subnet& subnet : config_.subnets) {
      if (!state_.subnets.contains(subnet.id)) all.push_back({&subnet, {}});
    }
    check_subnets(std::move(all), problems_, config_.identity.vpc_id);
  }

  void check_group(const std::string& id, const SecurityGroup& group) {
    static const std::string nowhere;
    check_id("sg", "security_groups", id);
    RuleFacts& facts = rules_[id];
    facts = facts_of(group);
    facts.total = total_of(facts, state_);
    for (const bool egress : {false, true}) {
      const auto& rules = egress ? group.egress : group.ingress;
      Problems found;
      for (std::size_t i = 0; i < rules.size(); ++i) {
        check_rule(rules[i], nowhere, found);
        if (found.empty()) continue;  // as nearly always, and then nobody needs to know where it would have been
        found.clear();
        check_rule(rules[i], pointer_to(pointer_to(place("security_groups", id), egress ? "egress" : "ingress"), i), problems_);
      }
    }
  }

  void check_prefix_list(const std::string& id, const PrefixList& list) {
    check_id("pl", "prefix_lists", id);
    if (list.entries.size() <= kMaxPrefixListEntries) return;
    complain("quota", pointer_to(place("prefix_lists", id), "entries"),
             id + " has " + std::to_string(list.entries.size()) + " entries; AWS allows " +
                 std::to_string(kMaxPrefixListEntries) + " at most, so split it");
  }

  void check_acl(const std::string& id, const NetworkAcl& acl) {
    const std::string pointer = place("network_acls", id);
    check_id("acl", "network_acls", id);
    check_network_acl(acl, pointer, problems_);
    for (std::size_t i = 0; i < acl.subnet_ids.size(); ++i) {
      const std::string& subnet = acl.subnet_ids[i];
      const std::string* owner = other_claim(&Claims::subnets, subnet, id);
      if (owner == nullptr) continue;
      const std::string at = pointer_to(pointer_to(pointer, "subnets"), i);
      complain("duplicate_subnet", at,
               *owner == id ? subnet + " is listed twice for " + id + "; name it once"
                            : subnet + " has network ACL " + *owner + " already and can have one only; give both ACLs as they are now");
    }
  }

  // The groups that did not change themselves, but name one of these lists.
  void count_users_again(const std::set<std::string>& lists) {
    for (const auto& [id, facts] : memory_->rules) {
      if (rules_.contains(id)) continue;
      const bool uses = std::ranges::any_of(facts.lists, [&](const auto& use) { return lists.contains(use.first); });
      if (!uses) continue;
      RuleFacts& now = rules_[id] = facts;
      now.total = total_of(now, state_);
    }
  }

  // An ENI that did not change itself can only have got too many rules.
  void check_carriers_of_grown_groups() {
    std::set<std::string> grown;
    for (const auto& [id, facts] : rules_) {
      const auto known = memory_->rules.find(id);
      if (exceeds(facts.total, known == memory_->rules.end() ? RuleCount{} : known->second.total)) grown.insert(id);
    }
    if (grown.empty()) return;
    for (const auto& [eni, attachment] : state_.attachments) {
      const auto& groups = attachment.group_ids;
      if (std::ranges::none_of(groups, [&](const std::string& id) { return grown.contains(id); })) continue;
      check_groups(eni, attachment, pointer_to(place("attachments", eni), "groups"));
    }
  }

  void check_attachment_count() {
    if (state_.attachments.size() <= config_.limits.endpoints) return;
    complain("port_limit", "/attachments",
             "there would be " + std::to_string(state_.attachments.size()) + " ENIs and limits.endpoints is " +
                 std::to_string(config_.limits.endpoints) + "; detach one, or raise the limit and restart");
  }

  void check_attachment(const std::string& eni, const Attachment& attachment) {
    const std::string pointer = place("attachments", eni);
    check_id("eni", "attachments", eni);
    if (attachment.vlan && config_.trunk.mode == TrunkMode::tagged) {
      const unsigned vlan = attachment.vlan->value;
      if (attachment.vlan->is_untagged()) {
        // The trunk ENI's own traffic; several such ENIs are told apart by MAC.
      } else if (VlanId::is_valid(vlan)) {
        claim(&Claims::vlans, *attachment.vlan, eni, "duplicate_vlan", pointer_to(pointer, "vlan"),
              "VLAN " + std::to_string(vlan));
      } else {
        complain("invalid_params", pointer_to(pointer, "vlan"),
                 "VLAN " + std::to_string(vlan) + " cannot carry an ENI; wanted 1 to 4094");
      }
    }
    if (attachment.mac) {
      check_mac(*attachment.mac, pointer_to(pointer, "mac"), problems_);
      claim(&Claims::macs, *attachment.mac, eni, "duplicate_mac", pointer_to(pointer, "mac"),
            "MAC address " + attachment.mac->to_string());
      if (*attachment.mac == config_.edge.router_mac && config_.edge.mode == EdgeMode::answer) {
        complain("invalid_params", pointer_to(pointer, "mac"),
                 eni + " has the MAC address " + attachment.mac->to_string() +
                     ", which is the router's (edge.router_mac in the config file)");
      }
    }
    if (attachment.trunk_mac && config_.trunk.mac && *attachment.trunk_mac != *config_.trunk.mac) {
      complain("wrong_trunk", pointer_to(pointer, "trunk_mac"),
               eni + " belongs to the trunk with MAC address " + attachment.trunk_mac->to_string() +
                   "; this engine's trunk has " + config_.trunk.mac->to_string() + " (trunk.mac in the config file)");
    }
    check_addresses(eni, attachment, pointer_to(pointer, "addresses"));
    check_groups(eni, attachment, pointer_to(pointer, "groups"));
    check_conntrack(attachment.conntrack, pointer_to(pointer, "conntrack"), problems_);
    check_limits(attachment.limits, pointer_to(pointer, "limits"), problems_);
    if (attachment.port) check_port_of(eni, *attachment.port, pointer_to(pointer, "port"));
  }

  void check_addresses(const std::string& eni, const Attachment& attachment, const std::string& pointer) {
    if (attachment.addresses.size() > kMaxAddressesPerInterface) {
      complain("quota", pointer,
               eni + " has " + std::to_string(attachment.addresses.size()) + " addresses; wanted " +
                   std::to_string(kMaxAddressesPerInterface) + " at most");
    }
    const Subnet* subnet = find_subnet(attachment.subnet_id, state_, config_);
    for (std::size_t i = 0; i < attachment.addresses.size(); ++i) {
      const IpAddress& address = attachment.addresses[i];
      claim(&Claims::addresses, address, eni, "duplicate_ip", pointer_to(pointer, i), "address " + address.to_string());
      if (subnet != nullptr) check_address_in(*subnet, address, pointer_to(pointer, i));
    }
  }

  void check_address_in(const Subnet& subnet, const IpAddress& address, const std::string& pointer) {
    if (!address.is_v4() && !subnet.ipv6_cidr) {
      return complain("address_outside_subnet", pointer,
                      "address " + address.to_string() + " is IPv6 and " + subnet.id +
                          " has no IPv6 range; put the subnet with one");
    }
    if (address.is_v4() && !subnet.cidr) {
      return complain("address_outside_subnet", pointer,
                      "address " + address.to_string() + " is IPv4 and " + subnet.id + " is IPv6-only; put the subnet with its IPv4 range");
    }
    const IpPrefix range = (address.is_v4() ? *subnet.cidr : *subnet.ipv6_cidr).network();
    if (!range.contains(address)) {
      return complain(
          "address_outside_subnet", pointer,
          "address " + address.to_string() + " is not in " + range.to_string() + ", the range of " + subnet.id);
    }
    IpAddress fourth = range.address;
    fourth.bytes[15] = static_cast<std::uint8_t>(fourth.bytes[15] + 3);
    if (address <= fourth || address == range.last()) {
      complain("reserved_address", pointer,
               "address " + address.to_string() + " is reserved: AWS keeps the first four and the last of " +
                   range.to_string());
    }
  }

  void check_groups(const std::string& eni, const Attachment& attachment, const std::string& pointer) {
    if (attachment.group_ids.size() > kMaxGroupsPerInterface) {
      complain("quota", pointer,
               eni + " has " + std::to_string(attachment.group_ids.size()) + " security groups; AWS allows " +
                   std::to_string(kMaxGroupsPerInterface) + " at most");
    }
    RuleCount sum;
    for (const std::string& id : attachment.group_ids) {
      const RuleFacts* facts = find_rules(id);
      if (facts == nullptr) continue;
      for (const std::size_t direction : {0U, 1U}) {
        for (const std::size_t family : {0U, 1U}) sum.of[direction][family] += facts->total.of[direction][family];
      }
    }
    for (const std::size_t direction : {0U, 1U}) {
      for (const std::size_t family : {0U, 1U}) {
        if (sum.of[direction][family] <= kMaxRulesPerInterface) continue;
        complain("quota", pointer,
                 "the groups of " + eni + " have " + std::to_string(sum.of[direction][family]) +
                     (family == 0 ? " IPv4 " : " IPv6 ") + (direction == 0 ? "ingress" : "egress") +
                     " rules together; AWS allows " + std::to_string(kMaxRulesPerInterface) +
                     " at most, so take a group off or merge ranges");
      }
    }
  }

  void check_port_of(const std::string& eni, const PortSpec& port, const std::string& pointer) {
    check_port(port, pointer, problems_);
    if (port.mtu > config_.trunk.mtu) {
      complain("invalid_params", pointer_to(pointer, "mtu"),
               "MTU " + std::to_string(port.mtu) + " is above the trunk's " + std::to_string(config_.trunk.mtu) +
                   "; give the port \"mtu\": " + std::to_string(config_.trunk.mtu) + " or less");
    }
    const std::string interface = interface_of(port);
    if (port.kind == PortKind::vdev && vdev_name(port.devargs) == vdev_name(config_.trunk.device)) {
      complain("duplicate_interface", pointer, interface + " is the trunk; give " + eni + " another one");
    }
    claim(&Claims::interfaces, interface, eni, "duplicate_interface", pointer, interface);
  }

  const RuleFacts* find_rules(const std::string& group) const {
    if (const auto found = rules_.find(group); found != rules_.end()) return &found->second;
    if (memory_ == nullptr) return nullptr;
    const auto known = memory_->rules.find(group);
    return known == memory_->rules.end() ? nullptr : &known->second;
  }

  // Notes that `claimant` has `key` for itself; the answer is who has it already, if anyone.
  template <typename Key>
  const std::string* other_claim(std::map<Key, std::string> Claims::*kind, const Key& key, const std::string& claimant) {
    const auto [mine, is_new] = (claims_.*kind).emplace(key, claimant);
    if (!is_new) return &mine->second;
    if (memory_ == nullptr) return nullptr;
    const auto known = (memory_->claims.*kind).find(key);
    return known != (memory_->claims.*kind).end() && !touched_.contains(known->second) ? &known->second : nullptr;
  }

  // The same of an ENI, and the complaint.
  template <typename Key>
  void claim(std::map<Key, std::string> Claims::*kind, const Key& key, const std::string& eni, const char* name,
             const std::string& pointer, const std::string& thing) {
    const std::string* owner = other_claim(kind, key, eni);
    if (owner == nullptr) return;
    if (*owner == eni) return complain(name, pointer, thing + " is listed twice for " + eni + "; name it once");
    complain(name, pointer,
             thing + " is taken by " + *owner + "; give " + eni + " another one, or detach that one first");
  }

  const DesiredState& state_;
  const EngineConfig& config_;
  const Memory* memory_;
  Problems problems_;
  std::map<std::string, RuleFacts> rules_;  // with a memory: of groups that count otherwise than there
  Claims claims_;                           // with a memory: of `touched_`
  std::set<std::string> touched_;           // attachments and network ACLs that differ from what is remembered
};

}  // namespace

Problems validate(const DesiredState& state, const EngineConfig& config, std::string_view subject) {
  return Validator(state, config).run(subject);
}

StateValidator::StateValidator(const EngineConfig& config) : config_(config), memory_(std::make_unique<Memory>()) {}
StateValidator::~StateValidator() = default;

Problems StateValidator::validate(const DesiredState& state, std::string_view subject) {
  // Every attachment depends on the subnets, and they rarely change.
  const bool same_subnets = state.subnets == memory_->state.subnets;
  if (!same_subnets) {
    if (Problems problems = config::validate(state, config_, subject); !problems.empty()) return problems;
  }
  Validator differences(state, config_, memory_.get());
  if (!differences.run_on_differences()) return config::validate(state, config_, subject);
  std::move(differences).remember(*memory_);
  return {};
}

const Subnet* find_subnet(const std::string& id, const DesiredState& state, const EngineConfig& config) {
  if (const Subnet* found = state.subnets.get(id)) return found;
  const auto known =
      std::find_if(config.subnets.begin(), config.subnets.end(), [&](const Subnet& each) { return each.id == id; });
  return known == config.subnets.end() ? nullptr : &*known;
}

std::optional<std::string> missing_facts(const Attachment& attachment, const DesiredState& state,
                                         const EngineConfig& config) {
  std::vector<std::string> missing;
  if (config.trunk.mode == TrunkMode::tagged && !attachment.vlan)
    missing.emplace_back("its VLAN (agent message or --vlan)");
  if (!attachment.mac) missing.emplace_back("its MAC address (task event or --mac)");
  if (attachment.addresses.empty()) missing.emplace_back("an address (task event or --address)");
  if (attachment.subnet_id.empty()) {
    missing.emplace_back("its subnet (task event or --subnet)");
  } else if (find_subnet(attachment.subnet_id, state, config) == nullptr) {
    missing.push_back("subnet " + attachment.subnet_id + " (subnet put)");
  }
  if (attachment.group_ids.empty())
    missing.emplace_back("its security groups (describe-network-interfaces or --group)");
  for (const std::string& id : attachment.group_ids) {
    if (!state.security_groups.contains(id)) missing.push_back("group " + id + " (sg put)");
  }
  if (!attachment.port) missing.emplace_back("its port (task_defaults.port in the config file, or --port)");
  if (!attachment.prefixes.empty()) {
    const std::size_t others = attachment.prefixes.size() - 1;
    missing.push_back("delegated prefix " + attachment.prefixes.front().to_string() + (others == 0 ? "" : " and " + std::to_string(others) + " more") +
                      " to be unassigned, since the engine serves single addresses only (then describe-network-interfaces again)");
  }
  if (missing.empty()) return std::nullopt;
  std::string sentence = "waits for ";
  for (std::size_t i = 0; i < missing.size(); ++i) {
    if (i != 0) sentence += i + 1 == missing.size() ? " and " : ", ";
    sentence += missing[i];
  }
  return sentence;
}

}  // namespace trunkline::config
