// SPDX-License-Identifier: BSD-3-Clause
#include "control/explain.h"

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>

#include "config/words.h"
#include "control/base64.h"
#include "control/flow_words.h"
#include "control/packet_report.h"
#include "control/scratch_packet.h"
#include "control/task_json.h"
#include "dataplane/pipeline.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::ObjectReader;
using config::words::in_quotes;

constexpr std::uint32_t kScratchConnections = 64;
constexpr std::uint32_t kSnaplen = 256;

// The live View with all endpoints at one worker: who owns them decides who works, not what becomes of a packet.
std::shared_ptr<const View> view_of_one_worker(const View& live) {
  auto view = std::make_shared<View>(live);
  view->moving = false;
  for (const auto& endpoint : live.endpoints) {
    if (endpoint == nullptr || (endpoint->worker == 0 && endpoint->served_by == 0 && endpoint->previous_worker == kNoWorker)) continue;
    auto here = std::make_shared<Endpoint>(*endpoint);
    here->worker = here->served_by = 0;
    here->previous_worker = kNoWorker;
    view->replace(here);
  }
  return view;
}

std::optional<std::uint8_t> parse_flags(std::string_view text) {
  static constexpr std::string_view kLetters = "FSRP.U";  // as tcpdump has them
  std::uint8_t flags = 0;
  for (const char letter : text) {
    const std::size_t at = letter == 'A' ? 4 : kLetters.find(letter);
    if (at == std::string_view::npos) return std::nullopt;
    flags = static_cast<std::uint8_t>(flags | 1U << at);
  }
  return flags;
}

// What was asked, as a frame and where it comes from.
struct Question {
  std::vector<std::uint8_t> frame;
  const Endpoint* from_task = nullptr;  // nullptr: from the trunk
};

class QuestionReader {
 public:
  QuestionReader(const Controller& controller, const Json& params) : controller_(controller), reader_(params, "", problems_) {}

  std::expected<Question, RpcError> read() {
    const auto from = reader_.text("from").or_else([&] { return reader_.text("task"); });
    const auto to = reader_.text("to");
    const auto frame = reader_.text("frame");
    const PacketWords words = read_words();
    if (frame && (words.source || words.destination)) {
      reader_.complain("frame", "invalid_params", "a frame is given, and words for a packet too; leave one of them out");
    }
    reader_.finish();
    if (!problems_.empty()) return std::unexpected(refuse(std::move(problems_)));
    const Endpoint *sender = nullptr, *receiver = nullptr;
    if (from && *from != "trunk" && (sender = endpoint_of(*from)) == nullptr) return std::unexpected(unknown(*from, "/from"));
    if (to && (receiver = endpoint_of(*to)) == nullptr) return std::unexpected(unknown(*to, "/to"));
    if (frame) return of_frame(*frame, sender);
    return of_words(words, sender, receiver, from.has_value());
  }

 private:
  PacketWords read_words() {
    PacketWords words;
    if (const auto protocol = reader_.text("protocol")) {
      const auto number = parse_protocol(*protocol);
      if (!number) reader_.complain("protocol", "invalid_params", "\"protocol\" is " + in_quotes(*protocol) + "; wanted \"tcp\", \"udp\", \"icmp\", \"icmpv6\", or a number up to 255");
      words.protocol = static_cast<std::uint8_t>(number.value_or(6));
    }
    words.source = reader_.address("source");
    words.destination = reader_.address("destination");
    words.source_port = static_cast<std::uint16_t>(reader_.integer("source_port", 0, 65535).value_or(words.source_port));
    words.destination_port = static_cast<std::uint16_t>(reader_.integer("destination_port", 0, 65535).value_or(0));
    const bool v6 = words.protocol == 58;
    words.icmp_type = static_cast<std::uint8_t>(reader_.integer("icmp_type", 0, 255).value_or(v6 ? 128 : 8));
    words.icmp_code = static_cast<std::uint8_t>(reader_.integer("icmp_code", 0, 255).value_or(0));
    words.icmp_identifier = static_cast<std::uint16_t>(reader_.integer("icmp_identifier", 0, 65535).value_or(1));
    words.octets = static_cast<std::uint16_t>(reader_.integer("octets", 0, ScratchPacket::kMostBytes - 100).value_or(0));
    if (const auto text = reader_.text("tcp_flags")) {
      const auto flags = parse_flags(*text);
      if (!flags) reader_.complain("tcp_flags", "invalid_params", "\"tcp_flags\" is " + in_quotes(*text) + "; wanted letters of FSRPU and A or . for ACK, like \"SA\"");
      words.tcp_flags = flags.value_or(0);
    }
    return words;
  }

