// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/source_lists_builder.h"

#include <algorithm>
#include <utility>

namespace trunkline {

using detail::SourceAnswer;
using detail::SourceList;

SourceListsBuilder::SourceListsBuilder() : last_{~0U}, values_{SourceAnswer::kNone} {}

std::uint32_t SourceListsBuilder::add(std::span<const SourceRange> ranges, std::uint32_t otherwise) {
  if (ranges.empty() && otherwise == SourceAnswer::kNone) return SourceList::kNobody;
  sweep(ranges, otherwise);
  return write_tree();
}

void SourceListsBuilder::sweep(std::span<const SourceRange> ranges, std::uint32_t otherwise) {
  next_ = 0;
  level_.clear();
  open_.assign(1, {~0U, otherwise});
  const auto close = [this] {
    extend(open_.back().last, open_.back().value);
    open_.pop_back();
  };
  const SourceRange* before = nullptr;
  for (const SourceRange& range : ranges) {
    if (before != nullptr && range.is_same_range(*before)) continue;  // that rule's number is lower
    before = &range;
    while (open_.back().last < range.first()) close();
    const std::uint32_t around = open_.back().value;
    if (range.first() > next_) extend(range.first() - 1, around);
    open_.push_back({range.last(), SourceAnswer::join(around, SourceAnswer::of_rule(range.rule(), false))});
  }
  while (!open_.empty()) close();
}

void SourceListsBuilder::extend(std::uint32_t last, std::uint32_t value) {
  if (last < next_) return;
  next_ = std::uint64_t{last} + 1;
  if (!level_.empty() && level_.back().value == value) {
    level_.back().last = last;
  } else {
    level_.push_back({last, value});
  }
}

std::uint32_t SourceListsBuilder::write_tree() {
  for (std::uint32_t levels = 0;; ++levels) {
    above_.clear();
    for (std::size_t i = 0; i < level_.size(); i += SourceList::kFanout) {
      const std::size_t end = std::min(i + SourceList::kFanout, level_.size());
      above_.push_back(
          {level_[end - 1].last, static_cast<std::uint32_t>(last_.size()) | levels << SourceList::kLevelShift});
      for (std::size_t each = i; each < end; ++each) {
        last_.push_back(level_[each].last);
        values_.push_back(level_[each].value);
      }
    }
    if (above_.size() == 1) return above_.front().value;
    level_.swap(above_);
  }
}

std::vector<std::uint32_t> SourceListsBuilder::take_last() {
  last_.resize(last_.size() + SourceList::kBehind, 0);
  return std::move(last_);
}

}  // namespace trunkline
