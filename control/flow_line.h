// SPDX-License-Identifier: BSD-3-Clause
//
// The lines of a flow log, byte for byte as VPC flow logs have them: what was counted, and what is known of the ENI, in the
// order of the format. A value that does not apply or is not known is "-".
//
// Rules:
//  * On the ENI's side an IPv4 line shows the ENI's primary private address, whatever the packets had; pkt-srcaddr and
//    pkt-dstaddr show the packets'. IPv6 lines have the packets' own.
//  * traffic-path is only of egress: 1 when the other end lies in a range of the VPC, otherwise what the flow log is
//    configured to say, or "-".
//  * Text that came from outside (names, ARNs) cannot break a line: what is not printable, and space, becomes '_'.
//
// Times: FlowTime turns Ticks into Unix seconds. Both ends of one line go through the same FlowTime, so start <= end
// whatever the wall clock did meanwhile.
//
// Values and pure functions; control thread and tests.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/flow_log_config.h"
#include "control/flow_table.h"

namespace trunkline::control {

// What lines say of an ENI, ready to be printed.
struct EniFacts {
  static constexpr std::size_t kFirstEcsField = static_cast<std::size_t>(config::FlowLogField::ecs_cluster_arn);
  static constexpr std::size_t kEcsFields = static_cast<std::size_t>(config::FlowLogField::ecs_task_id) - kFirstEcsField + 1;

  EndpointId id;
  std::uint16_t generation = 0;
  std::string eni_id, subnet_id, vpc_id;
  std::optional<IpAddress> primary;    // IPv4
  std::vector<IpPrefix> vpc_ranges;    // as far as they are known
  std::array<std::string, kEcsFields> ecs;  // in the order of FlowLogField

  std::uint32_t owner() const { return FlowKey::owner_of(id, generation); }
};
EniFacts eni_facts(const config::Attachment& attachment, EndpointId id, std::uint16_t generation, const config::DesiredState& state,
                   const config::Identity& identity);

struct FlowTime {
  std::int64_t base_ms = 0;  // Unix time of Tick 0
  std::int64_t seconds_at(Tick tick) const { return (base_ms + std::int64_t{tick} * (1000 / kTicksPerSecond)) / 1000; }
};

class FlowLineWriter {
 public:
  FlowLineWriter(const config::FlowLog& log, const config::Identity& identity);

  // Append one line with its '\n'.
  void flow(const EniFacts& eni, const Flow& flow, Direction direction, const FlowTime& time, std::string& out) const;
  // `status`: NODATA or SKIPDATA, with the bounds of the interval.
  void without_flow(const EniFacts& eni, std::int64_t start, std::int64_t end, const char* status, std::string& out) const;

 private:
  void of_eni(config::FlowLogField field, const EniFacts& eni, std::string& out) const;

  config::FlowLogFormat format_;
  config::Identity identity_;
  std::string version_;
  std::uint8_t outside_traffic_path_;
};

}  // namespace trunkline::control
