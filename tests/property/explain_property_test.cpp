// SPDX-License-Identifier: BSD-3-Clause
// What explain says of a frame is what then becomes of it: frames of all kinds, sound and mutated (bits, lengths, ends, fields of
// headers), each asked about and then sent through the worker, halves compared as reports: every stage's words, verdict, rule, connection and
// way out. And to ask leaves no trace: no meter, connection, fragment or packet of the worker has moved.
//
//     TRUNKLINE_SEED=7 explain_property_test      the one story with this seed
//     TRUNKLINE_FRAMES=1000000                    how many frames in all
//
// Not asked about: rates, quotas and full tables (explain does not know of moments), and what a port's driver says of a packet beside its
// bytes (offloads).
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "control/base64.h"
#include "control/explain.h"
#include "control/packet_report.h"
#include "control/scratch_packet.h"
#include "tests/support/edge_packets.h"
#include "tests/support/engine.h"

namespace trunkline::test {
namespace {

using config::Json;

constexpr std::uint32_t kFramesOfAStory = 2000;
constexpr std::uint32_t kSnaplen = 256;  // explain's own

std::uint64_t number_from(const char* name, std::uint64_t usual) {
  const char* text = std::getenv(name);
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

std::string hex(const Frame& frame) {
  std::string text;
  for (const std::uint8_t byte : frame) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

// One frame of the corpus, and who sends it: a task's number, or 0 for the trunk.
struct Sent {
  int from = 0;
  Frame frame;
};

class Corpus {
 public:
  explicit Corpus(std::uint64_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }
  bool one_in(std::uint32_t bound) { return below(bound) == 0; }

  Sent next() {
    Sent sent = other_piece_ ? *std::exchange(other_piece_, std::nullopt) : sound();
    if (!one_in(4)) {
      for (std::uint32_t times = 1 + below(3); times > 0; --times) mutate(sent.frame);
    }
    return sent;
  }

 private:
  template <class T, std::size_t n>
  const T& one_of(const T (&values)[n]) {
    return values[below(n)];
  }
  std::uint16_t port() {
    static constexpr std::uint16_t kPorts[] = {22, 53, 67, 68, 80, 123, 443, 546, 547, 4000, 4001, 49152};
    return one_of(kPorts);
  }
  std::uint8_t tcp_flags() {
    static constexpr std::uint8_t kFlags[] = {0x02, 0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x03, 0x29, 0x3f};
    return one_of(kFlags);
  }
  std::string address(bool v4, bool of_task) {
    static const char* const kTask4[] = {"10.0.0.17", "10.0.0.18", "10.0.0.19"};
    static const char* const kOther4[] = {"198.51.100.9", "203.0.113.7", "10.0.0.1", "10.0.0.2", "10.0.0.99", "169.254.169.254", "169.254.169.123", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"};
    static const char* const kTask6[] = {"2001:db8:1::11", "2001:db8:1::12", "2001:db8:1::13"};
    static const char* const kOther6[] = {"2001:db8::9", "2001:db8:2::7", "2001:db8:1::1", "fe80:ec2::1", "fe80::800:ff:fe00:11", "ff02::1", "ff02::2", "fd00:ec2::254", "::", "::1"};
    if (of_task) return v4 ? one_of(kTask4) : one_of(kTask6);
    // Mostly somebody with whom it can speak.
    if (!one_in(3)) return v4 ? kOther4[below(2)] : kOther6[below(2)];
    return v4 ? one_of(kOther4) : one_of(kOther6);
  }

  Frame transport(std::uint8_t& protocol, bool v4, const std::string& source, const std::string& destination) {
    switch (below(8)) {
      case 0: case 1: case 2: protocol = 6; return tcp_segment(port(), port(), tcp_flags(), below(40));
      case 3: case 4: protocol = 17; return udp_datagram(port(), port(), below(3) == 0 ? 1400 : below(60));
      case 5: case 6: {
        protocol = v4 ? 1 : 58;
        static constexpr std::uint8_t kTypes4[] = {8, 0, 13, 14, 3, 11, 12, 5}, kTypes6[] = {128, 129, 1, 2, 3, 4, 133, 135};
        const std::uint8_t type = v4 ? one_of(kTypes4) : one_of(kTypes6);
        if ((v4 && (type == 3 || type == 11 || type == 12)) || (!v4 && type >= 1 && type <= 4)) {
          // About a packet that went the other way.
          const Frame inner = ip_packet({}, ip(destination), ip(source), 6, tcp_segment(port(), port(), 0x10));
          return icmp_error(type, static_cast<std::uint8_t>(below(5)), 1400, part(inner, 14, std::min<std::size_t>(inner.size() - 14, 20 + below(48))));
        }
        return icmp_message(type, static_cast<std::uint8_t>(below(8) == 0 ? 8 : 0), static_cast<std::uint16_t>(below(3)), below(40));
      }
      default:
        static constexpr std::uint8_t kProtocols[] = {2, 47, 50, 51, 132, 253};
        protocol = one_of(kProtocols);
        return Frame(8 + below(40), 'p');
    }
  }

  // Behind the header, so that a later header names the next one.
  void add_extension(Frame& frame, std::size_t ip_at) {
    static constexpr std::uint8_t kExtensions[] = {0, 43, 60, 51, 135};
    const std::uint8_t kind = one_of(kExtensions);
    const std::size_t length = kind == 51 ? 4U * (4 + below(3)) : 8U * (1 + below(3));
    Frame extension(length, 0);
    extension[0] = frame[ip_at + 6];
    extension[1] = static_cast<std::uint8_t>(kind == 51 ? length / 4 - 2 : length / 8 - 1);
    if (kind == 0 || kind == 60) extension[2] = 1, extension[3] = static_cast<std::uint8_t>(length - 4);  // PadN
    if (kind == 43) extension[2] = static_cast<std::uint8_t>(below(5)), extension[3] = static_cast<std::uint8_t>(below(2));
    frame[ip_at + 6] = kind;
    frame.insert(frame.begin() + static_cast<std::ptrdiff_t>(ip_at) + 40, extension.begin(), extension.end());
    set16(frame, ip_at + 4, frame.size() - ip_at - 40);
  }
  void add_options(Frame& frame, std::size_t ip_at) {
    static constexpr std::uint8_t kOptions[] = {1, 7, 68, 131, 137, 148, 0};
    const std::size_t length = 4U * (1 + below(4));
    Frame options(length, 1);
    const std::uint8_t kind = one_of(kOptions);
    options[0] = kind;
    if (kind > 1) options[1] = static_cast<std::uint8_t>(length), options[2] = 4;
    frame.insert(frame.begin() + static_cast<std::ptrdiff_t>(ip_at) + 20, options.begin(), options.end());
    frame[ip_at] = static_cast<std::uint8_t>(0x45 + length / 4);
    set16(frame, ip_at + 2, frame.size() - ip_at);
  }
  // Makes it a piece: of few datagrams, so that pieces meet.
  void make_fragment(Frame& frame, std::size_t ip_at, bool v4, std::uint16_t identification) {
    const std::uint16_t offset = static_cast<std::uint16_t>(one_in(4) ? below(8) : below(3) * 3);
    const bool more = !one_in(3);
    if (v4) {
      set16(frame, ip_at + 4, identification);
      set16(frame, ip_at + 6, (more ? 0x2000U : 0U) | offset);
      frame.resize(ip_at + (frame[ip_at] & 15) * 4U + 24);
      set16(frame, ip_at + 2, frame.size() - ip_at);
      return;
    }
    Frame extension{frame[ip_at + 6], 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(identification)};
    extension[2] = static_cast<std::uint8_t>(offset * 8 >> 8), extension[3] = static_cast<std::uint8_t>(offset * 8 | (more ? 1 : 0));
    frame[ip_at + 6] = 44;
    frame.resize(ip_at + 40 + 24);
    frame.insert(frame.begin() + static_cast<std::ptrdiff_t>(ip_at) + 40, extension.begin(), extension.end());
    set16(frame, ip_at + 4, frame.size() - ip_at - 40);
  }

  Sent sound() {
    Sent sent{static_cast<int>(below(4)), {}};
    const bool out = sent.from != 0;
    const int task = out ? sent.from : 1 + static_cast<int>(below(3));
    const MacAddress own{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(task + 16)}}, router = mac("0a:00:00:00:00:01");
    const bool v4 = !one_in(3);
    const std::string self = v4 ? "10.0.0." + std::to_string(16 + task) : "2001:db8:1::1" + std::to_string(task);
    const std::string other = out && one_in(3) ? address(v4, true) : address(v4, false);
    const std::string source = out ? self : other, destination = out ? other : self;
    const L2 l2{out ? (one_in(4) ? MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(17 + below(3))}} : router) : own, out ? own : router,
                out ? -1 : 100 + task};
    const std::size_t ip_at = out ? 14 : 18;
    if (one_in(12)) return {sent.from, arp_packet(out && one_in(2) ? L2{mac("ff:ff:ff:ff:ff:ff"), own, -1} : l2, one_in(4) ? 2 : 1, l2.source, ip(v4 ? source : "10.0.0.17"), ip(v4 ? destination : "10.0.0.1"))};
    if (one_in(20)) return {sent.from, discovery(l2, task, out)};
    if (one_in(20)) return {sent.from, dhcp(l2, own, out)};
    // To the task whose port has an MTU of 1500; and to where nothing is routed.
    if (one_in(40))
      return {0, ip_packet({mac("0a:00:00:00:00:12"), router, 102}, ip("198.51.100.9"), ip("10.0.0.18"), 17,
                           udp_datagram(4000, 4000, 1480 + below(200)))};
    if (one_in(40))
      return {1 + static_cast<int>(below(3)),
              ip_packet(l2, ip(self), ip(v4 ? "169.254.7.7" : "fe80::7"), 17, udp_datagram(4000, 4000, 8))};
    std::uint8_t protocol = 0;
    const Frame payload = transport(protocol, v4, source, destination);
    sent.frame = ip_packet(l2, ip(source), ip(destination), protocol, payload, !one_in(4));
    if (one_in(6)) v4 ? add_options(sent.frame, ip_at) : add_extension(sent.frame, ip_at);
    if (one_in(5)) {
      const auto identification = static_cast<std::uint16_t>(below(4));
      // Another piece of the same datagram comes next, at a place of its own or over this one.
      if (one_in(2)) make_fragment((other_piece_ = sent)->frame, ip_at, v4, identification);
      make_fragment(sent.frame, ip_at, v4, identification);
    }
    if (!v4 && one_in(12)) add_extension(sent.frame, ip_at);
    if (one_in(12) && sent.frame.size() < 1700) grow(sent.frame, ip_at, v4, 1500 + below(200));
    return sent;
  }
  Frame discovery(const L2& l2, int task, bool out) {
    static constexpr std::uint8_t kTypes[] = {133, 134, 135, 136, 137};
    const std::uint8_t type = one_of(kTypes);
    Frame body(4, type == 136 ? 0x60 : 0);
    if (type == 134) body.resize(12);
    if (type >= 135) put(body, ip(one_in(2) ? "2001:db8:1::1" + std::to_string(1 + below(4)) : "fe80:ec2::1").bytes.data(), 16);
    if (one_in(2)) {
      const Frame option = link_layer_option(static_cast<std::uint8_t>(1 + below(2)), one_in(3) ? mac("0a:00:00:00:00:99") : l2.source);
      put(body, option.data(), option.size());
    }
    const std::string self = "2001:db8:1::1" + std::to_string(task), peer = one_in(2) ? "fe80:ec2::1" : "2001:db8:1::1";
    return icmp6_frame(l2, out ? (one_in(5) ? "::" : self) : peer, out ? (one_in(2) ? "ff02::2" : peer) : self, type, body, one_in(8) ? 64 : 255);
  }
  Frame dhcp(const L2& l2, const MacAddress& own, bool out) {
    DhcpMessage message;
    message.reply = !out;
    message.client = one_in(5) ? mac("0a:00:00:00:00:99") : own;
    message.your_address = out ? "0.0.0.0" : "10.0.0.17";
    message.options = DhcpOptions().add(53, {static_cast<std::uint8_t>(1 + below(8))}).address(50, one_in(3) ? "10.0.0.99" : "10.0.0.17").bytes;
    const L2 to = out ? L2{mac("ff:ff:ff:ff:ff:ff"), l2.source, -1} : l2;
    return ip_packet(to, ip(out ? "0.0.0.0" : "10.0.0.1"), ip(out ? "255.255.255.255" : "10.0.0.17"), 17, out ? message.udp(68, 67) : message.udp(67, 68));
  }
  void grow(Frame& frame, std::size_t ip_at, bool v4, std::size_t bytes) {
    frame.resize(ip_at + bytes, 'g');
    v4 ? set16(frame, ip_at + 2, bytes) : set16(frame, ip_at + 4, bytes - 40);
  }

  static void set16(Frame& frame, std::size_t at, std::size_t value) {
    if (at + 1 >= frame.size()) return;
    frame[at] = static_cast<std::uint8_t>(value >> 8), frame[at + 1] = static_cast<std::uint8_t>(value);
  }

  void mutate(Frame& frame) {
    if (frame.empty()) return;
    const auto size = static_cast<std::uint32_t>(frame.size());
    const std::uint32_t headers = std::min<std::uint32_t>(size, 96);  // where things are decided
    switch (below(8)) {
      case 0: case 1: frame[below(one_in(4) ? size : headers)] ^= static_cast<std::uint8_t>(1U << below(8)); break;
      case 2: frame[below(headers)] = static_cast<std::uint8_t>(below(256)); break;
      case 3: frame.resize(std::max<std::uint32_t>(1, one_in(3) ? below(size) : size - std::min(size - 1, 1 + below(24)))); break;
      case 4: frame.resize(size + 1 + below(64), static_cast<std::uint8_t>(below(256))); break;
      case 5: {  // a length, or what is like one
        const std::size_t ip_at = frame.size() > 13 && frame[12] == 0x81 ? 18 : 14;
        static constexpr std::size_t kFields[] = {2, 4, 6, 24, 32, 44};
        const std::size_t at = ip_at + one_of(kFields);
        static constexpr std::uint16_t kValues[] = {0, 1, 7, 8, 19, 20, 21, 40, 41, 60, 0x2000, 0x3fff, 0x1fff, 0x4000, 0xffff};
        set16(frame, at, one_in(2) ? one_of(kValues) : below(65536));
        break;
      }
      case 6: {  // the tag: another's, a second one, none
        if (size < 18) break;
        if (frame[12] == 0x81 && one_in(2)) {
          if (one_in(2)) set16(frame, 14, (one_in(4) ? 0x2000U : 0U) | (100U + below(6)));
          else frame.erase(frame.begin() + 12, frame.begin() + 16);
        } else {
          const Frame tag{static_cast<std::uint8_t>(one_in(4) ? 0x88 : 0x81), static_cast<std::uint8_t>(one_in(4) ? 0xa8 : 0), 0, static_cast<std::uint8_t>(100 + below(6))};
          frame.insert(frame.begin() + 12, tag.begin(), tag.end());
        }
        break;
      }
      default: {  // bytes that come or go in the middle
        const std::uint32_t at = below(size), count = 1 + below(8);
        if (one_in(2)) frame.insert(frame.begin() + at, count, static_cast<std::uint8_t>(below(256)));
        else frame.erase(frame.begin() + at, frame.begin() + std::min(size, at + count));
        if (frame.empty()) frame.push_back(0);
      }
    }
  }

  std::mt19937_64 random_;
  std::optional<Sent> other_piece_;  // of the fragment that was sent last
};

config::SecurityGroup some_group() {
  config::SecurityGroup group;
  group.id = "sg-0000000a";
  group.ingress = {rule(17, 53, 53, {"0.0.0.0/0"}), rule(6, 80, 80, {"198.51.100.0/24", "10.0.0.0/24", "2001:db8::/32"}), rule(1, 8, -1, {"0.0.0.0/0"}), rule(58, 128, -1, {"::/0"}),
                   rule(17, 4000, 4100, {"0.0.0.0/0", "::/0"}), rule(50, -1, -1, {"198.51.100.0/24"})};
  group.egress = {rule(6, 443, 443, {"0.0.0.0/0", "::/0"}), rule(6, 80, 80, {"10.0.0.0/24", "2001:db8:1::/64"}), rule(17, 0, 65535, {"0.0.0.0/0", "::/0"})};
  return group;
}

class Story {
 public:
  explicit Story(std::uint64_t seed)
      : seed_(seed),
        corpus_(seed),
        engine_(
            [&](config::EngineConfig& config) {
              config.edge.mode = seed % 2 == 0 ? config::EdgeMode::answer : config::EdgeMode::relay;
              config.conntrack.icmp_related = seed % 3 == 0;
              config.conntrack.strict_syn = seed % 5 == 0;
            },
            1),
        worker_(engine_.workers[0]->state) {
    engine_.put_group(some_group());
    for (int number = 1; number <= 3; ++number) engine_.attach(number, "sg-0000000a");
    engine_.change([](config::DesiredState& next) {
      config::Attachment small = next.attachments.at("eni-2");
      small.port->mtu = 1500;
      next.attachments.insert_or_assign("eni-2", small);
    });
    ObserverSettings settings;
    settings.snaplen = kSnaplen;
    settings.points = point_bit(Point::in) | point_bit(Point::again);
    settings.capacity = 256;
    observer_ = std::make_unique<Observer>(settings);
    set_.observers.push_back(observer_.get());
    worker_.buffers = &pieces_;
  }
  ~Story() {
    worker_.observers = nullptr;
    worker_.buffers = nullptr;
  }