  const Endpoint* endpoint_of(const std::string& ref) const {
    const config::Attachment* attachment = find_attachment(controller_.desired(), ref);
    const auto active = attachment != nullptr ? controller_.active().find(attachment->eni_id) : controller_.active().end();
    return active != controller_.active().end() ? active->second.endpoint.get() : nullptr;
  }
  static RpcError unknown(const std::string& ref, const std::string& pointer) {
    return {"not_found", "there is no task, ENI or attachment " + in_quotes(ref) + " in service; see trunkctl task list", pointer, {}};
  }
  static RpcError problem(std::string pointer, std::string message) { return {"invalid_params", std::move(message), std::move(pointer), {}}; }

  static std::expected<Question, RpcError> of_frame(const std::string& text, const Endpoint* sender) {
    auto bytes = from_base64(text);
    if (!bytes || bytes->empty() || bytes->size() > ScratchPacket::kMostBytes) {
      return std::unexpected(problem("/frame", "the frame is not 1 to " + std::to_string(ScratchPacket::kMostBytes) + " bytes in base64"));
    }
    return Question{std::move(*bytes), sender};
  }

  static std::optional<IpAddress> first_address(const Endpoint& endpoint, bool ipv4) {
    for (const IpAddress& address : endpoint.addresses()) {
      if (address.is_v4() == ipv4) return address;
    }
    return std::nullopt;
  }

  std::expected<Question, RpcError> of_words(PacketWords words, const Endpoint* sender, const Endpoint* receiver, bool says_from) const {
    const View& view = controller_.view();
    // Whoever has the source address sent it, unless it is said otherwise.
    if (!says_from && words.source) sender = view.with_address(*words.source);
    const bool ipv4 = words.destination ? words.destination->is_v4() : words.source ? words.source->is_v4() : words.protocol != 58;
    if (!words.destination && receiver != nullptr) words.destination = first_address(*receiver, ipv4);
    if (!words.source && sender != nullptr) words.source = first_address(*sender, ipv4);
    if (!words.destination) return std::unexpected(problem("/destination", "there is no destination; say an address, or a task in \"to\""));
    if (!words.source) return std::unexpected(problem("/source", "there is no source; say an address, or a task in \"from\""));
    if (words.source->is_v4() != words.destination->is_v4()) {
      return std::unexpected(problem("/source", "the source is " + words.source->to_string() + " and the destination " + words.destination->to_string() + "; both are of one family"));
    }
    if (receiver == nullptr) receiver = view.with_address(*words.destination);
    const MacAddress& router = view.edge.router_mac;
    if (sender != nullptr) {
      const bool direct = receiver != nullptr && sender->in_subnet(*words.destination);
      return Question{build_frame(words, direct ? receiver->mac : router, sender->mac, 0), sender};
    }
    if (receiver == nullptr) {
      return std::unexpected(RpcError{"not_found", "no ENI in service has " + words.destination->to_string() + ", so no VLAN of ours would bring it; say in \"to\" whose VLAN does", "/destination", {}});
    }
    return Question{build_frame(words, receiver->mac, router, receiver->vlan.value), nullptr};
  }

  const Controller& controller_;
  config::Problems problems_;
  ObjectReader reader_;
};

void put16(std::vector<std::uint8_t>& frame, std::size_t value) {
  frame.push_back(static_cast<std::uint8_t>(value >> 8));
  frame.push_back(static_cast<std::uint8_t>(value));
}

template <class Bytes>
void put(std::vector<std::uint8_t>& frame, const Bytes& bytes) {
  frame.insert(frame.end(), std::begin(bytes), std::end(bytes));
}

