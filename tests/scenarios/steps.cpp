// SPDX-License-Identifier: BSD-3-Clause
#include "tests/scenarios/steps.h"

#include <algorithm>
#include <fstream>

namespace trunkline::test {
namespace {

constexpr MacAddress kRouter{{0x0a, 0, 0, 0, 0, 1}};
constexpr std::size_t kBurst = 32;

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw ScenarioError(path.string() + ": cannot be read");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (const std::size_t hash = line.find('#'); hash != std::string::npos) line.resize(hash);
    lines.push_back(line);
  }
  return lines;
}

Vpc::Engine engine_of(const Scenario& scenario, const std::vector<std::string>& lines) {
  Vpc::Engine engine = scenario.engine;
  engine.flow_logs = std::ranges::any_of(lines, [](const std::string& line) { return trimmed(line).starts_with("flow-log:"); });
  return engine;
}

std::string text_of(const Vpc::Movements& movements) {
  std::string text;
  for (const auto& [name, count] : movements) text += (text.empty() ? "" : " ") + name + ' ' + std::to_string(count);
  return text.empty() ? "nothing" : text;
}

// "x12" at the end of a head: how many.
std::int64_t take_count(Words& words) {
  if (words.empty() || words.back().size() < 2 || words.back()[0] != 'x' || words.back().find_first_not_of("0123456789", 1) != std::string::npos) return 1;
  const std::int64_t count = read_number(words.back().substr(1), 100000);
  words.pop_back();
  return count;
}

Frame without_tag(Frame frame) {
  if (frame.size() >= 18 && frame[12] == 0x81 && frame[13] == 0x00) frame.erase(frame.begin() + 12, frame.begin() + 16);
  return frame;
}

Frame with_tag(Frame frame, VlanId vlan) {
  if (vlan.is_untagged()) return frame;
  const std::uint8_t tag[] = {0x81, 0x00, static_cast<std::uint8_t>(vlan.value >> 8), static_cast<std::uint8_t>(vlan.value)};
  frame.insert(frame.begin() + 12, std::begin(tag), std::end(tag));
  return frame;
}

}  // namespace

Steps::Steps(const Scenario& scenario, bool sweep)
    : scenario_(scenario), sweep_(sweep), lines_(lines_of(scenario.folder / "steps.txt")), vpc_(engine_of(scenario, lines_)) {
  vpc_.state = scenario.state;
  vpc_.apply();
  vpc_.movements();
  for (const std::string& each : lines_) flow_logs_ = flow_logs_ || trimmed(each).starts_with("flow-log:");
}

std::optional<std::string> Steps::run() {
  const std::string file = (scenario_.folder / "steps.txt").string();
  try {
    bool any = false;
    for (at_ = 0; at_ < lines_.size(); ++at_) {
      any = any || !trimmed(lines_[at_]).empty();
      line(lines_[at_]);
    }
    end_packets();
    end_flow_log();
    if (!any) throw ScenarioError("there are no steps");
    if (flow_logs_) {
      begin_flow_log();
      end_flow_log();
    }
    return std::nullopt;
  } catch (const std::exception& error) {
    return file + ':' + std::to_string(std::min(at_, lines_.size() - 1) + 1) + (sweep_ ? " (swept): " : ": ") + error.what();
  }
}

void Steps::line(const std::string& text) {
  const std::string trimmed_text = trimmed(text);
  if (trimmed_text.empty()) return;
  if (flow_log_at_ && (text[0] == ' ' || text[0] == '\t')) {
    flow_log_wanted_.push_back(trimmed_text);
    return;
  }
  end_flow_log();
  const std::size_t colon = trimmed_text.find(": ");
  const bool ends = trimmed_text.back() == ':';
  const std::string head = colon != std::string::npos ? trimmed_text.substr(0, colon) : ends ? trimmed_text.substr(0, trimmed_text.size() - 1) : trimmed_text;
  const std::string rest = colon != std::string::npos ? trimmed_text.substr(colon + 2) : "";
  const Words words = split(head);
  if (words[0] == "expect") return expect(head, rest);
  if (words[0] == "counters") return counters(split(trimmed_text));
  if (words[0] == "audited") return audited(words);
  end_packets();
  if (words[0] == "trunk" || words[0] == "task") return packet_step(words, head, rest);
  if (words[0] == "at" || words[0] == "after") return words.size() == 2 ? pass_to(words[1], words[0] == "after") : throw ScenarioError("write at 5s or after 5s");
  if (words[0] == "flow-log") {
    begin_flow_log();
    if (rest == "nothing") end_flow_log();
    return;
  }
  if (words[0] == "sweep") return vpc_.sweep_connections();
  if (words[0] == "connections") return connections(words);
  if (!change(split(trimmed_text))) throw ScenarioError("\"" + words[0] + "\" is no step; README.md lists them");
  vpc_.apply();
}

