// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/inspection.h"

namespace trunkline {
namespace {

constexpr std::uint8_t kTcp = 6, kUdp = 17;

IpAddress remote_of(const ConnectionTable& table, const Connection& connection) {
  return connection.key.is_ipv6() ? table.addresses_of(connection).remote : IpAddress::from_v4_bytes(&connection.key.remote);
}

// By the rule of the sweep: its endpoint is there, and it was not idle for too long.
bool is_alive(const Connection& connection, const View& view, Tick now) {
  const Endpoint* endpoint = view.endpoint(connection.key.endpoint());
  return endpoint != nullptr && (endpoint->generation & FlowKey::kGenerationMask) == connection.key.generation() &&
         !ConnectionTable::expired(connection, endpoint->timeouts, now);
}

}  // namespace

bool FlowFilter::matches(const Connection& connection, const IpAddress& remote_address, Tick now) const {
  const FlowKey& key = connection.key;
  if (endpoint.is_valid() && key.endpoint() != endpoint) return false;
  if ((states & bit(connection.state)) == 0 || now - connection.last_seen < min_idle) return false;
  if (protocol >= 0 && key.protocol() != protocol) return false;
  if (port >= 0) {
    if (key.protocol() != kTcp && key.protocol() != kUdp) return false;
    if (key.remote_port_number() != port && key.local_port_number() != port) return false;
  }
  return !by_remote || remote.contains(remote_address);
}

Inspection::Inspection(Kind kind, const FlowFilter& filter, std::size_t capacity)
    : kind_(kind), filter_(filter), records_(kind == Kind::list ? capacity : 0) {}

Inspection::Inspection(std::span<const Flow> flows, std::span<const DatagramKey> datagrams)
    : kind_(Kind::find),
      flows_(flows.begin(), flows.end()),
      datagrams_(datagrams.begin(), datagrams.end()),
      records_(flows.size()),
      known_datagrams_(datagrams.size()) {
  asked_.reserve(flows.size());
}

void Inspection::take(const ConnectionTable& table, const Connection& connection) {
  ++matched_;
  if (count_ == records_.size()) return;
  ConnectionRecord& record = records_[count_++];
  record.connection = connection;
  if (connection.key.is_ipv6()) record.addresses = table.addresses_of(connection);
}

void Inspection::find(const Inspected& inspected, Tick now) {
  const ConnectionTable& table = inspected.connections;
  for (const Flow& flow : flows_) {
    FlowKey key = flow.key;
    if (key.is_ipv6()) table.set_digest(key, flow.addresses);
    const std::uint64_t hash = table.hash(key);
    const Connection* connection = key.is_ipv6() ? table.find(key, hash, flow.addresses) : table.find(key, hash);
    if (connection != nullptr && is_alive(*connection, inspected.view, now)) take(table, *connection);
    if (inspected.asked.was_asked(key, hash, now)) asked_.push_back(flow);
  }
}

void Inspection::find_datagrams(const ConnectionTable& table, FragmentTable& fragments) {
  for (DatagramKey key : datagrams_) {
    if (key.flow.is_ipv6()) table.set_digest(key.flow, key.ipv6);
    key.flow.local_port = key.flow.remote_port = 0;
    if (const FragmentedDatagram* datagram = fragments.find(key, hash_of(key, table)); datagram != nullptr) known_datagrams_[datagram_count_++] = *datagram;
  }
}

bool Inspection::step(const Inspected& inspected, Tick now, std::uint32_t budget) {
  ConnectionTable& table = inspected.connections;
  const View& view = inspected.view;
  now_ = now;
  if (was_abandoned()) return true;
  if (kind_ == Kind::find) {
    find(inspected, now);
    find_datagrams(table, inspected.fragments);
    return true;
  }
  return table.walk(at_, budget, [&](Connection& connection) {
    if (!is_alive(connection, view, now) || !filter_.matches(connection, remote_of(table, connection), now)) return;
    if (kind_ == Kind::flush) {
      ++matched_;
      table.erase(&connection);
    } else {
      take(table, connection);
    }
  });
}

}  // namespace trunkline