std::vector<std::uint8_t> transport_header(const PacketWords& packet) {
  std::vector<std::uint8_t> header;
  switch (packet.protocol) {
    case protocol::tcp:
      put16(header, packet.source_port), put16(header, packet.destination_port);
      header.resize(12);  // sequence and acknowledgement
      header.push_back(0x50);
      header.push_back(packet.tcp_flags);
      put16(header, 65535);
      header.resize(20);
      break;
    case protocol::udp:
      put16(header, packet.source_port), put16(header, packet.destination_port);
      header.resize(8);  // the length follows
      break;
    case protocol::icmp:
    case protocol::icmpv6:
      header = {packet.icmp_type, packet.icmp_code, 0, 0};
      put16(header, packet.icmp_identifier), put16(header, 1);
      break;
    default: break;
  }
  return header;
}

}  // namespace

std::vector<std::uint8_t> build_frame(const PacketWords& packet, const MacAddress& destination, const MacAddress& source, std::uint16_t vlan) {
  const bool ipv4 = packet.source->is_v4();
  std::vector<std::uint8_t> frame;
  put(frame, destination.bytes), put(frame, source.bytes);
  if (vlan != 0) put16(frame, ether::vlan), put16(frame, vlan);
  put16(frame, ipv4 ? ether::ipv4 : ether::ipv6);
  std::vector<std::uint8_t> payload = transport_header(packet);
  const std::size_t header_bytes = ipv4 ? 20 : 40;
  payload.resize(std::max(payload.size(), packet.octets > header_bytes ? packet.octets - header_bytes : 0));
  if (packet.protocol == protocol::udp) store16(payload.data() + 4, static_cast<std::uint16_t>(payload.size()));
  if (ipv4) {
    frame.push_back(0x45), frame.push_back(0);
    put16(frame, header_bytes + payload.size());
    put16(frame, 1), put16(frame, 0x4000);  // do not fragment
    frame.push_back(64), frame.push_back(packet.protocol);
    put16(frame, 0);  // nobody here looks at checksums
    put(frame, std::span(packet.source->bytes).subspan(12)), put(frame, std::span(packet.destination->bytes).subspan(12));
  } else {
    put(frame, std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
    put16(frame, payload.size());
    frame.push_back(packet.protocol), frame.push_back(64);
    put(frame, packet.source->bytes), put(frame, packet.destination->bytes);
  }
  put(frame, payload);
  return frame;
}

namespace {

// What the workers may know of a packet that passed demux.
void name_what_decides(WalkedHalf& half, std::span<const std::uint8_t> frame, const WorkerState& worker) {
  const Observation& seen = half.seen;
  const Endpoint* endpoint = worker.view->endpoint(seen.endpoint);
  if (endpoint == nullptr || (!seen.filtered && seen.headers.fragment == Fragment::none)) return;
  if (seen.filtered) half.flows.push_back({seen.key, ends_of(half.bytes, seen.frame_bytes, seen.direction)});
  ScratchPacket packet(frame);
  Burst burst;
  burst.add(packet.mbuf());
  parse(burst, seen.direction);
  if (!burst.alive(0)) return;
  burst.filter(0, *endpoint);
  if (burst.headers[0].fragment != Fragment::none) half.datagram = datagram_of(burst, 0, worker, seen.direction);
  if (!detail::is_icmp_error(burst.headers[0]) || burst.headers[0].fragment == Fragment::later) return;
  Inspection::Flow quoted;
  if (detail::key_of_quoted(burst, 0, seen.direction, worker.connections, quoted.key, quoted.addresses)) half.flows.push_back(quoted);
}

void adopt(const Known& known, WorkerState& worker, std::span<rte_mbuf* const> held) {
  for (const ConnectionRecord& record : known.connections)
    worker.connections.adopt(record.connection, record.addresses, worker.now);
  for (const FragmentedDatagram& datagram : known.datagrams) {
    DatagramKey key = datagram.key;
    if (key.flow.is_ipv6()) worker.connections.set_digest(key.flow, key.ipv6);
    key.flow.local_port = key.flow.remote_port = 0;
    worker.fragments.adopt(datagram, key, hash_of(key, worker.connections), held);
  }
  for (const Inspection::Flow& flow : known.asked) {
    FlowKey key = flow.key;
    if (key.is_ipv6()) worker.connections.set_digest(key, flow.addresses);
    worker.asked.ask(key, worker.connections.hash(key), AskedServices::Packet::opens, known.now);
  }
}

}  // namespace

std::vector<WalkedHalf> walk_packet(const View& live, std::span<const std::uint8_t> frame, const Endpoint* from_task, const Known& known) {
  const std::shared_ptr<const View> view = view_of_one_worker(live);
  WorkerState worker(view->endpoints.size(), kScratchConnections, 1);
  ScratchBuffers buffers;
  worker.view = view.get();
  worker.now = known.now;
  worker.buffers = &buffers;
  // In the place of packets that a worker holds: no frames, so they get no further than parse when they are released.
  ScratchPacket nothing({});
  const std::array<rte_mbuf*, FragmentedDatagram::kMaxHeld> held{nothing.mbuf(), nothing.mbuf(), nothing.mbuf(), nothing.mbuf()};
  adopt(known, worker, held);
  ObserverSettings settings;
  settings.snaplen = kSnaplen;
  settings.capacity = 4;
  Observer observer(std::move(settings));
  const ObserverSet set{{&observer}};
  worker.observers = &set;
  ScratchPacket packet(frame);
  Burst burst;
  burst.add(packet.mbuf());
  if (from_task == nullptr) {
    process_from_trunk(burst, worker);
  } else {
    process_from_task(burst, worker, *view->endpoint(from_task->id));
  }
  std::vector<WalkedHalf> halves;
  observer.read(4, [&](const Observation& seen, std::span<const std::uint8_t> bytes) {
    if (seen.made_here) return;  // an answer to it, or an error about it: that it is made is said of the packet itself
    halves.push_back({seen, {bytes.begin(), bytes.end()}, {}, {}});
    if (const Endpoint* endpoint = live.endpoint(seen.endpoint); endpoint != nullptr) halves.back().seen.worker = endpoint->worker;
    name_what_decides(halves.back(), frame, worker);
  });
  return halves;
}

namespace {

// The tables for the one packet could not be made: out of descriptors, or of memory.
RpcError no_room(const char* why) {
  return {"internal", std::string("explain walks the packet through tables of its own, and the system has no room for them now: ") + why +
                          ". Nothing has changed; compare the engine's open files with their limit (/proc/PID/fd, LimitNOFILE=)", {}, {}};
}

std::expected<Json, RpcError> answer(const Controller& controller, Inspector& inspector, const Question& question) {
  // Which connections it meets is known when it has been walked; and with them it may get further, to the receiver's.
  std::vector<Inspection::Flow> flows;
  std::vector<DatagramKey> datagrams;
  std::vector<WalkedHalf> halves;
  Known known;
  while (true) {
    halves = walk_packet(controller.view(), question.frame, question.from_task, known);
    const std::size_t asked = flows.size() + datagrams.size();
    for (const WalkedHalf& half : halves) {
      for (const Inspection::Flow& flow : half.flows) {
        if (std::ranges::none_of(flows, [&](const Inspection::Flow& other) { return other.key == flow.key && other.addresses == flow.addresses; })) flows.push_back(flow);
      }
      if (half.datagram && std::ranges::find(datagrams, *half.datagram) == datagrams.end()) datagrams.push_back(*half.datagram);
    }
    if (flows.size() + datagrams.size() == asked) break;
    auto found = inspector.find(flows, datagrams);
    if (!found) return std::unexpected(RpcError{"worker_silent", found.error(), {}, {}});
    known = {{}, std::move(found->datagrams), std::move(found->asked), found->now};
    for (const Inspector::Found& each : found->found) known.connections.push_back(each.record);
  }
  if (halves.empty()) return std::unexpected(RpcError{"internal", "no stage said what becomes of this frame", "/frame", {}});

  Json list = Json::array();
  for (const WalkedHalf& half : halves) list.push_back(packet_report(controller, half.seen, half.bytes));
  const Observation& last = halves.back().seen;
  return Json{{"delivered", last.fate == Fate::passed},
              {"verdict", verdict_name(last)},
              {"sentence", verdict_sentence(last)},
              {"connections", known.connections.size()},
              {"halves", std::move(list)}};
}

}  // namespace

std::expected<Json, RpcError> explain(const Controller& controller, Inspector& inspector, const Json& params) {
  auto question = QuestionReader(controller, params).read();
  if (!question) return std::unexpected(std::move(question.error()));
  try {
    return answer(controller, inspector, *question);
  } catch (const std::runtime_error& error) {
    return std::unexpected(no_room(error.what()));
  } catch (const std::bad_alloc& error) {
    return std::unexpected(no_room(error.what()));
  }
}

}  // namespace trunkline::control
