// SPDX-License-Identifier: BSD-3-Clause
#include "config/state_difference.h"

#include <utility>

#include "config/state_json.h"

namespace trunkline::config {
namespace {

template <class T, class Write>
void put_map(Json& difference, const char* key, const SharedMap<std::string, T>& before,
             const SharedMap<std::string, T>& after, Write write) {
  Json map = Json::object();
  for_each_difference(before, after, [&](const std::string& id, const T* old_value, const T* new_value) {
    map[id] = new_value == nullptr ? Json() : write(old_value, *new_value);
  });
  if (!map.empty()) difference[key] = std::move(map);
}

// Takes the values that `values` has, and forgets what `gone` names.
template <class T>
void take_map(SharedMap<std::string, T>& map, const SharedMap<std::string, T>& values, const Json& gone) {
  for (const auto& [id, value] : values) map.insert_or_assign(id, value);
  for (const Json& id : gone) map.erase(id.get<std::string>());
}

}  // namespace

Json difference_json(const DesiredState& before, const DesiredState& after) {
  Json difference = Json::object();
  const auto whole = [](const auto*, const auto& value) { return to_json(value); };
  put_map(difference, "subnets", before.subnets, after.subnets, whole);
  put_map(difference, "security_groups", before.security_groups, after.security_groups, whole);
  put_map(difference, "prefix_lists", before.prefix_lists, after.prefix_lists, [](const PrefixList*, const PrefixList& list) {
    Json entries = Json::array();
    for (const IpPrefix& entry : list.entries) entries.push_back(entry.to_string());
    return Json{{"entries", std::move(entries)}};
  });
  put_map(difference, "remote_members", before.remote_members, after.remote_members,
          [](const AddressSet* had, const AddressSet& has) {
            Json added = Json::array(), removed = Json::array();
            for_each_difference(had != nullptr ? *had : AddressSet{}, has, [&](const IpAddress& address, bool is_in) {
              (is_in ? added : removed).push_back(address.to_string());
            });
            return Json{{"add", std::move(added)}, {"remove", std::move(removed)}};
          });
  put_map(difference, "attachments", before.attachments, after.attachments, [](const Attachment*, const Attachment& attachment) {
    Json object = to_json(attachment);
    object.erase("eni");  // the key says it
    return object;
  });
  put_map(difference, "finished_tasks", before.finished_tasks, after.finished_tasks,
          [](const std::int64_t*, std::int64_t version) { return Json(version); });
  return difference;
}

std::expected<void, std::string> apply_difference(DesiredState& state, const Json& difference) {
  if (!difference.is_object()) return std::unexpected("a difference is an object");
  // Split into states that the reader of states understands, and the ids that are gone.
  Json values = Json::object(), added = Json::object(), removed = Json::object(), gone = Json::object();
  for (const auto& [key, map] : difference.items()) {
    if (!map.is_object()) return std::unexpected("\"" + key + "\" is no object");
    for (const auto& [id, value] : map.items()) {
      if (value.is_null()) {
        gone[key].push_back(id);
      } else if (key != "remote_members") {
        values[key][id] = value;
      } else if (value.is_object() && value.size() == 2 && value.contains("add") && value.contains("remove")) {
        added[key][id] = value["add"];
        removed[key][id] = value["remove"];
      } else {
        return std::unexpected("\"remote_members\" of " + id + " has not \"add\" and \"remove\"");
      }
    }
  }
  const auto read = [](const Json& document) -> std::expected<DesiredState, std::string> {
    auto parsed = state_from_json(document);
    if (parsed) return std::move(*parsed);
    return std::unexpected(parsed.error().front().pointer + ": " + parsed.error().front().message);
  };
  const auto with = read(values);
  if (!with) return std::unexpected(with.error());
  const auto more = read(added);
  if (!more) return std::unexpected(more.error());
  const auto fewer = read(removed);
  if (!fewer) return std::unexpected(fewer.error());

  take_map(state.subnets, with->subnets, gone["subnets"]);
  take_map(state.security_groups, with->security_groups, gone["security_groups"]);
  take_map(state.prefix_lists, with->prefix_lists, gone["prefix_lists"]);
  take_map(state.attachments, with->attachments, gone["attachments"]);
  take_map(state.finished_tasks, with->finished_tasks, gone["finished_tasks"]);
  take_map(state.remote_members, {}, gone["remote_members"]);
  for (const auto& [id, members] : more->remote_members) {
    AddressSet& known = state.remote_members[id];
    for (const IpAddress& address : members) known.insert(address);
  }
  for (const auto& [id, members] : fewer->remote_members) {
    AddressSet& known = state.remote_members[id];
    for (const IpAddress& address : members) known.erase(address);
  }
  return {};
}

}  // namespace trunkline::config
