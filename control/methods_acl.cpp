// SPDX-License-Identifier: BSD-3-Clause
//
// The methods about network ACLs and VPCs. A subnet without an ACL lets everything pass, so whoever takes an ACL away from a
// subnet that has ENIs here must have said so of that subnet: by an ACL without the association (a warning), not by leaving the
// ACL out (refused).
#include <algorithm>

#include "control/aws/documents.h"
#include "control/ec2_shapes.h"
#include "control/method_parts.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::Problems;

std::vector<std::string> users_of(const config::DesiredState& state, const config::NetworkAcl& acl) {
  std::vector<std::string> users;
  for (const auto& [eni, attachment] : state.attachments) {
    if (std::ranges::find(acl.subnet_ids, attachment.subnet_id) != acl.subnet_ids.end()) users.push_back(eni);
  }
  return users;
}

void refuse_to_open(const config::DesiredState& before, const config::DesiredState& after, const std::string& pointer, Problems& problems) {
  for (const std::string& subnet : subnets_left_open(before, after)) {
    problems.push_back({"acl_in_use", pointer,
                        subnet + " has ENIs here and would be left without a network ACL, which lets everything pass; associate it with another ACL, "
                                 "or first put its ACL without it"});
  }
}

class AclMethods {
 public:
  explicit AclMethods(Controller& controller) : controller_(controller) {}

  Answer list(const Json& params) {
    Params in(params);
    if (!in.sound()) return in.refusal();
    Json acls = Json::array();
    for (const auto& [id, acl] : controller_.desired().network_acls) {
      acls.push_back({{"id", id},
                      {"vpc", acl.vpc_id},
                      {"is_default", acl.is_default},
                      {"ingress_entries", acl.ingress.size()},
                      {"egress_entries", acl.egress.size()},
                      {"subnets", acl.subnet_ids},
                      {"used_by", users_of(controller_.desired(), acl)}});
    }
    return Json{{"acls", std::move(acls)}};
  }

  Answer show(const Json& params) {
    Params in(params);
    const std::vector<std::string> ids = in.reader.texts("acls");
    if (!in.sound()) return in.refusal();
    for (const std::string& id : ids) {
      if (!controller_.desired().network_acls.contains(id)) return std::unexpected(not_found("network ACL \"" + id + "\"", "/acls"));
    }
    Json acls = Json::array();
    for (const auto& [id, acl] : controller_.desired().network_acls) {
      if (ids.empty() || std::ranges::find(ids, id) != ids.end()) acls.push_back(network_acl_json(acl));
    }
    return Json{{"NetworkAcls", std::move(acls)}};
  }

  Answer put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const bool replace_all = in.reader.boolean("replace_all").value_or(false);
    const RemovalConsent consent = in.removal_consent();
    const auto document = take_document(in, params, {"NetworkAcls"}, "aws ec2 describe-network-acls");
    if (!in.sound()) return in.refusal();
    auto read = read_acls_document(*document.value, document.pointer, replace_all);
    if (!read) return std::unexpected(refuse(std::move(read.error())));
    auto& acls = read->acls;
    const std::string list_pointer = document.pointer + "/NetworkAcls";
    return change_state(controller_, options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      warnings = read->warnings;
      const config::DesiredState before = next;
      const std::size_t given = acls.size();
      config::DesiredState dropped = before;  // what those not given had; what those given have was said
      for (const auto& acl : acls) dropped.network_acls.erase(acl.id);
      Loss loss{0, before.network_acls.size()};
      if (replace_all) {
        loss.lost = next.network_acls.erase_if([&](const auto& known) {
          return std::ranges::find(acls, known.first, &config::NetworkAcl::id) == acls.end();
        });
      }
      for (auto& acl : acls) next.network_acls.insert_or_assign(acl.id, std::move(acl));
      Problems problems;
      if (replace_all) refuse_to_open(dropped, next, list_pointer, problems);
      if (replace_all && problems.empty()) {
        problems = check_replaced("network ACLs", loss, given, controller_.config(), consent, list_pointer);
      }
      warn_of_open(before, next, warnings);
      return problems;
    });
  }

  Answer remove(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const std::string id = in.reader.required_text("acl");
    if (!in.sound()) return in.refusal();
    if (!controller_.desired().network_acls.contains(id)) return std::unexpected(not_found("network ACL \"" + id + "\"", "/acl"));
    return change_state(controller_, options, [&](config::DesiredState& next, std::vector<std::string>&) {
      const config::DesiredState before = next;
      next.network_acls.erase(id);
      Problems problems;
      refuse_to_open(before, next, "/acl", problems);
      return problems;
    });
  }

  Answer vpc_put(const Json& params) {
    Params in(params);
    const ChangeOptions options = in.change_options();
    const auto document = take_document(in, params, {"Vpcs"}, "aws ec2 describe-vpcs");
    if (!in.sound()) return in.refusal();
    const auto read = read_vpcs_document(*document.value, document.pointer);
    if (!read) return std::unexpected(refuse(Problems(read.error())));
    const auto& ranges = read->ranges;
    return change_state(controller_, options, [&](config::DesiredState& next, std::vector<std::string>& warnings) {
      warnings = read->warnings;
      std::map<std::string, std::string> wanted;  // subnet -> its VPC
      for (const auto& [id, subnet] : next.subnets) {
        if (ranges.contains(subnet.vpc_id)) wanted[id] = subnet.vpc_id;
      }
      for (const auto& [id, vpc] : wanted) {
        const bool is_configured = std::ranges::find(controller_.config().subnets, id, &config::Subnet::id) != controller_.config().subnets.end();
        if (is_configured && next.subnets.at(id).vpc_cidr != ranges.at(vpc)) {
          warnings.push_back(id + " is in the config file and stays as it is there; give it \"vpc_cidr\" in the file");
        } else {
          next.subnets[id].vpc_cidr = ranges.at(vpc);
        }
      }
      for (const auto& [vpc, range] : ranges) {
        const bool known = std::ranges::any_of(wanted, [&](const auto& each) { return each.second == vpc; });
        if (!known) warnings.push_back("no subnet of " + vpc + " is known, so nobody remembers its range; put its subnets first");
      }
      return Problems{};
    });
  }

 private:
  Controller& controller_;
};

}  // namespace

void add_acl_methods(Server& server, Controller& controller) {
  const auto methods = std::make_shared<AclMethods>(controller);
  const auto add = [&](const char* name, Access access, Answer (AclMethods::*call)(const Json&)) {
    server.add(name, access, [methods, call](const Json& params, const Caller&) { return ((*methods).*call)(params); });
  };
  add("acl.list", Access::look, &AclMethods::list);
  add("acl.show", Access::look, &AclMethods::show);
  add("acl.put", Access::change, &AclMethods::put);
  add("acl.delete", Access::change, &AclMethods::remove);
  add("vpc.put", Access::change, &AclMethods::vpc_put);
}

}  // namespace trunkline::control
