// SPDX-License-Identifier: BSD-3-Clause
#include "control/rpc/removals.h"

#include <algorithm>
#include <set>

#include "config/validate.h"
#include "control/network_acls.h"

namespace trunkline::control {
namespace {

constexpr std::size_t kNamesShown = 5;

std::string share(std::size_t part, std::size_t whole) { return std::to_string(part) + " of " + std::to_string(whole); }

bool exceeds(Loss loss, unsigned percent) { return loss.lost != 0 && loss.lost * 100 > loss.whole * percent; }

constexpr char kSayRemoval[] = "; if that is meant, say so with --allow-removal (\"allow_removal\": true)";

std::string beyond(unsigned percent) {
  return ", and limits.state_replace_removal_percent is " + std::to_string(percent);
}

std::string removal_of(const std::string& what, Loss loss, unsigned percent) {
  return share(loss.lost, loss.whole) + ' ' + what + " are removed" + beyond(percent);
}

// The ENIs that are complete now and are gone afterwards, or would wait for something that went.
std::vector<std::string> out_of_service(const config::DesiredState& before, const config::DesiredState& after, const config::EngineConfig& config) {
  std::vector<std::string> enis;
  for (const auto& [eni, attachment] : before.attachments) {
    const config::Attachment* then = after.attachments.get(eni);
    const bool is_gone = then == nullptr;
    const bool will_wait = !is_gone && config::missing_facts(*then, after, config) && !config::missing_facts(attachment, before, config);
    if (is_gone || will_wait) enis.push_back(eni);
  }
  return enis;
}

std::size_t members_of(const config::DesiredState& state) {
  std::size_t count = 0;
  for (const auto& [group, members] : state.remote_members) count += members.size();
  return count;
}

std::size_t members_lost(const config::DesiredState& before, const config::DesiredState& after) {
  std::size_t count = 0;
  for_each_unshared(before.remote_members, after.remote_members, [&](const std::string&, const config::AddressSet* was, const config::AddressSet* is) {
    if (was == nullptr) return;
    if (is == nullptr) {
      count += was->size();
      return;
    }
    for (const IpAddress& address : *was) count += is->contains(address) ? 0 : 1;
  });
  return count;
}

template <class T>
Loss ids_lost(const config::SharedMap<std::string, T>& before, const config::SharedMap<std::string, T>& after) {
  Loss loss{0, before.size()};
  for (const auto& [id, value] : before) loss.lost += after.contains(id) ? 0 : 1;
  return loss;
}

Loss prefixes_lost(const config::DesiredState& before, const config::DesiredState& after) {
  Loss loss;
  for (const auto& [id, list] : before.prefix_lists) {
    loss.whole += list.entries.size();
    const config::PrefixList* is = after.prefix_lists.get(id);
    const std::set<IpPrefix> kept =
        is == nullptr ? std::set<IpPrefix>() : std::set<IpPrefix>(is->entries.begin(), is->entries.end());
    for (const IpPrefix& entry : list.entries) loss.lost += kept.contains(entry) ? 0 : 1;
  }
  return loss;
}

// A rule that became another one is not lost: the sources of a group's rules are counted, not compared.
std::size_t sources_of(const config::SecurityGroup* group) {
  if (group == nullptr) return 0;
  std::size_t count = 0;
  for (const auto* rules : {&group->ingress, &group->egress}) {
    for (const config::SecurityGroupRule& rule : *rules)
      count += rule.ranges.size() + rule.prefix_list_ids.size() + rule.group_ids.size();
  }
  return count;
}
Loss rules_lost(const config::DesiredState& before, const config::DesiredState& after) {
  Loss loss;
  for (const auto& [id, group] : before.security_groups) {
    const std::size_t was = sources_of(&group), is = sources_of(after.security_groups.get(id));
    loss.whole += was;
    loss.lost += was - std::min(was, is);
  }
  return loss;
}

// Those of the config file are part of every state.
bool is_configured(const std::string& subnet, const config::EngineConfig& config) {
  return std::ranges::find(config.subnets, subnet, &config::Subnet::id) != config.subnets.end();
}

Loss subnets_lost(const config::DesiredState& before, const config::DesiredState& after,
                  const config::EngineConfig& config) {
  Loss loss;
  for (const auto& [id, subnet] : before.subnets) {
    if (is_configured(id, config)) continue;
    ++loss.whole;
    loss.lost += after.subnets.contains(id) ? 0 : 1;
  }
  return loss;
}

bool has_nothing(const config::DesiredState& state, const config::EngineConfig& config) {
  const bool only_configured =
      std::ranges::all_of(state.subnets, [&](const auto& each) { return is_configured(each.first, config); });
  return only_configured && state.attachments.empty() && state.security_groups.empty() && state.prefix_lists.empty() && state.network_acls.empty() &&
         state.remote_members.empty();
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesShown); ++i) text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kNamesShown) text += " and " + std::to_string(names.size() - kNamesShown) + " more";
  return text;
}

}  // namespace

