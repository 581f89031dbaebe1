// SPDX-License-Identifier: BSD-3-Clause
#include "config.h"

#include <net/if.h>

#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <map>
#include <set>

namespace trunkline::fabric {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  throw ConfigError((where.empty() ? "the document" : where) + ": " + why);
}

void expect_members(const json& object, const std::string& where, std::initializer_list<const char*> known) {
  if (!object.is_object()) refuse(where, "expected an object");
  for (const auto& [key, value] : object.items()) {
    bool found = false;
    for (const char* const name : known) found = found || key == name;
    if (!found) refuse(where + "/" + key, "unknown member");
  }
}

const json& member(const json& object, const std::string& where, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) refuse(where, "lacks \"" + std::string(key) + "\"");
  return *found;
}

const json& list(const json& object, const std::string& where, const char* key) {
  static const json kNone = json::array();
  if (!object.contains(key)) return kNone;
  if (!object[key].is_array()) refuse(where + "/" + key, "expected an array");
  return object[key];
}

std::string text(const json& value, const std::string& where) {
  if (!value.is_string()) refuse(where, "expected a string");
  return value.get<std::string>();
}

unsigned number(const json& value, const std::string& where, unsigned low, unsigned high) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() < low || value.get<std::uint64_t>() > high) {
    refuse(where, "expected a number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value.get<unsigned>();
}

Mac mac(const json& value, const std::string& where) {
  const std::string written = text(value, where);
  Mac result;
  int used = 0;
  if (std::sscanf(written.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &result[0], &result[1], &result[2],
                  &result[3], &result[4], &result[5], &used) != 6 ||
      written.size() != 17 || used != 17) {
    refuse(where, "\"" + written + "\" is not a MAC address");
  }
  if ((result[0] & 1) != 0 || result == Mac{}) refuse(where, "\"" + written + "\" is not a unicast MAC address");
  return result;
}

Address address(const json& value, const std::string& where) {
  const std::string written = text(value, where);
  const auto parsed = Address::parse(written);
  if (!parsed) refuse(where, "\"" + written + "\" is not an IP address");
  return *parsed;
}

Prefix prefix(const json& value, const std::string& where, bool v6) {
  const std::string written = text(value, where);
  const std::size_t slash = written.find('/');
  const auto base = Address::parse(written.substr(0, slash));
  unsigned length = 0;
  int used = 0;
  if (slash == std::string::npos || !base || base->v6 != v6 || written.size() - slash > 4 ||
      std::sscanf(written.c_str() + slash, "/%3u%n", &length, &used) != 1 ||
      slash + static_cast<std::size_t>(used) != written.size() || length == 0 || length > base->size() * 8 - 2) {
    refuse(where, "\"" + written + "\" is not an " + (v6 ? "IPv6" : "IPv4") + " address with a prefix length");
  }
  return {*base, length};
}

Inhabitant parse_eni(const json& object, const std::string& where, bool tagged) {
  expect_members(object, where, {"vlan", "mac", "addresses", "subnet", "subnet6"});
  Inhabitant eni;
  eni.name = where;
  // On a tagged trunk VLAN 0 is the trunk ENI itself, whose frames carry no tag; it has to be said, not forgotten.
  if (tagged || object.contains("vlan")) {
    eni.vlan = static_cast<std::uint16_t>(number(member(object, where, "vlan"), where + "/vlan", 0, tagged ? 4094 : 0));
  }
  eni.mac = mac(member(object, where, "mac"), where + "/mac");
  if (object.contains("subnet")) eni.subnet = prefix(object["subnet"], where + "/subnet", false);
  if (object.contains("subnet6")) eni.subnet6 = prefix(object["subnet6"], where + "/subnet6", true);
  member(object, where, "addresses");
  for (const json& value : list(object, where, "addresses")) {
    const std::string place = where + "/addresses/" + std::to_string(eni.addresses.size());
    const Address owned = address(value, place);
    const auto& subnet = owned.v6 ? eni.subnet6 : eni.subnet;
    if (!subnet || !subnet->contains(owned)) refuse(place, owned.to_string() + " is not in the ENI's subnet");
    eni.addresses.push_back(owned);
  }
  return eni;
}

HostConfig parse_host(const json& object, const std::string& where) {
  expect_members(object, where, {"netns", "ifname", "mac", "address", "address6", "gateway", "gateway6"});
  HostConfig host;
  if (object.contains("netns")) host.netns = text(object["netns"], where + "/netns");
  host.ifname = text(member(object, where, "ifname"), where + "/ifname");
  if (host.ifname.empty() || host.ifname.size() >= IFNAMSIZ) refuse(where + "/ifname", "not an interface name");
  if (object.contains("address")) host.address = prefix(object["address"], where + "/address", false);
  if (object.contains("address6")) host.address6 = prefix(object["address6"], where + "/address6", true);
  if (!host.address && !host.address6) refuse(where, "has neither \"address\" nor \"address6\"");
  if (object.contains("gateway")) host.gateway = address(object["gateway"], where + "/gateway");
  if (object.contains("gateway6")) host.gateway6 = address(object["gateway6"], where + "/gateway6");
  if (host.gateway && host.gateway->v6) refuse(where + "/gateway", "expected an IPv4 address");
  if (host.gateway6 && !host.gateway6->v6) refuse(where + "/gateway6", "expected an IPv6 address");
  if (object.contains("mac")) {
    host.mac = mac(object["mac"], where + "/mac");
  } else {
    const auto& bytes = host.address ? host.address->address.bytes : host.address6->address.bytes;
    const std::size_t start = host.address ? 0 : 12;
    host.mac = {0x0a, 0x58, bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]};
  }
  return host;
}

