// SPDX-License-Identifier: BSD-3-Clause
//
// The same rules in DPDK's rte_acl, for comparison. It knows no groups and no sets of sources: each range of a rule is
// a rule of its own here, and group references are left out (a group of 10,000 members named by 300 rules would be
// three million rules). So it is only compared on rules that have ranges alone, which is its best case.
//
// Needs the EAL. Aborts the benchmark with a sentence when rte_acl refuses something.
#pragma once

#include <rte_acl.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <span>
#include <vector>

#include "config/desired_state.h"
#include "dataplane/state/policy.h"

namespace trunkline::bench {

// The header has a function of the same name.
using AclAlgorithm = enum rte_acl_classify_alg;

class AclPeer {
 public:
  // What it looks at of a packet; multi-byte fields in network order.
  struct Key {
    std::uint8_t protocol = 0;
    std::uint8_t unused[3] = {};
    std::uint32_t remote = 0;
    std::uint16_t also_unused = 0;  // fields after the first come in groups of four bytes
    std::uint16_t port = 0;
  };

  static Key key(const FlowQuery& query) {
    return {query.protocol, {}, std::byteswap(query.remote.v4()), 0, std::byteswap(query.port)};
  }

  explicit AclPeer(std::span<const config::SecurityGroupRule> rules) {
    for (std::size_t i = 0; i < rules.size(); ++i) {
      for (const IpPrefix& range : rules[i].ranges) {
        Rule rule{};
        rule.data = {1, static_cast<std::int32_t>(RTE_ACL_MAX_PRIORITY - i), static_cast<std::uint32_t>(i + 1)};
        rule.field[0].value.u8 = static_cast<std::uint8_t>(rules[i].protocol);
        rule.field[0].mask_range.u8 = 0xff;
        rule.field[1].value.u32 = range.address.v4();
        rule.field[1].mask_range.u32 = range.length;
        rule.field[2].mask_range.u16 = 0xffff;
        rule.field[3].value.u16 = static_cast<std::uint16_t>(rules[i].from_port);
        rule.field[3].mask_range.u16 = static_cast<std::uint16_t>(rules[i].to_port);
        rules_.push_back(rule);
      }
    }
    build();
  }
  ~AclPeer() { rte_acl_free(context_); }
  AclPeer(const AclPeer&) = delete;
  AclPeer& operator=(const AclPeer&) = delete;

  // From the rules to a context that can be asked.
  void build() {
    rte_acl_free(context_);
    rte_acl_param parameters{};
    parameters.name = "peer";
    parameters.socket_id = -1;
    parameters.rule_size = sizeof(Rule);
    parameters.max_rule_num = static_cast<std::uint32_t>(rules_.size());
    context_ = rte_acl_create(&parameters);
    if (context_ == nullptr) fail("rte_acl_create");
    if (rte_acl_add_rules(context_, reinterpret_cast<const rte_acl_rule*>(rules_.data()), parameters.max_rule_num) !=
        0) {
      fail("rte_acl_add_rules");
    }
    rte_acl_config config{};
    config.num_categories = 1;
    config.num_fields = 4;
    config.defs[0] = {RTE_ACL_FIELD_TYPE_BITMASK, 1, 0, 0, offsetof(Key, protocol)};
    config.defs[1] = {RTE_ACL_FIELD_TYPE_MASK, 4, 1, 1, offsetof(Key, remote)};
    config.defs[2] = {RTE_ACL_FIELD_TYPE_RANGE, 2, 2, 2, offsetof(Key, also_unused)};
    config.defs[3] = {RTE_ACL_FIELD_TYPE_RANGE, 2, 3, 2, offsetof(Key, port)};
    if (rte_acl_build(context_, &config) != 0) fail("rte_acl_build");
  }

  // Whether this processor, and the EAL's limit on vector width, allow the algorithm.
  bool use(AclAlgorithm algorithm) { return rte_acl_set_ctx_classify(context_, algorithm) == 0; }

  // results[i]: number of the rule and one, or 0.
  void classify(const std::uint8_t** keys, std::uint32_t* results, std::uint32_t count) const {
    rte_acl_classify(context_, keys, results, count, 1);
  }

 private:
  RTE_ACL_RULE_DEF(Rule, 4);

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "%s failed: the rules do not fit rte_acl\n", what);
    std::exit(1);
  }

  std::vector<Rule> rules_;
  rte_acl_ctx* context_ = nullptr;
};

}  // namespace trunkline::bench