  bool go(std::uint32_t frames) {
    for (std::uint32_t i = 0; i < frames && !failed_; ++i) {
      // What explain does not know of must not happen: no table gets full, no allowance is used up.
      if (i % 50 == 0) rest(i % 200 == 0);
      one(corpus_.next());
    }
    return !failed_;
  }
  const std::map<std::string, std::uint64_t>& verdicts() const { return verdicts_; }

 private:
  void rest(bool long_enough_for_all) {
    const Tick now = worker_.now + seconds(long_enough_for_all ? 500'000 : 1);
    worker_.begin_turn(engine_.controller->view(), now, worker_.micros + 1'000'000);
    sweep_fragments(worker_, FragmentTable::kCapacity);
    std::uint32_t at = 0;
    while (!worker_.connections.walk(at, 4096, [&](Connection& connection) {
      if (corpus_.one_in(2) || long_enough_for_all) worker_.connections.erase(&connection);
    })) {
    }
    forget_output();
    if (worker_.fragments.empty()) packets_.clear();
  }
  void forget_output() {
    worker_.outbox.empty([](PortSlot, const Outbox::Batch&) {});
    worker_.outbox.clear_discarded();
  }

  // All that the worker has, as far as a packet can move it.
  std::string trace() const {
    std::string all = std::to_string(worker_.connections.size()) + '/' + std::to_string(worker_.fragments.size()) + '/' + std::to_string(worker_.outbox.size()) + '/' +
                      std::to_string(worker_.outbox.is_empty()) + '/';
    std::uint64_t sum = 0;
    std::uint32_t at = 0;
    while (!worker_.connections.walk(at, 4096, [&](Connection& connection) {
      sum = sum * 31 + connection.last_seen + static_cast<std::uint64_t>(connection.state) * 7 + connection.totals[0].packets * 3 + connection.totals[1].packets;
    })) {
    }
    const auto add = [&](const Meter& meter) {
      const MeterReading reading = MeterReading::of(meter);
      all += std::to_string(reading.rx_packets) + ',' + std::to_string(reading.tx_packets) + ',' + std::to_string(reading.dropped()) + ';';
    };
    add(worker_.trunk_in), add(worker_.trunk_out);
    for (int i = 0; i < 8; ++i) add(worker_.meters[i].ingress), add(worker_.meters[i].egress);
    return all + std::to_string(sum);
  }

  void one(const Sent& sent) {
    const std::string from = sent.from == 0 ? "trunk" : "eni-" + std::to_string(sent.from);
    const std::string before = trace();
    const auto answer = control::explain(*engine_.controller, *engine_.inspector, {{"from", from}, {"frame", control::to_base64(sent.frame)}});
    if (!answer) return fail(sent, "explain has no answer: " + answer.error().message);
    if (trace() != before) return fail(sent, "to ask has left a trace: " + before + " is now " + trace());
    const Json real = send(sent);
    ++verdicts_[answer->at("verdict").get<std::string>()];
    if (answer->at("halves") != real) return fail(sent, "explained as\n" + answer->at("halves").dump(1) + "\nand this became of it\n" + real.dump(1));
    if (real.empty()) return fail(sent, "nobody saw it");
    // The last half's fate is the answer; and what it says is where the packet went.
    const Json& last = real.back();
    const bool delivered = last["route"].is_string();
    if (answer->at("delivered") != delivered || answer->at("verdict") != last["verdict"]) fail(sent, "the answer is not that of its last half");
    // What is not delivered may have made an error for its sender, and nothing else.
    const std::string way = !delivered ? "" : last["route"] == "trunk" ? "trunk" : "task";
    std::uint64_t left = 0;
    for (const auto& [port, packets] : went_) left += packets;
    // What has to be cut for the port of 1500 leaves in pieces.
    const bool is_cut = way == "task" && sent.frame.size() > 1500 && left > 1 + released_;
    if (delivered ? !went_.contains(way) || (left != 1 + released_ && !is_cut)
                  : left > (last["verdict"] == "mtu_exceeded" ? 1U : 0U))
      fail(sent, "it went elsewhere: " + std::to_string(left) + " packets, " + std::to_string(released_) +
                     " of them had waited");
  }

  // The reports of what the real pipeline did with it.
  Json send(const Sent& sent) {
    auto& packet = packets_.emplace_back(std::make_unique<control::ScratchPacket>(sent.frame));
    worker_.observers = &set_;
    Burst burst;
    burst.add(packet->mbuf());
    sent.from == 0 ? process_from_trunk(burst, worker_) : process_from_task(burst, worker_, engine_.endpoint(sent.from));
    worker_.observers = nullptr;
    Json halves = Json::array();
    bool is_later = false;
    released_ = 0;
    observer_->read(256, [&](const Observation& seen, std::span<const std::uint8_t> bytes) {
      if (seen.made_here) return;
      Json half = control::packet_report(*engine_.controller, seen, bytes);
      is_later = is_later || (halves.empty() && seen.headers.fragment == Fragment::later);
      // A first fragment sends on the later ones that waited for it: other packets, which explain does not speak of
      // here.
      if (is_later || seen.headers.fragment != Fragment::later)
        halves.push_back(std::move(half));
      else if (half["route"] == "trunk" || half["route"] == "task")
        ++released_;
    });
    went_.clear();
    worker_.outbox.empty([&](PortSlot slot, const Outbox::Batch& batch) { went_[slot == kTrunkSlot ? "trunk" : "task"] += batch.packets.size(); });
    worker_.outbox.clear_discarded();
    if (worker_.fragments.empty()) packets_.clear();
    return halves;
  }

  void fail(const Sent& sent, const std::string& what) {
    failed_ = true;
    ADD_FAILURE() << what << "\nthe frame, from " << (sent.from == 0 ? "the trunk" : "eni-" + std::to_string(sent.from)) << ": " << hex(sent.frame)
                  << "\nagain: TRUNKLINE_SEED=" << seed_ << " explain_property_test";
  }

  const std::uint64_t seed_;
  Corpus corpus_;
  Mbufs pieces_;  // that are made of what is cut
  Engine engine_;
  WorkerState& worker_;
  std::unique_ptr<Observer> observer_;
  ObserverSet set_;
  std::deque<std::unique_ptr<control::ScratchPacket>> packets_;  // that the worker may hold
  std::map<std::string, std::uint64_t> went_, verdicts_;
  std::uint64_t released_ = 0;  // of the fragments that waited, by the frame that was sent last
  bool failed_ = false;
};

TEST(ExplainProperty, WhatIsExplainedIsWhatBecomesOfIt) {
  if (std::getenv("TRUNKLINE_SEED") != nullptr) {
    EXPECT_TRUE(Story(number_from("TRUNKLINE_SEED", 0)).go(kFramesOfAStory));
    return;
  }
  const std::uint64_t first = std::random_device{}(), frames = number_from("TRUNKLINE_FRAMES", 20000);
  std::cout << "seeds from " << first << '\n';
  std::map<std::string, std::uint64_t> verdicts;
  for (std::uint64_t story = 0; story * kFramesOfAStory < frames; ++story) {
    Story run(first + story);
    if (!run.go(kFramesOfAStory)) return;
    for (const auto& [name, count] : run.verdicts()) verdicts[name] += count;
  }
  for (const auto& [name, count] : verdicts) std::cout << name << ' ' << count << '\n';
  // The stories are such that all of it happens.
  for (const char* name : {"none", "held", "malformed", "ethertype", "unknown_eni", "wrong_mac", "dest_check", "spoof_mac", "spoof_ip", "martian", "multicast", "unexpected_vlan", "ip_options",
                           "tcp_flags", "fragment_tiny", "fragment_overlap", "security_group_ingress", "security_group_egress", "arp_spoof", "dhcp_refused", "nd_refused", "mtu_exceeded",
                           "link_local"}) {
    EXPECT_GT(verdicts[name], 0U) << name << " never happened";
  }
}

}  // namespace
}  // namespace trunkline::test
