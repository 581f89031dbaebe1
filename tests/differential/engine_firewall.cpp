// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/engine_firewall.h"

#include <stdexcept>

#include "control/flow_words.h"

namespace trunkline::differential {
namespace {

constexpr MacAddress kRouterMac{{0x0a, 0, 0, 0, 0, 1}};

// ICMP queries; an answer is the query's type and one, but for echo.
bool is_query(const FlowPacket& packet) {
  if (!packet.source.is_v4()) return packet.icmp_type == 128;
  return packet.icmp_type == 8 || packet.icmp_type == 13 || packet.icmp_type == 15 || packet.icmp_type == 17;
}

}  // namespace

std::string text_of(const EngineEntry& entry) {
  if (!entry.exists) return "no entry";
  return std::string(control::state_name(entry.state)) + (entry.untracked ? " untracked" : " tracked") +
         (entry.by_initiator ? ", packet by the initiator" : ", packet by the other end") + ", idle for " +
         std::to_string(entry.idle_s) + " s";
}

EngineFirewall::EngineFirewall(const config::DesiredState& state, const test::Vpc::Engine& engine) : vpc_(engine) {
  apply(state);
  vpc_.pass(3600ULL * 1000000);  // so that no entry's age is before the clock's beginning
}

void EngineFirewall::apply(const config::DesiredState& state) {
  vpc_.state = state;
  vpc_.apply();
  vpc_.movements();
}

EngineVerdict EngineFirewall::pass_packet(const FlowPacket& packet) {
  const Endpoint& endpoint = *vpc_.endpoint(packet.task);
  const bool in = packet.direction == Direction::ingress;
  const test::L2 l2 = in ? test::L2{endpoint.mac, kRouterMac, endpoint.vlan.value} : test::L2{kRouterMac, endpoint.mac};
  const test::Frame payload = ip_bytes(packet);
  test::Frame frame = test::ethernet(l2, packet.source.is_v4() ? 0x0800 : 0x86dd);
  test::put(frame, payload.data(), payload.size());
  const test::Vpc::Output output = in ? vpc_.from_trunk({frame}) : vpc_.from_task(packet.task, {frame});
  std::size_t came = 0;
  for (const auto& [eni, frames] : output.task) came += eni == packet.task && in ? frames.size() : 0;
  if (!in) came = output.trunk.size();
  EngineVerdict verdict{came == 1, {}};
  for (const auto& [name, count] : vpc_.movements()) {
    const std::string what = name.substr(name.rfind('.') + 1);
    if (what != "rx" && what != "tx") verdict.reason = what;
  }
  if (came > 1 || verdict.passed == !verdict.reason.empty()) {
    throw std::logic_error("the engine sent " + std::to_string(came) + " packets and said '" + verdict.reason +
                           "' of " + differential::text_of(packet));
  }
  return verdict;
}

Connection* EngineFirewall::find(const FlowPacket& packet) {
  const Endpoint& endpoint = *vpc_.endpoint(packet.task);
  const bool in = packet.direction == Direction::ingress;
  const std::uint16_t remote_port = in ? packet.source_port : packet.destination_port,
                      local_port = in ? packet.destination_port : packet.source_port;
  const Direction asker = is_query(packet) ? packet.direction : opposite(packet.direction);
  Connection* found = nullptr;
  std::uint32_t at = 0;
  ConnectionTable& table = vpc_.worker.connections;
  table.walk(at, table.high_water(), [&](Connection& connection) {
    const FlowKey& key = connection.key;
    if (key.endpoint() != endpoint.id || key.generation() != (endpoint.generation & FlowKey::kGenerationMask) ||
        key.protocol() != packet.protocol)
      return;
    if (key.is_ipv6() == packet.source.is_v4()) return;
    if (key.is_ipv6()) {
      const AddressPair& addresses = table.addresses_of(connection);
      if (addresses.remote != packet.remote() || addresses.local != packet.local()) return;
    } else if (IpAddress::from_v4_bytes(&key.remote) != packet.remote() ||
               IpAddress::from_v4_bytes(&key.local) != packet.local()) {
      return;
    }
    if (packet.is_icmp() && (key.local_port_number() != packet.icmp_id || connection.initiator_direction() != asker))
      return;
    if ((packet.protocol == proto::tcp || packet.protocol == proto::udp) &&
        (key.remote_port_number() != remote_port || key.local_port_number() != local_port)) {
      return;
    }
    if (!ConnectionTable::expired(connection, endpoint.timeouts, vpc_.worker.now)) found = &connection;
  });
  return found;
}

EngineEntry EngineFirewall::entry_of(const FlowPacket& packet) {
  const Connection* connection = find(packet);
  if (connection == nullptr) return {};
  return {true, connection->state, connection->initiator_direction() == packet.direction, connection->untracked != 0,
          (vpc_.worker.now - connection->last_seen) / seconds(1)};
}

void EngineFirewall::forget(const FlowPacket& packet) {
  if (Connection* connection = find(packet); connection != nullptr) vpc_.worker.connections.erase(connection);
}

}  // namespace trunkline::differential
