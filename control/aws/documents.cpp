// SPDX-License-Identifier: BSD-3-Clause
#include "control/aws/documents.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "control/aws/known_keys.h"
#include "control/aws_reader.h"

namespace trunkline::control {
namespace {

using config::ObjectReader;
using config::words::in_quotes;

// What the AWS CLI prints such a list for. For a document that is not the one that is wanted.
constexpr std::pair<std::string_view, std::string_view> kCommands[] = {
    {"SecurityGroups", "describe-security-groups"},
    {"SecurityGroupRules", "describe-security-group-rules"},
    {"Subnets", "describe-subnets"},
    {"Vpcs", "describe-vpcs"},
    {"NetworkAcls", "describe-network-acls"},
    {"NetworkInterfaces", "describe-network-interfaces"},
    {"InterfaceAssociations", "describe-trunk-interface-associations"},
    {"PrefixLists", "describe-managed-prefix-lists or describe-prefix-lists"},
    {"Entries", "get-managed-prefix-list-entries"},
    {"tasks", "describe-tasks"},
};

std::string_view command_of(std::string_view key) {
  const auto* const found = std::ranges::find(kCommands, key, [](const auto& each) { return each.first; });
  return found == std::end(kCommands) ? std::string_view{} : found->second;
}

// The element of the list that a pointer leads into; nullopt: the list itself, or elsewhere.
std::optional<std::size_t> element_of(std::string_view pointer, const std::string& list) {
  if (!pointer.starts_with(list) || pointer.size() < list.size() + 2 || pointer[list.size()] != '/') return std::nullopt;
  const std::string_view rest = pointer.substr(list.size() + 1);
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), index);
  if (error != std::errc{} || (end != rest.data() + rest.size() && *end != '/')) return std::nullopt;
  return index;
}

// Whether two elements have the same id: then nobody knows which one counts.
bool has_twins(const Json& list, std::string_view id_key) {
  std::set<std::string_view> seen;
  for (const Json& element : list) {
    if (!element.is_object()) continue;
    const auto id = element.find(id_key);
    if (id != element.end() && id->is_string() && !seen.insert(id->get_ref<const std::string&>()).second) return true;
  }
  return false;
}

std::string name_of(const Json& element, std::string_view id_key) {
  const auto id = element.is_object() ? element.find(id_key) : element.end();
  return element.is_object() && id != element.end() && id->is_string() ? config::words::shorten(id->get_ref<const std::string&>()) : "without an id";
}

}  // namespace

Document::Document(const Json& value, std::string pointer) : value_(value), reader_(value, std::move(pointer), problems) {
  reader_.allow_unknown(&unread);
  reader_.ignore_all(harmless::kDocument);
  for (const char* key : {"NextToken", "nextToken"}) {
    const Json* token = reader_.any(key);
    reader_.ignore(key);
    is_page_ = is_page_ || (token != nullptr && *token != "");
  }
}

Document::List Document::take_one_of(std::initializer_list<std::string_view> keys, std::string_view command) {
  List found;
  if (!value_.is_object()) return found;  // told already
  std::string wanted;
  for (const std::string_view key : keys) {
    wanted += (wanted.empty() ? "" : " or ") + in_quotes(key);
    reader_.any(key);
    if (!reader_.has(key)) continue;
    if (!found.key.empty()) {
      reader_.complain(key, "invalid_params",
                       "the document has " + in_quotes(found.key) + " and " + in_quotes(key) + ", which say the same in two ways; give one of them");
      return {};
    }
    found.key = key;
  }
  if (found.key.empty()) {
    std::string message = wanted + " is missing; wanted the document that aws " + std::string(command) + " prints with --output json";
    for (const auto& [key, other] : kCommands) {
      if (reader_.has(key) && std::ranges::find(keys, key) == keys.end()) message += ", and this is one of " + std::string(other);
    }
    add_problem(problems, {"invalid_params", reader_.pointer_to(*keys.begin()), std::move(message)});
    return found;
  }
  found.value = reader_.array(found.key);
  found.pointer = reader_.pointer_to(found.key);
  if (found.value == nullptr) found.key = {};  // told already
  return found;
}