Inhabitant inhabitant_of(const HostConfig& host, const std::string& where, Port port) {
  Inhabitant result;
  result.name = where;
  result.port = port;
  result.mac = host.mac;
  result.subnet = host.address;
  result.subnet6 = host.address6;
  if (host.address) result.addresses.push_back(host.address->address);
  if (host.address6) result.addresses.push_back(host.address6->address);
  return result;
}

void check_owners(const Config& config) {
  std::map<std::string, std::string> owners;
  std::set<std::string> routers;
  const auto claim = [&owners](const std::string& what, const std::string& who) {
    const auto [at, is_new] = owners.emplace(what, who);
    if (!is_new) refuse(who, what + " belongs to " + at->second + " already");
  };
  claim("MAC " + to_string(config.router_mac), "/router_mac");
  for (const Inhabitant& one : config.inhabitants) {
    if (one.subnet) routers.insert(one.subnet->router().to_string());
    if (one.subnet6) routers.insert(one.subnet6->router().to_string());
  }
  for (const Inhabitant& one : config.inhabitants) {
    claim("MAC " + to_string(one.mac), one.name);
    // Without tags, ENIs are told apart by their MAC alone.
    if (one.port == kTrunk && config.tagged) claim("VLAN " + std::to_string(one.vlan), one.name);
    for (const Address& owned : one.addresses) {
      if (routers.contains(owned.to_string())) refuse(one.name, owned.to_string() + " is the address of a router");
      claim("address " + owned.to_string(), one.name);
    }
  }
}

}  // namespace

Config read_config(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw ConfigError("cannot open it");
  json document;
  try {
    document = json::parse(file);
  } catch (const json::parse_error& error) {
    throw ConfigError("not JSON: " + std::string(error.what()));
  }

  expect_members(document, "", {"trunk", "router_mac", "mtu", "enis", "hosts"});
  Config config;
  const json& trunk = member(document, "", "trunk");
  expect_members(trunk, "/trunk", {"interface", "netns", "mode"});
  config.trunk_interface = text(member(trunk, "/trunk", "interface"), "/trunk/interface");
  if (trunk.contains("netns")) config.trunk_netns = text(trunk["netns"], "/trunk/netns");
  const std::string mode = trunk.contains("mode") ? text(trunk["mode"], "/trunk/mode") : "tagged";
  if (mode != "tagged" && mode != "untagged") refuse("/trunk/mode", "expected \"tagged\" or \"untagged\"");
  config.tagged = mode == "tagged";
  config.router_mac = mac(document.value("router_mac", json("0a:00:00:00:00:01")), "/router_mac");
  config.mtu = number(document.value("mtu", json(9001U)), "/mtu", 1280, 65000);

  const json& hosts = list(document, "", "hosts");
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const std::string where = "/hosts/" + std::to_string(i);
    config.hosts.push_back(parse_host(hosts[i], where));
    config.inhabitants.push_back(inhabitant_of(config.hosts.back(), where, static_cast<Port>(i + 1)));
  }
  const json& enis = list(document, "", "enis");
  for (std::size_t i = 0; i < enis.size(); ++i) {
    config.inhabitants.push_back(parse_eni(enis[i], "/enis/" + std::to_string(i), config.tagged));
  }
  check_owners(config);
  config.fixed = document;
  config.fixed.erase("enis");
  return config;
}

}  // namespace trunkline::fabric
