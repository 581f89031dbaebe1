// SPDX-License-Identifier: BSD-3-Clause
#include "tests/scenarios/scenario.h"

#include <fstream>
#include <sstream>

#include "config/state_json.h"
#include "config/validate.h"
#include "control/ec2_shapes.h"

namespace trunkline::test {
namespace {

using config::Json;
using config::ObjectReader;
using config::Problems;

void complain(const Problems& problems, const std::string& place) {
  if (problems.empty()) return;
  std::string text;
  for (const config::Problem& problem : problems) text += (text.empty() ? "" : "\n") + place + problem.pointer + ": " + problem.message;
  throw ScenarioError(text);
}

void read_engine(const Json& object, Vpc::Engine& engine, Problems& problems) {
  ObjectReader reader(object, "/engine", problems);
  const auto flag = [&](const char* key, bool& into) { into = reader.boolean(key).value_or(into); };
  flag("strict_syn", engine.strict_syn);
  flag("icmp_related", engine.icmp_related);
  flag("edge_answer", engine.edge_answer);
  const auto number = [&](const char* key, auto& into, std::int64_t most) { into = static_cast<std::remove_reference_t<decltype(into)>>(reader.integer(key, 1, most).value_or(into)); };
  number("connections", engine.connections, 1 << 20);
  number("connections_per_endpoint", engine.connections_per_endpoint, 0xffffffff);
  number("trunk_mtu", engine.trunk_mtu, 9216);
  reader.finish();
}

// Beside what the engine's own reader takes (task.attach).
void read_task_settings(ObjectReader& reader, config::Attachment& attachment) {
  if (const Json* object = reader.object("limits")) {
    ObjectReader limits(*object, reader.pointer_to("limits"), reader.problems());
    const auto number = [&](const char* key, auto& into) { into = static_cast<std::remove_reference_t<decltype(into)>>(limits.integer(key, 0, 0xffffffff).value_or(into)); };
    number("ingress_bits", attachment.limits.ingress_bits);
    number("egress_bits", attachment.limits.egress_bits);
    number("ingress_packets", attachment.limits.ingress_packets);
    number("egress_packets", attachment.limits.egress_packets);
    limits.finish();
  }
  if (const auto text = reader.text("on_change")) {
    if (*text != "keep" && *text != "revalidate") reader.complain("on_change", "invalid_params", "\"keep\" or \"revalidate\" is wanted");
    attachment.on_change = *text == "revalidate" ? config::OnChange::revalidate : config::OnChange::keep;
  }
  const auto flag = [&](const char* key, bool& into) { into = reader.boolean(key).value_or(into); };
  flag("always_track", attachment.always_track);
  flag("audit", attachment.audit);
  flag("block_imds", attachment.block_imds);
}

}  // namespace

Json read_document(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw ScenarioError(path.string() + ": cannot be read");
  std::stringstream text;
  text << file.rdbuf();
  config::JsonLimits limits;
  limits.comments = true;
  auto document = config::parse_json(text.str(), limits);
  if (!document) throw ScenarioError(path.string() + ": " + document.error().message);
  return *document;
}

void put_security_groups(config::DesiredState& state, const Json& list, const std::string& place) {
  Problems problems;
  for (auto& group : control::read_security_groups(list, "/SecurityGroups", problems)) {
    const std::string id = group.id;
    state.security_groups.insert_or_assign(id, std::move(group));
  }
  complain(problems, place);
}

void put_network_acls(config::DesiredState& state, const Json& list, const std::string& place) {
  Problems problems;
  for (auto& acl : control::read_network_acls(list, "/NetworkAcls", problems)) {
    const std::string id = acl.id;
    state.network_acls.insert_or_assign(id, std::move(acl));
  }
  complain(problems, place);
}

void set_task(config::Attachment& attachment, const Json& members, const std::string& place) {
  Problems problems;
  ObjectReader reader(members, "", problems);
  reader.ignore("attached");
  config::merge(attachment, config::read_attachment_facts(reader));
  read_task_settings(reader, attachment);
  reader.finish();
  complain(problems, place);
}

Scenario load_scenario(const std::filesystem::path& folder) {
  const std::string place = (folder / "scenario.json").string();
  Json document = read_document(folder.parent_path() / "default.json");
  document.merge_patch(read_document(folder / "scenario.json"));
  Scenario scenario;
  scenario.folder = folder;
  Problems problems;
  ObjectReader reader(document, "", problems);
  reader.required_text("about");
  if (const Json* engine = reader.object("engine")) read_engine(*engine, scenario.engine, problems);
  if (const Json* list = reader.array("Subnets")) {
    const auto vpc = reader.network("vpc_cidr");
    for (auto& subnet : control::read_subnets(*list, "/Subnets", problems)) {
      if (vpc) subnet.vpc_cidr = vpc;
      const std::string id = subnet.id;
      scenario.state.subnets.insert_or_assign(id, std::move(subnet));
    }
  }
  if (const Json* list = reader.array("SecurityGroups")) put_security_groups(scenario.state, *list, place);
  if (const Json* list = reader.array("NetworkAcls")) put_network_acls(scenario.state, *list, place);
  if (const Json* list = reader.array("PrefixLists")) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      ObjectReader each((*list)[i], "/PrefixLists/" + std::to_string(i), problems);
      config::PrefixList prefixes = control::read_prefix_list(each);
      each.finish();
      const std::string id = prefixes.id;
      scenario.state.prefix_lists.insert_or_assign(id, std::move(prefixes));
    }
  }
  if (const Json* tasks = reader.object("tasks")) {
    for (const auto& [name, members] : tasks->items()) {
      config::Attachment& attachment = scenario.tasks[name];
      attachment.eni_id = name;
      set_task(attachment, members, place + "/tasks/" + name);
      if (members.value("attached", true)) scenario.state.attachments.insert_or_assign(name, attachment);
    }
  }
  reader.finish();
  complain(problems, place);
  for (const auto& [name, attachment] : scenario.state.attachments) {
    if (!attachment.mac || !attachment.vlan || attachment.addresses.empty() || !scenario.state.subnets.contains(attachment.subnet_id)) {
      throw ScenarioError(place + "/tasks/" + name + ": a task wants a mac, a vlan (or \"untagged\"), addresses and a known subnet");
    }
    for (const std::string& group : attachment.group_ids) {
      if (!scenario.state.security_groups.contains(group)) throw ScenarioError(place + "/tasks/" + name + "/groups: " + group + " is not among the SecurityGroups");
    }
  }
  return scenario;
}

}  // namespace trunkline::test
