// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/ethdev_flows.h"

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>

#include <cstring>

namespace trunkline {
namespace {

// A rule as rte_flow wants it: pointers into itself, so it stays where it is.
class RuleText {
 public:
  explicit RuleText(const FlowRule& rule) {
    if (rule.match.mac) {
      std::memcpy(eth_spec_.hdr.dst_addr.addr_bytes, rule.match.mac->bytes.data(), 6);
      std::memset(eth_mask_.hdr.dst_addr.addr_bytes, 0xff, 6);
      add({RTE_FLOW_ITEM_TYPE_ETH, &eth_spec_, nullptr, &eth_mask_});
    } else {
      add({RTE_FLOW_ITEM_TYPE_ETH, nullptr, nullptr, nullptr});
    }
    if (rule.match.vlan != 0) {
      vlan_spec_.hdr.vlan_tci = RTE_BE16(rule.match.vlan);
      vlan_mask_.hdr.vlan_tci = RTE_BE16(0x0fff);
      add({RTE_FLOW_ITEM_TYPE_VLAN, &vlan_spec_, nullptr, &vlan_mask_});
    }
    if (rule.match.address) add_address(*rule.match.address);
    add({RTE_FLOW_ITEM_TYPE_END, nullptr, nullptr, nullptr});
    if (rule.mark) {
      mark_.id = *rule.mark;
      add(RTE_FLOW_ACTION_TYPE_MARK, &mark_);
    }
    if (rule.count) add(RTE_FLOW_ACTION_TYPE_COUNT, &count_);
    queue_.index = rule.queue;
    add(RTE_FLOW_ACTION_TYPE_QUEUE, &queue_);
    add(RTE_FLOW_ACTION_TYPE_END, nullptr);
  }
  RuleText(const RuleText&) = delete;
  RuleText& operator=(const RuleText&) = delete;

  const rte_flow_attr* attributes() const { return &attributes_; }
  const rte_flow_item* items() const { return items_; }
  const rte_flow_action* actions() const { return actions_; }

 private:
  void add_address(const IpAddress& address) {
    if (address.is_v4()) {
      std::memcpy(&ipv4_spec_.hdr.dst_addr, &address.bytes[12], 4);
      ipv4_mask_.hdr.dst_addr = 0xffffffff;
      add({RTE_FLOW_ITEM_TYPE_IPV4, &ipv4_spec_, nullptr, &ipv4_mask_});
    } else {
      std::memcpy(ipv6_spec_.hdr.dst_addr, address.bytes.data(), 16);
      std::memset(ipv6_mask_.hdr.dst_addr, 0xff, 16);
      add({RTE_FLOW_ITEM_TYPE_IPV6, &ipv6_spec_, nullptr, &ipv6_mask_});
    }
  }
  void add(const rte_flow_item& item) { items_[item_count_++] = item; }
  void add(rte_flow_action_type type, const void* conf) { actions_[action_count_++] = {type, conf}; }

