// SPDX-License-Identifier: BSD-3-Clause
//
// One line in, one line out: the error table, the frame of a request, the shape of an answer.
#include "control/protocol.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace trunkline::control {
namespace {

using config::Json;

constexpr std::size_t kBytes = 1 << 20;
constexpr std::size_t kDepth = 32;

auto parse(std::string_view line) { return parse_request(line, kBytes, kDepth); }

// The name of what is wrong with a line, "" if nothing is.
std::string refused(std::string_view line) {
  const auto request = parse(line);
  return request ? "" : request.error().error.name;
}

TEST(Protocol, CodesFollowTheTable) {
  EXPECT_EQ(code_for("parse_error"), -32700);
  EXPECT_EQ(code_for("invalid_request"), -32600);
  EXPECT_EQ(code_for("unknown_method"), -32601);
  EXPECT_EQ(code_for("invalid_params"), -32602);
  EXPECT_EQ(code_for("internal"), -32603);
  EXPECT_EQ(code_for("limit"), -32001);
  EXPECT_EQ(code_for("forbidden"), -32002);
  EXPECT_EQ(code_for("conflict"), -32003);
  EXPECT_EQ(code_for("not_found"), -32004);
  for (const char* name : {"duplicate_vlan", "duplicate_mac", "duplicate_ip", "duplicate_interface", "duplicate_subnet"}) {
    EXPECT_EQ(code_for(name), -32010) << name;
  }
  for (const char* name : {"address_outside_subnet", "reserved_address", "wrong_trunk"}) {
    EXPECT_EQ(code_for(name), -32011) << name;
  }
  for (const char* name : {"group_in_use", "acl_in_use", "quota"}) EXPECT_EQ(code_for(name), -32012) << name;
  for (const char* name : {"netns_missing", "interface_exists", "vhost_net_missing", "port_failed", "port_limit"}) {
    EXPECT_EQ(code_for(name), -32013) << name;
  }
  EXPECT_EQ(code_for("stale_event"), -32014);
  EXPECT_FALSE(find_error_code("no_such_name"));
  EXPECT_EQ(code_for("no_such_name"), -32603);
}

TEST(Protocol, ReadsARequest) {
  const auto request = parse(R"({"jsonrpc":"2.0","id":3,"method":"task.show","params":{"task":"t"}})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->id, 3);
  EXPECT_FALSE(request->notification);
  EXPECT_EQ(request->method, "task.show");
  EXPECT_EQ(request->params, Json({{"task", "t"}}));
}

TEST(Protocol, ParamsMayBeAbsent) {
  const auto request = parse(R"({"jsonrpc":"2.0","id":"a","method":"status"})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->params, Json::object());
}

TEST(Protocol, IdsAreStringsIntegersOrNull) {
  for (const char* id : {"\"a\"", "\"\"", "0", "-7", "18446744073709551615", "null"}) {
    const auto request = parse(std::string(R"({"jsonrpc":"2.0","method":"status","id":)") + id + "}");
    ASSERT_TRUE(request) << id;
    EXPECT_EQ(request->id.dump(), id);
    EXPECT_FALSE(request->notification) << id;
  }
  for (const char* id : {"1.5", "true", "[]", "{}", "[1]"}) {
    const auto request = parse(std::string(R"({"jsonrpc":"2.0","method":"status","id":)") + id + "}");
    ASSERT_FALSE(request) << id;
    EXPECT_EQ(request.error().error.name, "invalid_request");
    EXPECT_TRUE(request.error().id.is_null());
  }
}

TEST(Protocol, WithoutAnIdItIsANotification) {
  const auto request = parse(R"({"jsonrpc":"2.0","method":"task.detach","params":{}})");
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->notification);
  // A notification is not even told that its params are wrong; what is no request at all is.
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","method":"task.detach","params":[]})"), "");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","method":1})"), "invalid_request");
}

TEST(Protocol, RefusesWhatIsNotARequest) {
  EXPECT_EQ(refused(""), "parse_error");
  EXPECT_EQ(refused("{"), "parse_error");
  EXPECT_EQ(refused("\xff\xfe"), "parse_error");
  EXPECT_EQ(refused(std::string_view("{}\0{}", 5)), "parse_error");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"x"})"), "parse_error");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1,"method":"x","params":{"n":1e999}})"), "parse_error");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1,"method":"x","params":{"n":NaN}})"), "parse_error");
  EXPECT_EQ(refused("[]"), "invalid_request");
  EXPECT_EQ(refused(R"([{"jsonrpc":"2.0","id":1,"method":"x"}])"), "invalid_request");
  EXPECT_EQ(refused("7"), "invalid_request");
  EXPECT_EQ(refused("null"), "invalid_request");
  EXPECT_EQ(refused("{}"), "invalid_request");
  EXPECT_EQ(refused(R"({"id":1,"method":"x"})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":"1.0","id":1,"method":"x"})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":2.0,"id":1,"method":"x"})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1,"method":""})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1,"method":["x"]})"), "invalid_request");
  EXPECT_EQ(refused(R"({"jsonrpc":"2.0","id":1,"method":"x","auth":"y"})"), "invalid_request");
  for (const char* params : {"[]", "null", "1", "\"x\"", "true"}) {
    EXPECT_EQ(refused(std::string(R"({"jsonrpc":"2.0","id":1,"method":"x","params":)") + params + "}"),
              "invalid_params");
  }
}

