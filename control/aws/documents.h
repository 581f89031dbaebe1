// SPDX-License-Identifier: BSD-3-Clause
//
// One document as the AWS CLI or an SDK prints it ({"SecurityGroups":[...],"NextToken":...}), read as a whole. It is one
// member of a request, and none of its own members is the request's: what the readers do not know of it is told
// (ReadDocument::warnings), whatever it is called. ec2_shapes.h reads the lists inside.
//
// Which document it is, is known by the list that it has. Rules:
//  * A document of facts (subnets, VPCs, interfaces) may have elements that cannot be used: they are left out, a warning
//    each, as long as something else in it can be used. A document of rules (groups, ACLs, prefix lists) is read whole or
//    refused, since half of it would be another policy.
//  * A page (NextToken) says only a part. It is refused where what is not in it would be removed: with `replace_all`, and
//    where one thing may be cut in two (rules of a group, entries of a prefix list). Otherwise it is read, with a warning.
//
// Pure functions; control thread and tests only.
#pragma once

#include <expected>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "control/ec2_shapes.h"

namespace trunkline::control {

// What is common to every kind of document: its lists, whether it is a page, what was not read.
class Document {
 public:
  // `pointer`: where it stands in the request, "/document".
  Document(const Json& value, std::string pointer);

  // The one of these lists that it has, after "/"; a problem if it has none or more than one. `command` prints such a document.
  struct List {
    std::string_view key;  // "": none
    const Json* value = nullptr;
    std::string pointer;
  };
  List take_one_of(std::initializer_list<std::string_view> keys, std::string_view command);
  bool is_page() const { return is_page_; }
  void refuse_page(std::string_view why);
  // Of a document of facts: the problems of single elements of the list become warnings if `usable` elements are left.
  // An element that is there twice, or two that claim the same thing, stay a problem. `id_key` names an element.
  void leave_out_unusable(const List& list, std::string_view id_key, std::size_t usable);
  // After everything is read: what was not read becomes warnings.
  bool finish();

  config::ObjectReader& reader() { return reader_; }

  Problems problems;
  Warnings warnings;
  config::UnreadKeys unread;

 private:
  const Json& value_;
  config::ObjectReader reader_;
  bool is_page_ = false;
};

struct GroupsDocument {
  std::vector<config::SecurityGroup> groups;
  bool rules_only = false;  // of describe-security-group-rules: without names, descriptions and VPCs
  Warnings warnings;
};
std::expected<GroupsDocument, Problems> read_groups_document(const Json& document, const std::string& pointer, bool replace_all);
// A group as the document has it, beside what is known of it where the document does not say that.
void put_group(config::SecurityGroup group, bool rules_only, config::DesiredState& next);

struct AclsDocument {
  std::vector<config::NetworkAcl> acls;
  Warnings warnings;
};
std::expected<AclsDocument, Problems> read_acls_document(const Json& document, const std::string& pointer, bool replace_all);

struct SubnetsDocument {
  std::vector<config::Subnet> subnets;
  std::set<std::string> silent_on_ipv6;  // of these the ids that say nothing about an IPv6 block
  Warnings warnings;
};
std::expected<SubnetsDocument, Problems> read_subnets_document(const Json& document, const std::string& pointer);

struct VpcsDocument {
  std::map<std::string, IpPrefix> ranges;
  Warnings warnings;
};
std::expected<VpcsDocument, Problems> read_vpcs_document(const Json& document, const std::string& pointer);

// get-managed-prefix-list-entries of the list `id` ("": the document says it), or describe-prefix-lists.
struct PrefixListsDocument {
  std::vector<config::PrefixList> lists;
  Warnings warnings;
};
std::expected<PrefixListsDocument, Problems> read_prefix_lists_document(const Json& document, const std::string& pointer, const std::string& id);

}  // namespace trunkline::control
