// SPDX-License-Identifier: BSD-3-Clause
//
// What a running worker does not do: no system call, no allocation, no mutex. A worker thread turns over real ports (rings)
// while this program feeds them with everything that a task's life has (new connections, established ones, refusals, peers on the
// same host, detaches, new rules), asks about its connections, looks at its packets half of the time, and counts, for that thread alone, what it must not do: system calls by a seccomp filter that
// traps all of them, malloc and its kin, and mutexes, by functions of this program that stand before the C library's.
//
// Needs the EAL (no huge pages, no root). Not for the sanitizers' build: they stand before the same functions.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "control/packet_filter.h"
#include "dataplane/worker.h"
#include "tests/support/world.h"

namespace {
// Of the watched thread.
thread_local bool watched = false;
std::atomic<std::uint64_t> allocations{0}, mutexes{0}, system_calls{0};
std::atomic<int> last_call{-1};
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void __libc_free(void*);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* malloc(std::size_t size) {
  if (watched) ++allocations;
  return __libc_malloc(size);
}
void free(void* memory) {
  if (watched && memory != nullptr) ++allocations;
  __libc_free(memory);
}
void* calloc(std::size_t count, std::size_t size) {
  if (watched) ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  if (watched) ++allocations;
  return __libc_realloc(memory, size);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto real = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  if (watched) ++mutexes;
  return real(mutex);
}
}

namespace trunkline::test {
namespace {

void on_system_call(int, siginfo_t* info, void* context) {
  if (watched) {
    ++system_calls;
    last_call = info->si_syscall;
  }
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
}

// From here on every system call of this thread is counted and refused, but for the way back from the count.
void refuse_system_calls() {
  struct sigaction action {};
  action.sa_sigaction = on_system_call;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSYS, &action, nullptr);
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(code), code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("seccomp");
    std::_Exit(1);
  }
}

// A port whose two ends are rings of this program.
struct RingPort {
  explicit RingPort(const std::string& name)
      : in(rte_ring_create((name + "_in").c_str(), 4096, 0, RING_F_SP_ENQ | RING_F_SC_DEQ)),
        out(rte_ring_create((name + "_out").c_str(), 4096, 0, RING_F_SP_ENQ | RING_F_SC_DEQ)) {
    ethdev = static_cast<std::uint16_t>(rte_eth_from_rings(name.c_str(), &in, 1, &out, 1, 0));
    rte_eth_conf conf{};
    rte_eth_dev_configure(ethdev, 1, 1, &conf);
  }
  void start(rte_mempool* pool) {
    rte_eth_rx_queue_setup(ethdev, 0, 1024, 0, nullptr, pool);
    rte_eth_tx_queue_setup(ethdev, 0, 1024, 0, nullptr);
    ASSERT_EQ(rte_eth_dev_start(ethdev), 0);
  }
  rte_ring *in, *out;
  std::uint16_t ethdev;
};

std::uint64_t drain(rte_ring* ring) {
  void* packets[64];
  std::uint64_t count = 0;
  while (const unsigned got = rte_ring_sc_dequeue_burst(ring, packets, 64, nullptr)) {
    rte_pktmbuf_free_bulk(reinterpret_cast<rte_mbuf**>(packets), got);
    count += got;
  }
  return count;
}

