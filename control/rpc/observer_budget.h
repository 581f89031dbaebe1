// SPDX-License-Identifier: BSD-3-Clause
//
// What observers (clients that may only look) may have of the control thread, by their uid, so that one of them
// disturbs neither admins nor observers of other uids.
//
// Rules:
//  * Time: a uid may have a tenth of the thread's time, all observers together a quarter, over some tenths of a second.
//    Who has had more waits.
//  * Connections: a uid may have as many as there are free places for observers.
//  * Answers that lie unread: kUnreadOfUid for a uid; what would be more is refused, as long as something lies there.
//  * Log lines: LogBudget's, with the uid as the subject.
// Admins have no budget: root would stop the engine otherwise.
//
// Control thread only. Memory: a uid is forgotten when it has no connection and no debt, and a uid is a user of this
// machine.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "config/log_budget.h"

namespace trunkline::control {

class ObserverBudget {
 public:
  using Duration = std::chrono::microseconds;
  using Time = std::chrono::steady_clock::time_point;

  static constexpr std::size_t kUnreadOfUid = 16 << 20;
  static constexpr int kPartOfUid = 10, kPartOfAll = 4;             // of the time, one part in so many
  static constexpr Duration kDebt = std::chrono::milliseconds(20);  // so much may be had before anybody waits

  // How long a call of this uid has to wait.
  Duration wait(uid_t uid, Time now) { return std::max(all_.wait(now, kPartOfAll), users_[uid].wait(now, kPartOfUid)); }
  void had(uid_t uid, Duration took, Time now) {
    all_.add(took, now, kPartOfAll);
    users_[uid].add(took, now, kPartOfUid);
  }

  bool may_connect(uid_t uid, std::size_t free_places) const {
    const auto found = users_.find(uid);
    return found == users_.end() ? free_places != 0 : found->second.connections < free_places;
  }
  void connected(uid_t uid) { ++users_[uid].connections; }
  void disconnected(uid_t uid, Time now) {
    const auto found = users_.find(uid);
    if (found == users_.end()) return;
    --found->second.connections;
    if (found->second.connections == 0 && found->second.wait(now, kPartOfUid) == Duration(0)) users_.erase(found);
  }

  std::size_t unread(uid_t uid) const {
    const auto found = users_.find(uid);
    return found == users_.end() ? 0 : found->second.unread;
  }
  void unread_changed(uid_t uid, std::ptrdiff_t by) { users_[uid].unread += static_cast<std::size_t>(by); }

  bool may_log(uid_t uid, Time now) {
    return lines_.admit("uid " + std::to_string(uid),
                        std::chrono::duration_cast<LogBudget::Time>(now.time_since_epoch()));
  }
  LogBudget::Withheld take_withheld() { return lines_.take_withheld(); }

 private:
  // Debt that time pays, one part in so many of it.
  struct Had {
    Duration debt{0};
    Time paid{};

    void pay(Time now, int part) {
      const auto paid_off = std::chrono::duration_cast<Duration>(now - paid) / part;
      debt = std::max(Duration(0), debt - paid_off);
      paid = now;
    }
    Duration wait(Time now, int part) {
      pay(now, part);
      return debt <= kDebt ? Duration(0) : (debt - kDebt) * part;
    }
    void add(Duration took, Time now, int part) {
      pay(now, part);
      debt += took;
    }
  };
  struct User : Had {
    std::size_t connections = 0, unread = 0;
  };

  Had all_;
  std::map<uid_t, User> users_;
  LogBudget lines_;
};

}  // namespace trunkline::control
