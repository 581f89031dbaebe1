// SPDX-License-Identifier: BSD-3-Clause
#include "control/report.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "config/state_json.h"
#include "control/reconcile.h"
#include "control/steering_methods.h"
#include "dataplane/io/log_writer.h"

namespace trunkline::control {
namespace {

using config::Json;

Json meter_json(const MeterReading& reading) {
  Json drops = Json::object();
  for (std::size_t i = 0; i < kDropReasonCount; ++i) {
    if (reading.drops[i] != 0) drops[std::string(kDropReasonTexts[i].name)] = reading.drops[i];
  }
  // Received is what came in or was made here, so that readers need to know of no third term.
  return {{"rx_packets", reading.rx_packets + reading.made_packets}, {"rx_bytes", reading.rx_bytes + reading.made_bytes},
          {"tx_packets", reading.tx_packets}, {"tx_bytes", reading.tx_bytes},
          {"made_packets", reading.made_packets}, {"drops", std::move(drops)}};
}

struct PortReadings {
  std::string name;
  std::optional<std::string> eni_id;
  // As an ENI sees it: ingress goes to a task, egress comes from one. Of the trunk, what the fabric sent and what was given to it.
  MeterReading ingress, egress;
  std::uint16_t ethdev = 0;
};

Json capabilities_json(const std::vector<Capability>& capabilities) {
  Json all = Json::array();
  for (const Capability& capability : capabilities) {
    all.push_back({{"what", capability.what}, {"available", capability.available}, {"why", capability.available ? "" : capability.why}});
  }
  return all;
}

// What the driver lost or refused: no worker ever saw it. Received and sent as the device sees it.
Json device_json(std::uint16_t ethdev) {
  rte_eth_stats said{};
  if (rte_eth_stats_get(ethdev, &said) != 0) said = {};
  return {{"rx_missed", said.imissed}, {"rx_errors", said.ierrors}, {"rx_no_buffers", said.rx_nombuf}, {"tx_errors", said.oerrors},
          // Deprecated: the names of API 1.0.
          {"in_missed", said.imissed}, {"in_errors", said.ierrors}, {"in_no_buffers", said.rx_nombuf}, {"out_errors", said.oerrors}};
}

std::vector<PortReadings> read_ports(Controller& controller) {
  const Workers& workers = controller.workers();
  std::vector<PortReadings> ports;
  // The endpoints' meters first: what a worker counts between the two reads makes the trunk's look larger, not smaller.
  for (const auto& [eni, active] : controller.active()) {
    const EndpointId id = active.endpoint->id;
    ports.push_back({port_name(*controller.desired().attachments.at(eni).port), eni,
                     workers.of(id, Direction::ingress).since(active.ingress_start),
                     workers.of(id, Direction::egress).since(active.egress_start), active.port->ethdev()});
  }
  ports.insert(ports.begin(), {"trunk", std::nullopt, workers.trunk_in(), workers.trunk_out(), controller.trunk().ethdev});
  return ports;
}

const char* state_name(Controller& controller, const std::string& eni) {
  if (controller.active().contains(eni)) return "active";
  return controller.is_failed(eni) ? "failed" : "waiting";
}

Json counters_json(const FlowLogCounters& counters) {
  return {{"records_written", counters.records_written}, {"nodata_written", counters.nodata_written},
          {"skipdata_written", counters.skipdata_written}, {"records_lost", counters.records_lost},
          {"packets_lost", counters.packets_lost}, {"bytes_lost", counters.bytes_lost},
          {"write_errors", counters.write_errors}, {"files", counters.files}};
}

Json flow_log_sums(const FlowLogs* logs) {
  Json sums = counters_json(logs != nullptr ? logs->counters() : FlowLogCounters{});
  sums["configured"] = logs != nullptr ? logs->logs().size() : 0;
  Json trouble = Json::array();
  if (logs != nullptr) {
    for (const auto& log : logs->logs()) {
      if (!log->trouble().empty()) trouble.push_back(log->config().id + ": " + log->trouble());
    }
  }
  sums["trouble"] = std::move(trouble);
  return sums;
}

std::string task_id(const std::string& arn) { return arn.substr(arn.rfind('/') + 1); }

// The names and the meaning are those of the ENA driver's statistics, so that a dashboard made for it can be kept.
Json allowances_json(const Workers& workers) {
  Json allowances = Json::object();
  for (const DropReason reason : {DropReason::bw_in_allowance_exceeded, DropReason::bw_out_allowance_exceeded,
                                  DropReason::pps_allowance_exceeded, DropReason::linklocal_allowance_exceeded}) {
    allowances[std::string(text(reason).name)] = workers.dropped(reason);
  }
  allowances["conntrack_allowance_exceeded"] = workers.dropped(DropReason::conntrack_full) +
                                               workers.dropped(DropReason::conntrack_quota) +
                                               workers.dropped(DropReason::conntrack_share);
  const std::uint64_t used = workers.connections(), capacity = workers.connection_capacity();
  allowances["conntrack_allowance_available"] = capacity > used ? capacity - used : 0;
  return allowances;
}

// Relative to the start of the endpoint that has the number now.
Json audited_json(const Workers& workers, const ActiveEndpoint& active) {
  Json audited = Json::object();
  for (std::size_t i = 0; i < kDropReasonCount; ++i) {
    const std::uint64_t count = workers.audited(active.endpoint->id, static_cast<DropReason>(i)) - active.audited_start[i];
    if (count != 0) audited[std::string(kDropReasonTexts[i].name)] = count;
  }
  return audited;
}

}  // namespace

Json task_report(Controller& controller, const config::Attachment& attachment, bool full) {
  const std::string& eni = attachment.eni_id;
  Json addresses = Json::array();
  for (const IpAddress& address : attachment.addresses) addresses.push_back(address.to_string());
  Json report = {{"eni", eni},
                 {"task", task_id(attachment.task.task_arn)},
                 {"task_arn", attachment.task.task_arn},
                 {"state", state_name(controller, eni)},
                 {"reason", controller.trouble(eni)},
                 {"vlan", nullptr},
                 {"mac", nullptr},
                 {"addresses", std::move(addresses)},
                 {"subnet", attachment.subnet_id},
                 {"groups", attachment.group_ids},
                 {"port", nullptr},
                 {"worker", nullptr}};
  if (attachment.vlan) report["vlan"] = attachment.vlan->is_untagged() ? Json("untagged") : Json(attachment.vlan->value);
  if (attachment.mac) report["mac"] = attachment.mac->to_string();
  if (attachment.port) report["port"] = port_name(*attachment.port);
  const auto active = controller.active().find(eni);
  const bool is_active = active != controller.active().end();
  if (is_active) report["worker"] = active->second.endpoint->worker;
  if (!full) return report;
  report["attachment"] = config::to_json(attachment);
  if (attachment.port) {
    report["port"] = config::to_json(*attachment.port);
    report["mtu"] = attachment.port->mtu;
  }
  report["source_dest_check"] = attachment.source_dest_check;
  const config::NetworkAcl* acl = find_network_acl(controller.desired(), attachment.subnet_id);
  report["network_acl"] = acl != nullptr ? Json(acl->id) : Json(nullptr);
  report["limits"] = {{"ingress_bits", attachment.limits.ingress_bits},
                      {"egress_bits", attachment.limits.egress_bits},
                      {"ingress_packets", attachment.limits.ingress_packets},
                      {"egress_packets", attachment.limits.egress_packets}};
  report["on_change"] = attachment.on_change == config::OnChange::keep ? "keep" : "revalidate";
  report["always_track"] = attachment.always_track;
  report["audit"] = attachment.audit;
  report["block_imds"] = attachment.block_imds || controller.config().edge.block_imds;
  report["conntrack"] = {{"TcpEstablishedTimeout", attachment.conntrack.tcp_established_timeout},
                         {"UdpStreamTimeout", attachment.conntrack.udp_stream_timeout},
                         {"UdpTimeout", attachment.conntrack.udp_timeout}};
  if (is_active) {
    const EndpointId id = active->second.endpoint->id;
    const Json ingress = meter_json(controller.workers().of(id, Direction::ingress).since(active->second.ingress_start));
    const Json egress = meter_json(controller.workers().of(id, Direction::egress).since(active->second.egress_start));
    report["counters"] = {{"ingress", ingress}, {"egress", egress}, {"in", egress}, {"out", ingress}};  // the last two: see stats_report
    report["audited"] = audited_json(controller.workers(), active->second);
    report["moving"] = controller.is_moving(eni);
    report["link"] = active->second.port->link_up() ? "up" : "down";
    report["capabilities"] = capabilities_json(active->second.port->capabilities());
  }
  return report;
}

Json stats_report(Controller& controller) {
  Json ports = Json::array();
  std::int64_t unaccounted = 0;
  for (const PortReadings& port : read_ports(controller)) {
    unaccounted += port.ingress.unaccounted() + port.egress.unaccounted();
    const Json ingress = meter_json(port.ingress), egress = meter_json(port.egress);
    const bool is_trunk = !port.eni_id;
    ports.push_back({{"name", port.name},
                     {"eni", port.eni_id ? Json(*port.eni_id) : Json(nullptr)},
                     {"ingress", ingress},
                     {"egress", egress},
                     // Deprecated: API 1.0 told what came in by the port and what went out by it, and of a task that is the other way round.
                     {"in", is_trunk ? ingress : egress},
                     {"out", is_trunk ? egress : ingress},
                     {"device", device_json(port.ethdev)}});
  }
  return {{"ports", std::move(ports)}, {"unaccounted", unaccounted}, {"allowances", allowances_json(controller.workers())}};
}

Json drops_report(Controller& controller, const std::optional<std::string>& eni_id) {
  std::vector<Json> drops;
  for (const PortReadings& port : read_ports(controller)) {
    if (eni_id && port.eni_id != eni_id) continue;
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      const MeterReading& reading = direction == Direction::ingress ? port.ingress : port.egress;
      for (std::size_t i = 0; i < kDropReasonCount; ++i) {
        if (reading.drops[i] == 0) continue;
        drops.push_back({{"reason", kDropReasonTexts[i].name},
                         {"sentence", kDropReasonTexts[i].sentence},
                         {"packets", reading.drops[i]},
                         {"port", port.name},
                         {"eni", port.eni_id ? Json(*port.eni_id) : Json(nullptr)},
                         {"direction", to_string(direction)}});
      }
    }
  }
  std::stable_sort(drops.begin(), drops.end(),
                   [](const Json& a, const Json& b) { return a["packets"].get<std::uint64_t>() > b["packets"].get<std::uint64_t>(); });
  return {{"drops", drops}};
}