TEST(WorkerPath, NoSystemCallNoAllocationNoMutex) {
  rte_mempool* pool = rte_pktmbuf_pool_create("packets", 16383, 250, 0, 512, 0);
  ASSERT_NE(pool, nullptr);
  RingPort trunk("trunk"), a("task_a"), b("task_b");
  for (RingPort* port : {&trunk, &a, &b}) port->start(pool);

  World world;
  config::SecurityGroup group;
  group.id = "sg-0000000a";
  group.ingress = {rule(6, 80, 80, {"198.51.0.0/16", "10.0.0.0/24"})};
  group.egress = {everything()};
  for (const bool first : {true, false}) {
    World::Task task;
    task.name = first ? "a" : "b";
    task.vlan = first ? 101 : 102;
    task.mac = first ? "0a:00:00:00:00:0a" : "0a:00:00:00:00:0b";
    task.addresses = {first ? "10.0.0.10" : "10.0.0.11"};
    task.groups = {group};
    world.add(task);
  }
  const auto view_of_now = [&] {
    world.publish();  // policies anew, too
    auto view = std::make_shared<View>(*world.view);
    view->ports.clear();
    view->ports.push_back({.slot = kTrunkSlot, .ethdev = trunk.ethdev, .is_trunk = true, .endpoint = {}});
    view->ports.push_back({.slot = PortSlot{1}, .ethdev = a.ethdev, .endpoint = EndpointId{0}});
    view->ports.push_back({.slot = PortSlot{2}, .ethdev = b.ethdev, .endpoint = EndpointId{1}});
    view->build_indexes();
    return view;
  };
  Published<View> published(1);
  published.publish(view_of_now());
  Worker worker(0, published, {.sleep_us = 0}, 8, 65536, 7);

  std::atomic<bool> stop{false}, ready{false}, ended{false};
  std::thread thread([&] {
    published.join(0);
    for (int i = 0; i < 1000; ++i) worker.turn();
    refuse_system_calls();
    watched = true;
    ready = true;
    while (!stop.load(std::memory_order_relaxed)) worker.turn();
    watched = false;
    ended = true;
    for (;;) __builtin_ia32_pause();  // it could not even exit
  });
  thread.detach();
  while (!ready) std::this_thread::yield();

  const auto send = [&](RingPort& port, const Frame& frame) {
    rte_mbuf* packet = rte_pktmbuf_alloc(pool);
    if (packet == nullptr) return;
    std::memcpy(rte_pktmbuf_append(packet, static_cast<std::uint16_t>(frame.size())), frame.data(), frame.size());
    if (rte_ring_sp_enqueue(port.in, packet) != 0) rte_pktmbuf_free(packet);
  };
  const MacAddress router = mac("0a:00:00:00:00:01");
  std::uint64_t out = 0;
  ObserverSettings settings;
  settings.filter = control::compile_filter("tcp port 80 or tcp port 22 or arp").value();
  settings.points = 7;  // all
  Observer observer(std::move(settings));
  const ObserverSet set{{&observer}};
  std::uint64_t observed = 0, listed = 0, flushed = 0;
  std::unique_ptr<Inspection> request;
  bool flushes = false;
  const auto look = [&](std::uint32_t round) {
    observed += observer.read(10'000, [](const Observation&, std::span<const std::uint8_t>) {});
    worker.observers.post(round % 4096 < 2048 ? &set : nullptr);
    if (!worker.inspections.is_free()) return;
    if (request != nullptr) (flushes ? flushed : listed) += request->matched();
    flushes = round % 1024 == 0;
    FlowFilter filter;
    if (flushes) filter.remote = {IpAddress::from_v4(0xc6330000U), 32}, filter.by_remote = true;
    request = std::make_unique<Inspection>(flushes ? Inspection::Kind::flush : Inspection::Kind::list, filter, 1000);
    worker.inspections.post(request.get());
  };
  // A second of traffic, or longer where others use this machine too: until there was enough to do.
  const auto began = std::chrono::steady_clock::now();
  const auto goes_on = [&] {
    const auto took = std::chrono::steady_clock::now() - began;
    return took < std::chrono::seconds(1) || (took < std::chrono::seconds(30) && (worker.packets() < 60'000 || out < 30'000));
  };
  for (std::uint32_t round = 0; goes_on(); ++round) {
    const auto port = static_cast<std::uint16_t>(1024 + round % 20000);
    const IpAddress client = IpAddress::from_v4(0xc6330000U + round / 20000);
    const bool first = round % 2 == 0;
    const MacAddress own = mac(world.tasks[first ? 0 : 1].mac);
    const int vlan = first ? 101 : 102;
    const IpAddress address = ip(world.tasks[first ? 0 : 1].addresses[0]);
    for (const std::uint8_t flags : {std::uint8_t{0x02}, std::uint8_t{0x10}, std::uint8_t{0x11}}) {
      send(trunk, ip_packet({own, router, vlan}, client, address, 6, tcp_segment(port, 80, flags)));
      send(first ? a : b, ip_packet({router, own}, address, client, 6, tcp_segment(80, port, flags | 0x10)));
    }
    send(trunk, ip_packet({own, router, vlan}, client, address, 6, tcp_segment(port, 22, 0x02)));  // refused
    send(trunk, ip_packet({own, router, 999}, client, address, 6, tcp_segment(port, 80, 0x02)));   // nobody's
    send(a, ip_packet({mac("0a:00:00:00:00:0b"), mac("0a:00:00:00:00:0a")}, ip("10.0.0.10"), ip("10.0.0.11"), 6, tcp_segment(port, 80, 0x02)));
    send(a, arp_packet({mac("ff:ff:ff:ff:ff:ff"), mac("0a:00:00:00:00:0a")}, 1, mac("0a:00:00:00:00:0a"), ip("10.0.0.10"), ip("10.0.0.1")));
    send(b, Frame(20, 0x55));  // nonsense
    if (round % 64 == 0) {
      for (RingPort* each : {&trunk, &a, &b}) out += drain(each->out);
      look(round);
      std::this_thread::yield();
    }
    if (round % 4096 == 0) published.publish(view_of_now());
    published.reclaim();
  }
  stop = true;
  while (!ended) std::this_thread::yield();
  for (RingPort* each : {&trunk, &a, &b}) out += drain(each->out);

  std::printf("%lu packets in, %lu out, %lu connections\n", worker.packets(), out, worker.state.connections.size());
  EXPECT_GT(worker.packets(), 50'000U) << "there must have been something to do";
  EXPECT_GT(out, 20'000U);
  EXPECT_GT(observed, 1000U);
  EXPECT_GT(listed, 0U);
  EXPECT_GT(flushed, 0U);
  EXPECT_GT(worker.state.trunk_in.drops[static_cast<std::size_t>(DropReason::unknown_eni)].read(), 0U);
  EXPECT_GT(worker.state.meters[0].ingress.drops[static_cast<std::size_t>(DropReason::security_group_ingress)].read(), 0U);
  EXPECT_EQ(system_calls.load(), 0U) << "the last was number " << last_call.load();
  EXPECT_EQ(allocations.load(), 0U);
  EXPECT_EQ(mutexes.load(), 0U);
}

// That the counts would count.
TEST(WorkerPath, TheWatchWatches) {
  std::atomic<bool> done{false};
  std::thread([&] {
    refuse_system_calls();
    watched = true;
    void* volatile memory = std::malloc(10);
    std::free(memory);
    syscall(SYS_getpid);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    watched = false;
    done = true;
    for (;;) __builtin_ia32_pause();
  }).detach();
  while (!done) std::this_thread::yield();
  EXPECT_GE(allocations.load(), 1U);
  EXPECT_GE(system_calls.load(), 1U);
  EXPECT_EQ(mutexes.load(), 1U);
}

}  // namespace
}  // namespace trunkline::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  char name[] = "worker_path_test", no_huge[] = "--no-huge", memory[] = "-m", megabytes[] = "128", no_pci[] = "--no-pci", in_memory[] = "--no-shconf",
       telemetry[] = "--no-telemetry", level[] = "--log-level=4";
  char* eal[] = {name, no_huge, memory, megabytes, no_pci, in_memory, telemetry, level};
  if (rte_eal_init(std::size(eal), eal) < 0) return 1;
  const int result = RUN_ALL_TESTS();
  std::fflush(stdout);
  std::_Exit(result);  // the watched threads cannot end
}
