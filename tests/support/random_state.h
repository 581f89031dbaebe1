// SPDX-License-Identifier: BSD-3-Clause
//
// Random edits of a desired state: small enough in their choice of ids, addresses and VLANs that they meet, so that both
// valid and invalid states come of them, and unchanged ones too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "config/desired_state.h"
#include "config/engine_config.h"

namespace trunkline::test {

class RandomEdits {
 public:
  explicit RandomEdits(std::uint64_t seed) : random_(seed) {}

  static config::EngineConfig config() {
    config::EngineConfig result;
    result.trunk.device = "net_null0";
    result.limits.endpoints = 10;
    return result;
  }

  // A few edits, each of one thing.
  void edit(config::DesiredState& state) {
    for (std::uint32_t count = 1 + below(3); count > 0; --count) edit_once(state);
  }
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }

 private:
  static std::string id(const char* kind, std::uint32_t number) { return kind + std::to_string(number); }
  IpAddress address() { return IpAddress::from_v4(0x0a000000U + (below(2) << 8) + below(24)); }

  config::SecurityGroupRule rule() {
    config::SecurityGroupRule result;
    result.protocol = below(40) == 0 ? 300 : 6;
    result.from_port = static_cast<int>(below(1000));
    result.to_port = below(60) == 0 ? result.from_port - 1 : result.from_port + 10;
    for (std::uint32_t i = below(3); i > 0; --i) result.ranges.push_back({IpAddress::from_v4(0x0a000000U + (below(200) << 8)), 24});
    // Many at once, so that the quota is met.
    if (below(12) == 0) result.ranges.assign(300 + below(300), {IpAddress::from_v4(0xc0000000U), 8});
    if (below(4) == 0) result.group_ids = {id("sg-", below(8))};
    if (below(4) == 0) result.prefix_list_ids = {id("pl-", below(3))};
    return result;
  }

  config::NetworkAclEntry entry() {
    config::NetworkAclEntry result;
    result.number = static_cast<std::uint16_t>(below(60) == 0 ? 32767 : 1 + below(200));
    result.allow = below(2) == 0;
    result.protocol = below(40) == 0 ? 300 : below(2) == 0 ? 6 : -1;
    result.from_port = static_cast<int>(below(1000));
    result.to_port = result.from_port + 10;
    result.range = below(3) == 0 ? IpPrefix{*IpAddress::parse("2001:db8::"), 32} : IpPrefix{IpAddress::from_v4(0x0a000000U), 8};
    return result;
  }

