// SPDX-License-Identifier: BSD-3-Clause
#include "config/flow_log_format.h"

#include <algorithm>

#include "config/words.h"

namespace trunkline::config {
namespace {

std::string all_names() {
  std::string names;
  for (const FlowLogFieldInfo& field : kFlowLogFields) names += (names.empty() ? "" : ", ") + std::string(field.name);
  return names;
}

std::unexpected<std::string> refused(std::size_t at, const std::string& what) {
  return std::unexpected("at character " + std::to_string(at + 1) + " " + what);
}

}  // namespace

int FlowLogFormat::version() const {
  int highest = 2;
  for (const FlowLogField field : fields) highest = std::max(highest, kFlowLogFields[static_cast<std::size_t>(field)].version);
  return highest;
}

bool FlowLogFormat::has(FlowLogField field) const { return std::ranges::find(fields, field) != fields.end(); }

std::string FlowLogFormat::header() const {
  std::string names;
  for (const FlowLogField field : fields) {
    names += (names.empty() ? "" : " ") + std::string(kFlowLogFields[static_cast<std::size_t>(field)].name);
  }
  return names;
}

std::expected<FlowLogFormat, std::string> parse_flow_log_format(std::string_view text) {
  FlowLogFormat format;
  if (text.empty()) return std::unexpected("it is empty; wanted at least one field, such as ${srcaddr}");
  if (text.size() > kMaxFlowLogFormat) {
    return std::unexpected("it has " + std::to_string(text.size()) + " bytes; wanted at most " + std::to_string(kMaxFlowLogFormat));
  }
  for (std::size_t at = 0; at < text.size();) {
    if (at != 0) {
      if (text[at] != ' ' || at + 1 == text.size()) return refused(at, "something stands behind a field; wanted one space and another field");
      ++at;
    }
    const std::size_t end = text.find('}', at);
    if (!text.substr(at).starts_with("${") || end == std::string_view::npos) {
      return refused(at, "there is " + words::in_quotes(text.substr(at, 24)) + "; wanted a field in the form ${srcaddr}");
    }
    const std::string_view name = text.substr(at + 2, end - at - 2);
    const auto found = std::ranges::find(kFlowLogFields, name, &FlowLogFieldInfo::name);
    if (found == kFlowLogFields.end()) {
      return refused(at, "there is no field " + words::in_quotes(name) + "; the fields are " + all_names());
    }
    const auto field = static_cast<FlowLogField>(found - kFlowLogFields.begin());
    if (format.has(field)) return refused(at, words::in_quotes(name) + " is there for the second time; name each field once");
    format.fields.push_back(field);
    at = end + 1;
  }
  return format;
}

}  // namespace trunkline::config
