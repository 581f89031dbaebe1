// SPDX-License-Identifier: BSD-3-Clause
//
// ICMP's types, of both families: which of them ask and answer, and which are errors. Sources: RFC 792, 950, 4443.
#pragma once

#include <cstdint>

#include "dataplane/wire/ip_headers.h"

namespace trunkline {

// The type of the query that a message is, or answers; 0: neither. `is_query`: it is the query itself.
inline std::uint8_t icmp_query_type(std::uint8_t protocol, std::uint8_t type, bool& is_query) {
  if (protocol == protocol::icmpv6) {
    is_query = type == 128;
    return type == 128 || type == 129 ? 128 : 0;
  }
  switch (type) {
    case 8: is_query = true; return 8;
    case 0: is_query = false; return 8;
    case 13: case 15: case 17: is_query = true; return type;
    case 14: case 16: case 18: is_query = false; return static_cast<std::uint8_t>(type - 1);
    default: is_query = false; return 0;
  }
}

// The type that answers a query of this type.
constexpr std::uint8_t icmp_answer_type(std::uint8_t query) { return query == 8 ? 0 : static_cast<std::uint8_t>(query + 1); }

// Whether a message of this type quotes the packet that it is about. A redirect (IPv4 5) does too and is left out: it is no error but
// an order, which only the router of the subnet may give. So is source quench (4), which nobody may act upon (RFC 6633), and what
// ICMPv6 has not assigned yet.
constexpr bool is_icmp_error(std::uint8_t protocol, std::uint8_t type) {
  return protocol == protocol::icmpv6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

}  // namespace trunkline
