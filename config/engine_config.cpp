// SPDX-License-Identifier: BSD-3-Clause
//
// One function for each object of the file, in the order of EngineConfig. Ranges are those in which the engine was
// thought through; config/schema/engine-config.schema.json says the same numbers.
#include "config/engine_config.h"

#include <algorithm>

#include "config/json_reader.h"
#include "config/state_json.h"
#include "config/take.h"
#include "config/validate.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

constexpr std::int64_t kMaxLcore = 127;       // RTE_MAX_LCORE is 128
constexpr std::int64_t kMaxUid = 4294967294;  // the one above it means "no user"
constexpr std::int64_t kMaxTimeout = 432000;  // five days, AWS's longest

template <typename Enum>
void take_mode(ObjectReader& reader, const char* key, std::string_view first, Enum first_value, std::string_view second,
               Enum second_value, Enum& into) {
  const auto text = reader.text(key);
  if (!text) return;
  if (*text == first) {
    into = first_value;
  } else if (*text == second) {
    into = second_value;
  } else {
    reader.complain(key, "invalid_params",
                    words::in_quotes(key) + " is " + words::in_quotes(*text) + "; wanted " + words::in_quotes(first) + " or " +
                        words::in_quotes(second));
  }
}

void read_trunk(ObjectReader& reader, EngineConfig::Trunk& trunk) {
  if (!reader.has("device"))
    reader.missing("device", "the trunk's PCI address such as \"0000:00:06.0\", or a DPDK device string");
  take_name(reader, "device", trunk.device);
  if (const std::string why = trunk.device.empty() ? "" : why_not_device(trunk.device, DeviceUse::trunk); !why.empty()) {
    reader.complain("device", "invalid_params", "\"device\" is " + words::in_quotes(trunk.device) + ", which " + why);
  }
  take_mode(reader, "mode", "tagged", TrunkMode::tagged, "untagged", TrunkMode::untagged, trunk.mode);
  take_integer(reader, "mtu", kMinPortMtu, kMaxPortMtu, trunk.mtu);
  take_integer(reader, "queues", 0, kMaxWorkers, trunk.queues);
  take_boolean(reader, "offloads", trunk.offloads);
  take_mode(reader, "steering", "auto", true, "off", false, trunk.steering);
  trunk.mac = reader.mac("mac");
  if (trunk.mac) check_mac(*trunk.mac, reader.pointer_to("mac"), reader.problems());
}

void read_eal(ObjectReader& reader, EngineConfig::Eal& eal) {
  take_integer(reader, "main_lcore", 0, kMaxLcore, eal.main_lcore);
  bool lcores_given = false;
  if (const Json* list = reader.array("worker_lcores")) {
    lcores_given = true;
    eal.worker_lcores.clear();
    if (list->empty() || list->size() > kMaxWorkers) {
      reader.complain("worker_lcores", "invalid_params",
                      "\"worker_lcores\" has " + std::to_string(list->size()) + " entries; wanted 1 to " +
                          std::to_string(kMaxWorkers) + " lcores, a worker for each");
    }
    for (std::size_t i = 0; i < list->size(); ++i) {
      // A one-member object lends the reader's own judgement of numbers to a list.
      Problems unused;
      const Json wrapped{{"lcore", (*list)[i]}};
      const auto lcore = ObjectReader(wrapped, "", unused).integer("lcore", 0, kMaxLcore);
      if (!lcore) {
        reader.complain_at("worker_lcores", i, (*list)[i], "a whole number from 0 to " + std::to_string(kMaxLcore));
      } else if (std::ranges::find(eal.worker_lcores, *lcore) != eal.worker_lcores.end()) {
        reader.complain_at("worker_lcores", i, (*list)[i], "an lcore that is not in the list before: each worker has its own");
      } else {
        eal.worker_lcores.push_back(static_cast<std::uint16_t>(*lcore));
      }
    }
  }
  if (std::find(eal.worker_lcores.begin(), eal.worker_lcores.end(), eal.main_lcore) != eal.worker_lcores.end()) {
    reader.complain(lcores_given ? "worker_lcores" : "main_lcore", "invalid_params",
                    "lcore " + std::to_string(eal.main_lcore) +
                        " is both the main lcore and a worker's; a worker never yields, so give it its own");
  }
  take_integer(reader, "memory_mb", 64, 1 << 20, eal.memory_mb);
  take_name(reader, "file_prefix", eal.file_prefix, 1, 64);
  if (eal.file_prefix.find('/') != std::string::npos) {
    reader.complain("file_prefix", "invalid_params", "\"file_prefix\" has a '/'; wanted the beginning of a file name");
  }
  take_boolean(reader, "hugepages", eal.hugepages);
  eal.extra_args = reader.texts("extra_args");
}

