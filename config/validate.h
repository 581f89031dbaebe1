// SPDX-License-Identifier: BSD-3-Clause
//
// Is this state one that the engine can be in? Pure: looks at nothing but its arguments, reports every problem, changes
// nothing. Pointers are into the document that state.replace takes (/attachments/<eni>/vlan, /security_groups/<id>/...).
//
// An attachment that still misses facts is valid (it waits); one whose facts contradict the others' is not.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/desired_state.h"
#include "config/device_string.h"
#include "config/engine_config.h"
#include "config/problem.h"

namespace trunkline::config {

// AWS's quotas at their maximum (sizes of tables depend on them).
inline constexpr std::size_t kMaxGroupsPerInterface = 16;
inline constexpr std::size_t kMaxRulesPerInterface = 1000;  // per direction and family
inline constexpr std::size_t kMaxPrefixListEntries = 1000;
inline constexpr std::size_t kMaxAddressesPerInterface = 16;
inline constexpr std::size_t kMaxNetworkAclEntries = 40;  // per direction and family, the fixed last one included
inline constexpr std::uint16_t kMaxNetworkAclEntryNumber = 32766;

// Of one ENI, each way and second: far above what a host can do, and without danger for whoever computes with it.
inline constexpr std::int64_t kMaxLimitBits = 10'000'000'000'000;
inline constexpr std::int64_t kMaxLimitPackets = 4'000'000'000;

inline constexpr std::uint16_t kMinPortMtu = 576;
inline constexpr std::uint16_t kMaxPortMtu = 9216;

// When two ENIs want the same thing, the complaint goes to `subject` (the ENI that a request is about) if it is one of
// the two, else to the one that comes later by id.
Problems validate(const DesiredState& state, const EngineConfig& config, std::string_view subject = {});

// The same for one state after the other: remembers the last one that was valid, and looks only at what differs from it. The
// answers are those of validate(), always; a refusal costs as much as there, an unchanged part costs nothing.
class StateValidator {
 public:
  explicit StateValidator(const EngineConfig& config);  // kept
  ~StateValidator();
  StateValidator(const StateValidator&) = delete;
  StateValidator& operator=(const StateValidator&) = delete;

  Problems validate(const DesiredState& state, std::string_view subject = {});

  struct Memory;

 private:
  const EngineConfig& config_;
  std::unique_ptr<Memory> memory_;
};

// What an attachment still waits for, as a sentence ("waits for its VLAN (agent message or --vlan) and group sg-1 (sg put)");
// nullopt: complete. Every group it names must be known: no policy, no packets.
std::optional<std::string> missing_facts(const Attachment& attachment, const DesiredState& state, const EngineConfig& config);

// A subnet as the state has it, or else the config file; nullptr: not known.
const Subnet* find_subnet(const std::string& id, const DesiredState& state, const EngineConfig& config);

// `kind` is "sg", "eni", "subnet", "pl" or "acl". AWS has 8 or 17 hex digits behind it; any 1 to 32 letters and digits will do.
bool is_resource_id(std::string_view kind, std::string_view text);

// The device's name in a DPDK device string: "net_ring0" of "net_ring0,size=1024".
std::string vdev_name(const std::string& devargs);

// The parts of validate() that need nothing else, for the readers of documents that hold only such a part.
void check_port(const PortSpec& port, const std::string& pointer, Problems& problems);
void check_rule(const SecurityGroupRule& rule, const std::string& pointer, Problems& problems);
void check_network_acl_entry(const NetworkAclEntry& entry, const std::string& pointer, Problems& problems);
// Its entries one by one, their numbers and how many they are.
void check_network_acl(const NetworkAcl& acl, const std::string& pointer, Problems& problems);
void check_limits(const RateLimits& limits, const std::string& pointer, Problems& problems);
void check_mac(const MacAddress& mac, const std::string& pointer, Problems& problems);
void check_conntrack(const ConnectionTracking& conntrack, const std::string& pointer, Problems& problems);
struct PlacedSubnet {
  const Subnet* subnet;
  std::string pointer;  // empty: known from elsewhere, so never the one that is complained about
};
// `own_vpc`: the VPC of subnets whose own nobody named; ranges are unique in a VPC only.
void check_subnets(std::vector<PlacedSubnet> subnets, Problems& problems, std::string_view own_vpc = {});

}  // namespace trunkline::config
