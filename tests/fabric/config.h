// SPDX-License-Identifier: BSD-3-Clause
//
// The emulator's configuration: one JSON document that lists the trunk, the ENIs behind it and the hosts. See
// README.md for an example.
//
// Rules:
//  * A document is accepted whole or refused with one sentence that names the place (a JSON pointer) and the reason.
//  * Unknown members are refused: a misspelt one would otherwise be silently ignored.
//  * Every address, MAC and VLAN has one owner, and nobody owns a router's address.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "mapping.h"

namespace trunkline::fabric {

class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct HostConfig {
  std::string netns;  // empty: the current one
  std::string ifname;
  Mac mac{};
  std::optional<Prefix> address;
  std::optional<Prefix> address6;
  std::optional<Address> gateway;
  std::optional<Address> gateway6;
};

struct Config {
  std::string trunk_interface;
  std::string trunk_netns;  // empty: the current one
  bool tagged = true;
  Mac router_mac{};
  unsigned mtu = 9001;
  std::vector<HostConfig> hosts;
  std::vector<Inhabitant> inhabitants;  // the hosts, then the ENIs
  nlohmann::json fixed;                 // the document without `enis`: what a reload must not change
};

Config read_config(const std::string& path);

}  // namespace trunkline::fabric
