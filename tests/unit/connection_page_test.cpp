// SPDX-License-Identifier: BSD-3-Clause
//
// docs/connections.md against the code: every row of its tables of states, and every cell of its table of moves, played in the pipeline
// from either end.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

using Cells = std::vector<std::string>;

std::string trimmed(std::string text) {
  text.erase(0, text.find_first_not_of(" `"));
  text.erase(text.find_last_not_of(" `") + 1);
  return text;
}

// The rows of all tables whose heading begins with these cells.
std::vector<Cells> rows_of(const Cells& heading) {
  std::ifstream page("docs/connections.md");
  EXPECT_TRUE(page) << "run it in the project's root";
  std::vector<Cells> rows;
  bool in_table = false;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("|")) {
      in_table = false;
      continue;
    }
    Cells cells;
    std::istringstream words(line.substr(1));
    for (std::string cell; std::getline(words, cell, '|');) cells.push_back(trimmed(cell));
    if (in_table && !cells[0].starts_with("---")) rows.push_back(cells);
    if (cells.size() >= heading.size() && std::equal(heading.begin(), heading.end(), cells.begin())) in_table = true;
  }
  return rows;
}

std::optional<ConnectionState> state_named(const std::string& name) {
  for (std::size_t i = 0; i < kConnectionStates; ++i) {
    if (name == kConnectionStateNames[i]) return static_cast<ConnectionState>(i);
  }
  return std::nullopt;
}

TEST(ConnectionPage, EachStateHasItsStandingAndTimeout) {
  // Each time-out a different one, so that no two are mistaken.
  Timeouts timeouts;
  timeouts.set_tcp(1, 2, 3, 4), timeouts.set_udp(5, 6), timeouts.set_icmp(7), timeouts.set_other(8);
  const std::map<std::string, Tick> named{{"handshake", 1}, {"established", 2}, {"closing", 3}, {"closed", 4}, {"UdpTimeout", 5}, {"UdpStreamTimeout", 6}, {"icmp", 7}, {"other", 8}};
  const std::map<std::string, Standing> standings{{"unconfirmed", Standing::unconfirmed}, {"confirmed", Standing::confirmed}, {"over", Standing::over}};
  std::set<ConnectionState> seen{ConnectionState::free, ConnectionState::addresses};
  for (const Cells& row : rows_of({"state", "standing", "time-out"})) {
    const auto state = state_named(row[0]);
    ASSERT_TRUE(state) << row[0];
    EXPECT_TRUE(seen.insert(*state).second) << row[0] << " twice";
    ASSERT_TRUE(standings.contains(row[1])) << row[1];
    EXPECT_EQ(standing_of(*state), standings.at(row[1])) << row[0];
    ASSERT_TRUE(named.contains(row[2])) << row[2];
    EXPECT_EQ(timeouts[*state], named.at(row[2])) << row[0];
  }
  EXPECT_EQ(seen.size(), kConnectionStates) << "the page lacks a state";
}

// Where a row begins: its state, who sends, and what is known of the ends.
struct Start {
  ConnectionState state = ConnectionState::free;
  unsigned fin_seen = 0, awaits = 0;
  Direction initiator = Direction::ingress, sender = Direction::ingress;
};

constexpr unsigned bits(Direction direction) { return 1U << index(direction); }

// All starts that a row's words mean; empty: they are not understood.
std::vector<Start> starts_of(const std::string& name, const std::string& sent_by) {
  using enum ConnectionState;
  const ConnectionState state = state_named(name).value_or(free);
  std::vector<Start> starts;
  for (const Direction initiator : {Direction::ingress, Direction::egress}) {
    for (const Direction sender : {Direction::ingress, Direction::egress}) {
      const unsigned self = bits(sender), other = bits(opposite(sender)), both = 3, initiators = bits(initiator);
      const bool by_initiator = sender == initiator;
      const auto add = [&](unsigned fin_seen, unsigned awaits) { starts.push_back({state, fin_seen, awaits, initiator, sender}); };
      if (sent_by == "initiator" && by_initiator) add(0, state == syn_sent ? 3 - initiators : both);
      if (sent_by == "other end" && !by_initiator) add(0, state == syn_sent ? 3 - initiators : both);
      if (sent_by == "the end that was heard") add(0, other);
      if (sent_by == "the end that was not heard") add(0, self);
      if (sent_by == "either end") state == closed ? add(3, both) : add(0, 0);
      if (sent_by == "the end that sent the SYN") add(0, other);
      if (sent_by == "the end that sent the FIN") add(self, self);
      if (sent_by == "the other end") state == closing ? add(other, other) : add(0, self);
      if (sent_by == "initiator, other end not heard since" && by_initiator) add(0, both);
      if (sent_by == "other end, initiator not heard since" && !by_initiator) add(0, both);
      if (sent_by == "an end, the other not heard since") add(0, both);
      if (sent_by == "an end, the other was heard since") add(0, self);
    }
  }
  return starts;
}

