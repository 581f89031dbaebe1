// SPDX-License-Identifier: BSD-3-Clause
//
// `trunkctl explain`: a packet in words, or the packets of a capture file, as questions to the engine. The words:
//
//     explain tcp from 198.51.100.9:4000 to 10.0.0.35:80
//     explain --from web --to 198.51.100.9 tcp 443
//     explain icmp from 198.51.100.9 to web type 8
//
// An end is an address, with or without a port, or a task; `from trunk` says that it comes from outside whatever its source is.
#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>

#include "control/base64.h"
#include "control/ctl/capture_file.h"
#include "control/ctl_session.h"

namespace trunkline::control {
namespace {

bool is_address(const std::string& text) {
  unsigned char bytes[16];
  return ::inet_pton(AF_INET, text.c_str(), bytes) == 1 || ::inet_pton(AF_INET6, text.c_str(), bytes) == 1;
}

// "10.0.0.35", "10.0.0.35:80", "[2001:db8::1]:80", or a task. `sender`: which end it is of.
void put_end(Json& params, const std::string& typed, bool sender) {
  const char* address_member = sender ? "source" : "destination";
  const char* port_member = sender ? "source_port" : "destination_port";
  std::string host = typed, port;
  if (!is_address(host)) {
    const std::size_t colon = typed.rfind(':');
    if (colon != std::string::npos) host = typed.substr(0, colon), port = typed.substr(colon + 1);
    if (host.size() > 2 && host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  }
  if (is_address(host)) {
    params[address_member] = host;
    if (!port.empty()) params[port_member] = whole_number(port, "the port of " + typed);
  } else {
    params[sender ? "from" : "to"] = typed;
  }
}

Json packet_of_words(const Invocation& in) {
  Json params = Json::object();
  if (in.has("from")) put_end(params, in.value("from"), true);
  if (in.has("to")) put_end(params, in.value("to"), false);
  std::vector<std::string> words;
  for (const std::string& operand : in.operands) {
    std::istringstream stream(operand);
    for (std::string word; stream >> word;) words.push_back(word);
  }
  static constexpr std::pair<const char*, const char*> kNumbers[] = {{"port", "destination_port"}, {"type", "icmp_type"}, {"code", "icmp_code"},
                                                                      {"id", "icmp_identifier"},    {"octets", "octets"}};
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto number = std::ranges::find_if(kNumbers, [&](const auto& each) { return word == each.first; });
    if (word == "from" || word == "to" || word == "flags" || number != std::end(kNumbers)) {
      if (++i == words.size()) throw UsageError("`explain`: \"" + word + "\" is followed by nothing");
      if (word == "flags") {
        params["tcp_flags"] = words[i];
      } else if (number != std::end(kNumbers)) {
        params[number->second] = whole_number(words[i], "what follows \"" + word + "\"");
      } else {
        put_end(params, words[i], word == "from");
      }
    } else if (!params.contains("protocol")) {
      params["protocol"] = word;
    } else if (!word.empty() && std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; })) {
      params["destination_port"] = whole_number(word, "the port");
    } else {
      throw UsageError("`explain` does not understand \"" + word + "\"; say it like: tcp from 198.51.100.9:4000 to 10.0.0.35:80");
    }
  }
  if (params.empty()) throw UsageError("`explain` wants a packet, like: tcp from 198.51.100.9:4000 to 10.0.0.35:80; or --pcap FILE");
  return params;
}

int explain_one(Session& s, Client& client, const Json& params) {
  const Json result = client.call("explain", params);
  s.show(result, print_explanation, nullptr);
  return result.value("delivered", Json(false)) == true ? kDone : kRefused;
}

// The largest frame that the engine explains, by the protocol page.
constexpr std::size_t kMostFrame = 60000;

// One packet of a file, as a question; or why there is none, in a few words by which such packets are counted, and in full.
struct FileQuestion {
  std::vector<std::uint8_t> frame;
  std::string note;
  std::string skipped, why;
  bool is_cut = false;
};

FileQuestion question_of(const CaptureRecord& record) {
  FileQuestion question;
  const std::string bytes = std::to_string(record.captured_bytes) + " bytes";
  if (!record.unusable.empty()) {
    question.skipped = "not whole, or not Ethernet", question.why = record.unusable;
  } else if (record.captured_bytes == 0) {
    question.skipped = question.why = "empty";
  } else if (record.captured_bytes > kMostFrame) {
    question.skipped = "larger than " + std::to_string(kMostFrame) + " bytes";
    question.why = bytes + "; a frame of at most " + std::to_string(kMostFrame) + " can be explained";
  } else {
    question.frame = record.bytes;
    if (record.frame_bytes > kMostFrame) {
      question.note = "the file says " + std::to_string(record.frame_bytes) + " bytes, and is believed as far as it has them: " + bytes;
    } else if (record.frame_bytes > record.captured_bytes) {
      // The stages look at lengths, and at no byte behind the headers.
      question.frame.resize(record.frame_bytes);
      question.note = "cut by the capture after " + bytes + ", filled up with zeroes";
      question.is_cut = true;
    }
  }
  return question;
}

