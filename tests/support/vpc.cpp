// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/vpc.h"

#include <stdexcept>

#include "control/compile.h"

namespace trunkline::test {

Vpc::Vpc(const Engine& engine)
    : worker(kMaxEndpoints, engine.connections, 42), engine_(engine), membership_(std::make_shared<Members>(1024), policies_.numbers()) {
  worker.buffers = &mbufs_;
  apply();
}

// --- the desired state -----------------------------------------------------------------------------------------------

void Vpc::follow_attachments() {
  // A new MAC, address or subnet is a new interface, as in the controller.
  for (auto entry = attached_.begin(); entry != attached_.end();) {
    const config::Attachment* next = state.attachments.get(entry->first);
    const config::Attachment& before = entry->second.attachment;
    const bool same = next != nullptr && next->mac == before.mac && next->addresses == before.addresses && next->subnet_id == before.subnet_id;
    if (!same) policies_.drop(entry->first);
    entry = same ? std::next(entry) : attached_.erase(entry);
  }
  for (const auto& [eni, attachment] : state.attachments) {
    Attached& attached = attached_[eni];
    if (!attached.id.is_valid()) {
      std::set<std::uint16_t> used;
      for (const auto& [other, each] : attached_) used.insert(each.id.value);
      std::uint16_t id = 0;
      while (used.contains(id)) ++id;
      attached.id = EndpointId{id};
      attached.generation = ++generations_[id];
      names_[{id, attached.generation}] = eni;
    }
    attached.attachment = attachment;
    attached.subnet = state.subnets.at(attachment.subnet_id);
  }
}

void Vpc::follow_acls() {
  std::map<std::string, Acl> next;
  for (const auto& [id, acl] : state.network_acls) {
    const auto known = acls_.find(id);
    next[id] = known != acls_.end() && known->second.source == acl ? known->second : Acl{acl, control::compile_network_acl(acl, ++acl_generation_)};
  }
  acls_ = std::move(next);
}

std::shared_ptr<const Endpoint> Vpc::make_endpoint(const Attached& attached) {
  const config::Attachment& attachment = attached.attachment;
  const config::Subnet& subnet = attached.subnet;
  auto endpoint = std::make_shared<Endpoint>();
  endpoint->id = attached.id;
  endpoint->generation = attached.generation;
  endpoint->port = PortSlot{static_cast<std::uint16_t>(attached.id.value + 1)};
  endpoint->max_connections = engine_.connections_per_endpoint;
  endpoint->vlan = attachment.vlan.value_or(VlanId{});
  endpoint->mac = attachment.mac.value();
  for (const IpAddress& address : attachment.addresses) endpoint->address_list.at(endpoint->address_count++) = address;
  endpoint->subnet4 = subnet.cidr.value();
  endpoint->router4 = subnet.router().value();
  endpoint->resolver = subnet.resolver().value();
  if (subnet.ipv6_cidr) {
    endpoint->has_ipv6_subnet = true;
    endpoint->subnet6 = *subnet.ipv6_cidr;
    endpoint->router6 = *subnet.router6();
  }
  endpoint->source_dest_check = attachment.source_dest_check;
  endpoint->mtu = attachment.port ? attachment.port->mtu : config::PortSpec{}.mtu;
  endpoint->audit = attachment.audit;
  endpoint->always_track = attachment.always_track;
  endpoint->revalidate = attachment.on_change == config::OnChange::revalidate;
  endpoint->block_imds = attachment.block_imds;
  endpoint->strict_syn = engine_.strict_syn;
  endpoint->icmp_related = engine_.icmp_related;
  const auto& conntrack = attachment.conntrack;
  endpoint->timeouts.set_tcp(seconds(30), seconds(conntrack.tcp_established_timeout), seconds(120), seconds(10));
  endpoint->timeouts.set_udp(seconds(conntrack.udp_timeout), seconds(conntrack.udp_stream_timeout));
  endpoint->limits = {.bytes = {(attachment.limits.ingress_bits + 7) / 8, (attachment.limits.egress_bits + 7) / 8},
                      .packets = {attachment.limits.ingress_packets, attachment.limits.egress_packets}};
  endpoint->policy = policies_.carry(attachment.eni_id, attachment.group_ids);
  for (const auto& [id, acl] : acls_) {
    for (const std::string& associated : acl.source.subnet_ids) {
      if (associated == attachment.subnet_id) endpoint->network_acl = acl.compiled;
    }
  }
  endpoint->derive();
  return endpoint;
}

void Vpc::apply() {
  follow_attachments();
  follow_acls();
  policies_.follow(state);
  membership_.follow(state);
  auto next = std::make_shared<View>();
  next->endpoints.resize(kMaxEndpoints);
  next->ports.push_back({kTrunkSlot, 0, true, {}});
  for (const auto& [eni, attached] : attached_) {
    if (attached.id.value >= kMaxEndpoints) throw std::logic_error("more ENIs than a Vpc holds");
    const auto endpoint = make_endpoint(attached);
    next->endpoints[attached.id.value] = endpoint;
    next->ports.push_back({.slot = endpoint->port, .ethdev = static_cast<std::uint16_t>(attached.id.value + 1), .endpoint = endpoint->id});
  }
  next->trunk_mtu = engine_.trunk_mtu;
  next->flow_logs = engine_.flow_logs;
  next->edge.answer = engine_.edge_answer;
  next->members = membership_.members();
  next->build_indexes();
  view = next;
  worker.begin_turn(*view, worker.now, worker.micros);
}

const Endpoint* Vpc::endpoint(const std::string& eni) const {
  const auto entry = attached_.find(eni);
  return entry == attached_.end() ? nullptr : view->endpoint(entry->second.id);
}

std::string Vpc::eni_of(EndpointId id, std::uint16_t generation) const {
  const auto entry = names_.find({id.value, generation});
  return entry == names_.end() ? "nobody" : entry->second;
}

// --- packets ---------------------------------------------------------------------------------------------------------

Vpc::Output Vpc::from_trunk(const std::vector<Frame>& frames) {
  Burst burst;
  for (const Frame& frame : frames) burst.add(mbufs_.make(frame));
  process_from_trunk(burst, worker);
  return collect();
}

Vpc::Output Vpc::from_task(const std::string& eni, const std::vector<Frame>& frames) {
  const Endpoint* sender = endpoint(eni);
  if (sender == nullptr) throw std::logic_error(eni + " is not attached");
  Burst burst;
  for (const Frame& frame : frames) burst.add(mbufs_.make(frame));
  process_from_task(burst, worker, *sender);
  return collect();
}

// Plays the worker's flush: every port takes everything.
Vpc::Output Vpc::collect() {
  Output output;
  worker.outbox.empty([&](PortSlot slot, const Outbox::Batch& batch) {
    for (rte_mbuf* packet : batch.packets) {
      Frame frame = Mbufs::bytes_of(packet);
      if (frame.size() != packet->pkt_len) throw std::logic_error("a chain is not as long as it says");
      if (slot == kTrunkSlot) {
        worker.trunk_out.sent(frames_of(*packet));
        output.trunk.push_back(std::move(frame));
      } else {
        const Endpoint& receiver = *view->endpoints.at(slot.value - 1U);
        worker.meter(receiver, Direction::ingress).sent(frames_of(*packet));
        output.task[eni_of(receiver.id, receiver.generation)].push_back(std::move(frame));
      }
    }
  });
  worker.outbox.clear_discarded();
  if (worker.fragments.empty()) mbufs_ = {};  // nobody holds one
  return output;
}

// --- time ------------------------------------------------------------------------------------------------------------

void Vpc::pass(std::uint64_t microseconds) {
  const std::uint64_t micros = worker.micros + microseconds;
  worker.begin_turn(*view, static_cast<Tick>(micros / (1000000 / kTicksPerSecond)), micros);
}

void Vpc::sweep_connections() {
  while (!worker.connections.sweep(1024, worker.now, *view)) {}
}

void Vpc::sweep_fragments() {
  trunkline::sweep_fragments(worker, FragmentTable::kCapacity);
  collect();
}

void Vpc::drain(std::vector<FlowRecord>& records) {
  worker.flows.flush();
  SharedRing<FlowRecord>& ring = worker.flows.ring();
  for (std::uint32_t ready = ring.ready(); ready != 0; --ready) {
    records.push_back(ring.front());
    ring.drop(1);
  }
}

std::vector<FlowRecord> Vpc::end_interval() {
  std::vector<FlowRecord> records;
  drain(records);
  std::uint32_t at = 0;
  while (!worker.connections.end_interval(at, 256, worker.flows) || at < worker.connections.high_water()) drain(records);
  worker.flows.begin_loose();
  while (!worker.flows.take_loose(256)) drain(records);
  drain(records);
  return records;
}

// --- accounting ------------------------------------------------------------------------------------------------------

Vpc::Movements Vpc::movements() {
  Movements moved;
  const auto note = [&](const std::string& name, std::string_view what, std::uint64_t delta) {
    if (delta != 0) moved[name + '.' + std::string(what)] = static_cast<std::int64_t>(delta);
  };
  const auto look = [&](MeterReading& seen, const std::string& name, const Meter& meter) {
    const MeterReading now = MeterReading::of(meter);
    const MeterReading delta = now.since(seen);
    seen = now;
    note(name, "rx", delta.rx_packets);
    note(name, "tx", delta.tx_packets);
    note(name, "held", static_cast<std::uint64_t>(delta.unaccounted()));
    for (std::size_t i = 0; i < kDropReasonCount; ++i) note(name, kDropReasonTexts[i].name, delta.drops[i]);
  };
  look(seen_trunk_[0], "trunk.in", worker.trunk_in);
  look(seen_trunk_[1], "trunk.out", worker.trunk_out);
  for (const auto& [id, generation] : generations_) {
    const std::string name = eni_of(EndpointId{id}, generation);
    Seen& seen = seen_[id];
    look(seen.ingress, name + ".ingress", worker.meters[id].ingress);
    look(seen.egress, name + ".egress", worker.meters[id].egress);
    for (std::size_t i = 0; i < kDropReasonCount; ++i) {
      const std::uint64_t now = worker.meters[id].audited[i].read();
      note(name + ".audited", kDropReasonTexts[i].name, now - std::exchange(seen.audited[i], now));
    }
    const std::uint64_t lost = worker.flows.lost(EndpointId{id});
    note(name, "lost_records", lost - std::exchange(seen.lost, lost));
  }
  return moved;
}

}  // namespace trunkline::test