  config::Attachment attachment(const std::string& eni) {
    config::Attachment result;
    result.eni_id = eni;
    if (below(10) != 0) result.mac = MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(1 + below(30))}};
    for (std::uint32_t i = below(3); i > 0; --i) result.addresses.push_back(address());
    if (below(10) != 0) result.subnet_id = id("subnet-", below(3));
    if (below(10) != 0) result.vlan = VlanId{static_cast<std::uint16_t>(1 + below(30))};
    const std::uint32_t first = below(8);
    for (std::uint32_t i = below(3); i > 0; --i) result.group_ids.push_back(id("sg-", (first + 3 * i) % 8));
    if (below(10) != 0) {
      result.port = config::PortSpec{};
      result.port->netns = "ns" + std::to_string(below(30));
    }
    result.conntrack.udp_timeout = below(40) == 0 ? 10 : 30;
    if (below(4) == 0) result.limits.egress_bits = below(40) == 0 ? ~std::uint64_t{0} : below(1000000);
    if (below(4) == 0) result.on_change = config::OnChange::revalidate;
    result.audit = below(4) == 0;
    return result;
  }

  template <class Map>
  void erase_one(Map& map) {
    if (map.empty()) return;
    auto victim = map.begin();
    for (std::uint32_t i = below(static_cast<std::uint32_t>(map.size())); i > 0; --i) ++victim;
    map.erase(victim->first);
  }

  void edit_once(config::DesiredState& state) {
    switch (below(20)) {
      case 0: {
        config::Subnet subnet;
        subnet.id = id("subnet-", below(3));
        const auto length = static_cast<std::uint8_t>(below(6) == 0 ? 23 : 24);
        subnet.cidr = IpPrefix{IpAddress::from_v4(0x0a000000U + (below(3) << 8)), length}.network();
        if (below(3) == 0) subnet.vpc_cidr = IpPrefix{IpAddress::from_v4(0x0a000000U), 16};
        state.subnets.insert_or_assign(subnet.id, subnet);
        return;
      }
      case 1: return below(3) == 0 ? erase_one(state.subnets) : void();
      case 2:
      case 3:
      case 4: {
        const std::string name = id("sg-", below(8));
        config::SecurityGroup& group = state.security_groups[name];
        group.id = name;
        auto& rules = below(3) == 0 ? group.egress : group.ingress;
        if (rules.size() > 6 || (!rules.empty() && below(3) == 0)) rules.erase(rules.begin() + below(static_cast<std::uint32_t>(rules.size())));
        if (below(4) != 0) rules.insert(rules.begin() + below(static_cast<std::uint32_t>(rules.size()) + 1), rule());
        return;
      }
      case 5: return erase_one(state.security_groups);
      case 6: {
        const std::string name = id("pl-", below(3));
        config::PrefixList& list = state.prefix_lists[name];
        list.id = name;
        list.entries.assign(below(20) == 0 ? 1001 : below(400), {IpAddress::from_v4(0xc6000000U + (below(200) << 8)), 24});
        return;
      }
      case 7: return erase_one(state.prefix_lists);
      case 8:
      case 9: {
        config::AddressSet& members = state.remote_members[id(below(40) == 0 ? "xx-" : "sg-", below(8))];
        below(2) == 0 ? static_cast<void>(members.insert(address())) : static_cast<void>(members.erase(address()));
        return;
      }
      case 10: return erase_one(state.remote_members);
      case 11:
      case 12: {
        const std::string eni = id("eni-", below(12));
        state.attachments.insert_or_assign(eni, attachment(eni));
        return;
      }
      case 13: {
        // One fact of one that is there, often a clash.
        if (state.attachments.empty()) return;
        auto some = state.attachments.begin();
        for (std::uint32_t i = below(static_cast<std::uint32_t>(state.attachments.size())); i > 0; --i) ++some;
        config::Attachment& known = state.attachments[std::string(some->first)];
        if (below(2) == 0) known.vlan = VlanId{static_cast<std::uint16_t>(1 + below(30))};
        if (below(2) == 0) known.addresses = {address()};
        return;
      }
      case 14: return erase_one(state.attachments);
      case 15:
      case 16: {
        const std::string name = id("acl-", below(5));
        config::NetworkAcl& acl = state.network_acls[name];
        acl.id = name;
        auto& entries = below(2) == 0 ? acl.egress : acl.ingress;
        // Many at once, so that the quota is met.
        for (std::uint32_t i = below(20) == 0 ? 60 : 1; i > 0; --i) {
          const config::NetworkAclEntry one = entry();
          const auto place = std::ranges::lower_bound(entries, one.number, {}, &config::NetworkAclEntry::number);
          if (place == entries.end() || place->number != one.number || below(20) == 0) entries.insert(place, one);
        }
        if (below(2) == 0) entries.erase(entries.begin() + below(static_cast<std::uint32_t>(entries.size())));
        return;
      }
      case 17: {
        // An association moves, and sometimes to two places.
        const std::string subnet = id("subnet-", below(3)), to = id("acl-", below(5));
        for (std::uint32_t i = 0; i < 5; ++i) {
          const std::string other = id("acl-", i);
          if (state.network_acls.contains(other) && below(4) != 0) std::erase(state.network_acls[other].subnet_ids, subnet);
        }
        if (state.network_acls.contains(to)) state.network_acls[to].subnet_ids.push_back(subnet);
        return;
      }
      case 18: return below(2) == 0 ? erase_one(state.network_acls) : void();
      default: {
        state.finished_tasks[id("task/", below(5))] = below(100);
        return;
      }
    }
  }

  std::mt19937_64 random_;
};

}  // namespace trunkline::test
