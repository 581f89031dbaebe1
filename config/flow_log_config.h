// SPDX-License-Identifier: BSD-3-Clause
//
// The sections `identity` and `flow_logs` of the config file: what the lines of a flow log say about the instance, and
// which flow logs there are, of what, in which format, to where.
//
// Rules:
//  * A destination of type s3 is a folder that stands for a bucket: under it lie whole objects, under the keys that AWS
//    gives them. It needs identity.account_id and identity.region, which are part of each key. Moving them into a bucket is
//    somebody else's work.
//  * A destination of type stream is one file or FIFO that lines are appended to; two flow logs never share one.
//  * What is not said about the instance is printed as "-".
//
// Units are in the names. The readers complain to the list that they are given; see json_reader.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "config/flow_log_format.h"
#include "config/json_reader.h"

namespace trunkline::config {

// Who and where this instance is.
struct Identity {
  std::string account_id;  // 12 digits, the owner of the ENIs
  std::string region;
  std::string az_id;
  std::string instance_id;
  std::string vpc_id;  // of ENIs whose subnet does not say
};

enum class FlowLogTraffic { accept, reject, all };

struct FlowLog {
  struct Destination {
    enum class Type { s3, stream };
    Type type = Type::s3;
    std::string path;    // absolute
    std::string prefix;  // s3: before AWSLogs/ in each key
    bool hive_compatible_partitions = false;
    bool per_hour_partition = false;
  };

  std::string id;  // "fl-..."
  FlowLogTraffic traffic_type = FlowLogTraffic::all;
  std::uint32_t max_aggregation_interval_s = 600;  // 60 or 600
  FlowLogFormat format;
  Destination destination;
  // Of which ENIs: those that one of these names; all of them when all three are empty.
  std::vector<std::string> eni_ids, subnet_ids, vpc_ids;
  std::uint32_t max_flows = 262144;     // conversations of one interval; what is above is lost, and the log says SKIPDATA
  std::uint8_t outside_traffic_path = 0;  // what traffic-path says of a remote end outside the VPC; 0: "-"
};

inline constexpr std::size_t kMaxFlowLogs = 16;
inline constexpr std::size_t kMaxFlowLogResources = 1000;
inline constexpr std::uint32_t kMaxFlows = 4U << 20;

void read_identity(ObjectReader& reader, Identity& identity);
std::vector<FlowLog> read_flow_logs(const Json& list, const std::string& pointer, Problems& problems);
// What the two sections say together.
void check_flow_logs(const std::vector<FlowLog>& logs, const Identity& identity, Problems& problems);

}  // namespace trunkline::config
