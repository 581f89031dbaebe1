// SPDX-License-Identifier: BSD-3-Clause
//
// An ENI's settings in state_json.h: what nobody outside says of it, and an operator may.
#include <type_traits>
#include <utility>

#include "config/state_json.h"
#include "config/validate.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

// Members that are told only when they say something.
constexpr std::pair<const char*, std::uint64_t RateLimits::*> kLimits64[] = {{"ingress_bits", &RateLimits::ingress_bits},
                                                                             {"egress_bits", &RateLimits::egress_bits}};
constexpr std::pair<const char*, std::uint32_t RateLimits::*> kLimits32[] = {{"ingress_packets", &RateLimits::ingress_packets},
                                                                             {"egress_packets", &RateLimits::egress_packets}};
constexpr std::pair<const char*, bool Attachment::*> kSwitches[] = {
    {"always_track", &Attachment::always_track}, {"audit", &Attachment::audit}, {"block_imds", &Attachment::block_imds}};

}  // namespace

void put_settings(Json& object, const Attachment& attachment) {
  for (const auto& [key, member] : kLimits64) {
    if (attachment.limits.*member != 0) object["limits"][key] = attachment.limits.*member;
  }
  for (const auto& [key, member] : kLimits32) {
    if (attachment.limits.*member != 0) object["limits"][key] = attachment.limits.*member;
  }
  if (attachment.on_change == OnChange::revalidate) object["on_change"] = "revalidate";
  for (const auto& [key, member] : kSwitches) {
    if (attachment.*member) object[key] = true;
  }
}

void read_settings(ObjectReader& reader, AttachmentFacts& facts) {
  if (const Json* limits = reader.object("limits")) {
    ObjectReader each(*limits, reader.pointer_to("limits"), reader.problems());
    each.refuse_null();
    const auto take = [&](const char* key, std::int64_t most, auto& into) {
      if (const auto value = each.integer(key, 0, most)) into = static_cast<std::remove_cvref_t<decltype(*into)>>(*value);
    };
    take("ingress_bits", kMaxLimitBits, facts.limits.ingress_bits);
    take("egress_bits", kMaxLimitBits, facts.limits.egress_bits);
    take("ingress_packets", kMaxLimitPackets, facts.limits.ingress_packets);
    take("egress_packets", kMaxLimitPackets, facts.limits.egress_packets);
    each.finish();
  }
  if (const auto text = reader.text("on_change")) {
    facts.on_change = *text == "revalidate" ? OnChange::revalidate : OnChange::keep;
    if (*text != "keep" && *text != "revalidate") {
      reader.complain("on_change", "invalid_params",
                      "\"on_change\" is " + words::in_quotes(*text) + R"(; wanted "keep" (as AWS does) or "revalidate")");
    }
  }
  facts.always_track = reader.boolean("always_track");
  facts.audit = reader.boolean("audit");
  facts.block_imds = reader.boolean("block_imds");
}

}  // namespace trunkline::config