Json flow_logs_report(const FlowLogs& logs) {
  Json list = Json::array();
  for (const auto& log : logs.logs()) {
    const config::FlowLog& config = log->config();
    const bool is_s3 = config.destination.type == config::FlowLog::Destination::Type::s3;
    static constexpr const char* kTraffic[] = {"ACCEPT", "REJECT", "ALL"};
    Json report = counters_json(log->counters());
    report.update({{"id", config.id},
                   {"traffic_type", kTraffic[static_cast<std::size_t>(config.traffic_type)]},
                   {"max_aggregation_interval", config.max_aggregation_interval_s},
                   {"fields", config.format.header()},
                   {"destination", {{"type", is_s3 ? "s3" : "stream"}, {"path", config.destination.path}}},
                   {"flows", log->flows()},
                   {"max_flows", config.max_flows},
                   {"ends_in_s", logs.left_of(*log) / kTicksPerSecond},
                   {"lines_waiting", log->lines_waiting()},
                   {"written_interval", log->written_interval()},
                   {"trouble", log->trouble()}});
    list.push_back(std::move(report));
  }
  return {{"flow_logs", std::move(list)}, {"interval", logs.interval()}};
}

Json workers_report(Controller& controller) {
  Json workers = Json::array();
  for (const Worker* worker : controller.workers()) {
    const std::uint64_t lifetime = worker->start_cycles() != 0 ? rte_get_tsc_cycles() - worker->start_cycles() : 0;
    const std::uint64_t packets = worker->packets() + worker->handed_in();
    const auto busy_cycles = static_cast<double>(worker->busy_cycles());
    workers.push_back({{"worker", worker->number()},
                       {"lcore", controller.config().eal.worker_lcores[worker->number()]},
                       {"endpoints", controller.endpoints_of(worker->number())},
                       {"loops", worker->turns()},
                       {"busy_ratio", lifetime != 0 ? busy_cycles / static_cast<double>(lifetime) : 0},
                       {"packets", worker->packets()},
                       {"handed_in", worker->handed_in()},
                       {"busy_cycles", worker->busy_cycles()},
                       {"super_frames_cut", worker->offloads.super_frames.read()},
                       {"segments_made", worker->offloads.segments.read()},
                       {"checksums_made", worker->offloads.checksums.read()},
                       {"fragmented_packets", worker->state.fragmented_packets.read()},
                       {"fragments_made", worker->state.fragments_made.read()},
                       {"cycles_per_packet", packets != 0 ? Json(std::round(busy_cycles / static_cast<double>(packets))) : Json(nullptr)},
                       {"connections", worker->state.connections.size()},
                       {"capacity", worker->state.connections.capacity()},
                       {"page_bytes", worker->state.connections.page_bytes()},
                       {"idle", to_string(worker->idle_rung())}});
  }
  return workers;
}

