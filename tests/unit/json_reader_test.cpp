// SPDX-License-Identifier: BSD-3-Clause
//
// Reading JSON that nobody vouches for: everything refused has a refusal that can be read, and nothing is let through
// changed.
#include "config/json_reader.h"

#include <gtest/gtest.h>

#include <random>

namespace trunkline::config {
namespace {

Problem refusal(std::string_view text, const JsonLimits& limits = {}) {
  const auto result = parse_json(text, limits);
  EXPECT_FALSE(result) << text.substr(0, 80) << " was read as " << result->dump();
  return result ? Problem{} : result.error();
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(ParseJson, ReadsEveryKindOfValue) {
  const auto document = parse_json(R"({"a":[1,-2,2.5,true,null,"x\u00e9"],"b":{"c":{}}})");
  ASSERT_TRUE(document);
  EXPECT_EQ(document->dump(), R"({"a":[1,-2,2.5,true,null,"xé"],"b":{"c":{}}})");
  EXPECT_TRUE(parse_json("7"));
}

TEST(ParseJson, SyntaxErrorsSayWhereAndWhat) {
  const Problem problem = refusal("{\"a\":1,\n \"b\" 2}");
  EXPECT_EQ(problem.name, "parse_error");
  EXPECT_EQ(problem.pointer, "");
  EXPECT_TRUE(has(problem.message, "line 2, column 6")) << problem.message;
  EXPECT_TRUE(has(problem.message, "expected ':'")) << problem.message;
  EXPECT_FALSE(has(problem.message, "json.exception")) << problem.message;
}

TEST(ParseJson, RefusesWhatIsNotJson) {
  for (const char* text : {"",          "{",     "[1,]",     "{\"a\":1,}", "{a:1}",       "'a'",    "NaN",   "Infinity",
                           "-Infinity", "[01]",  "+1",       ".5",         "1.",          "0x10",   "1e999", "-1e999",
                           "tru",       "{} {}", "\"a\nb\"", "\"\\x\"",    "\"\\ud800\"", "// c\n1"}) {
    const Problem problem = refusal(text);
    EXPECT_EQ(problem.name, "parse_error") << text;
    EXPECT_TRUE(has(problem.message, "line ")) << problem.message;
  }
}

TEST(ParseJson, RefusesInvalidUtf8AndZeroBytes) {
  for (const std::string_view text :
       {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xe2\x82\"", "\xff", "{\"\x80\":1}"}) {
    EXPECT_EQ(refusal(text).name, "parse_error");
  }
  EXPECT_TRUE(has(refusal(std::string_view("{}\0{", 4)).message, "zero byte"));
}

TEST(ParseJson, RefusesAKeyThatIsThereTwice) {
  const Problem problem = refusal(R"({"a":{"b/c":[{},{"x":1,"y":2,"x":3}]}})");
  EXPECT_EQ(problem.name, "parse_error");
  EXPECT_TRUE(has(problem.message, "\"x\"") && has(problem.message, "/a/b~1c/1/x")) << problem.message;
  EXPECT_TRUE(parse_json(R"([{"x":1},{"x":1}])"));
  EXPECT_FALSE(parse_json("{\"x\":1,\"\\u0078\":2}")) << "the same key in another spelling";
}

TEST(ParseJson, HasLimits) {
  EXPECT_TRUE(parse_json("[[[]]]", {.max_depth = 3}));
  EXPECT_EQ(refusal("[[[[]]]]", {.max_depth = 3}).name, "limit");
  EXPECT_EQ(refusal("{\"a\":{\"a\":{\"a\":{}}}}", {.max_depth = 3}).name, "limit");
  EXPECT_TRUE(parse_json("[1,2]", {.max_bytes = 5}));
  EXPECT_EQ(refusal("[1,2] ", {.max_bytes = 5}).name, "limit");
  EXPECT_EQ(refusal(std::string(100000, '[')).name, "limit");
  EXPECT_EQ(refusal(std::string(100000, '['), {.max_depth = 200000}).name, "parse_error")
      << "without a limit the stack holds too";
}

TEST(ParseJson, HasCommentsWhereTheyAreAllowed) {
  EXPECT_TRUE(parse_json("// c\n{/* d */}", {.comments = true}));
  EXPECT_FALSE(parse_json("{/* d */}"));
}

TEST(ParseJson, AnyBytesAtAllGetAnAnswerThatIsUtf8) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  static constexpr char kBytes[] = "{}[]\",:0123e-+.tfnu\\/ \n\xff\xc3\xa9\0xy";
  constexpr std::string_view alphabet(kBytes, sizeof kBytes - 1);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (std::size_t left = random() % 24; left > 0; --left) text += alphabet[random() % alphabet.size()];
    const auto result = parse_json(text, {.comments = round % 2 == 0});
    if (!result) {
      ASSERT_FALSE(result.error().message.empty());
      ASSERT_NO_THROW(Json(result.error().message).dump());
    } else {
      ASSERT_EQ(parse_json(result->dump()), *result);
    }
  }
}

TEST(PointerTo, EscapesWhatAPointerCannotHold) {
  EXPECT_EQ(pointer_to("/a", "b/c~d"), "/a/b~1c~0d");
  EXPECT_EQ(pointer_to("", 3), "/3");
}

class Reading : public testing::Test {
 protected:
  ObjectReader reader(const char* text) {
    document_ = *parse_json(text);
    return ObjectReader(document_, "/here", problems_);
  }
  std::string only_message() {
    return problems_.size() == 1 ? problems_[0].message : std::to_string(problems_.size()) + " problems";
  }
  Json document_;
  Problems problems_;
};

TEST_F(Reading, TakesWhatIsThere) {
  auto object = reader(
      R"({"t":"x","b":true,"i":5,"n":2.5,"m":"0a:00:00:00:00:01","a":"10.0.0.1","p":"10.0.0.1/8","l":["a"],"as":["::1"],"o":{},"w":["10.0.0.1/8"]})");
  EXPECT_EQ(object.text("t"), "x");
  EXPECT_EQ(object.boolean("b"), true);
  EXPECT_EQ(object.integer("i", 5, 5), 5);
  EXPECT_EQ(object.number("n", 0, 3), 2.5);
  EXPECT_EQ(object.mac("m")->to_string(), "0a:00:00:00:00:01");
  EXPECT_EQ(object.address("a")->to_string(), "10.0.0.1");
  EXPECT_EQ(object.prefix("p")->to_string(), "10.0.0.1/8");
  EXPECT_EQ(object.network("p")->to_string(), "10.0.0.0/8");
  EXPECT_EQ(object.networks("w").at(0).to_string(), "10.0.0.0/8");
  EXPECT_EQ(object.texts("l").size() + object.addresses("as").size(), 2U);
  EXPECT_NE(object.object("o"), nullptr);
  EXPECT_NE(object.array("l"), nullptr);
  EXPECT_EQ(object.required_text("t"), "x");
  object.finish();
  EXPECT_TRUE(problems_.empty()) << problems_[0].message;
}

TEST_F(Reading, EveryTakeRefusesTheWrongType) {
  for (const char* value : {"5", "\"x\"", "[5]", "{}", "true"}) {
    auto object = reader((std::string("{\"k\":") + value + "}").c_str());
    const Json& k = document_["k"];
    const std::size_t taken = static_cast<std::size_t>(object.text("k").has_value()) + object.boolean("k").has_value() +
                              object.integer("k", 0, 9).has_value() + (object.object("k") != nullptr) +
                              (object.array("k") != nullptr);
    EXPECT_EQ(taken, 1U) << k;
    EXPECT_EQ(problems_.size(), 4U) << k;
    EXPECT_FALSE(object.mac("k") || object.address("k") || object.prefix("k"));
    problems_.clear();
  }
}

TEST_F(Reading, NumbersAreNeverWrapped) {
  auto object = reader(
      R"({"a":9223372036854775807,"b":9223372036854775808,"c":18446744073709551616,"d":-9223372036854775809,"e":5.0,"f":5.5})");
  constexpr auto least = std::numeric_limits<std::int64_t>::min(), most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(object.integer("a", least, most), most);
  EXPECT_EQ(object.integer("e", 0, 9), 5) << "as in JSON Schema, 5.0 is a whole number";
  EXPECT_TRUE(problems_.empty());
  for (const char* key : {"b", "c", "d", "f"}) EXPECT_FALSE(object.integer(key, least, most)) << key;
  EXPECT_EQ(problems_.size(), 4U);
}

TEST_F(Reading, SaysWhatWasFoundAndWhatIsWanted) {
  EXPECT_FALSE(reader(R"({"mtu":12})").integer("mtu", 68, 9216));
  EXPECT_EQ(problems_,
            (Problems{{"invalid_params", "/here/mtu", "\"mtu\" is 12; wanted a whole number from 68 to 9216"}}));
}

TEST_F(Reading, UnknownKeysGetTheNearestSpelling) {
  auto object = reader(R"({"vlna":1})");
  object.integer("vlan", 1, 4094);
  object.text("mac");
  object.finish();
  EXPECT_EQ(only_message(), "unknown key \"vlna\"; did you mean \"vlan\"?");
  problems_.clear();
  auto other = reader(R"({"completely_else":1})");
  other.ignore("vlan");
  other.finish();
  EXPECT_EQ(only_message(), "unknown key \"completely_else\"; known here: vlan");
  problems_.clear();
  auto lenient = reader(R"({"vlna":1})");
  lenient.allow_unknown();
  lenient.finish();
  EXPECT_TRUE(problems_.empty());
}

TEST_F(Reading, NullIsAbsentUnlessRefused) {
  auto object = reader(R"({"a":null})");
  EXPECT_FALSE(object.has("a") || object.text("a"));
  EXPECT_TRUE(problems_.empty());
  object.refuse_null();
  EXPECT_FALSE(object.text("a"));
  EXPECT_EQ(only_message(), "\"a\" is null; wanted a string");
}

TEST_F(Reading, RequiredTextIsThereAndNotEmpty) {
  auto object = reader(R"({"e":""})");
  EXPECT_EQ(object.required_text("e"), "");
  EXPECT_EQ(object.required_text("gone"), "");
  ASSERT_EQ(problems_.size(), 2U);
  EXPECT_EQ(problems_[1].pointer, "/here/gone");
}

TEST_F(Reading, AValueThatIsNoObjectIsOneProblem) {
  auto object = reader("[1]");
  object.text("a");
  object.required_text("b");
  object.finish();
  EXPECT_EQ(only_message(), "found a list here; wanted an object");
}

TEST_F(Reading, AMillionMistakesAreNotAllListed) {
  document_ = Json::object();
  document_["l"] = Json(std::vector<int>(100000, 1));
  ObjectReader object(document_, "", problems_);
  object.texts("l");
  EXPECT_EQ(problems_.size(), kMaxProblems + 1);
  EXPECT_TRUE(has(problems_.back().message, "more problems"));
}

TEST_F(Reading, LongValuesAreCutShort) {
  document_ = Json{{"k", std::string(100000, 'x') + "\xff"}};
  ObjectReader object(document_, "", problems_);
  EXPECT_FALSE(object.mac("k"));
  EXPECT_LT(only_message().size(), 300U);
}

}  // namespace
}  // namespace trunkline::config