void read_buffers(ObjectReader& reader, EngineConfig::Buffers& buffers) {
  take_integer(reader, "count", 1024, 4 << 20, buffers.count);
  take_integer(reader, "data_room_bytes", 512, 16384, buffers.data_room_bytes);
  take_integer(reader, "rx_descriptors", 64, 16384, buffers.rx_descriptors);
  take_integer(reader, "tx_descriptors", 64, 16384, buffers.tx_descriptors);
}

bool is_domain_name(std::string_view text) {
  const auto is_letter_or_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto may_stand = [&](char c) { return is_letter_or_digit(c) || c == '-' || c == '.'; };
  return !text.empty() && text.size() <= kMaxDhcpDomain && is_letter_or_digit(text.front()) && is_letter_or_digit(text.back()) &&
         std::ranges::all_of(text, may_stand);
}

void read_dhcp(ObjectReader& reader, EngineConfig::Edge& edge) {
  if (const auto text = reader.text("dhcp")) {
    if (*text == "relay") {
      edge.dhcp = DhcpAnswers::relay;
    } else if (*text == "answer") {
      edge.dhcp = DhcpAnswers::answer;
    } else if (*text == "off") {
      edge.dhcp = DhcpAnswers::off;
    } else {
      reader.complain("dhcp", "invalid_params", "\"dhcp\" is " + words::in_quotes(*text) + R"(; wanted "relay", "answer" or "off")");
    }
  }
  if (const auto text = reader.text("dhcp_domain")) {
    edge.dhcp_domain = *text;
    if (!is_domain_name(*text)) {
      reader.complain("dhcp_domain", "invalid_params",
                      "\"dhcp_domain\" is " + words::in_quotes(*text) + "; wanted a domain name of 1 to " + std::to_string(kMaxDhcpDomain) +
                          " letters, digits, hyphens and dots, such as \"eu-west-1.compute.internal\"");
    }
  }
}

void read_edge(ObjectReader& reader, EngineConfig::Edge& edge) {
  take_mode(reader, "mode", "relay", EdgeMode::relay, "answer", EdgeMode::answer, edge.mode);
  if (const auto mac = reader.mac("router_mac")) {
    edge.router_mac = *mac;
    check_mac(*mac, reader.pointer_to("router_mac"), reader.problems());
  }
  take_boolean(reader, "block_imds", edge.block_imds);
  read_dhcp(reader, edge);
}

void read_limits(ObjectReader& reader, EngineConfig::Limits& limits) {
  take_integer(reader, "endpoints", 1, 1000, limits.endpoints);
  take_integer(reader, "connections", 1024, 64 << 20, limits.connections);
  take_integer(reader, "connections_per_endpoint", 0, 64 << 20, limits.connections_per_endpoint);
  take_integer(reader, "state_replace_removal_percent", 0, 100, limits.state_replace_removal_percent);
  take_name(reader, "connection_file", limits.connection_file, 0);
}

void read_conntrack(ObjectReader& reader, EngineConfig::Conntrack& conntrack) {
  take_integer(reader, "tcp_handshake_timeout_s", 1, kMaxTimeout, conntrack.tcp_handshake_timeout_s);
  take_integer(reader, "tcp_closing_timeout_s", 1, kMaxTimeout, conntrack.tcp_closing_timeout_s);
  take_integer(reader, "tcp_closed_timeout_s", 1, kMaxTimeout, conntrack.tcp_closed_timeout_s);
  take_integer(reader, "icmp_timeout_s", 1, kMaxTimeout, conntrack.icmp_timeout_s);
  take_integer(reader, "other_timeout_s", 1, kMaxTimeout, conntrack.other_timeout_s);
  take_boolean(reader, "icmp_related", conntrack.icmp_related);
  take_boolean(reader, "strict_syn", conntrack.strict_syn);
}

void read_idle(ObjectReader& reader, EngineConfig::Idle& idle) {
  take_integer(reader, "spin_us", 0, 1000000, idle.spin_us);
  take_integer(reader, "sleep_us", 0, 100000, idle.sleep_us);
  take_integer(reader, "block_after_ms", 0, 60000, idle.block_after_ms);
  take_integer(reader, "long_sleep_us", 1, 100000, idle.long_sleep_us);
}

