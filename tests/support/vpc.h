// SPDX-License-Identifier: BSD-3-Clause
//
// A VPC for tests that say their world as the control plane does: a config::DesiredState is made into a View by the same compilers
// (policies with their generations, members, network ACLs), and packets go through the real pipeline of one worker in virtual time.
// Accounting is to the packet: movements() tells everything that moved since it was last asked.
//
//     Vpc vpc;
//     vpc.state.security_groups["sg-1"] = ...;  vpc.state.attachments["web"] = ...;
//     vpc.apply();
//     Vpc::Output out = vpc.from_trunk({frame});
//
// Ids of endpoints are used again as the controller does it: the lowest free one, with a generation of its own. Knows no test
// framework: what is wrong with the world itself is told by std::logic_error.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "control/membership.h"
#include "control/policies.h"
#include "dataplane/pipeline.h"
#include "tests/support/packets.h"

namespace trunkline::test {

class Vpc {
 public:
  static constexpr std::size_t kMaxEndpoints = 64;

  // What the engine's config says, as far as packets notice.
  struct Engine {
    bool strict_syn = false, icmp_related = false, edge_answer = false, flow_logs = false;
    std::uint32_t connections = 4096, connections_per_endpoint = 0xffffffff;
    std::uint16_t trunk_mtu = 9001;
  };

  // What came out of one burst, in order.
  struct Output {
    std::vector<Frame> trunk;
    std::map<std::string, std::vector<Frame>> task;  // by ENI
  };
  // By name: "web.egress.spoof_ip", "trunk.in.rx", "web.audited.security_group_ingress", "web.lost_records". "web.ingress.held" is
  // what came and neither went nor was dropped: fragments that wait (negative: they wait no longer).
  using Movements = std::map<std::string, std::int64_t>;

  explicit Vpc(const Engine& engine);

  // Makes `state` the one that is in force. Whole, as a View is.
  void apply();
  const Endpoint* endpoint(const std::string& eni) const;

  // A burst. Frames from a task whose ENI is not there are nobody's.
  Output from_trunk(const std::vector<Frame>& frames);
  Output from_task(const std::string& eni, const std::vector<Frame>& frames);

  void pass(std::uint64_t microseconds);
  std::uint64_t micros() const { return worker.micros; }
  // What the worker does between turns, all of it: expired connections go, fragments that waited too long too.
  void sweep_connections();
  void sweep_fragments();
  // Ends the flow log's interval: everything counted since the last one.
  std::vector<FlowRecord> end_interval();
  // The ENI that an endpoint's number and generation belong to, or belonged to.
  std::string eni_of(EndpointId id, std::uint16_t generation) const;

  Movements movements();

  config::DesiredState state;
  WorkerState worker;
  std::shared_ptr<const View> view;

 private:
  struct Attached {
    EndpointId id;
    std::uint16_t generation = 0;
    config::Attachment attachment;
    config::Subnet subnet;
  };
  struct Acl {
    config::NetworkAcl source;
    std::shared_ptr<const NetworkAcl> compiled;
  };
  void follow_attachments();
  void follow_acls();
  std::shared_ptr<const Endpoint> make_endpoint(const Attached& attached);
  Output collect();
  void drain(std::vector<FlowRecord>& records);

  Engine engine_;
  control::Policies policies_;
  control::Membership membership_;
  std::map<std::string, Attached> attached_;  // by ENI
  std::map<std::string, Acl> acls_;           // by id
  std::uint32_t acl_generation_ = 0;
  std::map<std::uint16_t, std::uint16_t> generations_;                        // the last of each id
  std::map<std::pair<std::uint16_t, std::uint16_t>, std::string> names_;      // by id and generation
  struct Seen {
    MeterReading ingress, egress;
    std::array<std::uint64_t, kDropReasonCount> audited{};
    std::uint64_t lost = 0;
  };
  MeterReading seen_trunk_[2];
  std::map<std::uint16_t, Seen> seen_;  // by id
  Mbufs mbufs_;
};

}  // namespace trunkline::test
