// SPDX-License-Identifier: BSD-3-Clause
#include "control/controller.h"

#include <rte_cycles.h>

#include <algorithm>
#include <thread>
#include <tuple>

namespace trunkline::control {
namespace {

constexpr std::size_t kMemberCapacity = 131072;
constexpr std::uint32_t kRetryTicks = 2 * kTicksPerSecond;

DhcpMode dhcp_mode(config::DhcpAnswers who) {
  switch (who) {
    case config::DhcpAnswers::answer: return DhcpMode::answer;
    case config::DhcpAnswers::off: return DhcpMode::off;
    default: return DhcpMode::relay;
  }
}

Timeouts timeouts_of(const config::Attachment& attachment, const config::EngineConfig& config) {
  Timeouts timeouts;
  const auto& conntrack = config.conntrack;
  timeouts.set_tcp(seconds(conntrack.tcp_handshake_timeout_s), seconds(attachment.conntrack.tcp_established_timeout),
                   seconds(conntrack.tcp_closing_timeout_s), seconds(conntrack.tcp_closed_timeout_s));
  timeouts.set_udp(seconds(attachment.conntrack.udp_timeout), seconds(attachment.conntrack.udp_stream_timeout));
  timeouts.set_icmp(seconds(conntrack.icmp_timeout_s));
  timeouts.set_other(seconds(conntrack.other_timeout_s));
  return timeouts;
}

// A limit of a few bits must not become none.
RateLimits limits_of(const config::RateLimits& limits) {
  return {.bytes = {(limits.ingress_bits + 7) / 8, (limits.egress_bits + 7) / 8}, .packets = {limits.ingress_packets, limits.egress_packets}};
}

}  // namespace

Controller::Controller(const config::EngineConfig& config, Published<View>& published, std::vector<Worker*> workers,
                       OpenTaskPort open_port, TrunkPort trunk, Journal* journal)
    : config_(config),
      published_(published),
      workers_(std::move(workers)),
      open_port_(std::move(open_port)),
      trunk_(trunk),
      journal_(journal),
      validator_(config),
      membership_(std::make_shared<Members>(kMemberCapacity), policies_.numbers()),
      names_(config.names),
      id_in_use_(config.limits.endpoints, false),
      generations_(config.limits.endpoints, 0) {
  for (const config::Subnet& subnet : config.subnets) desired_.subnets[subnet.id] = subnet;
  publish();
}

Controller::~Controller() { save_if_behind(); }

std::string Controller::trouble(const std::string& eni_id) const {
  if (const auto failure = failures_.find(eni_id); failure != failures_.end()) return failure->second;
  const auto attachment = desired_.attachments.find(eni_id);
  if (attachment == desired_.attachments.end()) return "unknown";
  return config::missing_facts(attachment->second, desired_, config_).value_or("");
}

std::vector<IpAddress> Controller::local_members(const std::string& group_id) const {
  std::vector<IpAddress> members;
  for (const auto& [eni, attachment] : desired_.attachments) {
    const auto& groups = attachment.group_ids;
    if (std::find(groups.begin(), groups.end(), group_id) == groups.end()) continue;
    members.insert(members.end(), attachment.addresses.begin(), attachment.addresses.end());
  }
  return members;
}

// --- the way of a change ---------------------------------------------------------------------------------------------

std::optional<config::Problem> Controller::stale_revision(const ChangeOptions& options) const {
  if (!options.expect_revision || *options.expect_revision == desired_.revision) return std::nullopt;
  return config::Problem{"conflict", "/expect_revision",
                         "the state has revision " + std::to_string(desired_.revision) + ", not " +
                             std::to_string(*options.expect_revision) + "; read it again and decide anew"};
}

std::expected<ChangeResult, config::Problems> Controller::change(const Edit& edit, const ChangeOptions& options) {
  if (auto stale = stale_revision(options)) return std::unexpected(config::Problems{std::move(*stale)});
  ChangeResult result;
  result.dry_run = options.dry_run;
  config::DesiredState next = desired_;
  if (config::Problems problems = edit(next, result.warnings); !problems.empty()) {
    return std::unexpected(std::move(problems));
  }
  // The config file's subnets are part of every state.
  for (const config::Subnet& subnet : config_.subnets) {
    const config::Subnet* known = next.subnets.get(subnet.id);
    if (known != nullptr && *known == subnet) continue;
    if (known != nullptr && std::tie(known->cidr, known->ipv6_cidr, known->vpc_cidr) !=
                                std::tie(subnet.cidr, subnet.ipv6_cidr, subnet.vpc_cidr)) {
      result.warnings.push_back(
          subnet.id +
          " stays as the config file has it, whose ranges are others; to have these, change the config file");
    }
    next.subnets.insert_or_assign(subnet.id, subnet);
  }
  next.revision = desired_.revision;
  result.revision = desired_.revision;
  if (next == desired_) {
    if (options.wait_for_disk) save_if_behind();
    result.durable = durable() && !behind_;
    return result;
  }
  if (config::Problems problems = validator_.validate(next, options.subject); !problems.empty()) {
    return std::unexpected(std::move(problems));
  }
  result.changed = true;
  const Touched touched = touched_by(next);
  const std::vector<Step> steps = plan(active_attachments_, next, config_, touched.everyone ? nullptr : &touched.concerned);
  for (const Step& step : steps) result.steps.push_back(step.text);
  for (const std::string& eni : touched.other_acl) {
    if (std::ranges::find(steps, eni, &Step::eni_id) != steps.end()) continue;
    const config::NetworkAcl* acl = find_network_acl(next, next.attachments.at(eni).subnet_id);
    result.steps.push_back("update " + eni + (acl != nullptr ? ": network ACL " + acl->id : ": no network ACL any more"));
  }
  if (options.dry_run) {
    result.durable = durable() && !behind_;
    return result;
  }

  // Ports that stand in nobody's way are opened first: if one cannot be, nothing has happened yet.
  std::map<std::string, std::shared_ptr<TaskPort>> opened;
  std::map<std::string, WorkerNumber> replaced;  // whose port is, and the worker that they stay with
  std::map<std::string, std::string> failed;
  for (const Step& step : steps) {
    if (step.kind == StepKind::withdraw && next.attachments.contains(step.eni_id)) {
      replaced[step.eni_id] = active_.at(step.eni_id).endpoint->worker;
    }
  }
  auto give_up = [&](config::Problem problem) {
    for (auto& [eni, port] : opened) {
      port->remove_with_interface();
      note_left_behind(eni, port->left_behind());
    }
    for (const std::string& what : std::exchange(left_behind_, {})) problem.message += "; " + what;
    return std::unexpected(config::Problems{std::move(problem)});
  };
  for (const Step& step : steps) {
    if (step.kind != StepKind::open_port || replaced.contains(step.eni_id)) continue;
    auto port = open(next.attachments.at(step.eni_id), next);
    if (!port) {
      // An ENI that this change does not touch (it waited for a group that came now, or failed before) does not stand
      // in the way of the others; it is shown as failed and tried again.
      const auto before = desired_.attachments.find(step.eni_id);
      if (before != desired_.attachments.end() && before->second == next.attachments.at(step.eni_id)) {
        failed[step.eni_id] = port.error().message;
        continue;
      }
      return give_up(std::move(port.error()));
    }
    opened[step.eni_id] = std::move(*port);
  }

  // From here on it happens.
  remove_leftovers(next);
  std::function<void()> cleanup = withdraw(steps);
  std::erase_if(failures_, [&](const auto& failure) { return !next.attachments.contains(failure.first); });
  for (const auto& [eni, why] : failed) {
    failures_[eni] = why;
    result.warnings.push_back(eni + " is not in service: " + why);
  }
  if (!replaced.empty()) {
    publish(std::exchange(cleanup, {}));
    wait_for_readers();
    for (const auto& [eni, worker] : replaced) {
      if (config::missing_facts(next.attachments.at(eni), next, config_)) continue;
      auto port = open(next.attachments.at(eni), next);
      if (port) {
        opened[eni] = std::move(*port);
      } else {
        failures_[eni] = port.error().message;
        result.warnings.push_back(eni + " is out of service: " + port.error().message);
      }
    }
  }
  // Members first: a table that is full or not, no rule is enforced with members that are older than it.
  membership_.follow(next);
  bool other_policies = false;
  for (const Policies::Entry* entry : policies_.follow(next)) {
    for (const std::string& eni : entry->carriers) {
      std::shared_ptr<const Endpoint>& endpoint = active_.at(eni).endpoint;
      auto other = std::make_shared<Endpoint>(*endpoint);
      other->policy = entry->policy;
      other->derive();
      other_policies = true;
      endpoint = std::move(other);
    }
  }
  network_acls_.follow(next);
  for (auto& [eni, port] : opened) {
    failures_.erase(eni);
    const auto stays = replaced.find(eni);
    admit(next.attachments.at(eni), std::move(port), next, stays != replaced.end() ? std::optional(stays->second) : std::nullopt);
  }
  std::erase_if(left_out_, [&](const auto& each) { return next.attachments.contains(each.first); });
  next.revision = desired_.revision + 1;
  // Kept to the end: what is freed with it is freed when the change is in force.
  const config::DesiredState before = std::exchange(desired_, std::move(next));
  if (touched.everyone) {
    std::set<std::string> all;
    for (const auto& [eni, active] : active_) all.insert(eni);
    refresh(all);
  } else {
    refresh(touched.attachments);
    refresh(touched.other_acl);
  }
  if (touched.everyone || !touched.attachments.empty() || !steps.empty()) {
    publish(std::move(cleanup));
    if (!names_.write(active_attachments_)) result.warnings.push_back("in force, but the names are not: " + names_.trouble());
  } else if (other_policies || !touched.other_acl.empty()) {
    publish_same_places();
  }
  // So that the answer to a detach means that the interface is gone. What the worker holds on to longer, the timer closes.
  if (!leaving_.empty()) wait_for_readers();
  behind_ = journal_ != nullptr;
  if (options.wait_for_disk) save_if_behind();
  published_.reclaim();
  for (std::string& what : std::exchange(left_behind_, {})) result.warnings.push_back(std::move(what));
  result.revision = desired_.revision;
  result.durable = durable() && !behind_;
  if (!durable()) result.warnings.push_back("in force, but not yet on disk: " + durable_error_);
  return result;
}

Controller::Touched Controller::touched_by(const config::DesiredState& next) const {
  Touched touched;
  touched.everyone = next.subnets != desired_.subnets;
  for_each_difference(desired_.attachments, next.attachments,
                      [&](const std::string& eni, const auto*, const auto*) { touched.attachments.insert(eni); });
  touched.concerned = touched.attachments;
  std::set<std::string> groups;  // came or went
  for_each_unshared(desired_.security_groups, next.security_groups,
                    [&](const std::string& id, const auto* before, const auto* after) {
                      if (before == nullptr || after == nullptr) groups.insert(id);
                    });
  if (!groups.empty()) {
    for (const auto& [eni, attachment] : next.attachments) {
      const bool names_one = std::ranges::any_of(attachment.group_ids, [&](const auto& id) { return groups.contains(id); });
      if (names_one) touched.concerned.insert(eni);
    }
  }
  if (const std::set<std::string> subnets = subnets_with_other_acl(desired_, next); !subnets.empty()) {
    for (const auto& [eni, attachment] : active_attachments_) {
      if (subnets.contains(attachment.subnet_id) && next.attachments.contains(eni)) touched.other_acl.insert(eni);
    }
  }
  // What failed is tried again with whatever else happens to ENIs.
  if (!touched.concerned.empty()) {
    for (const auto& [eni, why] : failures_) touched.concerned.insert(eni);
  }
  return touched;
}

// Takes what leaves out of what is published next; the answer is to be run when no worker knows of it any more.
std::function<void()> Controller::withdraw(const std::vector<Step>& steps) {
  struct Gone {
    EndpointId id;
    std::string eni;
    std::shared_ptr<TaskPort> port;
  };
  std::vector<Gone> gone;
  for (const Step& step : steps) {
    if (step.kind != StepKind::withdraw) continue;
    const auto entry = active_.find(step.eni_id);
    gone.push_back({entry->second.endpoint->id, step.eni_id, entry->second.port});
    if (flow_logs_ != nullptr) flow_logs_->endpoint_went(entry->second.endpoint->id, entry->second.endpoint->generation);
    leaving_.push_back(entry->second.port);
    active_.erase(entry);
    moves_.forget(step.eni_id);
    active_attachments_.erase(step.eni_id);
    policies_.drop(step.eni_id);
  }
  if (gone.empty()) return {};
  return [this, gone = std::move(gone)] {
    for (const auto& [id, eni, port] : gone) {
      id_in_use_[id.value] = false;  // until now a worker could write to its meters
      port->remove_with_interface();
      note_left_behind(eni, port->left_behind());
      std::erase(leaving_, port);
    }
  };
}

void Controller::note_left_behind(const std::string& eni, std::string what) {
  if (what.empty()) return;
  ++interfaces_left_;
  last_interface_left_ = eni + " is detached, but not all of its interface is: " + std::move(what);
  // Where no answer waits for it, status shows the last one.
  if (left_behind_.size() < config::kMaxProblems) left_behind_.push_back(last_interface_left_);
}

// An attachment that goes and is not in service here has no port of ours; an engine before may have left its interface.
void Controller::remove_leftovers(const config::DesiredState& next) {
  if (!remove_leftover_) return;
  for_each_difference(desired_.attachments, next.attachments,
                      [&](const std::string& eni, const config::Attachment* before, const config::Attachment* after) {
                        if (before == nullptr || after != nullptr || active_.contains(eni)) return;
                        note_left_behind(eni, remove_leftover_(*before));
                      });
}

std::expected<std::shared_ptr<TaskPort>, config::Problem> Controller::open(const config::Attachment& attachment,
                                                                           const config::DesiredState& state) {
  // A port that is still leaving may hold the interface's name; adopting it would only have it removed a moment later.
  if (!leaving_.empty() && !wait_for_readers()) {
    return std::unexpected(config::Problem{"port_failed", "/port",
                                           "the worker has not let go of the port that was there before; is it stuck? see trunkctl status"});
  }
  auto port = open_port_(attachment, state.subnets.at(attachment.subnet_id));
  if (!port) return std::unexpected(std::move(port.error()));
  return std::shared_ptr<TaskPort>(std::move(*port));
}

// Bounded: a worker's turn takes microseconds, and one that sleeps is not waited for.
bool Controller::wait_for_readers() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (published_.reclaim() != 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

std::optional<EndpointId> Controller::free_id() const {
  const auto found = std::find(id_in_use_.begin(), id_in_use_.end(), false);
  if (found == id_in_use_.end()) return std::nullopt;
  return EndpointId{static_cast<std::uint16_t>(found - id_in_use_.begin())};
}

void Controller::admit(const config::Attachment& attachment, std::shared_ptr<TaskPort> port,
                       const config::DesiredState& state, std::optional<WorkerNumber> worker) {
  if (!free_id()) wait_for_readers();
  const auto id = free_id();
  if (!id) {
    failures_[attachment.eni_id] = "all endpoint numbers are in use (limits.endpoints)";
    port->remove_with_interface();
    return;
  }
  id_in_use_[id->value] = true;
  ActiveEndpoint active;
  const WorkerNumber owner = worker.value_or(least_loaded());
  active.endpoint = make_endpoint(attachment, *id, ++generations_[id->value], {owner, owner, kNoWorker}, state);
  active.port = std::move(port);
  active.ingress_start = workers_.of(*id, Direction::ingress);
  active.egress_start = workers_.of(*id, Direction::egress);
  for (std::size_t i = 0; i < kDropReasonCount; ++i) active.audited_start[i] = workers_.audited(*id, static_cast<DropReason>(i));
  active_[attachment.eni_id] = std::move(active);
  active_attachments_.insert_or_assign(attachment.eni_id, attachment);
  if (flow_logs_ != nullptr) flow_logs_->endpoint_came(attachment, *id, generations_[id->value], state);
}

std::shared_ptr<const Endpoint> Controller::make_endpoint(const config::Attachment& attachment, EndpointId id,
                                                          std::uint16_t generation, Place place,
                                                          const config::DesiredState& state) {
  const config::Subnet& subnet = state.subnets.at(attachment.subnet_id);
  auto endpoint = std::make_shared<Endpoint>();
  endpoint->id = id;
  endpoint->generation = generation;
  endpoint->port = PortSlot{static_cast<std::uint16_t>(id.value + 1)};
  endpoint->worker = place.worker;
  endpoint->served_by = place.served_by;
  endpoint->previous_worker = place.previous_worker;
  if (config_.limits.connections_per_endpoint != 0) endpoint->max_connections = config_.limits.connections_per_endpoint;
  if (config_.trunk.mode == config::TrunkMode::tagged) endpoint->vlan = attachment.vlan.value_or(VlanId{});
  endpoint->mac = *attachment.mac;
  for (const IpAddress& address : attachment.addresses) {
    if (endpoint->address_count < Endpoint::kMaxAddresses) endpoint->address_list[endpoint->address_count++] = address;
  }
  // An IPv6-only subnet has no IPv4 neighbours, router or resolver: an address that no host has stands for each.
  constexpr IpPrefix kNobody{IpAddress::from_v4(0xffffffff), 32};
  endpoint->subnet4 = subnet.cidr.value_or(kNobody);
  endpoint->router4 = subnet.router().value_or(kNobody.address);
  if (subnet.ipv6_cidr) {
    endpoint->has_ipv6_subnet = true;
    endpoint->subnet6 = *subnet.ipv6_cidr;
    endpoint->router6 = *subnet.router6();
  }
  endpoint->resolver = subnet.resolver().value_or(kNobody.address);
  endpoint->source_dest_check = attachment.source_dest_check;
  endpoint->audit = attachment.audit;
  endpoint->always_track = attachment.always_track;
  endpoint->revalidate = attachment.on_change == config::OnChange::revalidate;
  endpoint->strict_syn = config_.conntrack.strict_syn;
  endpoint->icmp_related = config_.conntrack.icmp_related;
  endpoint->block_imds = attachment.block_imds || config_.edge.block_imds;
  endpoint->limits = limits_of(attachment.limits);
  endpoint->mtu = attachment.port->mtu;
  endpoint->timeouts = timeouts_of(attachment, config_);
  endpoint->policy = policies_.carry(attachment.eni_id, attachment.group_ids);
  endpoint->network_acl = network_acls_.of(attachment.subnet_id);
  endpoint->derive();
  return endpoint;
}

// Their endpoints as the state now has them: new VLAN, groups, rules, subnet.
void Controller::refresh(const std::set<std::string>& enis) {
  for (const std::string& eni : enis) {
    const auto entry = active_.find(eni);
    if (entry == active_.end()) continue;
    const config::Attachment& attachment = desired_.attachments.at(eni);
    ActiveEndpoint& active = entry->second;
    active.endpoint = make_endpoint(attachment, active.endpoint->id, active.endpoint->generation, place_of(*active.endpoint), desired_);
    config::Attachment& known = active_attachments_.at(eni);
    if (known != attachment) known = attachment;
    if (flow_logs_ != nullptr) flow_logs_->endpoint_came(attachment, active.endpoint->id, active.endpoint->generation, desired_);
  }
}

void Controller::publish(std::function<void()> cleanup) {
  auto view = std::make_shared<View>();
  view->generation = ++view_generation_;
  view->endpoints.resize(config_.limits.endpoints);
  view->ports.push_back({.slot = kTrunkSlot, .ethdev = trunk_.ethdev, .is_trunk = true, .endpoint = {}, .wake = trunk_.wake,
                         .tx_offloads = trunk_.offloads.tx, .max_segments = trunk_.offloads.max_segments});
  view->trunk_queues = std::min(trunk_.queues, static_cast<std::uint16_t>(workers_.size()));
  view->moving = !moves_.empty();
  for (const auto& [eni, active] : active_) {
    view->endpoints[active.endpoint->id.value] = active.endpoint;
    const SendOffloads offloads = active.port->offloads();
    view->ports.push_back({.slot = active.endpoint->port,
                           .ethdev = active.port->ethdev(),
                           .endpoint = active.endpoint->id,
                           .polled_by = active.endpoint->served_by,
                           .wake = active.port->wake(),
                           .tx_offloads = offloads.tx,
                           .agreed_offloads = offloads.agreed,
                           .max_segments = offloads.max_segments,
                           .writes_take_time = offloads.writes_take_time});
  }
  std::vector<EndpointIndex<std::uint64_t>::Slot> waiting_macs;
  for (const auto& [eni, attachment] : desired_.attachments) {
    if (active_.contains(eni)) continue;
    if (attachment.vlan) view->waiting_vlans[attachment.vlan->value & 0xfff] = true;
    if (attachment.mac) waiting_macs.push_back({attachment.mac->as_integer(), EndpointId{0}});
  }
  view->waiting_macs.build(waiting_macs);
  view->trunk_mtu = config_.trunk.mtu;
  view->flow_logs = !config_.flow_logs.empty();
  view->edge.answer = config_.edge.mode == config::EdgeMode::answer;
  view->edge.router_mac = config_.edge.router_mac;
  view->edge.dhcp = dhcp_mode(config_.edge.who_answers_dhcp());
  view->edge.dhcp_domain = config_.edge.dhcp_domain;
  view->members = membership_.members();
  view->build_indexes();
  published_.publish(std::move(view), std::move(cleanup));
  workers_.wake();
}

// The same ENIs, found by the same things and coming out at the same ports: a copy of the View with the endpoints as they are
// now. Its tables are flat, so the copy is cheaper than building them.
void Controller::publish_same_places() {
  auto view = std::make_shared<View>(*published_.latest());
  view->generation = ++view_generation_;
  for (const auto& [eni, active] : active_) view->replace(active.endpoint);
  published_.publish(std::move(view));
  workers_.wake();
}

// --- time and disk ---------------------------------------------------------------------------------------------------

void Controller::save() {
  if (journal_ == nullptr) return;
  const auto saved = journal_->record(desired_);
  durable_error_ = saved ? "" : saved.error();
  behind_ = false;  // a save that failed is no longer one that nobody has tried
}

void Controller::save_if_behind() {
  if (behind_) save();
}

std::vector<std::string> Controller::restore() {
  std::vector<std::string> notes = load_state();
  retry_failed();
  publish();
  // Whatever the engine before has left there: what is not in service has no name.
  if (!names_.write(active_attachments_)) notes.push_back("names are not as they should be: " + names_.trouble());
  for (const auto& [eni, why] : failures_) notes.push_back(eni + " is not in service: " + why);
  return notes;
}

std::vector<std::string> Controller::load_state() {
  std::vector<std::string> notes;
  if (journal_ == nullptr) return notes;
  Journal::Loaded loaded = journal_->load();
  if (!loaded.note.empty()) notes.push_back(loaded.note);
  quarantined_ = loaded.quarantined;
  journal_damage_ = loaded.damage;
  if (!loaded.state) return notes;
  for (const config::Subnet& subnet : config_.subnets) loaded.state->subnets.insert_or_assign(subnet.id, subnet);
  if (const config::Problems problems = validator_.validate(*loaded.state); !problems.empty()) {
    for (const config::Problem& problem : problems) {
      notes.push_back("the journal's state does not fit the config: " + problem.pointer + ": " + problem.message);
    }
    // The next save would write the state without what is left out: the file as it was stays beside it.
    const auto kept_whole = journal_->write_copy(*loaded.state, journal_->path() + ".unfit");
    notes.push_back(kept_whole ? "the whole of it is kept in " + journal_->path() + ".unfit" : kept_whole.error());
    // Its groups and subnets are kept, and each attachment that fits by itself; the rest waits for the operator.
    config::DesiredState kept = *loaded.state;
    kept.attachments.clear();
    for (const auto& [eni, attachment] : loaded.state->attachments) {
      kept.attachments[eni] = attachment;
      if (const config::Problems unfit = validator_.validate(kept, eni); !unfit.empty()) {
        kept.attachments.erase(eni);
        left_out_[eni] = unfit.front().message;
        notes.push_back("left out: " + eni);
      }
    }
    if (!validator_.validate(kept).empty()) return notes;
    loaded.state = std::move(kept);
  }
  desired_ = std::move(*loaded.state);
  return notes;
}

// Opens what the state wants and what is not there, each by itself.
void Controller::retry_failed() {
  bool came = false;
  membership_.follow(desired_);
  policies_.follow(desired_);
  network_acls_.follow(desired_);
  for (const Step& step : plan(active_attachments_, desired_, config_)) {
    if (step.kind != StepKind::open_port) continue;
    const config::Attachment& attachment = desired_.attachments.at(step.eni_id);
    auto port = open(attachment, desired_);
    if (!port) {
      failures_[step.eni_id] = port.error().message;
      continue;
    }
    failures_.erase(step.eni_id);
    admit(attachment, std::move(*port), desired_);
    came = true;
  }
  if (!came) return;
  publish();
  names_.write(active_attachments_);
}

void Controller::tick() {
  now_ = clock_.at(rte_rdtsc()).tick;
  published_.reclaim();
  if (!moves_.empty()) advance_moves();
  save_if_behind();
  if (++ticks_ % kRetryTicks != 0) return;
  if (!failures_.empty()) retry_failed();
  if (!durable()) save();
  if (!names_.trouble().empty()) names_.write(active_attachments_);
}

}  // namespace trunkline::control
