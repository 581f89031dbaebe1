// SPDX-License-Identifier: BSD-3-Clause
#include "config/flow_log_config.h"

#include <algorithm>

#include "config/state_json.h"
#include "config/take.h"
#include "config/validate.h"

namespace trunkline::config {
namespace {

constexpr std::size_t kMaxPrefix = 512;

bool is_word(std::string_view text, std::string_view others) {
  return std::ranges::all_of(text, [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || others.find(c) != std::string_view::npos;
  });
}

void complain_of(ObjectReader& reader, std::string_view key, const std::string& value, const std::string& wanted) {
  reader.complain(key, "invalid_params", words::in_quotes(key) + " is " + words::in_quotes(value) + "; wanted " + wanted);
}

// A name of AWS's such as "us-west-2" or "usw2-az1".
void take_place(ObjectReader& reader, std::string_view key, std::string_view example, std::string& into) {
  const auto value = reader.text(key);
  if (!value) return;
  const bool good = !value->empty() && value->size() <= 32 &&
                    std::ranges::all_of(*value, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-'; });
  if (!good) return complain_of(reader, key, *value, "1 to 32 lower-case letters, digits and dashes, such as " + words::in_quotes(example));
  into = *value;
}

void take_id(ObjectReader& reader, std::string_view key, std::string_view kind, std::string& into) {
  const auto value = reader.text(key);
  if (!value) return;
  if (!is_resource_id(kind, *value)) {
    return complain_of(reader, key, *value, "an id that begins with " + words::in_quotes(std::string(kind) + "-"));
  }
  into = *value;
}

// Part of a path on this host, so nothing in it may lead elsewhere.
bool is_prefix(std::string_view prefix) {
  if (prefix.empty()) return true;
  if (prefix.size() > kMaxPrefix || !is_word(prefix, "/_=.-") || prefix.find("AWSLogs") != std::string_view::npos) return false;
  for (std::size_t from = 0; from <= prefix.size();) {
    const std::size_t end = std::min(prefix.find('/', from), prefix.size());
    const std::string_view folder = prefix.substr(from, end - from);
    if (folder.empty() || folder == "." || folder == "..") return false;
    from = end + 1;
  }
  return true;
}

void read_destination(ObjectReader& reader, FlowLog::Destination& destination) {
  const std::string type = reader.required_text("type");
  destination.type = type == "stream" ? FlowLog::Destination::Type::stream : FlowLog::Destination::Type::s3;
  if (!type.empty() && type != "s3" && type != "stream") complain_of(reader, "type", type, R"("s3" or "stream")");
  if (!reader.has("path")) {
    reader.missing("path", type == "stream" ? "the file or FIFO that lines are appended to" : "the folder that stands for the bucket");
  }
  take_name(reader, "path", destination.path);
  if (!destination.path.empty() && destination.path[0] != '/') {
    complain_of(reader, "path", destination.path, "an absolute path: the engine's own folder is nobody's business");
  }
  if (type == "stream") return;  // what follows is unknown there
  if (const auto prefix = reader.text("prefix")) {
    destination.prefix = *prefix;
    if (!is_prefix(*prefix)) {
      complain_of(reader, "prefix", *prefix, "names of letters, digits, '_', '=', '.' and '-' with a '/' between two, without \"AWSLogs\", at most " +
                                                 std::to_string(kMaxPrefix) + " bytes");
    }
  }
  take_boolean(reader, "hive_compatible_partitions", destination.hive_compatible_partitions);
  take_boolean(reader, "per_hour_partition", destination.per_hour_partition);
}

void take_resources(ObjectReader& reader, std::string_view key, std::string_view kind, std::vector<std::string>& into) {
  into = read_ids(reader, key, kind);
  if (into.size() <= kMaxFlowLogResources) return;
  reader.complain(key, "invalid_params",
                  words::in_quotes(key) + " has " + std::to_string(into.size()) + " entries; wanted at most " + std::to_string(kMaxFlowLogResources));
}

void read_flow_log(ObjectReader& reader, FlowLog& log) {
  if (!reader.has("id")) reader.missing("id", "the flow log's id, \"fl-...\", which the names of its files contain");
  take_id(reader, "id", "fl", log.id);
  if (const auto traffic = reader.text("traffic_type")) {
    if (*traffic == "ACCEPT" || *traffic == "REJECT") {
      log.traffic_type = *traffic == "ACCEPT" ? FlowLogTraffic::accept : FlowLogTraffic::reject;
    } else if (*traffic != "ALL") {
      complain_of(reader, "traffic_type", *traffic, R"("ACCEPT", "REJECT" or "ALL")");
    }
  }
  if (const auto interval = reader.integer("max_aggregation_interval", 60, 600)) {
    log.max_aggregation_interval_s = static_cast<std::uint32_t>(*interval);
    if (*interval != 60 && *interval != 600) {
      reader.complain("max_aggregation_interval", "invalid_params",
                      "\"max_aggregation_interval\" is " + std::to_string(*interval) + "; wanted 60 or 600 seconds");
    }
  }
  const std::string text = reader.text("log_format").value_or(std::string(kDefaultFlowLogFormat));
  if (auto format = parse_flow_log_format(text)) {
    log.format = std::move(*format);
  } else {
    reader.complain("log_format", "invalid_params", "\"log_format\": " + format.error());
  }
  if (const Json* destination = reader.object("destination")) {
    ObjectReader each(*destination, reader.pointer_to("destination"), reader.problems());
    each.refuse_null();
    read_destination(each, log.destination);
    each.finish();
  } else if (!reader.has("destination")) {
    reader.missing("destination", R"(an object with "type" and "path")");
  }
  take_resources(reader, "eni_ids", "eni", log.eni_ids);
  take_resources(reader, "subnet_ids", "subnet", log.subnet_ids);
  take_resources(reader, "vpc_ids", "vpc", log.vpc_ids);
  take_integer(reader, "max_flows", 1, kMaxFlows, log.max_flows);
  take_integer(reader, "outside_traffic_path", 1, 8, log.outside_traffic_path);
}

}  // namespace

void read_identity(ObjectReader& reader, Identity& identity) {
  if (const auto account = reader.text("account_id")) {
    identity.account_id = *account;
    const bool digits = std::ranges::all_of(*account, [](char c) { return c >= '0' && c <= '9'; });
    if (!digits || account->size() != 12) complain_of(reader, "account_id", *account, "12 digits");
  }
  take_place(reader, "region", "us-west-2", identity.region);
  take_place(reader, "az_id", "usw2-az1", identity.az_id);
  take_id(reader, "instance_id", "i", identity.instance_id);
  take_id(reader, "vpc_id", "vpc", identity.vpc_id);
}

std::vector<FlowLog> read_flow_logs(const Json& list, const std::string& pointer, Problems& problems) {
  std::vector<FlowLog> logs;
  if (list.size() > kMaxFlowLogs) {
    add_problem(problems, {"invalid_params", pointer,
                           "\"flow_logs\" has " + std::to_string(list.size()) + " entries; wanted at most " + std::to_string(kMaxFlowLogs)});
    return logs;
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    ObjectReader reader(list[i], pointer_to(pointer, i), problems);
    reader.refuse_null();
    read_flow_log(reader, logs.emplace_back());
    reader.finish();
  }
  return logs;
}

void check_flow_logs(const std::vector<FlowLog>& logs, const Identity& identity, Problems& problems) {
  const auto complain = [&](std::size_t i, const std::string& member, const std::string& message) {
    add_problem(problems, {"invalid_params", "/flow_logs/" + std::to_string(i) + member, message});
  };
  for (std::size_t i = 0; i < logs.size(); ++i) {
    const bool is_s3 = logs[i].destination.type == FlowLog::Destination::Type::s3;
    if (is_s3 && (identity.account_id.empty() || identity.region.empty())) {
      complain(i, "/destination/type", "the keys of \"s3\" contain the account and the region; say both in \"identity\" (account_id, region)");
    }
    for (std::size_t before = 0; before < i; ++before) {
      if (logs[before].id == logs[i].id) complain(i, "/id", words::in_quotes(logs[i].id) + " is there twice; give each flow log an id of its own");
      if (!is_s3 && logs[before].destination.path == logs[i].destination.path) {
        complain(i, "/destination/path", "flow log " + logs[before].id + " writes to " + words::in_quotes(logs[i].destination.path) +
                                             " as well; give each stream a path of its own");
      }
    }
  }
}

}  // namespace trunkline::config