void Document::refuse_page(std::string_view why) {
  if (!is_page_) return;
  reader_.complain("NextToken", "invalid_params",
                   "the document is one page of several (it has a NextToken), and " + std::string(why) +
                       "; give all pages in one document, as the AWS CLI prints them without --max-items and --no-paginate");
}

void Document::leave_out_unusable(const List& list, std::string_view id_key, std::size_t usable) {
  if (list.value == nullptr || usable == 0 || problems.empty() || has_twins(*list.value, id_key)) return;
  const auto is_of_element = [&](const config::Problem& problem) {
    return element_of(problem.pointer, list.pointer).has_value() && !problem.name.starts_with("duplicate");
  };
  if (!std::ranges::all_of(problems, is_of_element)) return;
  std::size_t told = 0;
  for (const config::Problem& problem : problems) {
    if (++told > 20) {
      warnings.push_back(std::to_string(problems.size() - 20) + " more of the kind");
      break;
    }
    const std::size_t index = *element_of(problem.pointer, list.pointer);
    warnings.push_back(std::string(list.key) + "[" + std::to_string(index) + "] (" + name_of((*list.value)[index], id_key) + ") was left out: at " +
                       problem.pointer + ": " + problem.message);
  }
  problems.clear();
}

bool Document::finish() {
  reader_.finish();
  for (std::string& sentence : unread.sentences()) warnings.push_back(std::move(sentence));
  return problems.empty();
}

namespace {

constexpr std::string_view kPageOfAll = "what is not on it would be removed";

void warn_of_page(Document& document) {
  if (document.is_page()) document.warnings.push_back("the document is one page of several (it has a NextToken); submit the other pages as well");
}

// The rows of a group without any of a direction look the same as rows that somebody filtered.
void warn_of_missing_rows(const std::vector<config::SecurityGroup>& groups, Warnings& warnings) {
  for (const config::SecurityGroup& group : groups) {
    if (!group.ingress.empty() && !group.egress.empty()) continue;
    warnings.push_back(group.id + " has no " + (group.ingress.empty() ? "ingress" : "egress") +
                       " rows here, so nothing is allowed that way; its rows replace it whole, so ask for all of them");
  }
}

}  // namespace

std::expected<GroupsDocument, Problems> read_groups_document(const Json& value, const std::string& pointer, bool replace_all) {
  Document document(value, pointer);
  GroupsDocument result;
  const auto list = document.take_one_of({"SecurityGroups", "SecurityGroupRules"}, "ec2 describe-security-groups");
  if (list.key == "SecurityGroups") {
    result.groups = read_security_groups(*list.value, list.pointer, document.problems, &document.unread);
    if (replace_all) document.refuse_page(kPageOfAll);
    warn_of_page(document);
  } else if (list.key == "SecurityGroupRules") {
    result.rules_only = true;
    result.groups = read_security_group_rules(*list.value, list.pointer, document.problems, &document.unread);
    document.refuse_page("the rules of a group may go on on the next one");
    if (replace_all) {
      document.reader().complain("SecurityGroupRules", "invalid_params",
                                 "a group without rules has no row here, so nobody can say which groups are gone; give describe-security-groups to "
                                 "replace all");
    }
    warn_of_missing_rows(result.groups, document.warnings);
  }
  if (!document.finish()) return std::unexpected(std::move(document.problems));
  result.warnings = std::move(document.warnings);
  return result;
}

void put_group(config::SecurityGroup group, bool rules_only, config::DesiredState& next) {
  if (const config::SecurityGroup* known = next.security_groups.get(group.id); rules_only && known != nullptr) {
    group.name = known->name;
    group.description = known->description;
    group.vpc_id = known->vpc_id;
  }
  const std::string id = group.id;
  next.security_groups.insert_or_assign(id, std::move(group));
}

