// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/services.h"

#include "dataplane/stages/advance.h"
#include "dataplane/stages/demux_any.h"
#include "dataplane/stages/related.h"
#include "dataplane/stages/service_address.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/wire/icmp.h"

namespace trunkline {
namespace {

using detail::Service;

constexpr std::uint16_t in_network_order(std::uint16_t port) { return __builtin_bswap16(port); }

// What a service is for. The router is exempt by its address alone, as AWS says it; the others are asked one thing
// each.
bool is_of_service(Service service, const Headers& headers, const FlowKey& key) {
  const bool tcp = headers.protocol == protocol::tcp, udp = headers.protocol == protocol::udp;
  switch (service) {
    case Service::router:
      return true;
    case Service::resolver:
      return (tcp || udp) && key.remote_port == in_network_order(53);
    case Service::time:
      return udp && key.remote_port == in_network_order(123);
    case Service::metadata:
    case Service::task_metadata:
      return tcp && key.remote_port == in_network_order(80);
    case Service::licence:
      return tcp && key.remote_port == in_network_order(1688);
    default:
      return false;
  }
}

bool has_flag(const Headers& headers, std::uint8_t flag) {
  return headers.protocol == protocol::tcp && (headers.tcp_flags & flag) != 0;
}

bool asks_something(const Headers& headers) {
  if (!detail::is_icmp(headers)) return true;
  bool is_query;
  return icmp_query_type(headers.protocol, headers.icmp_type, is_query) != 0 && is_query;
}

void note_asked(const Burst& burst, std::uint32_t i, WorkerState& worker) {
  const Headers& headers = burst.headers[i];
  if (!asks_something(headers)) return;
  if (has_flag(headers, tcp_flag::rst)) {
    worker.asked.forget(burst.key[i], burst.hash[i], worker.now);
    return;
  }
  using Packet = AskedServices::Packet;
  Packet packet = Packet::goes_on;
  if (headers.protocol != protocol::tcp || has_flag(headers, tcp_flag::syn)) packet = Packet::opens;
  if (has_flag(headers, tcp_flag::fin)) packet = Packet::finishes;
  worker.asked.ask(burst.key[i], burst.hash[i], packet, worker.now);
}

// Whether the packet belongs to a live connection: one that the other end opened, because a rule let it.
bool has_live_connection(const Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  if (!detail::has_connection(burst.headers[i])) return false;
  const Connection* connection = detail::find_connection(burst, i, worker.connections, direction);
  return connection != nullptr && !ConnectionTable::expired(*connection, burst.endpoint[i]->timeouts, worker.now);
}

// Of a connection that nobody has answered yet only who opened it has sent something.
bool has_task_sent(const Connection& connection) {
  using enum ConnectionState;
  if (connection.initiator_direction() == Direction::egress) return true;
  if (connection.state == picked_up) return (connection.awaits & detail::bit(Direction::egress)) == 0;
  return !is_one_of(connection.state, {syn_sent, udp_asked, icmp_asked, other_asked});
}

// An ICMP error about something that the task sent: about any of it from the router, from another service about what it
// was asked.
bool is_error_about_sent(const Burst& burst, std::uint32_t i, Service service, const WorkerState& worker) {
  const Headers& headers = burst.headers[i];
  if (!detail::is_icmp_error(headers) || headers.fragment == Fragment::later) return false;
  const Endpoint& endpoint = *burst.endpoint[i];
  FlowKey key;
  AddressPair addresses;
  if (!detail::key_of_quoted(burst, i, Direction::ingress, worker.connections, key, addresses)) return false;
  const std::uint64_t hash = worker.connections.hash(key);
  if (worker.asked.was_asked(key, hash, worker.now)) {
    const IpAddress remote = key.is_ipv6() ? addresses.remote : IpAddress::from_v4_bytes(&key.remote);
    return service == Service::router || remote == burst.source(i);
  }
  if (service != Service::router) return false;
  const Connection* connection =
      key.is_ipv6() ? worker.connections.find(key, hash, addresses) : worker.connections.find(key, hash);
  if (connection == nullptr || ConnectionTable::expired(*connection, endpoint.timeouts, worker.now)) return false;
  return has_task_sent(*connection);
}

// Whether the task may have it without a rule.
bool is_answer(const Burst& burst, std::uint32_t i, WorkerState& worker) {
  const Headers& headers = burst.headers[i];
  if (!detail::has_connection(headers)) return false;
  if ((headers.tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn) return false;
  return worker.asked.answer(burst.key[i], burst.hash[i], worker.now);
}

bool is_exempt_from_task(const Burst& burst, std::uint32_t i, Service service, WorkerState& worker) {
  if (!is_of_service(service, burst.headers[i], burst.key[i])) return false;
  const bool begins = (burst.headers[i].tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
  return service != Service::router || begins || !has_live_connection(burst, i, worker, Direction::egress);
}

bool take_allowance(const Burst& burst, std::uint32_t i, Service service, WorkerState& worker) {
  const Endpoint& endpoint = *burst.endpoint[i];
  Allowances& left = worker.allowances[endpoint.id.value];
  left.of(endpoint.generation);
  return (service == Service::router ? left.router : left.services).take(worker.now, frames_of(*burst.mbuf[i]).packets);
}

}  // namespace

void settle_services(Burst& burst, WorkerState& worker, Direction direction) {
  for_each_bit(burst.services & burst.filtered, [&](std::uint32_t i) {
    if (!burst.headers[i].whole_key) detail::complete_key(burst, i, worker.connections, direction);
    burst.hash[i] = worker.connections.hash(burst.key[i]);
    const Service service = detail::service_of(burst, i, direction, *worker.view);
    const bool exempt = direction == Direction::egress
                            ? is_exempt_from_task(burst, i, service, worker)
                            : is_answer(burst, i, worker) || is_error_about_sent(burst, i, service, worker);
    if (!exempt) return;
    if (direction == Direction::egress) {
      if (!take_allowance(burst, i, service, worker)) return burst.drop(i, DropReason::linklocal_allowance_exceeded);
      note_asked(burst, i, worker);
    }
    const std::uint64_t bit = std::uint64_t{1} << i;
    burst.filtered &= ~bit;
    burst.exempt |= bit;
  });
}

}  // namespace trunkline
