// SPDX-License-Identifier: BSD-3-Clause
//
// The law of docs/isolation.md for places that endpoints share: a quarter of them is divided among the endpoints, their
// shares; the rest may be borrowed. So an endpoint below its share always finds a place, whoever holds the others.
//
// No fewer than two endpoints share, so that a newcomer has its share at once, also where one alone has borrowed all
// that it may. When the number of endpoints grows, shares become smaller; what is held beyond them counts as borrowed
// then.
//
// Owned by one thread, which tells each change of what an endpoint holds. Units: places.
#pragma once

#include <algorithm>
#include <cstdint>

namespace trunkline {

class Shares {
 public:
  // Until set() there are no shares: whoever comes takes what there is.
  explicit Shares(std::uint32_t places) : places_(places) {}

  bool is_set(std::uint32_t endpoints) const { return endpoints == endpoints_; }
  // So many endpoints share; 0: no shares. held_by(id): what each of so many numbers holds.
  template <class HeldBy>
  void set(std::uint32_t endpoints, std::uint32_t numbers, HeldBy&& held_by) {
    endpoints_ = endpoints;
    share_ = endpoints == 0 ? kAll : divided() / std::max(endpoints, 2U);
    most_borrowed_ = endpoints == 0 ? kAll : places_ - divided();
    borrowed_ = 0;
    for (std::uint32_t id = 0; id < numbers; ++id) borrowed_ += beyond(held_by(id));
  }

  std::uint32_t share() const { return share_; }
  bool is_beyond(std::uint32_t held) const { return held > share_; }
  // Whether so many more may be borrowed, whoever wants them.
  bool may_lend(std::uint32_t more) const { return borrowed_ + more <= most_borrowed_; }
  // Whether an endpoint that holds so many may have more.
  bool may_take(std::uint32_t held, std::uint32_t more = 1) const { return may_lend(more) || held + more <= share_; }
  void changed(std::uint32_t from, std::uint32_t to) { borrowed_ += beyond(to) - beyond(from); }

 private:
  static constexpr std::uint32_t kAll = 0xffffffff;
  std::uint32_t divided() const { return places_ / 4; }
  std::uint32_t beyond(std::uint32_t held) const { return held > share_ ? held - share_ : 0; }

  std::uint32_t places_;
  std::uint32_t endpoints_ = 0;
  std::uint32_t share_ = kAll, most_borrowed_ = kAll;
  std::uint32_t borrowed_ = 0;  // of all endpoints, beyond their shares
};

}  // namespace trunkline
