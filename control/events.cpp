// SPDX-License-Identifier: BSD-3-Clause
//
// Telling the shapes apart, and ECS's Task object, which describe-tasks and EventBridge share.
#include "control/events.h"

#include <array>
#include <utility>

#include "control/aws/documents.h"
#include "control/aws/known_keys.h"
#include "control/aws/own_interfaces.h"
#include "control/event_builder.h"

namespace trunkline::control {
namespace {

using config::AttachmentFacts;
using config::ObjectReader;
using config::words::in_quotes;

constexpr std::int64_t kMaxVersion = std::int64_t{1} << 53;  // what every JSON reader can count to

// A poll shows a task as it is now, as often as one likes; an event tells of one change, and may come late or twice.
enum class Source { poll, event };

enum class AttachmentPhase { early, attached, gone };

std::optional<AttachmentPhase> phase_of(std::string_view status) {
  for (const std::string_view word : {"PRECREATED", "CREATED", "ATTACHING"}) {
    if (status == word) return AttachmentPhase::early;
  }
  if (status == "ATTACHED") return AttachmentPhase::attached;
  for (const std::string_view word : {"DETACHING", "DETACHED", "DELETED", "FAILED"}) {
    if (status == word) return AttachmentPhase::gone;
  }
  return std::nullopt;
}

struct InterfaceAttachment {
  AttachmentPhase phase = AttachmentPhase::attached;
  std::string pointer;
  AttachmentFacts facts;
};

struct ContainerAddress {
  std::string attachment_id;
  IpAddress address;
};

// One of {"name":..., "value":...}; they come in any order, and early ones are few.
void read_detail(ObjectReader& detail, AttachmentFacts& facts) {
  const std::string name = detail.text("name").value_or("");
  if (name == "networkInterfaceId") {
    if (facts.eni_id) {
      detail.complain("name", "invalid_params", "networkInterfaceId is given twice; an attachment has one");
    }
    facts.eni_id = take_aws_id(detail, "value", "eni");
  } else if (name == "subnetId") {
    facts.subnet_id = take_aws_id(detail, "value", "subnet");
  } else if (name == "macAddress") {
    facts.mac = detail.mac("value");
    if (!detail.has("value")) detail.missing("value", "a MAC address");
  } else if (name == "privateDnsName") {
    facts.private_dns_name = detail.text("value");
  } else if (name == "privateIPv4Address") {
    if (const auto address = read_address(detail, "value", true)) add_address(facts, *address, true);
  } else if (name == "ipv6Address" || name == "privateIPv6Address") {
    // The spelling of the IPv6 detail is not documented, so both likely ones are taken.
    if (const auto address = read_address(detail, "value", false)) add_address(facts, *address, false);
  }
}

void read_attachment(ObjectReader& reader, std::vector<InterfaceAttachment>& attachments) {
  // EventBridge says "eni" where describe-tasks says "ElasticNetworkInterface".
  const std::string type = reader.text("type").value_or("");
  if (type != "ElasticNetworkInterface" && type != "eni") return reader.leave_out();
  InterfaceAttachment attachment;
  attachment.pointer = reader.pointer();
  AttachmentFacts& facts = attachment.facts;
  const std::string id(last_part(reader.required_text("id")));
  if (!id.empty() && !is_plain_id(id)) {
    reader.complain("id", "invalid_params",
                    "the attachment's id is " + in_quotes(id) +
                        ", but letters, digits and "
                        "dashes are wanted; give it as AWS prints it");
  }
  facts.attachment_id = id;
  const std::string status = reader.required_text("status");
  const auto phase = phase_of(status);
  if (!phase && !status.empty()) {
    reader.complain("status", "invalid_params",
                    "the attachment's status is " + in_quotes(status) +
                        ", but PRECREATED, "
                        "CREATED, ATTACHING, ATTACHED, DETACHING, DETACHED, DELETED or FAILED is wanted");
  }
  attachment.phase = phase.value_or(AttachmentPhase::attached);
  facts.attachment_status = status;
  for_each_in(reader, "details", [&](ObjectReader& detail) { read_detail(detail, facts); });
  if (attachment.phase == AttachmentPhase::attached && !facts.eni_id) {
    reader.complain("details", "invalid_params",
                    "attachment " + id + " is " + status +
                        " but has no detail "
                        "\"networkInterfaceId\"; give the ENI's id there");
  }
  attachments.push_back(std::move(attachment));
}

void read_container(ObjectReader& reader, config::Task& task, std::vector<ContainerAddress>& addresses) {
  reader.ignore_all(harmless::kContainer);
  config::Task::Container container;
  container.arn = reader.text("containerArn").value_or("");
  container.name = reader.text("name").value_or("");
  container.runtime_id = reader.text("runtimeId").value_or("");
  container.last_status = reader.text("lastStatus").value_or("");
  task.containers.push_back(std::move(container));
  for_each_in(reader, "networkInterfaces", [&](ObjectReader& interface) {
    const std::string id(last_part(interface.text("attachmentId").value_or("")));
    // Not the spelling of the details: "Ipv4" here, "IPv4" there.
    for (const std::string_view key : {"privateIpv4Address", "ipv6Address"}) {
      interface.any(key);
      if (!interface.has(key) || (interface.any(key)->is_string() && *interface.any(key) == "")) continue;
      if (const auto address = read_address(interface, key, key == "privateIpv4Address")) {
        addresses.push_back({id, *address});
      }
    }
  });
}

// Whether the task has moved past what this document tells; says so in a warning if it has.
bool is_stale(const config::Task& task, std::optional<std::int64_t> version, Source source, bool attaches,
              EventBuilder& builder) {
  const auto attached = builder.attached_version(task.task_arn);
  const auto finished = builder.finished_version(task.task_arn);
  const std::string name = "task " + std::string(last_part(task.task_arn));
  const std::string told = version ? "version " + std::to_string(*version) : "a document without a version";
  if (finished && version.value_or(0) <= *finished) {
    // The same end polled again is no news.
    if (source == Source::poll && !attaches) return true;
    builder.warn("stale_event: " + told + " of " + name + " was ignored, its ENI was detached at version " +
                 std::to_string(*finished));
    return true;
  }
  if (!version || !attached) return false;
  if (source == Source::poll ? *version >= *attached : *version > *attached) return false;
  builder.warn("stale_event: " + told + " of " + name + " was ignored, version " + std::to_string(*attached) +
               " is in force");
  return true;
}

void read_task(ObjectReader& reader, Source source, EventBuilder& builder) {
  const std::size_t before = builder.problems.size();
  reader.ignore_all(harmless::kTask);
  config::Task task;
  task.task_arn = take_task_arn(reader, "taskArn");
  const auto take = [&](std::string_view key, std::string& member) { member = reader.text(key).value_or(""); };
  take("clusterArn", task.cluster_arn);
  take("taskDefinitionArn", task.task_definition_arn);
  take("containerInstanceArn", task.container_instance_arn);
  take("group", task.group);
  take("launchType", task.launch_type);
  take("lastStatus", task.last_status);
  take("desiredStatus", task.desired_status);
  const auto version = reader.integer("version", 1, kMaxVersion);
  if (source == Source::event && !reader.has("version")) {
    reader.missing("version", "the task's version; without it nobody can tell whether the event is late");
  }
  task.version = version.value_or(0);
  std::vector<InterfaceAttachment> attachments;
  for_each_in(reader, "attachments", [&](ObjectReader& entry) { read_attachment(entry, attachments); });
  std::vector<ContainerAddress> addresses;
  for_each_in(reader, "containers", [&](ObjectReader& entry) { read_container(entry, task, addresses); });
  reader.finish();
  if (builder.problems.size() != before || task.task_arn.empty()) return;

  // ECS goes on reporting a task whose ENI was taken away before it stopped; one that is to stop gets no new ENI.
  const bool over = builder.finished_version(task.task_arn) && task.desired_status == "STOPPED";
  const bool ends =
      over || task.last_status == "DEPROVISIONING" || task.last_status == "STOPPED" || task.last_status == "DELETED";
  const bool attaches = !ends && std::ranges::any_of(attachments, [](const InterfaceAttachment& attachment) {
    return attachment.phase != AttachmentPhase::gone && attachment.facts.eni_id;
  });
  if (is_stale(task, version, source, attaches, builder)) return;

  bool detached = ends;
  for (InterfaceAttachment& attachment : attachments) {
    AttachmentFacts& facts = attachment.facts;
    if (ends || attachment.phase == AttachmentPhase::gone) {
      detached = true;
      builder.detach_known(facts.eni_id.value_or(""), *facts.attachment_id);
      continue;
    }
    if (!facts.eni_id) {
      builder.warn("attachment " + *facts.attachment_id + " of task " + std::string(last_part(task.task_arn)) + " is " +
                   *facts.attachment_status + " and has no ENI yet; it was left out, a later event will bring it");
      continue;
    }
    for (const ContainerAddress& other : addresses) {
      const bool only = other.attachment_id.empty() && attachments.size() == 1;
      if (only || other.attachment_id == *facts.attachment_id) add_address(facts, other.address, false);
    }
    facts.task = task;
    builder.attach(std::move(facts), attachment.pointer);
  }
  if (ends) builder.detach_task(task.task_arn);
  if (detached && !attaches) {
    builder.effect.finished[task.task_arn] = version.value_or(builder.attached_version(task.task_arn).value_or(0));
  }
}

// Takes over what reading a document brought.
void settle(Document& document, EventBuilder& builder) {
  document.finish();
  for (config::Problem& problem : document.problems) add_problem(builder.problems, std::move(problem));
  for (std::string& warning : document.warnings) builder.warn(std::move(warning));
}

void warn_of_page(EventBuilder& builder) {
  builder.warn("the document is one page of several (it has a NextToken); submit the other pages as well");
}

void read_describe_tasks(const Json& event, const std::string& place, EventBuilder& builder) {
  Document document(event, place);
  const auto list = document.take_one_of({"tasks"}, "ecs describe-tasks");
  if (list.value != nullptr) {
    std::set<std::string> seen;
    std::size_t usable = 0;
    for_each(*list.value, list.pointer, builder.problems, &document.unread, [&](ObjectReader& task) {
      const std::size_t before = builder.problems.size();
      const auto arn = task.text("taskArn");
      if (arn && !seen.insert(*arn).second) {
        complain_twice(task, "taskArn", in_quotes(*arn));
        return;
      }
      read_task(task, Source::poll, builder);
      if (builder.problems.size() == before) ++usable;
    });
    document.problems = std::exchange(builder.problems, {});
    document.leave_out_unusable(list, "taskArn", usable);
  }
  for_each_in(document.reader(), "failures", [&](ObjectReader& failure) {
    failure.ignore_all(harmless::kTaskFailure);
    builder.warn("ECS could not describe " + failure.text("arn").value_or("a task") + ": " +
                 failure.text("reason").value_or("no reason given") + "; nothing was changed for it");
  });
  if (document.is_page()) warn_of_page(builder);
  settle(document, builder);
}

void read_eventbridge(const Json& event, const std::string& place, EventBuilder& builder) {
  Document document(event, place);
  ObjectReader& reader = document.reader();
  reader.ignore_all(harmless::kTaskEvent);
  const std::string type = reader.required_text("detail-type");
  const Json* detail = nullptr;
  if (!type.empty() && type != "ECS Task State Change") {
    reader.complain("detail-type", "invalid_params",
                    "detail-type is " + in_quotes(type) +
                        ", but \"ECS Task State "
                        "Change\" is wanted; let the EventBridge rule pass only that one");
  } else if (detail = reader.object("detail"); detail == nullptr && !reader.has("detail")) {
    reader.missing("detail", "the Task object");
  }
  reader.any("detail");
  if (detail != nullptr) {
    ObjectReader task(*detail, reader.pointer_to("detail"), builder.problems);
    task.allow_unknown(&document.unread);
    read_task(task, Source::event, builder);
  }
  settle(document, builder);
}

void read_interfaces(const Json& event, const std::string& place, std::string_view key, EventBuilder& builder) {
  Document document(event, place);
  const bool described = key == "NetworkInterfaces";
  const auto list = document.take_one_of({key}, described ? "ec2 describe-network-interfaces" : "ec2 describe-trunk-interface-associations");
  if (list.value != nullptr) {
    const auto read = described ? read_network_interfaces : read_trunk_associations;
    std::vector<InterfaceContext> contexts;
    auto facts = read(*list.value, list.pointer, document.problems, document.warnings, &document.unread, &contexts);
    document.leave_out_unusable(list, described ? "NetworkInterfaceId" : "BranchInterfaceId", facts.size());
    if (document.problems.empty()) {
      builder.effect.attach = described ? own_interfaces(std::move(facts), contexts, builder) : own_branches(std::move(facts), contexts, builder);
    }
  }
  if (document.is_page()) warn_of_page(builder);
  settle(document, builder);
}

// What read_..._document() answered.
template <typename Read>
std::optional<Read> take(std::expected<Read, config::Problems> read, EventBuilder& builder) {
  if (!read) {
    for (config::Problem& problem : read.error()) add_problem(builder.problems, std::move(problem));
    return std::nullopt;
  }
  for (std::string& warning : read->warnings) builder.warn(std::move(warning));
  return std::move(*read);
}

void read_groups(const Json& event, const std::string& place, EventBuilder& builder) {
  auto read = take(read_groups_document(event, place, false), builder);
  if (!read) return;
  builder.effect.groups = std::move(read->groups);
  builder.effect.rules_only = read->rules_only;
}

struct Shape {
  std::string_view key;  // what a document of this shape has
  void (*read)(const Json& event, const std::string& place, EventBuilder& builder);
};

constexpr std::array<Shape, 8> kShapes{{
    {"tasks", read_describe_tasks},
    {"detail-type", read_eventbridge},
    {"NetworkInterfaces", [](const Json& e, const std::string& p, EventBuilder& b) { read_interfaces(e, p, "NetworkInterfaces", b); }},
    {"InterfaceAssociations", [](const Json& e, const std::string& p, EventBuilder& b) { read_interfaces(e, p, "InterfaceAssociations", b); }},
    {"Subnets",
     [](const Json& e, const std::string& p, EventBuilder& b) {
       auto read = take(read_subnets_document(e, p), b);
       if (!read) return;
       b.effect.subnets = without_ambiguous(std::move(read->subnets), b);
       b.effect.silent_on_ipv6 = std::move(read->silent_on_ipv6);
     }},
    {"SecurityGroups", read_groups},
    {"SecurityGroupRules", read_groups},
    {"NetworkAcls",
     [](const Json& e, const std::string& p, EventBuilder& b) {
       if (auto read = take(read_acls_document(e, p, false), b)) b.effect.acls = std::move(read->acls);
     }},
}};

}  // namespace

std::expected<EventEffect, config::Problems> read_event(const Json& event, std::string_view pointer,
                                                        const config::DesiredState& state,
                                                        std::span<const config::Subnet> configured,
                                                        std::optional<std::int64_t> now_ms, const HostIdentity& host) {
  EventBuilder builder{.state = state, .configured = configured, .now_ms = now_ms, .host = host};
  const std::string place(pointer);
  ObjectReader reader(event, place, builder.problems);
  reader.allow_unknown();
  if (!event.is_object()) return std::unexpected(std::move(builder.problems));

  const bool from_agent = reader.has("type") && reader.has("message");
  std::vector<const Shape*> found;
  for (const Shape& shape : kShapes) {
    if (reader.has(shape.key)) found.push_back(&shape);
  }
  if (found.size() + (from_agent ? 1 : 0) != 1) {
    add_problem(builder.problems,
                {"invalid_params", place,
                 std::string("the event has ") + (found.empty() ? "none" : "more than one") +
                     " of the keys that tell its shape: tasks, detail-type, type with message, NetworkInterfaces, "
                     "InterfaceAssociations, Subnets, SecurityGroups, SecurityGroupRules, NetworkAcls; give one document as AWS prints it" +
                     (reader.has("Vpcs") ? " (Vpcs are for vpc.put)" : "") +
                     (reader.has("Entries") || reader.has("PrefixLists") ? " (prefix lists are for prefix_list.put)" : "")});
  } else if (from_agent) {
    read_agent_message(event, place, builder);
  } else {
    found.front()->read(event, place, builder);
  }
  if (!builder.problems.empty()) return std::unexpected(std::move(builder.problems));
  return std::move(builder.effect);
}

}  // namespace trunkline::control
