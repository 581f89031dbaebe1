// SPDX-License-Identifier: BSD-3-Clause
//
// The single writer. Every change, wherever it comes from, is a function from the present desired state to the next one,
// and takes the same way:
//
//     edit -> validate whole -> plan (reconcile) -> open ports -> compile policies -> publish the View -> journal
//
// Each step costs in proportion to what differs between the two states: what is unchanged is shared between them and known
// by that (config/shared_map.h). A change of members alone is enforced by a line of the members' table, and publishes nothing.
//
// A change that fails before "publish" has changed nothing: what it opened is closed again and its problems are the answer.
// What leaves is closed when no worker can know of it any more (reclaim), from the timer; the only wait is for an old port
// that stands in the way of a new one, and it is bounded.
//
// After a restart the journal's state is applied endpoint by endpoint: one whose namespace is gone fails alone, is
// shown as failed and tried again; the others serve.
//
// An endpoint belongs to one worker: at first to the one that has the fewest, and later to whom an operator moves it.
// Moving is no change of the desired state, and a restart places all anew.
//
// Control thread only.
#pragma once

#include <array>
#include <chrono>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/engine_config.h"
#include "config/problem.h"
#include "config/validate.h"
#include "control/flow_logs.h"
#include "control/journal.h"
#include "control/membership.h"
#include "control/moves.h"
#include "control/names.h"
#include "control/network_acls.h"
#include "control/policies.h"
#include "control/reconcile.h"
#include "control/task_port.h"
#include "control/workers.h"
#include "dataplane/state/members.h"
#include "dataplane/state/published.h"
#include "dataplane/state/worker_clock.h"

namespace trunkline::control {

struct ChangeOptions {
  bool dry_run = false;
  std::optional<std::uint64_t> expect_revision;
  // Whether the answer waits for the disk. If not, the change is written with the next one that waits, or by the timer.
  bool wait_for_disk = true;
  std::string subject;  // the ENI that the change is about: a conflict is told as its fault, not the other's
};

struct ChangeResult {
  std::uint64_t revision = 0;
  bool changed = false;
  bool durable = true;  // on disk, and synced
  bool dry_run = false;
  std::vector<std::string> steps;
  std::vector<std::string> warnings;
};

// What an edit may say: problems (refused), or warnings beside its change.
using Edit = std::function<config::Problems(config::DesiredState& next, std::vector<std::string>& warnings)>;

// An endpoint in the View, and what control knows beside it.
struct ActiveEndpoint {
  std::shared_ptr<const Endpoint> endpoint;
  std::shared_ptr<TaskPort> port;
  MeterReading ingress_start, egress_start;  // the meters' readings when it came: an id is used again
  std::array<std::uint64_t, kDropReasonCount> audited_start{};
};

// What workers have to know of the trunk's Port.
struct TrunkPort {
  std::uint16_t ethdev = 0;
  std::uint16_t queues = 1;
  WakeSource wake{};
  SendOffloads offloads{};
};

class Controller {
 public:
  // `published` has a reader for each of the workers, by its number.
  Controller(const config::EngineConfig& config, Published<View>& published, std::vector<Worker*> workers, OpenTaskPort open_port,
             TrunkPort trunk, Journal* journal);
  ~Controller();

  // Who is told of each ENI that comes, changes and goes. Before restore(); outlives this.
  void tell(FlowLogs* flow_logs) { flow_logs_ = flow_logs; }

  // How the interface of a detached attachment that is not in service is removed; without one it is left as it is.
  void remove_leftovers_with(RemoveLeftover remove) { remove_leftover_ = std::move(remove); }
  // Interfaces of detached ENIs that could not be removed since the start, and what was said of the last of them.
  std::uint64_t interfaces_left() const { return interfaces_left_; }
  const std::string& last_interface_left() const { return last_interface_left_; }

  // Loads the journal and brings up what it can. Returns what an operator should read.
  std::vector<std::string> restore();

  std::expected<ChangeResult, config::Problems> change(const Edit& edit, const ChangeOptions& options = {});

  // Makes another worker the owner of an active ENI, whose traffic goes on meanwhile. Answers when the new owner serves it;
  // what the old one knows of its connections may follow for some tenths of a second.
  std::expected<ChangeResult, config::Problems> move(const std::string& eni_id, WorkerNumber to, const ChangeOptions& options = {});

  // Every tenth of a second: reads the clock, reclaims, goes on with moves, and now and then tries again what failed.
  void tick();
  // The time as of the last tick(), by a clock of the same origin as the workers'.
  Tick now() const { return now_; }

