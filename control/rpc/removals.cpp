// SPDX-License-Identifier: BSD-3-Clause
#include "control/rpc/removals.h"

#include <algorithm>

#include "config/validate.h"
#include "control/network_acls.h"

namespace trunkline::control {
namespace {

constexpr std::size_t kNamesShown = 5;

std::string share(std::size_t part, std::size_t whole) { return std::to_string(part) + " of " + std::to_string(whole); }

bool exceeds(std::size_t part, std::size_t whole, unsigned percent) { return part != 0 && part * 100 > whole * percent; }

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

bool has_nothing(const config::DesiredState& state, const config::EngineConfig& config) {
  const bool only_configured = std::ranges::all_of(state.subnets, [&](const auto& each) {
    return std::ranges::find(config.subnets, each.first, &config::Subnet::id) != config.subnets.end();
  });
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
    problems.push_back({"would_remove", pointer, what + "; if that is meant, say so with --allow-removal (\"allow_removal\": true)"});
  };
  const std::string limit = ", and limits.state_replace_removal_percent is " + std::to_string(percent);
  if (const auto enis = out_of_service(before, after, config); exceeds(enis.size(), before.attachments.size(), percent)) {
    complain(share(enis.size(), before.attachments.size()) + " ENIs go out of service (" + listed(enis) + ")" + limit);
  } else if (!enis.empty()) {
    warnings.push_back(share(enis.size(), before.attachments.size()) + " ENIs go out of service (" + listed(enis) + ")");
  }
  const std::size_t members = members_of(before);
  if (const std::size_t lost = members_lost(before, after); exceeds(lost, members, percent)) {
    complain(share(lost, members) + " members of security groups are removed" + limit);
  }
  if (const auto open = subnets_left_open(before, after); !open.empty()) {
    complain(listed(open) + (open.size() == 1 ? " has" : " have") + " ENIs here and no network ACL any more: everything passes");
  }
  return problems;
}

config::Problems check_emptied(std::size_t before, std::size_t after, const std::string& what, RemovalConsent consent, const std::string& pointer) {
  if (before == 0 || after != 0 || consent.empty) return {};
  return {{"would_empty", pointer,
           "the list is empty, so all " + std::to_string(before) + " " + what + " would go; if that is meant, say so with --allow-empty (\"allow_empty\": true)"}};
}

}  // namespace trunkline::control
