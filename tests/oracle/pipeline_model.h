// SPDX-License-Identifier: BSD-3-Clause
//
// The whole pipeline once more, as plainly as the contract reads: maps, loops and strings, one packet after the other. It is told of a
// packet as a struct of fields, and says where it comes out or which named reason it was dropped for, at which side of which port.
// It exists to disagree with the real pipeline when that one is wrong, so it shares no code with it but the values of config/, the
// names of drop reasons, and the oracle of the security groups' rules; and it is never made faster.
//
// What it does not model: bytes (malformed headers, checksums), neighbour discovery, DHCP, tables that are full, handing over
// between workers. Time is given in microseconds; timeouts count tenths of a second, as the pipeline's do.
//
// For tests only; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "config/desired_state.h"
#include "dataplane/verdict.h"
#include "tests/oracle/security_group_oracle.h"

namespace trunkline::oracle {

struct ModelPacket {
  std::uint32_t number = 0;  // its name
  std::string task;          // who sent it; empty: it came by the trunk
  int vlan = -1;             // -1: untagged
  MacAddress to, from;
  bool is_arp = false;       // a request: `destination` is asked for by `source`, which says that it has `arp_mac`
  MacAddress arp_mac;
  IpAddress source, destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint8_t tcp_flags = 0, icmp_type = 0, icmp_code = 0;
  std::uint32_t tcp_header_bytes = 20;
  std::uint16_t icmp_id = 0;
  std::uint32_t bytes = 0;  // of the IP packet
  bool dont_fragment = true;
  std::uint32_t pieces = 0;  // of what was sent: itself, or so many fragments with `bytes` together

  struct Fragment {
    std::uint32_t identification = 0, offset = 0, length = 0;  // octets
    bool more = false;
  };
  std::optional<Fragment> fragment;
  // IPv6: options for every hop, for the destination, and for the destination behind the fragment header.
  bool hop_by_hop = false, options = false, options_behind = false;
  // What an ICMP error is about: the quoted packet, and how much of it is there.
  struct Quoted {
    IpAddress source, destination;
    std::uint8_t protocol = 0;
    std::uint16_t source_port = 0, destination_port = 0;
    std::uint8_t icmp_type = 0, icmp_code = 0;
    std::uint16_t icmp_id = 0;
    bool options = false;              // IPv4 options, IPv6 destination options
    std::optional<bool> fragment;      // the first of several; false: a later one
    std::uint32_t transport_bytes = 8;  // that are quoted
  };
  std::optional<Quoted> quoted;
};

// By name, as the meters are named: "web.ingress.rx", "trunk.in.unknown_eni", "web.audited.rule_revoked", "web.ingress.held".
using ModelCounters = std::map<std::string, std::int64_t>;

struct ModelOutput {
  std::string place;               // a task's name or "trunk"
  std::uint32_t packet = 0;        // its number
  bool is_error = false;           // the router's "packet too big" about it
  std::uint32_t pieces = 1;
  friend bool operator==(const ModelOutput&, const ModelOutput&) = default;
};

// A flow log's line without its times: task, attachment, remote, local, ports, protocol, direction, action.
using FlowName = std::tuple<std::string, IpAddress, IpAddress, std::uint16_t, std::uint16_t, int, Direction, bool>;
struct FlowSum {
  std::uint64_t packets = 0, bytes = 0;
  unsigned tcp_flags = 0;
  friend bool operator==(const FlowSum&, const FlowSum&) = default;
};

class PipelineModel {
 public:
  struct Engine {
    bool strict_syn = false, icmp_related = false;
    std::uint32_t connections_per_endpoint = 0xffffffff;
    std::uint32_t trunk_mtu = 9001;
  };
  explicit PipelineModel(const Engine& engine) : engine_(engine) {}

  // The state that is in force from now on. `versions`: by ENI, a number that is another one when its rules are (what control calls
  // the policy's generation): from when on connections are judged anew.
  void apply(const config::DesiredState& state, const std::map<std::string, std::uint32_t>& versions);
  void pass(std::uint64_t micros) { micros_ += micros; }
  // What was idle for too long is forgotten; until then it counts against its ENI's quota.
  void sweep();
  void sweep_fragments();

  std::vector<ModelOutput> packet(const ModelPacket& packet);
  // With the dead that no sweep has met yet.
  // Those that count for the quota: all but the ones that are over.
  std::size_t connections(const std::string& eni) const { return live(tasks_.at(eni)); }
  ModelCounters take_counters() { return std::exchange(counters_, {}); }
  std::map<FlowName, FlowSum> take_flows() { return std::exchange(flows_, {}); }

 private:
  // Of TCP. `open`: both ends take part; what FINs and new SYNs there were is told by `fin` and `syn`.
  enum class State { syn_sent, syn_received, picked_up, open, refused, reset, exchange };
  struct Connection {
    State state = State::exchange;
    int protocol = 0;
    bool icmp = false;
    Direction initiator = Direction::ingress;
    bool untracked = false, audited = false;
    bool allowed[2] = {true, true};
    bool fin[2] = {false, false};
    bool syn[2] = {false, false};    // open: a SYN that nobody has answered
    bool heard[2] = {false, false};  // picked_up, refused, reset: who has gone on
    int turns = 0;  // exchange: changes of the speaker
    Direction last_speaker = Direction::ingress;
    std::uint32_t version = 0;
    std::uint64_t last_seen = 0;  // ticks
    std::uint64_t order = 0;      // since when it is unconfirmed
  };
  // remote, local, protocol, remote port, local port; ICMP: identifier, query type * 256 + code, who asked.
  using ConnectionName = std::tuple<IpAddress, IpAddress, int, int, int, int>;