void read_control(ObjectReader& reader, EngineConfig::Control& control) {
  take_name(reader, "socket", control.socket, 1, kMaxSocketPath);
  if (const auto text = reader.text("socket_mode")) {
    const bool octal = std::all_of(text->begin(), text->end(), [](char c) { return c >= '0' && c <= '7'; });
    if (octal && (text->size() == 3 || (text->size() == 4 && (*text)[0] == '0'))) {
      control.socket_mode = 0;
      for (const char c : *text) control.socket_mode = control.socket_mode * 8 + static_cast<std::uint32_t>(c - '0');
    } else {
      reader.complain("socket_mode", "invalid_params",
                      "\"socket_mode\" is " + words::in_quotes(*text) +
                          "; wanted three octal digits with or without a zero before them: \"0660\"");
    }
  }
  control.socket_group = reader.text("socket_group").value_or("");
  if (const Json* list = reader.array("admin_uids")) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      Problems unused;
      const Json wrapped{{"uid", (*list)[i]}};
      const auto uid = ObjectReader(wrapped, "", unused).integer("uid", 0, kMaxUid);
      if (uid) {
        control.admin_uids.push_back(static_cast<std::uint32_t>(*uid));
      } else {
        reader.complain_at("admin_uids", i, (*list)[i],
                           "a user id, a whole number from 0 to " + std::to_string(kMaxUid));
      }
    }
  }
}

// A brace opens one of the three names that are replaced for each task; anything else would reach the file system as it
// is.
void check_template(ObjectReader& reader, std::string_view member, std::string_view text) {
  for (std::size_t at = text.find_first_of("{}"); at != std::string_view::npos; at = text.find_first_of("{}", at)) {
    std::size_t length = 0;
    for (const std::string_view name : {"{task_id}", "{eni}", "{attachment_id}"}) {
      if (text.substr(at).starts_with(name)) length = name.size();
    }
    if (length == 0) {
      add_problem(reader.problems(), {"invalid_params", pointer_to(reader.pointer_to("port"), member),
                                      words::in_quotes(member) + " is " + words::in_quotes(text) +
                                          "; braces may hold {task_id}, {eni} and {attachment_id} only"});
      return;
    }
    at += length;
  }
}

void read_task_defaults(ObjectReader& reader, std::uint16_t trunk_mtu, EngineConfig::TaskDefaults& defaults) {
  defaults.group_ids = read_ids(reader, "groups", "sg");
  if (defaults.group_ids.size() > kMaxGroupsPerInterface) {
    reader.complain("groups", "quota",
                    "\"groups\" has " + std::to_string(defaults.group_ids.size()) + " entries; AWS allows " +
                        std::to_string(kMaxGroupsPerInterface) + " groups on an interface");
  }
  const Json* port = reader.object("port");
  if (port == nullptr) return;
  const std::size_t problems_before = reader.problems().size();
  defaults.port =
      read_port_spec(*port, reader.pointer_to("port"), reader.problems(), std::min(trunk_mtu, PortSpec{}.mtu));
  if (reader.problems().size() == problems_before) check_port(*defaults.port, reader.pointer_to("port"), reader.problems());
  check_template(reader, "netns", defaults.port->netns);
  check_template(reader, "socket", defaults.port->socket);
  if (defaults.port->mtu > trunk_mtu) {
    add_problem(reader.problems(), {"invalid_params", pointer_to(reader.pointer_to("port"), "mtu"),
                                    "\"mtu\" is " + std::to_string(defaults.port->mtu) + "; wanted at most " +
                                        std::to_string(trunk_mtu) + ", the trunk's"});
  }
}

void read_names(ObjectReader& reader, EngineConfig::Names& names) {
  take_name(reader, "hosts_file", names.hosts_file, 0);
  const auto region = reader.text("region");
  if (!region) return;
  const auto is_fine = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (region->size() <= 32 && std::ranges::all_of(*region, is_fine)) {
    names.region = *region;
  } else {
    reader.complain("region", "invalid_params", "\"region\" is " + words::in_quotes(*region) + "; wanted a region's name such as \"us-west-2\"");
  }
}