config::Problems check_removals(const config::DesiredState& before, const config::DesiredState& after, const config::EngineConfig& config,
                                RemovalConsent consent, const std::string& pointer, std::vector<std::string>& warnings) {
  config::Problems problems;
  if (has_nothing(after, config) && !consent.empty) {
    problems.push_back({"would_empty", pointer,
                        "the state that is given has nothing in it: no ENI, group, network ACL, prefix list or subnet; if all " +
                            std::to_string(before.attachments.size()) + " ENIs and everything else are to go, say so with --allow-empty (\"allow_empty\": true)"});
    return problems;
  }
  const unsigned percent = config.limits.state_replace_removal_percent;
  // Whoever has said that nothing is to be left has said that all goes.
  const bool may_remove = consent.removal || (consent.empty && has_nothing(after, config));
  const auto complain = [&](const std::string& what) {
    if (may_remove) {
      warnings.push_back(what);
      return;
    }
    problems.push_back({"would_remove", pointer, what + kSayRemoval});
  };
  if (const auto enis = out_of_service(before, after, config);
      exceeds({enis.size(), before.attachments.size()}, percent)) {
    complain(share(enis.size(), before.attachments.size()) + " ENIs go out of service (" + listed(enis) + ")" +
             beyond(percent));
  } else if (!enis.empty()) {
    warnings.push_back(share(enis.size(), before.attachments.size()) + " ENIs go out of service (" + listed(enis) + ")");
  }
  if (const auto open = subnets_left_open(before, after); !open.empty()) {
    complain(listed(open) + (open.size() == 1 ? " has" : " have") + " ENIs here and no network ACL any more: everything passes");
  }
  const auto check = [&](const Loss& loss, const char* what) {
    if (exceeds(loss, percent)) complain(removal_of(what, loss, percent));
  };
  check({members_lost(before, after), members_of(before)}, "members of security groups");
  check(ids_lost(before.security_groups, after.security_groups), "security groups");
  check(rules_lost(before, after), "sources of rules");
  check(prefixes_lost(before, after), "entries of prefix lists");
  check(ids_lost(before.network_acls, after.network_acls), "network ACLs");
  check(subnets_lost(before, after, config), "subnets");
  return problems;
}

config::Problems check_replaced(const std::string& what, Loss loss, std::size_t given,
                                const config::EngineConfig& config, RemovalConsent consent,
                                const std::string& pointer) {
  if (loss.whole != 0 && given == 0 && !consent.empty) {
    return {{"would_empty", pointer,
             "the list is empty, so all " + std::to_string(loss.whole) + " " + what +
                 " would go; if that is meant, say so with --allow-empty (\"allow_empty\": true)"}};
  }
  const unsigned percent = config.limits.state_replace_removal_percent;
  if (!exceeds(loss, percent) || consent.removal || (given == 0 && consent.empty)) return {};
  return {{"would_remove", pointer, removal_of(what, loss, percent) + kSayRemoval}};
}

}  // namespace trunkline::control
