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
#include <pcap/pcap.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <sstream>

#include "control/base64.h"
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

int explain_file(Session& s) {
  if (!s.in.operands.empty()) throw UsageError("`explain` takes words for a packet or --pcap, not both");
  char error[PCAP_ERRBUF_SIZE] = {};
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> file(pcap_open_offline(s.in.value("pcap").c_str(), error), pcap_close);
  if (file == nullptr) throw UsageError("cannot read " + s.in.value("pcap") + ": " + error);
  if (pcap_datalink(file.get()) != DLT_EN10MB) throw UsageError(s.in.value("pcap") + " has no Ethernet frames; capture on the interface, not on \"any\"");
  const long long most = s.in.has("count") ? integer_option(s.in, "count") : 100;
  const std::string from = s.in.has("from") ? s.in.value("from") : "trunk";
  Client client(s.in.socket_path(), s.in.timeout());
  int worst = kDone;
  pcap_pkthdr* header = nullptr;
  const u_char* bytes = nullptr;
  long long number = 0;
  for (int got = 0; number < most && (got = pcap_next_ex(file.get(), &header, &bytes)) != PCAP_ERROR_BREAK;) {
    if (got < 0) throw UsageError(s.in.value("pcap") + ": " + pcap_geterr(file.get()));
    ++number;
    // What the capture cut off is filled up: the stages look at lengths.
    std::vector<std::uint8_t> frame(bytes, bytes + header->caplen);
    frame.resize(header->len);
    if (s.in.output() == "table") std::cout << "packet " << number << ": ";
    client.extend(s.in.timeout());
    worst = std::max(worst, explain_one(s, client, {{"from", from}, {"frame", to_base64(frame)}}));
  }
  return worst;
}

}  // namespace

int explain(Session& s) {
  if (s.in.has("pcap")) return explain_file(s);
  const Json params = packet_of_words(s.in);
  Client client(s.in.socket_path(), s.in.timeout());
  return explain_one(s, client, params);
}

}  // namespace trunkline::control