// --- packets ---------------------------------------------------------------------------------------------------------

void Steps::packet_step(const Words& all, const std::string&, const std::string& rest) {
  Words head = all;
  Packets packets;
  packets.line = at_;
  const auto count = static_cast<std::uint32_t>(take_count(head));
  L2 l2{{}, kRouter, -1};
  const auto known = [&](const std::string& name) {
    const Endpoint* endpoint = vpc_.endpoint(name);
    if (endpoint == nullptr) throw ScenarioError("no task " + name + " is attached");
    return endpoint;
  };
  const bool by_trunk = head[0] == "trunk";
  if (by_trunk && head.size() == 3 && head[1] == ">") {
    packets.receiver = head[2];
    l2.destination = known(head[2])->mac;
    if (!known(head[2])->vlan.is_untagged()) l2.vlan = known(head[2])->vlan.value;
  } else if (!by_trunk && head.size() == 2) {
    packets.task = head[1];
    l2 = {kRouter, known(head[1])->mac, -1};
  } else if (!by_trunk || head.size() != 1) {
    throw ScenarioError("write \"trunk > NAME: PACKET\", \"trunk: PACKET\" or \"task NAME: PACKET\"");
  }
  const Words words = split(rest);
  if (words.empty()) throw ScenarioError("which packet? write it behind the colon");
  for (std::uint32_t i = 0; i < count; ++i) {
    Frame frame = read_packet(words, l2, i);
    // A task finds a neighbour by ARP, and so addresses its frame to the neighbour's MAC.
    if (!by_trunk && std::ranges::find(words, "to-mac") == words.end() && frame.size() >= 34 && frame[12] == 0x08 && frame[13] == 0x00) {
      const IpAddress target = IpAddress::from_v4_bytes(&frame[30]);
      const Endpoint* peer = vpc_.view->with_address(target);
      if (peer != nullptr && known(packets.task)->in_subnet(target)) std::memcpy(frame.data(), peer->mac.bytes.data(), 6);
    }
    packets.sent.push_back(std::move(frame));
  }
  for (std::size_t first = 0; first < packets.sent.size(); first += kBurst) {
    const std::vector<Frame> burst(packets.sent.begin() + static_cast<std::ptrdiff_t>(first),
                                   packets.sent.begin() + static_cast<std::ptrdiff_t>(std::min(first + kBurst, packets.sent.size())));
    Vpc::Output output = by_trunk ? vpc_.from_trunk(burst) : vpc_.from_task(packets.task, burst);
    for (Frame& frame : output.trunk) packets.output.trunk.push_back(std::move(frame));
    for (auto& [name, frames] : output.task) {
      for (Frame& frame : frames) packets.output.task[name].push_back(std::move(frame));
    }
  }
  const auto number = static_cast<std::int64_t>(count);
  packets.implied[by_trunk ? "trunk.in.rx" : packets.task + ".egress.rx"] += number;
  if (!packets.receiver.empty()) packets.implied["trunk.in.tx"] += number, packets.implied[packets.receiver + ".ingress.rx"] += number;
  packets_ = std::move(packets);
}

// The frame as it comes out there, if nothing of it was changed but what its way changes.
Frame Steps::as_delivered(const Frame& sent, const std::string& place) const {
  const Endpoint* sender = packets_->task.empty() ? nullptr : vpc_.endpoint(packets_->task);
  if (place == "trunk") return with_tag(sent, sender != nullptr ? sender->vlan : VlanId{});
  Frame frame = without_tag(sent);
  const Endpoint* receiver = vpc_.endpoint(place);
  if (sender == nullptr || receiver == nullptr) return frame;
  const bool neighbours = receiver->subnet4 == sender->subnet4;
  if (!neighbours) std::memcpy(&frame[6], kRouter.bytes.data(), 6);
  std::memcpy(&frame[0], receiver->mac.bytes.data(), 6);
  return frame;
}

