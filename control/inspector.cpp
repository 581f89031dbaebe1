// SPDX-License-Identifier: BSD-3-Clause
#include "control/inspector.h"

#include <algorithm>
#include <thread>

namespace trunkline::control {
namespace {

std::string silent(std::size_t worker, const std::string& since) {
  return "worker " + std::to_string(worker) + " has not answered " + since + "; is it stuck? its \"loops\" in `trunkctl worker list -o json` must grow";
}

}  // namespace

Inspector::Inspector(const Workers& workers, std::chrono::milliseconds patience)
    : workers_(workers), patience_(patience), requests_(workers.size()) {}

// nullopt: requests_ has everybody's answer.
template <class Make>
std::optional<std::string> Inspector::ask(Make&& make) {
  for (std::size_t number = 0; number < workers_.size(); ++number) {
    if (!workers_[number].inspections.is_free()) return silent(number, "what was asked before");
  }
  for (std::size_t number = 0; number < workers_.size(); ++number) {
    requests_[number] = make();
    workers_[number].inspections.post(requests_[number].get());
    workers_[number].wake();
  }
  const auto deadline = std::chrono::steady_clock::now() + patience_;
  for (std::size_t number = 0; number < workers_.size(); ++number) {
    while (!workers_[number].inspections.is_free()) {
      if (std::chrono::steady_clock::now() > deadline) {
        for (const auto& request : requests_) request->abandon();
        return silent(number, "within " + std::to_string(patience_.count()) + " ms");
      }
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
  return std::nullopt;
}

std::expected<Inspector::Flows, std::string> Inspector::list(const FlowFilter& filter, std::size_t capacity) {
  const std::size_t share = std::max<std::size_t>(1, capacity / workers_.size());
  if (auto error = ask([&] { return std::make_unique<Inspection>(Inspection::Kind::list, filter, share); })) return std::unexpected(std::move(*error));
  Flows flows;
  for (std::size_t number = 0; number < requests_.size(); ++number) {
    for (const ConnectionRecord& record : requests_[number]->found()) flows.found.push_back({static_cast<WorkerNumber>(number), record});
    flows.matched += requests_[number]->matched();
    flows.now = std::max(flows.now, requests_[number]->now());
    requests_[number].reset();  // a list may be large
  }
  return flows;
}

std::expected<Inspector::Flows, std::string> Inspector::find(std::span<const Inspection::Flow> wanted, std::span<const DatagramKey> datagrams) {
  if (auto error = ask([&] { return std::make_unique<Inspection>(wanted, datagrams); })) return std::unexpected(std::move(*error));
  Flows flows;
  for (std::size_t number = 0; number < requests_.size(); ++number) {
    for (const ConnectionRecord& record : requests_[number]->found()) flows.found.push_back({static_cast<WorkerNumber>(number), record});
    for (const FragmentedDatagram& datagram : requests_[number]->found_datagrams()) flows.datagrams.push_back(datagram);
    for (const Inspection::Flow& flow : requests_[number]->found_asked()) flows.asked.push_back(flow);
    flows.matched += requests_[number]->matched();
    flows.now = std::max(flows.now, requests_[number]->now());
  }
  return flows;
}

std::expected<std::uint64_t, std::string> Inspector::flush(const FlowFilter& filter) {
  if (auto error = ask([&] { return std::make_unique<Inspection>(Inspection::Kind::flush, filter, 0); })) {
    return std::unexpected(*error + ". What the other workers had is flushed");
  }
  std::uint64_t count = 0;
  for (const auto& request : requests_) count += request->matched();
  return count;
}

}  // namespace trunkline::control