TEST(Protocol, ABadRequestKeepsItsIdAndIsToldEverything) {
  const auto request = parse(R"({"jsonrpc":"1.0","id":"k","method":5,"extra":1,"params":[]})");
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().id, "k");
  EXPECT_EQ(request.error().error.problems.size(), 4U);
  EXPECT_EQ(request.error().error.message, request.error().error.problems.front().message);
}

TEST(Protocol, LimitsAreCalledLimit) {
  const auto nested = [](std::size_t depth) {
    return R"({"jsonrpc":"2.0","id":1,"method":"x","params":{"a":)" + std::string(depth - 2, '[') +
           std::string(depth - 2, ']') + "}}";
  };
  EXPECT_EQ(refused(nested(kDepth)), "");
  EXPECT_EQ(refused(nested(kDepth + 1)), "limit");
  EXPECT_EQ(refused(std::string(100'000, '[')), "limit");
  EXPECT_EQ(parse_request("{}          ", 5, kDepth).error().error.name, "limit");
}

TEST(Protocol, RandomBytesNeverThrow) {
  const auto seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string good = R"({"jsonrpc":"2.0","id":1,"method":"task.show","params":{"task":"\u00e9","n":-1.5e3}})";
  for (int i = 0; i < 20'000; ++i) {
    std::string line = good;
    for (auto n = random() % 4 + 1; n > 0; --n) line[random() % line.size()] = static_cast<char>(random());
    if (random() % 4 == 0) line.resize(random() % line.size());
    const auto request = parse(line);
    if (request) continue;
    const std::string answer = error_line(request.error().id, request.error().error);
    ASSERT_EQ(answer.find('\n'), answer.size() - 1);
    ASSERT_TRUE(Json::accept(answer)) << answer;
  }
}

TEST(Protocol, AnErrorHasTheShapeOfThePage) {
  const RpcError error = refuse({{"duplicate_vlan", "/vlan", "VLAN 101 is taken"}, {"quota", "/groups", "too many"}});
  EXPECT_EQ(Json::parse(error_line(3, error)), Json::parse(R"({"jsonrpc":"2.0","id":3,"error":{"code":-32010,
      "message":"VLAN 101 is taken","data":{"name":"duplicate_vlan","pointer":"/vlan","problems":[
      {"name":"duplicate_vlan","pointer":"/vlan","message":"VLAN 101 is taken"},
      {"name":"quota","pointer":"/groups","message":"too many"}]}}})"));
}

TEST(Protocol, AnErrorWithoutAListIsItsOwnProblem) {
  const Json answer = Json::parse(error_line(nullptr, {"not_found", "no such task", "/task", {}}));
  EXPECT_TRUE(answer["id"].is_null());
  EXPECT_EQ(answer["error"]["code"], -32004);
  EXPECT_EQ(answer["error"]["data"]["problems"],
            Json::parse(R"([{"name":"not_found","pointer":"/task","message":"no such task"}])"));
}

TEST(Protocol, ARefusalWithoutAReasonIsADefect) {
  EXPECT_EQ(refuse({}).name, "internal");
  EXPECT_FALSE(refuse({}).message.empty());
}

TEST(Protocol, LinesAreLinesWhateverIsInThem) {
  const std::string nasty = "a\nb\r\"\\\xff\x01";
  for (const std::string& line : {result_line(nasty, {{"x", nasty}}), error_line(1, {"limit", nasty, nasty, {}}),
                                  notification_line("hello", {{nasty, 1}})}) {
    EXPECT_EQ(line.find('\n'), line.size() - 1) << line;
    EXPECT_TRUE(Json::accept(line)) << line;
  }
  EXPECT_EQ(Json::parse(result_line("i", {{"x", 1}})), Json::parse(R"({"jsonrpc":"2.0","id":"i","result":{"x":1}})"));
  EXPECT_EQ(Json::parse(notification_line("hello", Json::object())),
            Json::parse(R"({"jsonrpc":"2.0","method":"hello","params":{}})"));
}

}  // namespace
}  // namespace trunkline::control