  const config::DesiredState& desired() const { return desired_; }
  const config::EngineConfig& config() const { return config_; }
  const std::map<std::string, ActiveEndpoint>& active() const { return active_; }
  // Why an attachment is not in service: what it waits for, or what failed. Empty: it is.
  std::string trouble(const std::string& eni_id) const;
  bool is_failed(const std::string& eni_id) const { return failures_.contains(eni_id); }
  // Whether what has to be on disk is there; what is a moment late because nobody waits for it is no failure.
  bool durable() const { return durable_error_.empty(); }
  const std::string& durable_error() const { return durable_error_; }
  const std::optional<std::string>& quarantined() const { return quarantined_; }
  // What of the journal was lost or may be, as it was found at the start; empty: nothing. Until the next start, or until an
  // operator has given the whole state anew.
  const std::string& journal_damage() const { return journal_damage_; }
  // Attachments of the journal that do not fit and were left out at the start, and why; until they are attached anew.
  const std::map<std::string, std::string>& left_out() const { return left_out_; }
  void forget_journal_damage() {
    journal_damage_.clear();
    left_out_.clear();
  }
  const TrunkPort& trunk() const { return trunk_; }
  const Workers& workers() const { return workers_; }
  // What the workers go by, or will with their next turn.
  const View& view() const { return *published_.latest(); }
  // Why the file of names does not say what it should; empty: it does, or there is none.
  const std::string& names_trouble() const { return names_.trouble(); }
  bool is_moving(const std::string& eni_id) const { return moves_.contains(eni_id); }
  std::size_t endpoints_of(WorkerNumber worker) const;
  std::vector<IpAddress> local_members(const std::string& group_id) const;

 private:
  struct Opened {
    std::string eni_id;
    std::shared_ptr<TaskPort> port;
  };

  // The ENIs that a change is about, as far as that can be told without a plan.
  struct Touched {
    std::set<std::string> attachments;  // say something else
    std::set<std::string> concerned;    // beside these: may be complete now, or not any more
    std::set<std::string> other_acl;    // in service, and their subnet gets another network ACL
    bool everyone = false;              // a subnet differs
  };
  std::optional<config::Problem> stale_revision(const ChangeOptions& options) const;
  Touched touched_by(const config::DesiredState& next) const;

  std::function<void()> withdraw(const std::vector<Step>& steps);
  void remove_leftovers(const config::DesiredState& next);
  void note_left_behind(const std::string& eni, std::string what);
  std::expected<std::shared_ptr<TaskPort>, config::Problem> open(const config::Attachment& attachment,
                                                                 const config::DesiredState& state);
  // Who owns an endpoint and who serves it, apart from all that the desired state says of it.
  struct Place {
    WorkerNumber worker = 0, served_by = 0, previous_worker = kNoWorker;
  };
  static Place place_of(const Endpoint& endpoint) { return {endpoint.worker, endpoint.served_by, endpoint.previous_worker}; }
  WorkerNumber least_loaded() const;
  void put(ActiveEndpoint& active, Place place);
  void advance_moves();

  void admit(const config::Attachment& attachment, std::shared_ptr<TaskPort> port, const config::DesiredState& state,
             std::optional<WorkerNumber> worker = std::nullopt);
  std::shared_ptr<const Endpoint> make_endpoint(const config::Attachment& attachment, EndpointId id, std::uint16_t generation,
                                                Place place, const config::DesiredState& state);
  void refresh(const std::set<std::string>& enis);
  std::vector<std::string> load_state();
  void publish(std::function<void()> cleanup = {});
  void publish_same_places();
  bool wait_for_readers();
  void save();
  void save_if_behind();
  void retry_failed();
  std::optional<EndpointId> free_id() const;

  const config::EngineConfig& config_;
  Published<View>& published_;
  Workers workers_;
  OpenTaskPort open_port_;
  TrunkPort trunk_;
  Journal* journal_;
  FlowLogs* flow_logs_ = nullptr;

  config::DesiredState desired_;
  config::StateValidator validator_;
  ActiveAttachments active_attachments_;
  std::map<std::string, ActiveEndpoint> active_;
  std::map<std::string, std::string> failures_;  // eni -> why its port could not be opened
  Policies policies_;
  NetworkAcls network_acls_;
  Membership membership_;
  Moves moves_{workers_};
  Names names_;
  std::vector<bool> id_in_use_;            // until reclaimed
  std::vector<std::uint16_t> generations_;  // per EndpointId
  std::vector<std::shared_ptr<TaskPort>> leaving_;  // withdrawn, to be closed when no worker knows them
  std::uint64_t view_generation_ = 0;
  RemoveLeftover remove_leftover_;
  std::vector<std::string> left_behind_;  // not yet told in an answer
  std::uint64_t interfaces_left_ = 0;
  std::string last_interface_left_;
  bool behind_ = false;  // the journal is, since nobody waits for it
  std::string durable_error_;
  std::optional<std::string> quarantined_;
  std::string journal_damage_;
  std::map<std::string, std::string> left_out_;  // eni -> why
  WorkerClock clock_;
  Tick now_ = 0;
  std::uint32_t ticks_ = 0;
};

}  // namespace trunkline::control
