// SPDX-License-Identifier: BSD-3-Clause
//
// What the classifier is measured on: rule sets of the sizes that AWS allows, and first packets of flows for them.
//
// A first packet is unlike its neighbours: its remote address is a member of the group, in the prefix list, in some
// rule's range or nobody's; its port is some rule's or any. They stand in a list larger than the second level cache, in
// no order, so that neither the caches nor the branch predictor know the next one. The same seed, the same packets.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/state/members.h"
#include "dataplane/state/policy.h"

namespace trunkline::bench {

struct RuleSetShape {
  std::uint32_t rules = 1000;
  // Ports that only one rule has and one or two ranges a rule, or what a grown group looks like: the well-known
  // services again and again for one subnet after the other, wide port ranges, and a few rules for all ports or all
  // protocols.
  bool is_mixed = false;
  std::uint32_t members = 0;       // of a group that three rules in ten name
  std::uint32_t list_entries = 0;  // of a prefix list that four rules name
};

class FirstPackets {
 public:
  static constexpr std::size_t kPackets = 1 << 17;

  explicit FirstPackets(RuleSetShape shape, std::uint64_t seed = 1) : random_(seed), members(shape.members) {
    group.id = "sg-00000001";
    for (std::uint32_t i = 0; i < shape.list_entries; ++i) list_.push_back(range(20, 28));
    lists["pl-00000001"] = {"pl-00000001", list_};
    for (std::uint32_t i = 0; i < shape.rules; ++i) group.ingress.push_back(rule(i, shape));
    policy = compile();
    const GroupId named[]{numbers.number("sg-0000000a")};
    // A VPC's subnets: dense, not spread over all addresses.
    for (std::uint32_t i = 0; i < shape.members; ++i) {
      members_.push_back(IpAddress::from_v4(0x0a400000U + i * 3));
      members.set(members_.back(), named);
    }
    for (std::size_t i = 0; i < kPackets; ++i) packets.push_back(packet());
    for (std::size_t i = 0; i < kPackets; ++i) scan.push_back(probe());
  }

  std::shared_ptr<const Policy> compile() {
    const config::SecurityGroup* groups[]{&group};
    return control::compile_policy(groups, lists, numbers, 1);
  }

 private:
  std::mt19937_64 random_;  // first, because the rest is made with it

 public:
  config::SecurityGroup group;
  std::map<std::string, config::PrefixList> lists;
  control::GroupNumbers numbers;
  std::shared_ptr<const Policy> policy;
  Members members;
  std::vector<FlowQuery> packets;
  std::vector<FlowQuery> scan;  // to ports that no rule names

 private:
  std::uint32_t below(std::uint64_t limit) { return static_cast<std::uint32_t>(random_() % limit); }

  IpPrefix range(unsigned shortest, unsigned longest) {
    const auto length = static_cast<std::uint8_t>(shortest + below(longest - shortest + 1));
    return IpPrefix{IpAddress::from_v4(static_cast<std::uint32_t>(random_())), length}.network();
  }

  void choose_mixed_ports(config::SecurityGroupRule& rule) {
    static constexpr int kServices[] = {22,   25,   53,   80,   123,  389,  443,  636,  2049,
                                        3306, 3389, 5432, 6379, 8080, 8443, 9092, 9200, 27017};
    const std::uint32_t kind = below(100);
    rule.protocol = below(5) == 4 ? 17 : 6;
    if (kind < 60) {
      rule.from_port = rule.to_port = kServices[below(std::size(kServices))];
    } else if (kind < 80) {
      rule.from_port = rule.to_port = 1024 + static_cast<int>(below(48000));
    } else if (kind < 95) {
      rule.from_port = 1024 + static_cast<int>(below(40000));
      rule.to_port = rule.from_port + static_cast<int>(below(kind < 85 ? 8000 : 100));
    } else {
      rule.from_port = 0;
      rule.to_port = 65535;
    }
  }

  // Without is_mixed one rule in four has a range of ports, and those below 1024 and from 50000 on are nobody's.
  config::SecurityGroupRule rule(std::uint32_t number, const RuleSetShape& shape) {
    config::SecurityGroupRule rule;
    if (shape.is_mixed) {
      choose_mixed_ports(rule);
      rule.ranges = {range(12, 28)};
      return rule;
    }
    const int step = static_cast<int>(48000 / shape.rules);
    rule.protocol = number % 5 == 4 ? 17 : 6;
    rule.from_port = 1024 + static_cast<int>(number) * step;
    rule.to_port = rule.from_port + (number % 4 == 0 ? step / 2 : 0);
    if (shape.list_entries != 0 && number % 250 == 7) {
      rule.prefix_list_ids = {"pl-00000001"};
    } else if (shape.members != 0 && number % 10 < 3) {
      rule.group_ids = {"sg-0000000a"};
    } else {
      rule.ranges = {range(12, 28)};
      if (number % 8 == 0) rule.ranges.push_back(range(8, 16));
    }
    return rule;
  }

  IpAddress inside(const IpPrefix& range) {
    return IpAddress::from_v4(range.address.v4() |
                              (static_cast<std::uint32_t>(random_()) & (~0U >> (range.length - 1) >> 1)));
  }

  FlowQuery packet() {
    const config::SecurityGroupRule& aim = group.ingress[below(group.ingress.size())];
    FlowQuery query{IpAddress::from_v4(static_cast<std::uint32_t>(random_())), static_cast<std::uint8_t>(aim.protocol),
                    static_cast<std::uint16_t>(random_())};
    if (below(10) < 7) {
      query.port = static_cast<std::uint16_t>(
          aim.from_port + static_cast<int>(below(static_cast<std::uint64_t>(aim.to_port - aim.from_port + 2))));
    }
    switch (below(5)) {
      case 0:
        break;  // nobody
      case 1:
        if (!list_.empty()) query.remote = inside(list_[below(list_.size())]);
        break;
      case 2:
      case 3:
        if (!members_.empty()) {
          query.remote = members_[below(members_.size())];
          break;
        }
        [[fallthrough]];
      default:
        if (!aim.ranges.empty()) query.remote = inside(aim.ranges[below(aim.ranges.size())]);
    }
    return query;
  }

  FlowQuery probe() {
    const bool high = below(4) != 0;
    return {IpAddress::from_v4(static_cast<std::uint32_t>(random_())), 6,
            static_cast<std::uint16_t>(high ? 50000 + below(15536) : below(1024))};
  }

  std::vector<IpPrefix> list_;
  std::vector<IpAddress> members_;
};

}  // namespace trunkline::bench
