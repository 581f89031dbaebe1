// SPDX-License-Identifier: BSD-3-Clause
//
// capture.start, capture.read, capture.stop: real packets for whoever asks (dataplane/state/observer.h). A session belongs to one
// connection of the control socket, which has one at a time. It ends by its count, its duration, capture.stop, when the client
// is gone, or when the client has not read for kPatience: what is not read must not cost the workers anything for long.
//
// An observer is freed when its worker has said that it does not look at it any more; who made the Captures destroys them after the
// workers have ended. Control thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "control/controller.h"
#include "control/protocol.h"
#include "control/server.h"
#include "dataplane/state/observer.h"

namespace trunkline::control {

class Captures {
 public:
  static constexpr std::chrono::seconds kPatience{10};

  using Clock = std::chrono::steady_clock;

  // `cycles_a_second`: of the TSC. `now`: a test's time.
  Captures(const Controller& controller, std::uint64_t cycles_a_second, std::function<Clock::time_point()> now = Clock::now);

  std::expected<config::Json, RpcError> start(const config::Json& params, const Caller& caller);
  std::expected<config::Json, RpcError> read(const config::Json& params, const Caller& caller);
  std::expected<config::Json, RpcError> stop(const config::Json& params, const Caller& caller);

  // The client of this connection is gone.
  void gone(std::uint64_t connection);
  // Now and then: ends what is over, frees what nobody looks at.
  void tick();
  std::size_t sessions() const { return sessions_.size(); }
  std::size_t leaving() const { return leaving_.size(); }  // sets that a worker may look at still

 private:
  struct Session {
    uid_t uid = 0;  // of whoever started it
    bool admin = false;
    std::vector<std::shared_ptr<Observer>> observers;  // by worker
    std::optional<Clock::time_point> end;
    Clock::time_point last_read;
    std::uint64_t limit = 0, taken = 0;
    bool report = false;
    bool armed = true;
    std::uint64_t start_cycles = 0, start_ns = 0;  // the same moment
  };
  // What one worker was told.
  struct Told {
    ObserverSet set;
    std::vector<std::shared_ptr<Observer>> observers;
  };

  void tell_workers();
  void disarm(Session& session);
  void reclaim();
  std::uint64_t time_of(const Session& session, std::uint64_t cycles) const;
  config::Json packet(const Session& session, const Observation& seen, std::span<const std::uint8_t> bytes) const;

  const Controller& controller_;
  const std::uint64_t cycles_a_second_;
  const std::function<Clock::time_point()> now_;
  std::map<std::uint64_t, Session> sessions_;  // by connection
  std::vector<std::unique_ptr<Told>> told_;    // by worker; null: nothing to look at
  std::vector<std::pair<std::size_t, std::unique_ptr<Told>>> leaving_;
};

}  // namespace trunkline::control