const std::vector<Frame>& Steps::output_at(const std::string& place) const {
  static const std::vector<Frame> none;
  if (place == "trunk") return packets_->output.trunk;
  if (!scenario_.tasks.contains(place)) throw ScenarioError("there is no task " + place);
  const auto entry = packets_->output.task.find(place);
  return entry == packets_->output.task.end() ? none : entry->second;
}

void Steps::imply_delivery(const std::string& place) {
  Vpc::Movements& implied = packets_->implied;
  // More than was sent: cut at the port that it leaves by.
  const bool fragment = packets_->taken[place] > packets_->sent.size();
  if (fragment && place != "trunk") {
    ++implied[place + ".ingress.tx"];
    return;
  }
  if (place == "trunk") {
    ++implied["trunk.out.rx"], ++implied["trunk.out.tx"];
    if (!packets_->task.empty()) ++implied[packets_->task + ".egress.tx"];
    return;
  }
  ++implied[place + ".ingress.tx"];
  if (packets_->task.empty()) return;
  ++implied[packets_->task + ".egress.tx"];
  ++implied[place + ".ingress.rx"];
}

void Steps::expect_frame(const std::string& place, const std::string& what) {
  const std::vector<Frame>& frames = output_at(place);
  std::size_t& taken = packets_->taken[place];
  const std::string wanted = what == "the same" ? describe(packets_->sent[std::min(packets_->matched[place], packets_->sent.size() - 1)]) : what;
  if (taken == frames.size()) throw ScenarioError(place + " got nothing" + (taken == 0 ? "" : " more") + ", expected: " + wanted + "\n  what moved: " + text_of(vpc_.movements()));
  const Frame& frame = frames[taken++];
  const std::string came = describe(frame) + " (" + describe_l2(frame) + ")";
  if (what == "the same") {
    // In order; others may have been refused in between.
    for (std::size_t& next = packets_->matched[place]; next < packets_->sent.size();) {
      if (as_delivered(packets_->sent[next++], place) == frame) return imply_delivery(place);
    }
    const Frame expected = as_delivered(packets_->sent[0], place);
    throw ScenarioError(place + " got " + came + "\n  expected the same as was sent: " + describe(expected) + " (" + describe_l2(expected) + ")");
  }
  const Endpoint* owner = vpc_.endpoint(place == "trunk" ? (packets_->task.empty() ? packets_->receiver : packets_->task) : place);
  const Frame expected = read_packet(split(what), {{}, kRouter, place == "trunk" && owner != nullptr && !owner->vlan.is_untagged() ? owner->vlan.value : -1});
  if (describe(expected) != describe(frame)) throw ScenarioError(place + " got " + came + "\n  expected " + describe(expected));
  const bool tag_fits = describe_l2(frame).substr(37) == describe_l2(expected).substr(37) || owner == nullptr;
  if (!tag_fits) throw ScenarioError(place + " got the packet, but in a frame " + describe_l2(frame).substr(37) + "; expected " + describe_l2(expected).substr(37));
  if (place != "trunk" && owner != nullptr && std::memcmp(frame.data(), owner->mac.bytes.data(), 6) != 0) {
    throw ScenarioError(place + " got the packet, but in a frame for another MAC address: " + describe_l2(frame));
  }
  imply_delivery(place);
}

void Steps::refuse(const std::string& reason, std::int64_t count) {
  Vpc::Movements& implied = packets_->implied;
  const std::string own = packets_->task.empty() ? packets_->receiver + ".ingress" : packets_->task + ".egress";
  const std::size_t dot = reason.find(".ingress.");
  const bool at_trunk = packets_->task.empty() && (packets_->receiver.empty() || reason == "handoff_full");
  if (at_trunk) {
    implied["trunk.in." + reason] += count;
    if (!packets_->receiver.empty()) implied["trunk.in.tx"] -= count, implied[packets_->receiver + ".ingress.rx"] -= count;
  } else if (dot != std::string::npos) {
    // Refused by the other half of its way.
    implied[own + ".tx"] += count, implied[reason.substr(0, dot) + ".ingress.rx"] += count, implied[reason] += count;
  } else {
    implied[own + '.' + reason] += count;
  }
}

