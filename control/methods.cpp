// SPDX-License-Identifier: BSD-3-Clause
#include "control/methods.h"

#include <algorithm>
#include <chrono>

#include "config/state_json.h"
#include "control/aws/documents.h"
#include "control/ec2_shapes.h"
#include "control/events.h"
#include "control/method_parts.h"
#include "control/steering_methods.h"
#include "control/task_json.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::ObjectReader;
using config::Problems;

class Methods {
 public:
  Methods(Controller& controller, const EngineFacts& facts) : controller_(controller), facts_(facts) {}

  // --- looking ---
  Answer status(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return status_report(controller_, facts_);
  }

  Answer stats(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return stats_report(controller_);
  }

  Answer drops(const Json& params) {
    Params in(params);
    const auto eni = in.reader.text("eni");
    if (!in.sound()) return in.refusal();
    if (!eni) return drops_report(controller_, std::nullopt);
    const config::Attachment* attachment = find_attachment(controller_.desired(), *eni);
    if (attachment == nullptr) return std::unexpected(not_found("ENI \"" + *eni + "\"", "/eni"));
    return drops_report(controller_, attachment->eni_id);
  }

  Answer task_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    Json tasks = Json::array();
    for (const auto& [eni, attachment] : controller_.desired().attachments) {
      tasks.push_back(task_report(controller_, attachment, false));
    }
    return Json{{"tasks", std::move(tasks)}};
  }

  Answer task_show(const Json& params) {
    Params in(params);
    const std::string ref = in.reader.required_text("task");
    if (!in.sound()) return in.refusal();
    const config::Attachment* attachment = find_attachment(controller_.desired(), ref);
    if (attachment == nullptr) return std::unexpected(unknown_task(ref));
    return task_report(controller_, *attachment, true);
  }

  Answer task_describe(const Json& params) {
    Params in(params);
    const std::vector<std::string> refs = in.reader.texts("tasks");
    if (!in.sound()) return in.refusal();
    return describe_tasks(controller_.desired(), refs);
  }

  Answer sg_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    Json groups = Json::array();
    for (const auto& [id, group] : controller_.desired().security_groups) {
      const auto remote = controller_.desired().remote_members.find(id);
      const std::size_t remote_count = remote == controller_.desired().remote_members.end() ? 0 : remote->second.size();
      groups.push_back({{"id", id},
                        {"name", group.name},
                        {"ingress_rules", group.ingress.size()},
                        {"egress_rules", group.egress.size()},
                        {"members", controller_.local_members(id).size() + remote_count},
                        {"used_by", users_of(controller_.desired(), id)}});
    }
    return Json{{"groups", std::move(groups)}};
  }

  Answer sg_show(const Json& params) {
    Params in(params);
    const std::vector<std::string> ids = in.reader.texts("groups");
    if (!in.sound()) return in.refusal();
    Json groups = Json::array();
    for (const auto& [id, group] : controller_.desired().security_groups) {
      if (ids.empty() || std::find(ids.begin(), ids.end(), id) != ids.end()) groups.push_back(security_group_json(group));
    }
    for (const std::string& id : ids) {
      if (!controller_.desired().security_groups.contains(id)) {
        return std::unexpected(not_found("security group \"" + id + "\"", "/groups"));
      }
    }
    return Json{{"SecurityGroups", std::move(groups)}};
  }

  Answer sg_members(const Json& params) {
    Params in(params);
    const std::string id = in.reader.required_text("group");
    if (!in.sound()) return in.refusal();
    Json local = Json::array(), remote = Json::array();
    for (const IpAddress& address : controller_.local_members(id)) local.push_back(address.to_string());
    if (const auto known = controller_.desired().remote_members.find(id); known != controller_.desired().remote_members.end()) {
      for (const IpAddress& address : known->second) remote.push_back(address.to_string());
    }
    return Json{{"group", id}, {"local", std::move(local)}, {"remote", std::move(remote)}};
  }

  Answer subnet_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    Json subnets = Json::array();
    for (const auto& [id, subnet] : controller_.desired().subnets) subnets.push_back(subnet_json(subnet));
    return Json{{"Subnets", std::move(subnets)}};
  }

  Answer state_get(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return config::to_json(controller_.desired());
  }

  Answer worker_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return Json{{"workers", workers_report(controller_)}};
  }

  Answer share_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return Json{{"shares", shares_report(controller_)}};
  }

  Answer flow_log_list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    if (facts_.flow_logs == nullptr) return Json{{"flow_logs", Json::array()}, {"interval", 0}};
    return flow_logs_report(*facts_.flow_logs);
  }

  // --- changing ---
  Answer flow_log_flush(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    if (facts_.flow_logs == nullptr || facts_.flow_logs->empty()) {
      return std::unexpected(not_found("flow log; the engine's config names none (flow_logs)", ""));
    }
    return Json{{"interval", facts_.flow_logs->flush()}};
  }

  Answer worker_move(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string ref = in.reader.required_text("task");
    const auto worker = in.reader.integer("worker", 0, static_cast<std::int64_t>(controller_.workers().size()) - 1);
    if (!worker && in.problems.empty()) in.reader.missing("worker", "the number of the worker that is to have the task");
    if (!in.sound()) return in.refusal();
    const config::Attachment* attachment = find_attachment(controller_.desired(), ref);
    if (attachment == nullptr) return std::unexpected(unknown_task(ref));
    auto result = controller_.move(attachment->eni_id, static_cast<WorkerNumber>(*worker), options);
    if (!result) return std::unexpected(refuse(std::move(result.error())));
    return result_json(*result);
  }

  Answer task_attach(const Json& params) {
    Params in(params);
    ChangeOptions options = in.change_options();
    config::AttachmentFacts facts = config::read_attachment_facts(in.reader, default_mtu());
    options.subject = facts.eni_id.value_or("");
    if (!facts.eni_id) in.reader.missing("eni", "the id of the network interface, \"eni-...\"");
    if (!in.sound()) return in.refusal();
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      config::merge(next.attachments[*facts.eni_id], with_config_defaults(facts, next));
      return Problems{};
    }, "/attachments/" + *facts.eni_id);
  }

  Answer task_detach(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string ref = in.reader.required_text("task");
    const bool missing_ok = in.reader.boolean("missing_ok").value_or(false);
    if (!in.sound()) return in.refusal();
    const config::Attachment* attachment = find_attachment(controller_.desired(), ref);
    if (attachment == nullptr && !missing_ok) return std::unexpected(unknown_task(ref));
    const std::string eni = attachment != nullptr ? attachment->eni_id : "";
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      next.attachments.erase(eni);
      return Problems{};
    });
  }

  // Settings of an ENI that is there; attach would make one that is not.
  Answer task_set(const Json& params) {
    Params in(params);
    ChangeOptions options = in.change_options();
    const std::string ref = in.reader.required_text("task");
    config::AttachmentFacts facts;
    in.reader.refuse_null();
    config::read_settings(in.reader, facts);
    if (!in.sound()) return in.refusal();
    const config::Attachment* attachment = find_attachment(controller_.desired(), ref);
    if (attachment == nullptr) return std::unexpected(unknown_task(ref));
    const std::string eni = options.subject = attachment->eni_id;
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      config::merge(next.attachments[eni], facts);
      return Problems{};
    }, "/attachments/" + eni);
  }

  Answer event_submit(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    config::AttachmentFacts defaults;
    if (const Json* given = in.reader.object("defaults")) {
      ObjectReader reader(*given, "/defaults", in.problems);
      defaults = config::read_attachment_facts(reader, default_mtu());
      reader.finish();
    }
    const Json* event = in.reader.object("event");
    if (event == nullptr && in.problems.empty()) in.reader.missing("event", "one of the shapes of docs/control-protocol.md");
    HostIdentity host = this_host();
    host.take_all = in.reader.boolean("all").value_or(false);
    if (const auto instance = in.reader.text("instance")) {
      host.instance_id = *instance;
      if (!config::is_resource_id("i", *instance)) {
        in.reader.complain("instance", "invalid_params", "\"instance\" is " + config::words::in_quotes(*instance) + "; wanted an id like \"i-0123456789abcdef0\"");
      }
    }
    if (!in.sound()) return in.refusal();
    const auto& config_defaults = controller_.config().task_defaults;
    if (!defaults.port) defaults.port = config_defaults.port;
    if (!defaults.group_ids && !config_defaults.group_ids.empty()) defaults.group_ids = config_defaults.group_ids;
    return change(options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch());
      auto effect = read_event(*event, "/event", next, {}, now.count(), host);
      if (!effect) return effect.error();
      warnings = effect->warnings;
      const config::DesiredState before = next;
      apply(std::move(*effect), defaults, next);
      warn_of_open(before, next, warnings);
      return Problems{};
    });
  }

  Answer sg_put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const bool replace_all = in.reader.boolean("replace_all").value_or(false);
    const RemovalConsent consent = in.removal_consent();
    const auto document = take_document(in, params, {"SecurityGroups", "SecurityGroupRules"}, "aws ec2 describe-security-groups");
    if (!in.sound()) return in.refusal();
    auto read = read_groups_document(*document.value, document.pointer, replace_all);
    if (!read) return std::unexpected(refuse(std::move(read.error())));
    auto& groups = read->groups;
    const std::string list_pointer = document.pointer + "/SecurityGroups";
    return change(options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      warnings = read->warnings;
      if (replace_all) {
        Problems problems;
        Loss loss{0, next.security_groups.size()};
        for (const auto& [id, group] : next.security_groups) {
          const bool given = std::any_of(groups.begin(), groups.end(), [&](const auto& g) { return g.id == id; });
          loss.lost += given ? 0 : 1;
          if (!given) refuse_if_used(next, id, list_pointer, problems);
        }
        if (problems.empty()) {
          problems =
              check_replaced("security groups", loss, groups.size(), controller_.config(), consent, list_pointer);
        }
        if (!problems.empty()) return problems;
        next.security_groups.erase_if(
            [&](const auto& known) { return std::ranges::find(groups, known.first, &config::SecurityGroup::id) == groups.end(); });
      }
      for (auto& group : groups) put_group(std::move(group), read->rules_only, next);
      return Problems{};
    });
  }

  Answer sg_delete(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string id = in.reader.required_text("group");
    if (!in.sound()) return in.refusal();
    if (!controller_.desired().security_groups.contains(id)) {
      return std::unexpected(not_found("security group \"" + id + "\"", "/group"));
    }
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      Problems problems;
      refuse_if_used(next, id, "/group", problems);
      next.security_groups.erase(id);
      return problems;
    });
  }

  Answer sg_members_put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string id = in.reader.required_text("group");
    const std::vector<IpAddress> members = in.reader.addresses("members");
    if (!in.sound()) return in.refusal();
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      if (members.empty()) {
        next.remote_members.erase(id);
      } else {
        next.remote_members.insert_or_assign(id, config::AddressSet(members.begin(), members.end()));
      }
      return Problems{};
    });
  }

  Answer sg_members_add(const Json& params) { return change_members(params, true); }
  Answer sg_members_remove(const Json& params) { return change_members(params, false); }

  Answer prefix_list_put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string id = in.reader.text("id").value_or("");
    if (in.reader.has("id") && !config::is_resource_id("pl", id)) {
      in.reader.complain("id", "invalid_params", "\"id\" is " + config::words::in_quotes(id) + "; wanted an id like \"pl-0a1b2c3d\"");
    }
    const auto document = take_document(in, params, {"Entries", "PrefixListId", "PrefixLists"}, "aws ec2 get-managed-prefix-list-entries");
    if (!in.sound()) return in.refusal();
    auto read = read_prefix_lists_document(*document.value, document.pointer, id);
    if (!read) return std::unexpected(refuse(std::move(read.error())));
    return change(options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      warnings = read->warnings;
      for (const config::PrefixList& list : read->lists) next.prefix_lists.insert_or_assign(list.id, list);
      return Problems{};
    });
  }

  Answer subnet_put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const auto document = take_document(in, params, {"Subnets"}, "aws ec2 describe-subnets");
    if (!in.sound()) return in.refusal();
    if (auto read = read_subnets_document(*document.value, document.pointer); !read) return std::unexpected(refuse(std::move(read.error())));
    return change(options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      auto effect = read_event(*document.value, document.pointer, next, {}, {}, this_host());
      if (!effect) return effect.error();
      warnings = effect->warnings;
      apply(std::move(*effect), {}, next);
      return Problems{};
    });
  }

  Answer state_replace(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const RemovalConsent consent = in.removal_consent();
    const auto document = take_document(in, params,
                                        {"revision", "subnets", "security_groups", "prefix_lists", "network_acls", "remote_members", "attachments", "finished_tasks"},
                                        "state.get");
    if (!in.sound()) return in.refusal();
    auto state = config::state_from_json(*document.value, document.pointer);
    if (!state) return std::unexpected(refuse(std::move(state.error())));
    auto answer = change(options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      const config::DesiredState before = std::exchange(next, std::move(*state));
      return check_removals(before, next, controller_.config(), consent, document.pointer, warnings);
    });
    // Whoever has given the whole state knows what it should be.
    if (answer && !options.dry_run) controller_.forget_journal_damage();
    return answer;
  }

 private:
  // Some members of a group elsewhere, at a cost that does not depend on how many it has.
  Answer change_members(const Json& params, bool add) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string id = in.reader.required_text("group");
    const std::vector<IpAddress> members = in.reader.addresses("members");
    if (!in.reader.has("members")) in.reader.missing("members", "a list of addresses");
    if (!in.sound()) return in.refusal();
    return change(options, [&](config::DesiredState& next, std::vector<std::string>&) {
      // A set that is not there has nothing to remove, and one that is empty is none.
      if (members.empty() || (!add && !next.remote_members.contains(id))) return Problems{};
      config::AddressSet& known = next.remote_members[id];
      for (const IpAddress& address : members) add ? static_cast<void>(known.insert(address)) : static_cast<void>(known.erase(address));
      if (known.empty()) next.remote_members.erase(id);
      return Problems{};
    });
  }

  HostIdentity this_host() const {
    const config::Identity& identity = controller_.config().identity;
    return {.instance_id = identity.instance_id, .vpc_id = identity.vpc_id};
  }

  Answer change(const ChangeOptions& options, const Edit& edit, const std::string& pointer_prefix = "") {
    return change_state(controller_, options, edit, pointer_prefix);
  }

  // A port that names no MTU gets the trunk's.
  std::uint16_t default_mtu() const { return std::min(config::PortSpec{}.mtu, controller_.config().trunk.mtu); }

  config::AttachmentFacts with_config_defaults(config::AttachmentFacts facts, const config::DesiredState& state) const {
    const auto known = state.attachments.find(*facts.eni_id);
    const bool has_groups = known != state.attachments.end() && !known->second.group_ids.empty();
    const auto& defaults = controller_.config().task_defaults;
    if (!facts.group_ids && !has_groups && !defaults.group_ids.empty()) facts.group_ids = defaults.group_ids;
    return facts;
  }

  static std::vector<std::string> users_of(const config::DesiredState& state, const std::string& group) {
    std::vector<std::string> users;
    for (const auto& [eni, attachment] : state.attachments) {
      const auto& groups = attachment.group_ids;
      if (std::find(groups.begin(), groups.end(), group) != groups.end()) users.push_back(eni);
    }
    return users;
  }

  static void refuse_if_used(const config::DesiredState& state, const std::string& group, const std::string& pointer,
                             Problems& problems) {
    const std::vector<std::string> users = users_of(state, group);
    if (users.empty()) return;
    problems.push_back({"group_in_use", pointer,
                        "security group " + group + " is carried by " + users.front() +
                            (users.size() > 1 ? " and " + std::to_string(users.size() - 1) + " more" : "") +
                            "; detach them or give them other groups first"});
  }

  Controller& controller_;
  const EngineFacts& facts_;
};

}  // namespace

