// SPDX-License-Identifier: BSD-3-Clause
#include "control/aws/own_interfaces.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "config/validate.h"

namespace trunkline::control {
namespace {

using config::AttachmentFacts;

// Ids by the reason why they were left aside.
class LeftAside {
 public:
  void add(std::string_view reason, const std::string& id) { ids_[std::string(reason)].push_back(id); }

  void tell(std::string_view one, std::string_view several, EventBuilder& builder) const {
    constexpr std::size_t kNamed = 5;
    for (const auto& [reason, ids] : ids_) {
      std::string named;
      for (std::size_t i = 0; i < std::min(ids.size(), kNamed); ++i) named += (i == 0 ? "" : ", ") + ids[i];
      if (ids.size() > kNamed) named += ", ...";
      builder.warn(std::to_string(ids.size()) + " " + std::string(ids.size() == 1 ? one : several) + " left aside (" + named + "): " + reason);
    }
  }

 private:
  std::map<std::string, std::vector<std::string>> ids_;
};

constexpr std::string_view kOfAnotherInstance = "attached to another instance; --all takes all";
constexpr std::string_view kOfSomeInstance =
    "attached to an instance, and nobody said which one this is; say identity.instance_id in the config file or --instance, or take all with --all";
constexpr std::string_view kOfAnotherVpc = "in another VPC than this host's; --all takes all";
constexpr std::string_view kOfNobody =
    "nothing says that it is this host's (no attachment to its instance, no trunk association, no task event); submit that first, or take all with --all";
constexpr std::string_view kTaken = "its MAC or an address is another ENI's; detach that one, or submit the one that is meant alone";
constexpr std::string_view kTooManyAddresses = "it has more addresses than the engine serves (16)";
constexpr std::string_view kOfAnotherTrunk =
    "of a trunk that has no known ENI here; ask for this host's trunk alone, submit its tasks first, or take all with --all";

// Empty: it is this host's.
std::string_view why_not_own(const InterfaceContext& context, bool known, bool only, const std::string& own_vpc, const HostIdentity& host) {
  if (known || host.take_all) return {};
  const bool is_attached = !context.instance_id.empty();
  if (is_attached && !host.instance_id.empty()) return context.instance_id == host.instance_id ? std::string_view{} : kOfAnotherInstance;
  if (only) return {};
  if (!own_vpc.empty() && !context.vpc_id.empty() && own_vpc != context.vpc_id) return kOfAnotherVpc;
  return is_attached ? kOfSomeInstance : kOfNobody;
}

// What an ENI has for itself alone, and which ENIs say that they have it.
struct Claims {
  std::map<IpAddress, std::set<std::string>> addresses;
  std::map<MacAddress, std::set<std::string>> macs;

