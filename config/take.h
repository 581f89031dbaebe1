// SPDX-License-Identifier: BSD-3-Clause
//
// What the readers of the config file share: each takes one member of an object into a field, which keeps its default when
// the member is absent, and complains to the reader's list when it is wrong.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "config/json_reader.h"
#include "config/words.h"

namespace trunkline::config {

template <typename Number>
void take_integer(ObjectReader& reader, std::string_view key, std::int64_t least, std::int64_t most, Number& into) {
  if (const auto value = reader.integer(key, least, most)) into = static_cast<Number>(*value);
}

inline void take_boolean(ObjectReader& reader, std::string_view key, bool& into) {
  if (const auto value = reader.boolean(key)) into = *value;
}

// Text that ends up as a path, a device or a name for the kernel or DPDK: no control characters.
inline void take_name(ObjectReader& reader, std::string_view key, std::string& into, std::size_t least = 1, std::size_t most = 4095) {
  const auto value = reader.text(key);
  if (!value) return;
  const bool clean =
      std::none_of(value->begin(), value->end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
  if (clean && value->size() >= least && value->size() <= most) {
    into = *value;
    return;
  }
  reader.complain(key, "invalid_params",
                  words::in_quotes(key) + " is " + words::in_quotes(*value) + " (" + std::to_string(value->size()) +
                      " bytes); wanted " + std::to_string(least) + " to " + std::to_string(most) + " bytes without control characters");
}

}  // namespace trunkline::config