void add_methods(Server& server, Controller& controller, const EngineFacts& facts) {
  using Call = Answer (Methods::*)(const Json&);
  struct Row {
    const char* name;
    Access access;
    Call call;
  };
  static constexpr Row rows[] = {
      {"status", Access::look, &Methods::status},
      {"stats", Access::look, &Methods::stats},
      {"drops", Access::look, &Methods::drops},
      {"task.list", Access::look, &Methods::task_list},
      {"task.show", Access::look, &Methods::task_show},
      {"task.describe", Access::look, &Methods::task_describe},
      {"sg.list", Access::look, &Methods::sg_list},
      {"sg.show", Access::look, &Methods::sg_show},
      {"sg.members", Access::look, &Methods::sg_members},
      {"subnet.list", Access::look, &Methods::subnet_list},
      {"state.get", Access::look, &Methods::state_get},
      {"worker.list", Access::look, &Methods::worker_list},
      {"share.list", Access::look, &Methods::share_list},
      {"flow_log.list", Access::look, &Methods::flow_log_list},
      {"flow_log.flush", Access::change, &Methods::flow_log_flush},
      {"task.attach", Access::change, &Methods::task_attach},
      {"task.detach", Access::change, &Methods::task_detach},
      {"task.set", Access::change, &Methods::task_set},
      {"event.submit", Access::change, &Methods::event_submit},
      {"sg.put", Access::change, &Methods::sg_put},
      {"sg.delete", Access::change, &Methods::sg_delete},
      {"sg.members.put", Access::change, &Methods::sg_members_put},
      {"sg.members.add", Access::change, &Methods::sg_members_add},
      {"sg.members.remove", Access::change, &Methods::sg_members_remove},
      {"prefix_list.put", Access::change, &Methods::prefix_list_put},
      {"subnet.put", Access::change, &Methods::subnet_put},
      {"state.replace", Access::change, &Methods::state_replace},
      {"worker.move", Access::change, &Methods::worker_move},
  };
  auto methods = std::make_shared<Methods>(controller, facts);
  for (const Row& row : rows) {
    server.add(row.name, row.access,
               [methods, call = row.call](const Json& params, const Caller&) { return ((*methods).*call)(params); });
  }
  server.takes_large("state.replace");  // what state.get answers can be given back
  add_acl_methods(server, controller);
  add_steering_methods(server, controller, facts.steering);
}

}  // namespace trunkline::control