  rte_flow_attr attributes_{.group = 0, .priority = 0, .ingress = 1, .egress = 0, .transfer = 0, .reserved = 0};
  rte_flow_item_eth eth_spec_{}, eth_mask_{};
  rte_flow_item_vlan vlan_spec_{}, vlan_mask_{};
  rte_flow_item_ipv4 ipv4_spec_{}, ipv4_mask_{};
  rte_flow_item_ipv6 ipv6_spec_{}, ipv6_mask_{};
  rte_flow_action_mark mark_{};
  rte_flow_action_count count_{};
  rte_flow_action_queue queue_{};
  rte_flow_item items_[4];
  rte_flow_action actions_[4];
  std::size_t item_count_ = 0, action_count_ = 0;
};

FlowError error_of(int result, const rte_flow_error& error, const std::string& driver) {
  const int code = result < 0 ? -result : rte_errno != 0 ? rte_errno : EINVAL;
  if (code == ENOSYS) return {code, "the driver " + driver + " has no rte_flow"};
  const std::string words = rte_strerror(code);
  if (error.message == nullptr || words == error.message) return {code, driver + ": " + words};
  return {code, driver + ": " + error.message + " (" + words + ")"};
}

FlowRule sample(SteeringPattern pattern, bool ipv6, bool mark, bool count) {
  FlowRule rule;
  const bool tagged = pattern <= SteeringPattern::vlan;
  if (tagged) rule.match.vlan = 1;
  if (pattern != SteeringPattern::vlan) rule.match.mac = MacAddress{{0x02, 0, 0, 0, 0, 1}};
  if (names_address(pattern)) rule.match.address = IpAddress::parse(ipv6 ? "2001:db8::1" : "192.0.2.1");
  if (mark) rule.mark = 1;
  rule.count = count;
  return rule;
}

int on_reset(std::uint16_t, rte_eth_event_type, void* flows, void*) {
  static_cast<EthdevFlows*>(flows)->announce_reset();
  return 0;
}
constexpr rte_eth_event_type kResets[] = {RTE_ETH_EVENT_INTR_RESET, RTE_ETH_EVENT_RECOVERY_SUCCESS};

}  // namespace

EthdevFlows::EthdevFlows(std::uint16_t ethdev) : ethdev_(ethdev) {
  rte_eth_dev_info info{};
  driver_ = rte_eth_dev_info_get(ethdev, &info) == 0 && info.driver_name != nullptr ? info.driver_name : "of the trunk";
  for (const rte_eth_event_type event : kResets) rte_eth_dev_callback_register(ethdev, event, on_reset, this);
}

EthdevFlows::~EthdevFlows() {
  for (const rte_eth_event_type event : kResets) rte_eth_dev_callback_unregister(ethdev_, event, on_reset, this);
}

FlowAbility EthdevFlows::probe(SteeringPattern pattern) {
  FlowAbility ability;
  const auto takes = [&](bool ipv6, bool mark, bool count) {
    const RuleText text(sample(pattern, ipv6, mark, count));
    rte_flow_error error{};
    rte_errno = 0;
    const int result = rte_flow_validate(ethdev_, text.attributes(), text.items(), text.actions(), &error);
    if (result != 0) ability.why = error_of(result, error, driver_).message;
    return result == 0;
  };
  // What a rule may do beside: as much as the device takes, and for both families rather than more for one.
  for (const bool both : {true, false}) {
    if (!both && !names_address(pattern)) break;
    for (const auto& [mark, count] : {std::pair{true, true}, {true, false}, {false, true}, {false, false}}) {
      if (!takes(false, mark, count) || (both && names_address(pattern) && !takes(true, mark, count))) continue;
      return {.available = true, .ipv6 = both, .mark = mark, .count = count, .why = {}};
    }
  }
  return ability;
}

std::expected<FlowHandle, FlowError> EthdevFlows::insert(const FlowRule& rule) {
  const RuleText text(rule);
  rte_flow_error error{};
  rte_errno = 0;
  rte_flow* flow = rte_flow_create(ethdev_, text.attributes(), text.items(), text.actions(), &error);
  if (flow == nullptr) return std::unexpected(error_of(0, error, driver_));
  return flow;
}

std::expected<void, FlowError> EthdevFlows::remove(FlowHandle handle) {
  rte_flow_error error{};
  const int result = rte_flow_destroy(ethdev_, static_cast<rte_flow*>(handle), &error);
  if (result != 0) return std::unexpected(error_of(result, error, driver_));
  return {};
}

std::expected<std::uint64_t, FlowError> EthdevFlows::hits(FlowHandle handle) {
  const rte_flow_action actions[] = {{RTE_FLOW_ACTION_TYPE_COUNT, nullptr}, {RTE_FLOW_ACTION_TYPE_END, nullptr}};
  rte_flow_query_count count{};
  rte_flow_error error{};
  const int result = rte_flow_query(ethdev_, static_cast<rte_flow*>(handle), actions, &count, &error);
  if (result != 0) return std::unexpected(error_of(result, error, driver_));
  return count.hits_set ? count.hits : 0;
}

void EthdevFlows::flush() {
  rte_flow_error error{};
  rte_flow_flush(ethdev_, &error);
}

}  // namespace trunkline
