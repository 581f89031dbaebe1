// SPDX-License-Identifier: BSD-3-Clause
//
// The static part of what an operator says: the one JSON file that trunklined reads when it starts. Everything here
// needs a restart to change; what changes while packets flow is in desired_state.h.
//
// Units are in the names. Every value has a default except the trunk's device, so the smallest file is
// {"version":1,"trunk":{"device":"0000:00:06.0"}}. The published contract is config/schema/engine-config.schema.json.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/flow_log_config.h"
#include "config/net.h"
#include "config/problem.h"

namespace trunkline::config {

enum class TrunkMode {
  tagged,   // one branch ENI per 802.1Q VLAN, told by VLAN, MAC and address
  untagged  // ENIs told by MAC and address alone
};

// Who answers a task's ARP and ND for the router and for peers that are not on this host.
enum class EdgeMode {
  relay,  // the fabric: requests go out on the ENI's VLAN (in AWS the fabric answers)
  answer  // the engine, with router_mac (for a fabric that only routes)
};

// Who answers a task's DHCP (version 4; version 6 is the fabric's, but with `off`).
enum class DhcpAnswers { relay, answer, off };

struct EngineConfig {
  struct Trunk {
    std::string device;  // PCI address or vdev devargs; required
    TrunkMode mode = TrunkMode::tagged;
    std::uint16_t mtu = 9001;
    std::optional<MacAddress> mac;  // of the trunk ENI, compared with the agent's trunkInterfaceMacAddress
    std::uint16_t queues = 0;       // each way; 0: see trunk_queues()
    bool offloads = true;           // checksums and segmentation are left to the device, where its driver has them
    bool steering = true;           // "auto": the device is told which queue an ENI's packets are for, where it can be; "off"
  } trunk;
  struct Eal {
    std::uint16_t main_lcore = 0;
    std::vector<std::uint16_t> worker_lcores{1};
    std::uint32_t memory_mb = 256;
    std::string file_prefix = "trunkline";
    bool hugepages = true;
    std::vector<std::string> extra_args;
  } eal;
  struct Buffers {
    std::uint32_t count = 32768;
    std::uint16_t data_room_bytes = 2176;  // headroom of 128 included; a port that cannot chain needs mtu + 18 + 128
    std::uint16_t rx_descriptors = 512;
    std::uint16_t tx_descriptors = 512;
  } buffers;
  struct Edge {
    EdgeMode mode = EdgeMode::relay;
    MacAddress router_mac{{0x0a, 0, 0, 0, 0, 1}};
    bool block_imds = false;  // of every ENI, beside those that say so themselves
    std::optional<DhcpAnswers> dhcp;           // not said: as `mode`
    std::string dhcp_domain;  // with `answer`: the domain name that tasks are told; not said: the one of identity.region
    DhcpAnswers who_answers_dhcp() const { return dhcp.value_or(mode == EdgeMode::answer ? DhcpAnswers::answer : DhcpAnswers::relay); }
  } edge;
  struct Limits {
    std::uint16_t endpoints = 512;
    std::uint32_t connections = 262144;            // of the engine; each worker has an equal share
    std::uint32_t connections_per_endpoint = 0;    // 0: no quota of its own
    std::uint16_t state_replace_removal_percent = 50;  // of the ENIs that a state.replace may take away without being told twice
    std::string connection_file;                   // where the connection tables lie; empty: in memory without a name
  } limits;
  // Connections in states that AWS does not document; the documented ones belong to the ENI (ConnectionTracking).
  struct Conntrack {
    std::uint32_t tcp_handshake_timeout_s = 30;
    std::uint32_t tcp_closing_timeout_s = 120;
    std::uint32_t tcp_closed_timeout_s = 10;
    std::uint32_t icmp_timeout_s = 30;
    std::uint32_t other_timeout_s = 600;
    bool icmp_related = false;  // accept ICMP errors that quote a live connection; AWS does not
    bool strict_syn = false;    // a TCP connection begins with a SYN: none is picked up in the middle
  } conntrack;
  // What a worker does when there is nothing to do, rung by rung: dataplane/idle_ladder.h.
  struct Idle {
    std::uint32_t spin_us = 50;
    std::uint32_t sleep_us = 50;        // 0: spin for ever
    std::uint32_t block_after_ms = 10;  // 0: never block, never sleep long
    std::uint32_t long_sleep_us = 1000;
  } idle;
  struct Control {
    std::string socket = "/run/trunkline/control.sock";
    std::uint32_t socket_mode = 0660;  // as an octal string in JSON: "0660"
    std::string socket_group;          // empty: the engine's own
    std::vector<std::uint32_t> admin_uids;
  } control;
  std::string state_dir = "/var/lib/trunkline";
  // Facts that an event of the given kind does not carry. In netns and socket, {task_id}, {eni} and {attachment_id} are replaced.
  struct TaskDefaults {
    std::optional<PortSpec> port;
    std::vector<std::string> group_ids;
  } task_defaults;
  // Names of the ENIs' addresses, for the host's DNS server.
  struct Names {
    std::string hosts_file;  // empty: none is written
    std::string region;      // "us-west-2"; not said: identity.region; empty: the short names only
  } names;
  // Subnets known from the start; the control socket can add others.
  std::vector<Subnet> subnets;
  Identity identity;
  std::vector<FlowLog> flow_logs;

  std::size_t workers() const { return eal.worker_lcores.size(); }
  // Queues to ask the trunk for. By itself a virtual device is asked for one: some drop without a word what the other side has
  // no queue for.
  std::uint16_t trunk_queues() const;
  std::uint32_t connections_of_a_worker() const { return limits.connections / static_cast<std::uint32_t>(workers()); }
  // Of several workers each has a file of its own, named by its number.
  std::string connection_file_of(std::size_t worker) const;
};

inline constexpr std::size_t kMaxWorkers = 16;
// As long as a domain name may be in a lease (dataplane/stages/dhcp.h).
inline constexpr std::size_t kMaxDhcpDomain = 128;
// A table smaller than this is of no use to anyone.
inline constexpr std::uint32_t kMinConnectionsOfAWorker = 1024;

// The text of the config file (comments allowed) to values, or everything that is wrong with it.
std::expected<EngineConfig, Problems> parse_engine_config(std::string_view text);

}  // namespace trunkline::config