Json shares_report(Controller& controller) {
  const Workers& workers = controller.workers();
  Json shares = Json::array();
  for (const auto& [eni, active] : controller.active()) {
    const Endpoint& endpoint = *active.endpoint;
    const ConnectionTable& connections = workers[endpoint.worker].state.connections;
    std::uint64_t cycles = 0, frame_cost = 0, lines_lost = 0;
    for (const Worker* worker : workers) {
      const WorkerTime::Had& had = worker->state.time.had[endpoint.id.value];
      cycles += had.cycles.read();
      frame_cost = std::max(frame_cost, had.frame_cost.read());
      lines_lost += worker->state.flows.lost(endpoint.id);
    }
    const MeterReading ingress = workers.of(endpoint.id, Direction::ingress).since(active.ingress_start);
    const MeterReading egress = workers.of(endpoint.id, Direction::egress).since(active.egress_start);
    Json refused = Json::object();
    for (const DropReason reason :
         {DropReason::conntrack_share, DropReason::conntrack_quota, DropReason::conntrack_full,
          DropReason::fragment_quota, DropReason::fragmenting_limit, DropReason::cpu_allowance_exceeded,
          DropReason::linklocal_allowance_exceeded, DropReason::handoff_full, DropReason::no_buffer,
          DropReason::tx_full}) {
      const auto at = static_cast<std::size_t>(reason);
      if (const std::uint64_t count = ingress.drops[at] + egress.drops[at]; count != 0)
        refused[std::string(text(reason).name)] = count;
    }
    const auto cycles_a_micro = static_cast<double>(std::max<std::uint64_t>(1, rte_get_tsc_hz() / 1'000'000));
    const std::uint32_t held = connections.entries_of(endpoint.id), share = connections.share_of_each();
    shares.push_back(
        {{"eni", eni},
         {"task", task_id(controller.desired().attachments.at(eni).task.task_arn)},
         {"worker", endpoint.worker},
         {"connections", {{"entries", held}, {"share", share}, {"beyond_share", held > share ? held - share : 0}}},
         {"worker_time",
          {{"ms", std::round(static_cast<double>(cycles) / cycles_a_micro / 1000)},
           {"frame_us", std::round(static_cast<double>(frame_cost) / cycles_a_micro * 10) / 10}}},
         {"flow_lines_lost", lines_lost},
         {"refused", std::move(refused)}});
  }
  return shares;
}