class Play {
 public:
  Play() {
    World::Task task;
    task.name = "web";
    task.vlan = 101;
    task.mac = "0a:47:e4:7a:2b:02";
    task.addresses = {"10.0.0.35"};
    config::SecurityGroup group;
    group.id = "sg-0";
    group.ingress = group.egress = {rule(6, 0, 65535, {"198.51.100.0/24"})};  // tracked
    task.groups = {group};
    world.add(task);
  }
  // What the segment makes of it.
  Connection after(const Start& start, std::uint8_t flags, std::size_t payload) {
    ConnectionTable& table = world.worker.connections;
    Connection connection = Connection::of({}, world.worker.now, start.state);
    connection.key.remote = ip_bits("198.51.100.9"), connection.key.local = ip_bits("10.0.0.35");
    connection.key.remote_port = __builtin_bswap16(4000), connection.key.local_port = __builtin_bswap16(80);
    connection.key.owner = world.view->endpoint(EndpointId{0})->flow_owner | FlowKey::protocol_bits(6);
    connection.policy_generation = world.view->endpoint(EndpointId{0})->policy_generation;
    connection.initiator = index(start.initiator) & 1;
    connection.fin_seen = start.fin_seen & 3, connection.awaits = start.awaits & 3;
    const std::uint64_t hash = table.hash(connection.key);
    EXPECT_NE(table.insert(connection, hash).connection, nullptr);
    const bool in = start.sender == Direction::ingress;
    const Frame segment = tcp_segment(in ? 4000 : 80, in ? 80 : 4000, flags, payload);
    const MacAddress own = mac("0a:47:e4:7a:2b:02"), router = mac("0a:00:00:00:00:01");
    const auto output = in ? world.from_trunk({ip_packet({own, router, 101}, ip("198.51.100.9"), ip("10.0.0.35"), 6, segment)})
                           : world.from_task(0, {ip_packet({router, own, -1}, ip("10.0.0.35"), ip("198.51.100.9"), 6, segment)});
    EXPECT_EQ(output.trunk.size() + output.task.size(), 1U) << "it passes";
    Connection* found = table.find(connection.key, hash);
    EXPECT_NE(found, nullptr);
    const Connection result = *found;
    table.erase(found);
    EXPECT_EQ(table.size(), 0U);
    world.movements();
    return result;
  }

 private:
  static std::uint32_t ip_bits(const char* text) {
    std::uint32_t bits;
    std::memcpy(&bits, &ip(text).bytes[12], sizeof bits);
    return bits;
  }
  World world;
};

TEST(ConnectionPage, EachMoveIsAsThePageHasIt) {
  struct Event {
    const char* name;
    std::uint8_t flags;
    std::size_t payload;
  };
  static constexpr Event kEvents[] = {{"SYN", 0x02, 0}, {"SYN-ACK", 0x12, 0}, {"plain", 0x10, 0}, {"payload", 0x18, 10}, {"FIN", 0x11, 0}, {"RST", 0x14, 0}};
  const auto rows = rows_of({"state", "sent by", "SYN", "SYN-ACK", "plain", "payload", "FIN", "RST"});
  std::set<std::string> states;
  std::size_t cells = 0;
  Play play;
  for (const Cells& row : rows) {
    states.insert(row[0]);
    const std::vector<Start> starts = starts_of(row[0], row[1]);
    ASSERT_FALSE(starts.empty()) << row[0] << ", " << row[1];
    for (const Start& start : starts) {
      for (std::size_t i = 0; i < std::size(kEvents); ++i) {
        std::string expected = row.at(2 + i);
        if (expected.empty()) continue;
        const Connection after = play.after(start, kEvents[i].flags, kEvents[i].payload);
        const std::string what = row[0] + " (" + row[1] + "), " + kEvents[i].name + " " + std::string(to_string(start.sender)) + ", began " + std::string(to_string(start.initiator));
        const bool anew = expected.starts_with("+");
        if (anew) expected.erase(0, 1);
        EXPECT_STREQ(kConnectionStateNames[static_cast<std::size_t>(after.state)], expected == "=" ? row[0].c_str() : expected.c_str()) << what;
        if (anew) {
          EXPECT_EQ(after.initiator_direction(), expected == "syn_sent" ? start.sender : opposite(start.sender)) << what;
          EXPECT_EQ(after.fin_seen, 0U) << what;
        } else {
          EXPECT_EQ(after.initiator_direction(), start.initiator) << what;
        }
        // Who moves a state without a flag must not pass at once.
        if (expected != "=" && (kEvents[i].flags & 0x07) == 0 && !anew) {
          Connection before;
          before.awaits = start.awaits & 3;
          EXPECT_FALSE(start.sender == Direction::ingress ? before.passes_at_once<Direction::ingress>() : before.passes_at_once<Direction::egress>()) << what;
        }
        ++cells;
      }
    }
  }
  EXPECT_EQ(states.size(), 9U) << "each state of TCP has a row";
  EXPECT_GT(cells, 200U);
}

}  // namespace
}  // namespace trunkline::test
