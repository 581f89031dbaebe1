// SPDX-License-Identifier: BSD-3-Clause
//
// Names of the ENIs' addresses, as EC2 gives them: a hosts file with a line for each IPv4 address of each active ENI,
//
//     10.0.0.35 ip-10-0-0-35.us-west-2.compute.internal ip-10-0-0-35
//
// for whoever resolves names on this host; dnsmasq's --hostsdir reads it live. Names of this form have no IPv6 address. The primary
// address has the ENI's own private DNS name where AWS said one.
//
// The file is written aside and renamed, under a name that begins with a dot and that dnsmasq therefore does not read; only when it
// would say something else than it does. What cannot be written is a sentence for whoever asked, and is to be tried again.
//
// Control thread only.
#pragma once

#include <optional>
#include <string>

#include "config/engine_config.h"
#include "control/reconcile.h"

namespace trunkline::control {

// The whole text of the file. Pure.
std::string hosts_text(const ActiveAttachments& active, const std::string& region);

class Names {
 public:
  explicit Names(const config::EngineConfig::Names& config) : config_(config) {}

  // Makes the file say what is active; false: it cannot be written, and trouble() says why. Without a hosts_file: nothing to do.
  bool write(const ActiveAttachments& active);
  // Of the last write; empty: none.
  const std::string& trouble() const { return trouble_; }

 private:
  const config::EngineConfig::Names& config_;
  std::optional<std::string> written_;  // what the file says, as far as is known
  std::string trouble_;
};

}  // namespace trunkline::control
