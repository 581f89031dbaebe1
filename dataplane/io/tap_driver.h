// SPDX-License-Identifier: BSD-3-Clause
//
// net_trunkline_tap: an ethdev driver of the project's own for taps. What it has before DPDK's net_tap: a virtio-net header,
// so that checksums and segments of TCP may be left to the other side (64 KB a system call instead of an MTU); no signals; and
// an interface that it leaves as it found it.
//
//     net_trunkline_tap7,iface=eth0
//
// Rules:
//  * The interface exists before, persistent, multi-queue, in the namespace of the thread that opens the port
//    (control/task_interface.h makes it). MAC, MTU, addresses and state are its maker's business: the MAC is read, the port's MTU
//    only says how large a frame may come, and the link is up when the interface is.
//  * Offloads work as those of DPDK's virtio driver (vnet_header.h). Those that are not configured are not used: without TCP_LRO and
//    TCP_CKSUM both ways frames come as the wire would carry them.
//  * Each queue is one descriptor for both directions, and wakes a worker that waits (rte_eth_dev_rx_intr_ctl_q_get_fd).
//  * What the kernel refuses for its own sake, and what is refused on the way in, are the port's ierrors and oerrors; an empty
//    pool is rx_nombuf. None of these was received or sent.
//
// It needs DPDK's driver SDK, which our build of DPDK has and Debian's package has not.
#pragma once

#include <cstdint>

namespace trunkline {

inline constexpr const char* kTapDriver = "net_trunkline_tap";

// Whether this build has it; before the first port is opened, since this is also what links it.
bool has_tap_driver();

// A duplicate of the first queue's descriptor, by which the kernel knows the tap under whatever name and in whatever namespace;
// the caller's to close. -1: the port is of another driver. Control thread.
int duplicate_tap_descriptor(std::uint16_t ethdev);

}  // namespace trunkline
