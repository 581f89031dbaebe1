// SPDX-License-Identifier: BSD-3-Clause
//
// The task's eth0: a persistent tap in the task's network namespace, with the ENI's MAC, addresses and routes. It is
// made before any driver attaches to it, so that interface, addresses, routes and the task's sockets outlive the
// engine; a tap driver or virtio-user attaches by `iface=` afterwards, as often as it likes.
//
// Rules:
//  * What is ours says so: the interface's alias (`ip link` shows it) is "trunkline:<tag>". The tag names the
//    attachment. A task that may change its interface can rewrite the mark, so a tap without it is taken for ours as well
//    when its owner is the engine's user, nothing is attached to it, and it has the MAC of the ENI; any other interface
//    is never changed and never removed.
//  * While a driver of ours is attached, its descriptor is what tells the interface (remove_attached_tap): it stays the same
//    under another name, alias or MAC, and in another namespace.
//  * ensure_task_interface() is a whole-set replace and may be repeated. MAC, MTU, addresses and default routes of the
//    interface become exactly what is asked; other routes, and addresses the kernel or a router made (link-local,
//    SLAAC), are left alone. Nothing on another interface is touched, except that lo is set up.
//  * A new interface becomes persistent as the very last step. Until then it lives by an open file, so a failure half
//    way, or a killed process, leaves nothing behind. A failure half way on an adopted one leaves it in place: repeat.
//  * A tap that a driver holds is never attached to a second time: with multi-queue, the kernel would at once send part
//    of the task's packets to the new queue.
//  * An interface without an IPv6 address has IPv6 disabled, so that an IPv4 task does not send MLD and router
//    solicitations into a subnet without IPv6. Router advertisements are refused only where the IPv6 gateway is given.
//
// Who may call: the control thread (and the CNI plugin), never a worker: each call starts a thread, talks to the kernel
// and waits for both.
//
// Errors are values. Nothing here throws but std::bad_alloc.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "config/net.h"
#include "control/netns.h"

namespace trunkline {

// What the task sees.
struct TaskInterface {
  std::string name = "eth0";         // 1..15 printable characters, none of "/:%"; not "all", "default", "lo"
  MacAddress mac;                    // unicast
  std::uint16_t mtu = 9001;          // 68..65521; at least 1280 with IPv6
  std::vector<IpPrefix> addresses;   // the primary one first
  std::vector<IpAddress> gateways;   // at most one of each family, each with an address of its family; on link
  bool default_route = true;         // through the gateways; false: no default route over this interface
  bool vnet_hdr = false;             // frames carry a virtio-net header: our tap driver and virtio-user want it, net_tap does not
};

// Makes the interface, or adopts the one that has our mark, and brings it to what is asked.
// interface_exists: the name belongs to somebody else, who is left as he was. kernel: also a default route over another
// interface that is in the way, or vnet_hdr to be changed below a driver that is attached.
std::expected<void, InterfaceError> ensure_task_interface(const NetworkNamespace& netns, const TaskInterface& wanted,
                                                          std::string_view tag);

// To be called when a driver has attached. The kernel takes notice of an interface's carrier a little later, and until then drops
// what the task sends; so this waits for it, 200 ms at most. False: it has not, or the interface is down or gone.
bool settle_task_interface(const NetworkNamespace& netns, const std::string& name);

// Removes the interface, whether a driver is attached or not, and whatever name the task has given it. Gone already: fine.
// interface_exists: an interface that is not ours has the name now; it stays.
std::expected<void, InterfaceError> remove_task_interface(const NetworkNamespace& netns, std::string_view name,
                                                          std::string_view tag, const MacAddress& mac = {});

// Removes the tap that this descriptor is a queue of, wherever it is and whatever it is called by now. The descriptor stays
// open and has nothing attached afterwards; one that has nothing attached to it already is fine.
std::expected<void, InterfaceError> remove_attached_tap(int queue);

// Whether `name` is a tap with our mark, whatever its tag. False also when the namespace cannot be entered.
bool task_interface_exists(const NetworkNamespace& netns, std::string_view name);

}  // namespace trunkline