void Steps::expect(const std::string& head, const std::string& rest) {
  if (!packets_) throw ScenarioError("expect stands behind the packet that it is about");
  Words words = split(head);
  const std::int64_t count = take_count(words);
  if (words.size() != 2) throw ScenarioError("write \"expect NAME: the same\", \"expect trunk: PACKET\" or \"expect nothing: REASON\"");
  packets_->expected = true;
  if (words[1] == "nothing") {
    if (rest.empty()) throw ScenarioError("nothing, for which reason? write \"expect nothing: security_group_ingress\"");
    return refuse(rest, count);
  }
  for (std::int64_t i = 0; i < count; ++i) expect_frame(words[1], rest);
}

void Steps::counters(const Words& words) {
  if (!packets_) throw ScenarioError("counters stand behind the packet that moved them");
  if (!packets_->counters) packets_->counters.emplace();
  packets_->expected = true;
  for (std::size_t i = 1; i + 1 < words.size(); i += 2) {
    const bool negative = words[i + 1].starts_with('-');
    const std::int64_t count = read_number(negative ? words[i + 1].substr(1) : words[i + 1]);
    (*packets_->counters)[words[i]] += negative ? -count : count;
  }
  if (words.size() % 2 == 0) throw ScenarioError("counters are pairs of a name and a number");
}

void Steps::audited(const Words& all) {
  if (!packets_) throw ScenarioError("audited stands behind the packet that was");
  Words words = all;
  const std::int64_t count = take_count(words);
  if (words.size() != 3) throw ScenarioError("write \"audited NAME REASON\"");
  packets_->implied[words[1] + ".audited." + words[2]] += count;
}

void Steps::end_packets() {
  if (!packets_) return;
  const std::size_t here = std::exchange(at_, packets_->line);
  if (!packets_->expected) throw ScenarioError("what is expected of this packet? write an expect line behind it");
  for (const auto& name : [&] {
         std::vector<std::string> places{"trunk"};
         for (const auto& [task, frames] : packets_->output.task) places.push_back(task);
         return places;
       }()) {
    const std::vector<Frame>& frames = output_at(name);
    const std::size_t taken = packets_->taken[name];
    if (taken < frames.size()) throw ScenarioError(name + " got what nobody expected: " + describe(frames[taken]) + " (" + describe_l2(frames[taken]) + ")");
  }
  Vpc::Movements expected = packets_->counters.value_or(packets_->implied);
  std::erase_if(expected, [](const auto& each) { return each.second == 0; });
  const Vpc::Movements moved = vpc_.movements();
  if (moved != expected) throw ScenarioError("other counters moved than expected\n  expected " + text_of(expected) + "\n  moved    " + text_of(moved));
  at_ = here;
  packets_.reset();
}

// --- flow logs and connections ---------------------------------------------------------------------------------------

void Steps::begin_flow_log() {
  flow_log_at_ = at_;
  flow_log_wanted_.clear();
}

// NAME srcaddr dstaddr srcport dstport protocol packets bytes action tcp-flags flow-direction, and where the packet's own address is
// not the ENI's primary one, that.
std::string Steps::logged(const FlowRecord& record, Direction direction) const {
  const std::string name = vpc_.eni_of(record.key.endpoint(), record.key.generation());
  const bool ingress = direction == Direction::ingress;
  const FlowRecord::Way& way = record.way[index(direction)];
  std::string own = record.local().to_string();
  const std::string literal = own;
  if (record.local().is_v4()) {
    for (const IpAddress& address : scenario_.tasks.at(name).addresses) {
      if (!address.is_v4()) continue;
      own = address.to_string();
      break;
    }
  }
  const std::string remote = record.remote().to_string(), own_port = std::to_string(record.local_port()), remote_port = std::to_string(record.remote_port());
  std::string text = name + ' ' + (ingress ? remote + ' ' + own : own + ' ' + remote) + ' ' + (ingress ? remote_port + ' ' + own_port : own_port + ' ' + remote_port);
  text += ' ' + std::to_string(record.key.protocol()) + ' ' + std::to_string(way.packets) + ' ' + std::to_string(way.bytes) + ' ' +
          (record.action == FlowAction::accept ? "ACCEPT" : "REJECT") + ' ' + std::to_string(way.tcp_flags) + ' ' + std::string(to_string(direction));
  if (literal != own) text += ' ' + std::string(ingress ? "pkt-dstaddr=" : "pkt-srcaddr=") + literal;
  return text;
}