void read_subnets(const Json& list, const std::string& pointer, Problems& problems, std::vector<Subnet>& subnets) {
  const std::size_t problems_before = problems.size();
  for (std::size_t i = 0; i < list.size(); ++i) {
    ObjectReader reader(list[i], pointer_to(pointer, i), problems);
    reader.refuse_null();
    const std::string id = reader.required_text("id");
    if (!id.empty() && !is_resource_id("subnet", id)) {
      reader.complain("id", "invalid_params",
                      "\"id\" is " + words::in_quotes(id) + "; wanted an id that begins with \"subnet-\"");
    }
    subnets.push_back(read_subnet(reader, id));
    reader.finish();
    const auto same = [&](const Subnet& each) { return &each != &subnets.back() && each.id == id; };
    if (std::any_of(subnets.begin(), subnets.end(), same)) {
      reader.complain("id", "invalid_params", words::in_quotes(id) + " is there twice; keep one of the two");
    }
  }
  if (problems.size() != problems_before) return;
  std::vector<PlacedSubnet> placed;
  for (std::size_t i = 0; i < subnets.size(); ++i) placed.push_back({&subnets[i], pointer_to(pointer, i)});
  check_subnets(std::move(placed), problems);
}

// What two sections say together.
void check_shares(const EngineConfig& config, Problems& problems) {
  if (!problems.empty() || config.connections_of_a_worker() >= kMinConnectionsOfAWorker) return;
  add_problem(problems, {"invalid_params", "/limits/connections",
                         "\"connections\" is " + std::to_string(config.limits.connections) + ", which " +
                             std::to_string(config.workers()) + " workers share; wanted at least " +
                             std::to_string(kMinConnectionsOfAWorker) + " for each"});
}

}  // namespace

std::uint16_t EngineConfig::trunk_queues() const {
  if (trunk.queues != 0) return trunk.queues;
  const bool is_pci = trunk.device.substr(0, trunk.device.find(',')).find(':') != std::string::npos;
  return is_pci ? static_cast<std::uint16_t>(workers()) : std::uint16_t{1};
}

std::string EngineConfig::connection_file_of(std::size_t worker) const {
  if (limits.connection_file.empty() || workers() == 1) return limits.connection_file;
  return limits.connection_file + "." + std::to_string(worker);
}

std::expected<EngineConfig, Problems> parse_engine_config(std::string_view text) {
  const auto document = parse_json(text, {.comments = true});
  if (!document) return std::unexpected(Problems{document.error()});
  EngineConfig config;
  Problems problems;
  ObjectReader reader(*document, "", problems);
  reader.refuse_null();
  if (!reader.integer("version", 1, 1) && !reader.has("version"))
    reader.missing("version", "1, the version of this file's format");
  const auto section = [&](const char* key, auto read) {
    const Json* object = reader.object(key);
    if (object == nullptr) return;
    ObjectReader each(*object, reader.pointer_to(key), problems);
    each.refuse_null();
    read(each);
    each.finish();
  };
  if (!reader.has("trunk")) reader.missing("trunk", "an object with at least \"device\"");
  section("trunk", [&](ObjectReader& each) { read_trunk(each, config.trunk); });
  section("eal", [&](ObjectReader& each) { read_eal(each, config.eal); });
  section("buffers", [&](ObjectReader& each) { read_buffers(each, config.buffers); });
  section("edge", [&](ObjectReader& each) { read_edge(each, config.edge); });
  section("limits", [&](ObjectReader& each) { read_limits(each, config.limits); });
  section("conntrack", [&](ObjectReader& each) { read_conntrack(each, config.conntrack); });
  section("idle", [&](ObjectReader& each) { read_idle(each, config.idle); });
  section("control", [&](ObjectReader& each) { read_control(each, config.control); });
  take_name(reader, "state_dir", config.state_dir);
  section("task_defaults",
          [&](ObjectReader& each) { read_task_defaults(each, config.trunk.mtu, config.task_defaults); });
  section("names", [&](ObjectReader& each) { read_names(each, config.names); });
  if (const Json* list = reader.array("subnets")) read_subnets(*list, "/subnets", problems, config.subnets);
  section("identity", [&](ObjectReader& each) { read_identity(each, config.identity); });
  if (const Json* list = reader.array("flow_logs")) config.flow_logs = read_flow_logs(*list, "/flow_logs", problems);
  reader.finish();
  const std::string& region = config.identity.region;
  if (config.names.region.empty()) config.names.region = region;
  if (config.edge.dhcp_domain.empty()) config.edge.dhcp_domain = region.empty() || region == "us-east-1" ? "ec2.internal" : region + ".compute.internal";
  check_shares(config, problems);
  if (problems.empty()) check_flow_logs(config.flow_logs, config.identity, problems);
  if (!problems.empty()) return std::unexpected(std::move(problems));
  return config;
}

}  // namespace trunkline::config
