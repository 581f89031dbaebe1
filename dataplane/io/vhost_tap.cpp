// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's virtio-user opens its tap with IFF_NAPI whenever the kernel has it. What vhost-net then hands over as ordinary buffers (what does not
// fit into a page: jumbo frames, super-frames) is queued at the tap's socket and merged by GRO, and the kernel loses count of who paid for which
// buffer: "refcount_t: underflow; use-after-free" in sock_wfree under tun_napi_poll was seen with 6.1. Super-frames are whole before the
// tap sees them, so there is nothing for it to gain. The flag belongs to the descriptor and can be had at its opening only, so that is where it is
// taken away: the linker puts this in the place of the driver's function (--wrap, dataplane/meson.build).
#include <linux/if_tun.h>

extern "C" {
// Weak: a libdpdk without the driver, or a shared one, which keeps its own.
__attribute__((weak)) int __real_tap_open(const char* ifname, unsigned int flags, bool multi_queue);
int __wrap_tap_open(const char* ifname, unsigned int flags, bool multi_queue);

int __wrap_tap_open(const char* ifname, unsigned int flags, bool multi_queue) {
  if (__real_tap_open == nullptr) return -1;
  return __real_tap_open(ifname, flags & ~static_cast<unsigned int>(IFF_NAPI | IFF_NAPI_FRAGS), multi_queue);
}
}