  void add(const std::string& eni, const std::optional<MacAddress>& mac, const std::vector<IpAddress>& of) {
    if (mac) macs[*mac].insert(eni);
    for (const IpAddress& address : of) addresses[address].insert(eni);
  }
  bool has_rival(const AttachmentFacts& facts) const {
    if (facts.mac && macs.at(*facts.mac).size() > 1) return true;
    return facts.addresses && std::ranges::any_of(*facts.addresses, [&](const IpAddress& address) { return addresses.at(address).size() > 1; });
  }
};

Claims claims_of(const std::vector<AttachmentFacts>& interfaces, const config::DesiredState& state) {
  Claims claims;
  std::set<std::string> said_anew;
  for (const AttachmentFacts& facts : interfaces) {
    claims.add(*facts.eni_id, facts.mac, facts.addresses.value_or(std::vector<IpAddress>{}));
    if (facts.addresses) said_anew.insert(*facts.eni_id);
  }
  for (const auto& [eni, attachment] : state.attachments) {
    if (!said_anew.contains(eni)) claims.add(eni, attachment.mac, attachment.addresses);
  }
  return claims;
}

void keep_unsaid_addresses(AttachmentFacts& facts, const InterfaceContext& context, const config::Attachment& known) {
  if (!facts.addresses) return;
  for (const IpAddress& address : known.addresses) {
    if (!(address.is_v4() ? context.says_ipv4 : context.says_ipv6)) add_address(facts, address, false);
  }
}

}  // namespace

std::vector<AttachmentFacts> own_interfaces(std::vector<AttachmentFacts> all, const std::vector<InterfaceContext>& contexts, EventBuilder& builder) {
  const bool only = all.size() == 1;
  const std::string own_vpc = builder.own_vpc();
  LeftAside aside;
  std::vector<AttachmentFacts> own;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto known = builder.state.attachments.find(*all[i].eni_id);
    const bool is_known = known != builder.state.attachments.end();
    if (const auto why = why_not_own(contexts[i], is_known, only, own_vpc, builder.host); !why.empty()) {
      aside.add(why, *all[i].eni_id);
      continue;
    }
    if (is_known) keep_unsaid_addresses(all[i], contexts[i], known->second);
    own.push_back(std::move(all[i]));
  }
  if (own.size() > 1) {  // one that cannot be is no reason to refuse the others
    const Claims claims = claims_of(own, builder.state);
    std::erase_if(own, [&](const AttachmentFacts& facts) {
      const bool too_many = facts.addresses && facts.addresses->size() > config::kMaxAddressesPerInterface;
      const bool taken = !builder.state.attachments.contains(*facts.eni_id) && claims.has_rival(facts);
      if (too_many || taken) aside.add(too_many ? kTooManyAddresses : kTaken, *facts.eni_id);
      return too_many || taken;
    });
  }
  aside.tell("interface was", "interfaces were", builder);
  return own;
}

std::vector<AttachmentFacts> own_branches(std::vector<AttachmentFacts> all, const std::vector<InterfaceContext>& contexts, EventBuilder& builder) {
  std::set<std::string> trunks, own_trunks;
  for (std::size_t i = 0; i < all.size(); ++i) {
    trunks.insert(contexts[i].trunk_id);
    if (builder.state.attachments.contains(*all[i].eni_id)) own_trunks.insert(contexts[i].trunk_id);
  }
  if (trunks.size() < 2 || builder.host.take_all) return all;
  LeftAside aside;
  std::vector<AttachmentFacts> own;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (own_trunks.contains(contexts[i].trunk_id)) {
      own.push_back(std::move(all[i]));
    } else {
      aside.add(kOfAnotherTrunk, *all[i].eni_id);
    }
  }
  aside.tell("branch was", "branches were", builder);
  return own;
}

std::vector<config::Subnet> without_ambiguous(std::vector<config::Subnet> all, EventBuilder& builder) {
  std::map<IpPrefix, std::set<std::string>> vpcs;  // of a range
  for (const config::Subnet& subnet : all) {
    if (subnet.cidr) vpcs[*subnet.cidr].insert(subnet.vpc_id);
  }
  const std::string own = builder.own_vpc();
  std::erase_if(all, [&](const config::Subnet& subnet) {
    if (!subnet.cidr) return false;
    const config::Subnet* by_gateway = builder.state.subnets.get(gateway_subnet_id(*subnet.cidr));
    if (by_gateway == nullptr || !by_gateway->vpc_id.empty()) return false;
    const bool is_foreign = !own.empty() && !subnet.vpc_id.empty() && subnet.vpc_id != own;
    const bool ambiguous = own.empty() && vpcs.at(*subnet.cidr).size() > 1;
    if (!is_foreign && !ambiguous) return false;
    builder.warn(subnet.id + " was left out: an ENI here is in a subnet of " + subnet.cidr->to_string() + ", and " +
                 (is_foreign ? subnet.vpc_id + " is not this host's VPC"
                             : std::string("several VPCs have one; say which is this host's (identity.vpc_id in the config file)")));
    return true;
  });
  return all;
}

}  // namespace trunkline::control