// What became of a file's packets, for the last line and the exit code.
class FileTally {
 public:
  void explained(bool delivered) { ++(delivered ? delivered_ : refused_); }
  void skipped(const std::string& why) { ++skipped_[why]; }
  bool all_delivered() const { return refused_ == 0 && skipped_.empty(); }

  std::string text() const {
    std::uint64_t skipped = 0;
    std::string reasons;
    for (const auto& [why, count] : skipped_) {
      skipped += count;
      reasons += (reasons.empty() ? "" : ", ") + std::to_string(count) + " " + why;
    }
    const std::uint64_t explained = delivered_ + refused_;
    std::string line = std::to_string(explained) + " packet(s) explained (" + std::to_string(delivered_) + " would be delivered, " + std::to_string(refused_) +
                       " would not), " + std::to_string(skipped) + " skipped";
    return reasons.empty() ? line : line + ": " + reasons;
  }

 private:
  std::uint64_t delivered_ = 0, refused_ = 0;
  std::map<std::string, std::uint64_t> skipped_;
};

// About one packet and not about the question as such: the next one may have an answer. By the name of the error, with which a
// refusal begins (ctl_client.h).
bool is_about_one_packet(const Failure& failure) {
  const std::string_view said = failure.what();
  return failure.exit_code() == kRefused && std::ranges::any_of(std::array{"invalid_params", "internal", "worker_silent"}, [&](std::string_view name) {
    return said.starts_with("refused (" + std::string(name) + ")");
  });
}

bool is_refused_by_parse(const Json& answer) {
  const Json halves = answer.value("halves", Json::array());
  return halves.is_array() && !halves.empty() && halves.front().value("refused_by", Json(nullptr)) == "parse";
}

std::string print_skipped(const Json& packet, const Style&) { return "not explained: " + packet.at("skipped").get<std::string>() + "\n\n"; }

int explain_file(Session& s) {
  if (!s.in.operands.empty()) throw UsageError("`explain` takes words for a packet or --pcap, not both");
  auto file = CaptureFile::open(s.in.value("pcap"));
  if (!file) throw UsageError(file.error());
  const long long most = s.in.has("count") ? integer_option(s.in, "count") : std::numeric_limits<long long>::max();
  if (most < 1) throw UsageError("--count is " + std::to_string(most) + "; wanted 1 or more");
  const std::string from = s.in.has("from") ? s.in.value("from") : "trunk";
  const bool table = s.in.output() == "table";
  Client client(s.in.socket_path(), s.in.timeout());
  FileTally tally;
  long long number = 0;
  const auto skip = [&](const std::string& kind, const std::string& why) {
    tally.skipped(kind);
    s.show(Json{{"packet", number}, {"skipped", why}}, print_skipped, nullptr);
  };
  const auto tell_end = [&] {
    s.say(tally.text() + (file->trouble().empty() ? "" : "; " + file->trouble()));
  };
  while (number < most) {
    const auto record = file->next();
    if (!record) break;
    ++number;
    if (table) std::cout << "packet " << number << ": ";
    const FileQuestion question = question_of(*record);
    if (!question.skipped.empty()) {
      skip(question.skipped, question.why);
      continue;
    }
    if (table && !question.note.empty()) std::cout << "(" << question.note << ") ";
    client.extend(s.in.timeout());
    try {
      Json answer{{"packet", number}};
      if (!question.note.empty()) answer["note"] = question.note;
      answer.update(client.call("explain", {{"from", from}, {"frame", to_base64(question.frame)}}));
      // What is missing of a header is what the packet was refused for.
      if (question.is_cut && is_refused_by_parse(answer)) {
        skip("cut within their headers", "cut by the capture after " + std::to_string(record->captured_bytes) +
                                             " bytes, within its headers; capture with a larger snapshot length");
        continue;
      }
      const bool delivered = answer.value("delivered", Json(false)) == true;
      tally.explained(delivered);
      s.show(answer, print_explanation, nullptr);
    } catch (const Failure& failure) {
      if (!is_about_one_packet(failure)) {
        if (table) std::cout << "no answer" << std::endl;
        tell_end();
        throw;
      }
      skip("without an answer of the engine", failure.what());
    }
  }
  tell_end();
  return tally.all_delivered() && file->trouble().empty() ? kDone : kRefused;
}

}  // namespace

int explain(Session& s) {
  if (s.in.has("pcap")) return explain_file(s);
  const Json params = packet_of_words(s.in);
  Client client(s.in.socket_path(), s.in.timeout());
  return explain_one(s, client, params);
}

}  // namespace trunkline::control
