// SPDX-License-Identifier: BSD-3-Clause
//
// Random edits of a desired state: small enough in their choice of ids, addresses and VLANs that they meet, so that both
// valid and invalid states come of them, and unchanged ones too.
#pragma once

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
    switch (below(16)) {
      case 0: {
        config::Subnet subnet;
        subnet.id = id("subnet-", below(3));
        const auto length = static_cast<std::uint8_t>(below(6) == 0 ? 23 : 24);
        subnet.cidr = IpPrefix{IpAddress::from_v4(0x0a000000U + (below(3) << 8)), length}.network();
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
      default: {
        state.finished_tasks[id("task/", below(5))] = below(100);
        return;
      }
    }
  }

  std::mt19937_64 random_;
};

}  // namespace trunkline::test
