// SPDX-License-Identifier: BSD-3-Clause
//
// Steering: the trunk's device is told which receive queue an endpoint's packets are for, so that they arrive at its worker and need
// not be handed over. It follows the View: rules come with an endpoint, go with it, and move when it has moved.
//
// Rules:
//  * Correctness never depends on it. A worker finds a packet's endpoint by VLAN, MAC and address whatever queue it came by, and
//    hands it over when it is another's. A rule that is late, missing or wrong costs cycles.
//  * Control thread only. A device may block for as long as it likes in one call; tick() ends soon after it has used its share of
//    the time, and goes on at the next. Workers notice nothing.
//  * A rule that leads elsewhere: the new one first, then the old one goes. Where the device refuses that, the other way round.
//  * A full table: the rest stays in software. It is tried again whenever a rule went, and by itself a few times, ever later.
//    What the device refuses otherwise is tried again a few times, too.
//  * Rules that the device lost are installed again: when it says that it was reset, when one of them is not known to it any
//    more (asked in turn, where it counts), and when an operator asks for it.
//
// Errors are sentences, and kept: why an endpoint is in software is part of its report.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/io/flow_device.h"
#include "dataplane/io/steering_plan.h"

namespace trunkline {

struct SteeringSettings {
  bool wanted = true;  // trunk.steering
  std::size_t workers = 1;
  std::function<std::uint64_t()> micros;             // nullptr: the steady clock
  std::function<void(const std::string&)> note;      // what an operator should read; nullptr: nobody
};

// One endpoint's part of it.
struct SteeredEndpoint {
  EndpointId id;
  std::optional<SteeringPattern> pattern;
  std::uint16_t queue = 0;
  std::optional<std::uint32_t> mark;
  std::size_t wanted = 0, installed = 0;  // rules
  std::optional<std::uint64_t> hits;      // frames that its rules matched since they are there, where the device counts
  std::string why;                        // not, or not wholly, in hardware: why
};

class Steering {
 public:
  // `queues` of the trunk's device, each way. Both outlive this.
  Steering(FlowDevice& device, std::uint16_t queues, SteeringSettings settings);
  ~Steering();
  Steering(const Steering&) = delete;
  Steering& operator=(const Steering&) = delete;

  // Every tenth of a second, and after changes that should not wait for it.
  void tick(const View& view, Tick now);
  // Forgets what is installed and what the device was found to take, and begins anew.
  void resync();

  bool active() const { return inactive_.empty(); }
  const std::string& inactive_because() const { return inactive_; }
  const FlowAbilities& abilities() const { return abilities_; }
  std::size_t installed_rules() const { return installed_.size(); }
  std::size_t wanted_rules() const { return wanted_.size(); }
  // Rules that were installed when the device had no room for another; nullopt: it has.
  std::optional<std::size_t> full_after() const { return full_after_; }
  std::uint64_t times_lost() const { return times_lost_; }  // rules that had to be installed again, all of them at a time
  // With hits, the device is asked about each rule: as long as that takes.
  std::vector<SteeredEndpoint> endpoints(bool with_hits = true);

 private:
  struct Trouble {
    std::uint32_t attempts = 0;
    Tick not_before = 0;
    std::string why;
  };
  struct Wish {
    EndpointId id;
    SteeringWish wish;
  };

  void probe();
  void follow(const View& view);
  void lost(const std::string& why);
  void check();
  bool carry_out(const SteeringStep& step);
  bool may_try(const FlowMatch& match) const;
  bool remove(const FlowRule& rule);
  bool add(const FlowRule& rule);
  bool replace(const FlowRule& rule);
  void install(const FlowRule& rule, FlowHandle handle);
  void erase(const FlowMatch& match);
  void failed(const FlowMatch& match, const FlowError& error);
  void note(const std::string& text) const;

  FlowDevice& device_;
  std::uint16_t queues_;
  SteeringSettings settings_;
  FlowAbilities abilities_;
  std::string inactive_;  // why there is nothing to steer, or nothing that can; empty: it is at work

  std::uint64_t view_generation_ = 0;
  std::vector<Wish> wishes_;
  FlowRules wanted_, installed_;
  std::map<FlowMatch, FlowHandle> handles_;  // of installed_
  std::map<FlowMatch, Trouble> troubles_;
  bool busy_ = false;            // there may be steps left
  bool refuses_duplicates_ = false;  // a second rule of the same match
  std::optional<std::size_t> full_after_;
  std::uint32_t full_attempts_ = 0;
  Tick full_until_ = 0;
  Tick now_ = 0, checked_at_ = 0;
  std::optional<FlowMatch> checked_;   // the last one that was asked about
  std::uint32_t checks_in_vain_ = 0;   // all rules were installed anew and the next question failed all the same
  std::uint64_t times_lost_ = 0;
};

}  // namespace trunkline