  // Old: it came before a copy of the first fragment did.
  struct Piece {
    std::uint32_t begin = 0, end = 0;
    bool last = false, old = false;
  };
  struct Datagram {
    bool first_came = false, overlapped = false, passed = false;
    std::uint32_t first_end = 0;
    std::uint16_t source_port = 0, destination_port = 0, icmp_id = 0;
    std::uint8_t protocol = 0, icmp_type = 0, icmp_code = 0, tcp_flags = 0;
    std::vector<Piece> pieces;
    std::vector<ModelPacket> held;
    std::uint64_t began = 0, order = 0;
  };
  using DatagramName = std::tuple<Direction, IpAddress, IpAddress, int, std::uint32_t>;

  // What the task asked of a service that needs no rule.
  struct Asked {
    std::uint64_t at = 0;  // ticks
    bool answered = false, finished = false;
  };
  struct PerSecond {
    std::uint64_t second = 0;
    std::uint32_t taken = 0;
  };

  struct Bucket {
    bool started = false;
    unsigned __int128 tokens = 0;  // millionths
    std::uint64_t at = 0;
  };

  struct Task {
    config::Attachment attachment;
    config::Subnet subnet;
    std::vector<const config::SecurityGroup*> groups;
    const config::NetworkAcl* acl = nullptr;
    std::uint32_t version = 0;
    std::map<ConnectionName, Connection> connections;
    std::map<DatagramName, Datagram> datagrams;
    Bucket packets[2], octets[2];
    std::uint64_t errors_tick = ~std::uint64_t{0};
    int errors = 0;
    std::map<ConnectionName, Asked> asked;
    PerSecond services, router, edge;

    bool owns(const IpAddress& address) const;
    bool in_subnet(const IpAddress& address) const;
  };

  std::uint64_t tick() const { return micros_ / 100000; }
  void count(const std::string& name, std::int64_t by = 1);
  Task* owner_of(const IpAddress& address);
  Task* receiver_of(const ModelPacket& packet);

  void from_trunk(const ModelPacket& packet, std::vector<ModelOutput>& out);
  void from_task(const ModelPacket& packet, std::vector<ModelOutput>& out);
  void ingress(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out, bool from_neighbour);
  void egress(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out);
  // What was sent, in so many pieces; 0: nothing was.
  ModelPacket deliver(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out);
  ModelPacket send(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out);
  static ModelPacket cut_to(const ModelPacket& packet, std::uint32_t mtu);
  bool may_report_too_big(Task& task, const ModelPacket& packet);

  enum class Service { none, router, resolver, time, metadata, licence, task_metadata, nobody };
  Service service_at(const Task& task, const IpAddress& address) const;
  bool may_be_source(const Task& task, const IpAddress& source) const;
  static DropReason check_service(const Task& task, Service service);
  static bool is_of_service(Service service, const ModelPacket& packet);
  bool take(PerSecond& allowance) const;
  bool was_asked(const Task& task, const std::optional<ConnectionName>& name) const;
  bool is_exempt_request(Task& task, const ModelPacket& packet, DropReason& refused);
  bool is_exempt_answer(Task& task, const ModelPacket& packet);
  DropReason check_from_task(const Task& task, const ModelPacket& packet) const;
  DropReason arp_from_task(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out);

  // What goes on: the packet itself, or none, or several.
  std::vector<ModelPacket> fragments(Task& task, Direction direction, const ModelPacket& packet, DropReason& refused);
  void settle(Task& task, Direction direction, const ModelPacket& packet, bool passed);
  void push_out(Task& task, bool passed);
  DropReason admit(Task& task, Direction direction, const ModelPacket& packet);
  static bool is_over(const Connection& connection);
  static bool is_unconfirmed(const Connection& connection);
  static std::size_t live(const Task& task);
  bool recycle(Task& task);
  DropReason judge_first(const Task& task, Direction direction, const ModelPacket& packet) const;
  Connection begin(const Task& task, Direction direction, const ModelPacket& packet, const ConnectionName& name);
  DropReason admit_first(Task& task, Direction direction, const ModelPacket& packet, const ConnectionName& name);
  DropReason refuse(Task& task, DropReason reason);
  void judge(const Task& task, Connection& connection, const ConnectionName& name) const;
  void advance(Connection& connection, const ModelPacket& packet, Direction direction);
  static void advance_tcp(Connection& connection, const ModelPacket& packet, Direction direction);
  bool is_alive(const Task& task, const Connection& connection) const;
  // The conversation, of the other direction, that an error quotes.
  static std::optional<ConnectionName> name_of_quoted(Direction direction, const ModelPacket& packet);
  bool is_related(const Task& task, Direction direction, const ModelPacket& packet) const;
  DropReason take_allowance(Task& task, Direction direction, const ModelPacket& packet);
  void log(const Task& task, Direction direction, const ModelPacket& packet, bool accepted);

  FlowQuery query_of(Direction direction, const ModelPacket& packet) const;
  RuleMatch ask_groups(const Task& task, Direction direction, const FlowQuery& query) const;
  bool is_open(const Task& task, Direction direction, int protocol, bool ipv4) const;
  bool acl_allows(const Task& task, Direction direction, const FlowQuery& query) const;
  static std::optional<ConnectionName> name_of(Direction direction, const ModelPacket& packet);

  Engine engine_;
  config::DesiredState state_;
  World rules_;
  std::map<std::string, Task> tasks_;
  std::uint64_t micros_ = 0, datagrams_ = 0, unconfirmed_ = 0;
  ModelCounters counters_;
  std::map<FlowName, FlowSum> flows_;
};

}  // namespace trunkline::oracle