std::expected<AclsDocument, Problems> read_acls_document(const Json& value, const std::string& pointer, bool replace_all) {
  Document document(value, pointer);
  AclsDocument result;
  const auto list = document.take_one_of({"NetworkAcls"}, "ec2 describe-network-acls");
  if (list.value != nullptr) result.acls = read_network_acls(*list.value, list.pointer, document.problems, &document.unread);
  if (replace_all) document.refuse_page(kPageOfAll);
  warn_of_page(document);
  if (!document.finish()) return std::unexpected(std::move(document.problems));
  result.warnings = std::move(document.warnings);
  return result;
}

std::expected<SubnetsDocument, Problems> read_subnets_document(const Json& value, const std::string& pointer) {
  Document document(value, pointer);
  SubnetsDocument result;
  const auto list = document.take_one_of({"Subnets"}, "ec2 describe-subnets");
  if (list.value != nullptr) result.subnets = read_subnets(*list.value, list.pointer, document.problems, &document.unread, &result.silent_on_ipv6);
  document.leave_out_unusable(list, "SubnetId", result.subnets.size());
  warn_of_page(document);
  if (!document.finish()) return std::unexpected(std::move(document.problems));
  result.warnings = std::move(document.warnings);
  return result;
}

std::expected<VpcsDocument, Problems> read_vpcs_document(const Json& value, const std::string& pointer) {
  Document document(value, pointer);
  VpcsDocument result;
  const auto list = document.take_one_of({"Vpcs"}, "ec2 describe-vpcs");
  if (list.value != nullptr) result.ranges = read_vpcs(*list.value, list.pointer, document.problems, &document.unread);
  document.leave_out_unusable(list, "VpcId", result.ranges.size());
  warn_of_page(document);
  if (!document.finish()) return std::unexpected(std::move(document.problems));
  result.warnings = std::move(document.warnings);
  return result;
}

namespace {

// describe-prefix-lists says the ranges of AWS's own lists; describe-managed-prefix-lists says none.
void read_described_lists(const Document::List& list, const std::string& id, Document& document, std::vector<config::PrefixList>& lists) {
  std::set<std::string> seen;
  std::string without;
  for_each(*list.value, list.pointer, document.problems, &document.unread, [&](ObjectReader& reader) {
    const std::size_t before = document.problems.size();
    reader.ignore_all(harmless::kPrefixList);
    config::PrefixList one;
    one.id = take_aws_id(reader, "PrefixListId", "pl");
    if (!one.id.empty() && !seen.insert(one.id).second) complain_twice(reader, "PrefixListId", one.id);
    if (!reader.has("Cidrs")) {
      without += (without.empty() ? "" : ", ") + one.id;
      reader.leave_out();
      return;
    }
    one.entries = reader.networks("Cidrs");
    reader.finish();
    if (document.problems.size() == before && (id.empty() || id == one.id)) lists.push_back(std::move(one));
  });
  if (without.empty()) return;
  add_problem(document.problems,
              {"invalid_params", list.pointer,
               "describe-managed-prefix-lists does not say what is in the lists (" + config::words::shorten(without, 200) +
                   "); give, for each of them, what aws ec2 get-managed-prefix-list-entries --prefix-list-id ID prints, with its id"});
}

}  // namespace

std::expected<PrefixListsDocument, Problems> read_prefix_lists_document(const Json& value, const std::string& pointer, const std::string& id) {
  Document document(value, pointer);
  PrefixListsDocument result;
  const auto list = document.take_one_of({"Entries", "PrefixLists"}, "ec2 get-managed-prefix-list-entries");
  if (list.key == "Entries") {
    result.lists.push_back(read_prefix_list(document.reader(), id));
    document.refuse_page("its other entries are on the next one");
  } else if (list.key == "PrefixLists") {
    read_described_lists(list, id, document, result.lists);
    if (!id.empty() && document.problems.empty() && result.lists.empty()) {
      document.reader().complain("PrefixLists", "invalid_params", "the document has no list " + id + "; give the one that has it, or no id");
    }
    warn_of_page(document);
  }
  if (!document.finish()) return std::unexpected(std::move(document.problems));
  result.warnings = std::move(document.warnings);
  return result;
}

}  // namespace trunkline::control
