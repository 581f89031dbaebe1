// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/steering.h"

#include <algorithm>
#include <chrono>

namespace trunkline {
namespace {

// Of a tick's tenth of a second; the call that is under way then is waited for.
constexpr std::uint64_t kShareMicros = 10'000;
// A second, two, four and so on; after these the device is left in peace until something changes.
constexpr std::uint32_t kAttempts = 6;
constexpr Tick kCheckTicks = 5 * kTicksPerSecond;
constexpr std::size_t kChecksAtOnce = 8;
constexpr std::uint32_t kChecksInVain = 3;

Tick back_off(std::uint32_t attempts) { return seconds(1U << std::min(attempts - 1, 6U)); }

std::uint64_t steady_micros() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace

Steering::Steering(FlowDevice& device, std::uint16_t queues, SteeringSettings settings)
    : device_(device), queues_(static_cast<std::uint16_t>(std::min<std::size_t>(queues, settings.workers))), settings_(std::move(settings)) {
  if (!settings_.micros) settings_.micros = steady_micros;
  probe();
}

Steering::~Steering() {
  if (!installed_.empty()) device_.flush();
}

void Steering::note(const std::string& text) const {
  if (settings_.note) settings_.note("steering: " + text);
}

void Steering::probe() {
  inactive_.clear();
  if (!settings_.wanted) {
    inactive_ = "switched off (trunk.steering)";
  } else if (settings_.workers < 2) {
    inactive_ = "nothing to steer: there is one worker";
  } else if (queues_ < 2) {
    inactive_ = "nothing to steer: the trunk has one queue";
  }
  if (!active()) return;
  bool any = false;
  for (std::size_t i = 0; i < kSteeringPatterns; ++i) {
    abilities_[i] = device_.probe(static_cast<SteeringPattern>(i));
    any = any || abilities_[i].available;
  }
  if (any) return;
  for (const FlowAbility& ability : abilities_) {
    if (!ability.why.empty() && inactive_.find(ability.why) == std::string::npos) inactive_ += (inactive_.empty() ? "" : "; ") + ability.why;
  }
  if (inactive_.empty()) inactive_ = "the device takes no rule";
}

// --- following the View ------------------------------------------------------------------------------------------------

void Steering::follow(const View& view) {
  view_generation_ = view.generation;
  wishes_.clear();
  wanted_.clear();
  for (const auto& endpoint : view.endpoints) {
    if (endpoint == nullptr) continue;
    wishes_.push_back({endpoint->id, rules_for(*endpoint, abilities_, queues_)});
    for (const FlowRule& rule : wishes_.back().wish.rules) wanted_.emplace(rule.match, rule);
  }
  std::erase_if(troubles_, [&](const auto& trouble) { return !wanted_.contains(trouble.first) && !installed_.contains(trouble.first); });
  busy_ = true;
}

void Steering::tick(const View& view, Tick now) {
  now_ = now;
  if (device_.take_reset()) {
    note("the device was reset; all rules are installed again");
    resync();
  }
  if (active() && now >= checked_at_ + kCheckTicks) check();
  if (!active()) return;
  if (view.generation != view_generation_) follow(view);
  if (!busy_) return;
  const std::uint64_t began = settings_.micros();
  bool all = true;
  for (const SteeringStep& step : plan_steering(installed_, wanted_)) {
    if (settings_.micros() - began >= kShareMicros) return;  // goes on with the next tick
    all = carry_out(step) && all;
  }
  busy_ = !all;
}

// False: to be tried again.
bool Steering::carry_out(const SteeringStep& step) {
  if (!may_try(step.rule.match)) {
    const auto trouble = troubles_.find(step.rule.match);
    return trouble != troubles_.end() && trouble->second.attempts >= kAttempts;
  }
  switch (step.kind) {
    case SteeringStepKind::remove: return remove(step.rule);
    case SteeringStepKind::replace: return replace(step.rule);
    default:
      if (full_after_ && (full_attempts_ > kAttempts || now_ < full_until_)) return full_attempts_ > kAttempts;
      return add(step.rule);
  }
}

bool Steering::may_try(const FlowMatch& match) const {
  const auto trouble = troubles_.find(match);
  return trouble == troubles_.end() || (trouble->second.attempts < kAttempts && now_ >= trouble->second.not_before);
}

void Steering::failed(const FlowMatch& match, const FlowError& error) {
  Trouble& trouble = troubles_[match];
  ++trouble.attempts;
  trouble.not_before = now_ + back_off(trouble.attempts);
  trouble.why = error.message;
  busy_ = true;
}

void Steering::install(const FlowRule& rule, FlowHandle handle) {
  installed_[rule.match] = rule;
  handles_[rule.match] = handle;
  troubles_.erase(rule.match);
}

void Steering::erase(const FlowMatch& match) {
  installed_.erase(match);
  handles_.erase(match);
  troubles_.erase(match);
  // There is room now.
  full_after_.reset();
  full_attempts_ = 0;
}

bool Steering::remove(const FlowRule& rule) {
  const auto removed = device_.remove(handles_.at(rule.match));
  if (removed || removed.error().is_unknown_rule()) {
    erase(rule.match);
    return true;
  }
  failed(rule.match, removed.error());
  if (troubles_.at(rule.match).attempts < kAttempts) return false;
  // Its packets are dropped or handed over by whom they reach. A resync gets rid of it.
  note("a rule that nobody wants any more cannot be removed: " + removed.error().message);
  erase(rule.match);
  return true;
}

bool Steering::add(const FlowRule& rule) {
  const auto handle = device_.insert(rule);
  if (handle) {
    install(rule, *handle);
    if (full_after_) full_after_.reset(), full_attempts_ = 0;
    return true;
  }
  if (!handle.error().is_full()) {
    failed(rule.match, handle.error());
    return false;
  }
  if (!full_after_) note("flow table full after " + std::to_string(installed_.size()) + " rules; the rest is steered in software");
  full_after_ = installed_.size();
  ++full_attempts_;
  full_until_ = now_ + back_off(full_attempts_);
  return false;
}

bool Steering::replace(const FlowRule& rule) {
  const FlowHandle old = handles_.at(rule.match);
  if (!refuses_duplicates_) {
    if (const auto handle = device_.insert(rule)) {
      install(rule, *handle);
      if (const auto removed = device_.remove(old); !removed && !removed.error().is_unknown_rule()) {
        note("the rule that another replaced cannot be removed: " + removed.error().message);
      }
      return true;
    } else if (!handle.error().is_full()) {
      refuses_duplicates_ = true;
    }
  }
  if (const auto removed = device_.remove(old); !removed && !removed.error().is_unknown_rule()) {
    failed(rule.match, removed.error());
    return false;
  }
  erase(rule.match);
  return add(rule);
}

// --- what the device lost ----------------------------------------------------------------------------------------------

void Steering::resync() {
  if (!installed_.empty()) ++times_lost_;
  // What the device still has, if anything, would be in the way.
  if (active()) device_.flush();
  wishes_.clear();
  wanted_.clear();
  installed_.clear();
  handles_.clear();
  troubles_.clear();
  full_after_.reset();
  full_attempts_ = 0;
  refuses_duplicates_ = false;
  checked_.reset();
  checked_at_ = now_;
  view_generation_ = 0;
  probe();
}

void Steering::check() {
  checked_at_ = now_;
  if (checks_in_vain_ >= kChecksInVain) return;
  for (std::size_t asked = 0; asked < std::min(kChecksAtOnce, installed_.size()); ++asked) {
    auto next = checked_ ? installed_.upper_bound(*checked_) : installed_.begin();
    if (next == installed_.end()) next = installed_.begin();
    checked_ = next->first;
    if (!next->second.count) continue;  // cannot be asked
    const auto hits = device_.hits(handles_.at(next->first));
    if (!hits && hits.error().is_unsupported()) checks_in_vain_ = kChecksInVain;
    if (!hits && !hits.error().is_unsupported()) lost(hits.error().message);
    if (!hits) return;
    checks_in_vain_ = 0;
  }
}

void Steering::lost(const std::string& why) {
  ++checks_in_vain_;
  note("the device does not know a rule any more (" + why + "); all are installed again" +
       (checks_in_vain_ == kChecksInVain ? ", and it is not asked about them any more" : ""));
  resync();
}

// --- report ------------------------------------------------------------------------------------------------------------

std::vector<SteeredEndpoint> Steering::endpoints(bool with_hits) {
  std::vector<SteeredEndpoint> report;
  for (const Wish& each : wishes_) {
    SteeredEndpoint endpoint{.id = each.id, .pattern = each.wish.pattern, .queue = 0, .mark = {}, .wanted = each.wish.rules.size(), .installed = 0,
                             .hits = {}, .why = each.wish.why};
    for (const FlowRule& rule : each.wish.rules) {
      const auto installed = installed_.find(rule.match);
      if (installed != installed_.end()) {
        ++endpoint.installed;
        endpoint.queue = installed->second.queue;
        endpoint.mark = installed->second.mark;
        if (with_hits && installed->second.count) {
          if (const auto hits = device_.hits(handles_.at(rule.match))) endpoint.hits = endpoint.hits.value_or(0) + *hits;
        }
      } else {
        endpoint.queue = rule.queue;
        endpoint.mark = rule.mark;
      }
      const auto trouble = troubles_.find(rule.match);
      if (trouble != troubles_.end() && endpoint.why.empty()) {
        endpoint.why = trouble->second.why + (trouble->second.attempts >= kAttempts ? "; given up until it changes" : "; tried again");
      }
    }
    if (endpoint.installed < endpoint.wanted && endpoint.why.empty()) {
      endpoint.why = full_after_ ? "flow table full after " + std::to_string(*full_after_) + " rules" : "not yet installed";
    }
    report.push_back(std::move(endpoint));
  }
  return report;
}

}  // namespace trunkline
