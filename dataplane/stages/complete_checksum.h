// SPDX-License-Identifier: BSD-3-Clause
//
// A transport checksum that its sender left to the last port, where that port cannot make it, or may not be asked to:
// each length is held against the bytes that are there.
#pragma once

#include <rte_mbuf.h>

namespace trunkline {

// Fills in a checksum that was left to the port (TX_TCP_CKSUM, TX_UDP_CKSUM with l2_len, l3_len) and takes the request
// away. False: the packet is not what its lengths say; it is unchanged.
bool complete_checksum(rte_mbuf& packet);

}  // namespace trunkline
