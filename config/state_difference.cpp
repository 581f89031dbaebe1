// SPDX-License-Identifier: BSD-3-Clause
#include "config/state_difference.h"

#include <algorithm>
#include <iterator>
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

// `rest` becomes what is left of `list` without what it has in common with `before` at the beginning and at the end; the
// answer is how many those are.
template <class T>
Json keep_common(const std::vector<T>& before, const std::vector<T>& list, std::vector<T>& rest) {
  const auto first = std::mismatch(before.begin(), before.end(), list.begin(), list.end());
  const auto last = std::mismatch(before.rbegin(), std::make_reverse_iterator(first.first), list.rbegin(),
                                  std::make_reverse_iterator(first.second));
  const Json kept = {first.second - list.begin(), last.second - list.rbegin()};
  rest.assign(first.second, last.second.base());
  return kept;
}

// The other way round.
template <class T>
bool put_common(const std::vector<T>& before, std::vector<T>& list, const Json& kept) {
  if (!kept.is_array() || kept.size() != 2 || !kept[0].is_number_unsigned() || !kept[1].is_number_unsigned()) return false;
  const auto first = kept[0].get<std::uint64_t>(), last = kept[1].get<std::uint64_t>();
  if (first > before.size() || last > before.size() - first) return false;
  list.insert(list.begin(), before.begin(), before.begin() + static_cast<std::ptrdiff_t>(first));
  list.insert(list.end(), before.end() - static_cast<std::ptrdiff_t>(last), before.end());
  return true;
}

Json group_json(const SecurityGroup* before, const SecurityGroup& group) {
  if (before == nullptr) return to_json(group);
  SecurityGroup less{group.id, group.name, group.description, group.vpc_id, {}, {}};
  const Json kept = {{"ingress", keep_common(before->ingress, group.ingress, less.ingress)},
                     {"egress", keep_common(before->egress, group.egress, less.egress)}};
  Json object = to_json(less);
  object["kept"] = kept;
  return object;
}

Json list_json(const PrefixList* before, const PrefixList& list) {
  PrefixList less{list.id, {}};
  Json object;
  if (before != nullptr) {
    object["kept"] = {{"entries", keep_common(before->entries, list.entries, less.entries)}};
  } else {
    less.entries = list.entries;
  }
  object["entries"] = Json::array();
  for (const IpPrefix& entry : less.entries) object["entries"].push_back(entry.to_string());
  return object;
}

Json member_of(const Json& object, const char* key) { return object.is_object() ? object.value(key, Json()) : Json(); }

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
  put_map(difference, "security_groups", before.security_groups, after.security_groups, group_json);
  put_map(difference, "prefix_lists", before.prefix_lists, after.prefix_lists, list_json);
  put_map(difference, "network_acls", before.network_acls, after.network_acls, whole);
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
  Json kept = Json::object(), values = Json::object(), added = Json::object(), removed = Json::object(), gone = Json::object();
  for (const auto& [key, map] : difference.items()) {
    if (!map.is_object()) return std::unexpected("\"" + key + "\" is no object");
    for (const auto& [id, value] : map.items()) {
      if (value.is_null()) {
        gone[key].push_back(id);
      } else if (key != "remote_members") {
        Json& rest = values[key][id] = value;
        if ((key == "security_groups" || key == "prefix_lists") && rest.is_object() && rest.contains("kept")) {
          kept[key][id] = rest["kept"];
          rest.erase("kept");
        }
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
  auto with = read(values);
  if (!with) return std::unexpected(with.error());
  const auto more = read(added);
  if (!more) return std::unexpected(more.error());
  const auto fewer = read(removed);
  if (!fewer) return std::unexpected(fewer.error());

  for (const auto& [id, counts] : kept["security_groups"].items()) {
    const SecurityGroup* before = state.security_groups.get(id);
    SecurityGroup& group = with->security_groups[id];
    if (before == nullptr || !put_common(before->ingress, group.ingress, member_of(counts, "ingress")) ||
        !put_common(before->egress, group.egress, member_of(counts, "egress"))) {
      return std::unexpected("\"kept\" of " + id + " does not fit what was there before");
    }
  }
  for (const auto& [id, counts] : kept["prefix_lists"].items()) {
    const PrefixList* before = state.prefix_lists.get(id);
    if (before == nullptr || !put_common(before->entries, with->prefix_lists[id].entries, member_of(counts, "entries"))) {
      return std::unexpected("\"kept\" of " + id + " does not fit what was there before");
    }
  }
  take_map(state.subnets, with->subnets, gone["subnets"]);
  take_map(state.security_groups, with->security_groups, gone["security_groups"]);
  take_map(state.prefix_lists, with->prefix_lists, gone["prefix_lists"]);
  take_map(state.network_acls, with->network_acls, gone["network_acls"]);
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