void Steps::end_flow_log() {
  if (!flow_log_at_) return;
  const std::size_t here = std::exchange(at_, std::min(*flow_log_at_, lines_.size() - 1));
  // Two records of one flow (its connection ended and another began) are one line, as in the log.
  std::map<std::string, FlowRecord> merged;
  for (const FlowRecord& record : vpc_.end_interval()) {
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      if (record.way[index(direction)].packets == 0) continue;
      FlowRecord bare = record;
      bare.way[0] = bare.way[1] = {};
      const auto [entry, fresh] = merged.try_emplace(logged(bare, direction), bare);
      FlowRecord::Way& sum = entry->second.way[index(direction)];
      sum.packets += record.way[index(direction)].packets;
      sum.bytes += record.way[index(direction)].bytes;
      sum.tcp_flags |= record.way[index(direction)].tcp_flags;
    }
  }
  std::vector<std::string> came;
  for (const auto& [key, record] : merged) came.push_back(logged(record, record.way[0].packets != 0 ? Direction::ingress : Direction::egress));
  std::vector<std::string> wanted;
  for (const std::string& each : flow_log_wanted_) {
    std::string one;
    for (const std::string& word : split(each)) one += (one.empty() ? "" : " ") + word;
    wanted.push_back(one);
  }
  std::ranges::sort(came);
  std::ranges::sort(wanted);
  std::string difference;
  std::vector<std::string> missing, extra;
  std::ranges::set_difference(wanted, came, std::back_inserter(missing));
  std::ranges::set_difference(came, wanted, std::back_inserter(extra));
  for (const std::string& each : missing) difference += "\n  expected " + each;
  for (const std::string& each : extra) difference += "\n  came     " + each;
  if (!difference.empty()) throw ScenarioError("the flow log is another one" + difference);
  at_ = here;
  flow_log_at_.reset();
}

void Steps::connections(const Words& words) {
  if (words.size() != 6 || words[2] != "tracked" || words[4] != "untracked") throw ScenarioError("write \"connections NAME tracked N untracked N\"");
  const Endpoint* endpoint = vpc_.endpoint(words[1]);
  if (endpoint == nullptr) throw ScenarioError("no task " + words[1] + " is attached");
  std::uint32_t counts[2] = {};
  vpc_.worker.connections.for_each([&](const Connection& connection) {
    const bool ours = connection.key.endpoint() == endpoint->id && connection.key.generation() == (endpoint->generation & FlowKey::kGenerationMask);
    if (ours && !ConnectionTable::expired(connection, endpoint->timeouts, vpc_.worker.now)) ++counts[connection.untracked];
  });
  if (counts[0] != read_number(words[3]) || counts[1] != read_number(words[5])) {
    throw ScenarioError("there are " + std::to_string(counts[0]) + " tracked and " + std::to_string(counts[1]) + " untracked connections");
  }
}

void Steps::pass_to(const std::string& text, bool relative) {
  const bool milli = text.ends_with("ms");
  const std::string number = text.substr(0, text.size() - (milli ? 2 : 1));
  if (!milli && !text.ends_with('s')) throw ScenarioError("a time is written like 31s or 200ms");
  const std::uint64_t wanted = read_number(number) * (milli ? 1000ULL : 1000000ULL) + (relative ? vpc_.micros() : 0);
  if (wanted < vpc_.micros()) throw ScenarioError("that time has passed already");
  vpc_.pass(wanted - vpc_.micros());
  if (sweep_) vpc_.sweep_connections();
  vpc_.sweep_fragments();
  // Held fragments that were given up: the step to be named for it is this one.
  packets_.emplace();
  packets_->line = at_;
  packets_->expected = true;
}

}  // namespace trunkline::test
