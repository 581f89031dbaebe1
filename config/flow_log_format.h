// SPDX-License-Identifier: BSD-3-Clause
//
// Which fields a line of a flow log has, and in which order: the format string of a VPC flow log, "${field} ${field} ...",
// as values.
//
// Rules:
//  * A format has at least one field, each at most once, one space between two. The fields are those of the versions 2 to 5
//    and 7 to 10 (6 is of transit gateways); a name that is not one of them is refused.
//  * The version that a line prints is the highest among its fields.
//
// Pure values and functions; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

// X(name in the code, name in a format, version), in the order of AWS's table.
#define TRUNKLINE_FLOW_LOG_FIELDS(X)                                  \
  X(version, "version", 2)                                            \
  X(account_id, "account-id", 2)                                      \
  X(interface_id, "interface-id", 2)                                  \
  X(srcaddr, "srcaddr", 2)                                            \
  X(dstaddr, "dstaddr", 2)                                            \
  X(srcport, "srcport", 2)                                            \
  X(dstport, "dstport", 2)                                            \
  X(protocol, "protocol", 2)                                          \
  X(packets, "packets", 2)                                            \
  X(bytes, "bytes", 2)                                                \
  X(start, "start", 2)                                                \
  X(end, "end", 2)                                                    \
  X(action, "action", 2)                                              \
  X(log_status, "log-status", 2)                                      \
  X(vpc_id, "vpc-id", 3)                                              \
  X(subnet_id, "subnet-id", 3)                                        \
  X(instance_id, "instance-id", 3)                                    \
  X(tcp_flags, "tcp-flags", 3)                                        \
  X(type, "type", 3)                                                  \
  X(pkt_srcaddr, "pkt-srcaddr", 3)                                    \
  X(pkt_dstaddr, "pkt-dstaddr", 3)                                    \
  X(region, "region", 4)                                              \
  X(az_id, "az-id", 4)                                                \
  X(sublocation_type, "sublocation-type", 4)                          \
  X(sublocation_id, "sublocation-id", 4)                              \
  X(pkt_src_aws_service, "pkt-src-aws-service", 5)                    \
  X(pkt_dst_aws_service, "pkt-dst-aws-service", 5)                    \
  X(flow_direction, "flow-direction", 5)                              \
  X(traffic_path, "traffic-path", 5)                                  \
  X(ecs_cluster_arn, "ecs-cluster-arn", 7)                            \
  X(ecs_cluster_name, "ecs-cluster-name", 7)                          \
  X(ecs_container_instance_arn, "ecs-container-instance-arn", 7)      \
  X(ecs_container_instance_id, "ecs-container-instance-id", 7)        \
  X(ecs_container_id, "ecs-container-id", 7)                          \
  X(ecs_second_container_id, "ecs-second-container-id", 7)            \
  X(ecs_service_name, "ecs-service-name", 7)                          \
  X(ecs_task_definition_arn, "ecs-task-definition-arn", 7)            \
  X(ecs_task_arn, "ecs-task-arn", 7)                                  \
  X(ecs_task_id, "ecs-task-id", 7)                                    \
  X(reject_reason, "reject-reason", 8)                                \
  X(resource_id, "resource-id", 9)                                    \
  X(encryption_status, "encryption-status", 10)

namespace trunkline::config {

enum class FlowLogField : std::uint8_t {
#define X(name, text, version) name,
  TRUNKLINE_FLOW_LOG_FIELDS(X)
#undef X
};

struct FlowLogFieldInfo {
  std::string_view name;
  int version;
};

// By FlowLogField.
inline constexpr std::array kFlowLogFields = {
#define X(name, text, version) FlowLogFieldInfo{text, version},
    TRUNKLINE_FLOW_LOG_FIELDS(X)
#undef X
};

inline constexpr std::string_view kDefaultFlowLogFormat =
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status}";
// All names together are less than half of it.
inline constexpr std::size_t kMaxFlowLogFormat = 2048;

struct FlowLogFormat {
  std::vector<FlowLogField> fields;

  int version() const;
  bool has(FlowLogField field) const;
  // The names alone, as the first line of a file has them.
  std::string header() const;
  friend bool operator==(const FlowLogFormat&, const FlowLogFormat&) = default;
};

// The error is a sentence that says where in the text it went wrong, and what can stand there.
std::expected<FlowLogFormat, std::string> parse_flow_log_format(std::string_view text);

}  // namespace trunkline::config