namespace {

Json call_times_json(const CallTimes* times) {
  if (times == nullptr) return nullptr;
  Json buckets = Json::array(), beyond = Json::object();
  for (std::size_t i = 0; i < times->counts().size(); ++i) {
    buckets.push_back(
        {{"up_to_us", i < CallTimes::kBuckets.size() ? Json(CallTimes::kBuckets[i].count()) : Json(nullptr)},
         {"calls", times->counts()[i]}});
  }
  for (const auto& [name, longest] : times->by_name()) {
    if (longest.beyond_bound != 0)
      beyond[name] = {{"calls", longest.beyond_bound},
                      {"longest_ms", static_cast<double>(longest.longest.count()) / 1000}};
  }
  return {{"bound_ms", CallTimes::kBound.count() / 1000},
          {"calls", std::move(buckets)},
          {"beyond_bound", std::move(beyond)},
          {"log_lines_dropped", LogWriter::of_process().dropped()}};
}

}  // namespace

Json status_report(Controller& controller, const EngineFacts& facts) {
  const config::EngineConfig& config = controller.config();
  std::size_t waiting = 0, failed = 0;
  for (const auto& [eni, attachment] : controller.desired().attachments) {
    if (controller.active().contains(eni)) continue;
    controller.is_failed(eni) ? ++failed : ++waiting;
  }
  const bool trunk_up = facts.trunk != nullptr && facts.trunk->link_up();
  Json capabilities = facts.trunk != nullptr ? capabilities_json(facts.trunk->capabilities()) : Json::array();
  for (Json& capability : capabilities) capability["port"] = "trunk";
  const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - facts.started);
  return {{"version", facts.version},
          {"pid", getpid()},
          {"uptime_s", uptime.count()},
          {"revision", controller.desired().revision},
          {"boot_id", facts.boot_id},
          {"healthy", trunk_up && failed == 0 && controller.durable() && controller.journal_damage().empty() &&
                          controller.left_out().empty()},
          {"trunk",
           {{"device", config.trunk.device},
            {"mode", config.trunk.mode == config::TrunkMode::tagged ? "tagged" : "untagged"},
            {"link", trunk_up ? "up" : "down"},
            {"mtu", config.trunk.mtu},
            {"mac", facts.trunk != nullptr ? facts.trunk->mac().to_string() : ""}}},
          {"workers", workers_report(controller)},
          {"endpoints",
           {{"active", controller.active().size()},
            {"waiting", waiting},
            {"failed", failed},
            {"left_out", controller.left_out()},
            {"interfaces_left", controller.interfaces_left()},
            {"last_interface_left", controller.last_interface_left()},
            {"limit", config.limits.endpoints}}},
          {"connections",
           {{"used", controller.workers().connections()},
            {"limit", controller.workers().connection_capacity()},
            {"recycled", controller.workers().recycled_connections()}}},
          {"memory",
           {{"hugepages_mb", config.eal.hugepages ? config.eal.memory_mb : 0},
            {"mbufs", config.buffers.count},
            {"mbufs_used", facts.pool != nullptr ? rte_mempool_in_use_count(facts.pool) : 0}}},
          {"state",
           {{"durable", controller.durable()},
            {"why", controller.durable_error()},
            {"journal", facts.journal_path},
            {"damage", controller.journal_damage()},
            {"quarantined", controller.quarantined() ? Json(*controller.quarantined()) : Json(nullptr)}}},
          {"control", call_times_json(facts.call_times)},
          {"flow_logs", flow_log_sums(facts.flow_logs)},
          {"steering", steering_summary(controller, facts.steering)},
          {"names", config.names.hosts_file.empty()
                        ? Json(nullptr)
                        : Json{{"file", config.names.hosts_file}, {"why", controller.names_trouble()}}},
          {"capabilities", std::move(capabilities)}};
}

}  // namespace trunkline::control
