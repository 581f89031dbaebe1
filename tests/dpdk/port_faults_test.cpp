// SPDX-License-Identifier: BSD-3-Clause
//
// Opening a port goes wrong at each step that can, and nothing is left: no port, no device on the bus, no memory; the
// port that was there before is not touched, and the same name opens as soon as the fault is gone. The driver is one
// made of software (support/mock_nic.h), whose faults are those of real ones: net_ring answers a success with the
// port's number and names its port as its arguments say.
//
// Needs the EAL (no huge pages, no root).
#include <gtest/gtest.h>
#include <malloc.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include <set>

#include "dataplane/io/port.h"
#include "tests/support/mock_nic.h"

namespace trunkline::test {
namespace {

rte_mempool* pool = nullptr;

std::expected<std::unique_ptr<Port>, std::string> open(const std::string& devargs) {
  return Port::open({.devargs = devargs, .mtu = 1500, .queues = 1, .offloads = true}, *pool);
}

std::set<std::string> devices() {
  std::set<std::string> names;
  rte_dev_iterator iterator{};
  rte_device* device = nullptr;
  RTE_DEV_FOREACH(device, "bus=vdev", &iterator) names.insert(rte_dev_name(device));
  return names;
}

// What one opening after another would use up.
struct Left {
  std::uint16_t ports = 0;
  std::set<std::string> on_bus;
  std::size_t dpdk_bytes = 0;
  unsigned buffers = 0;

  static Left now() {
    rte_malloc_socket_stats stats{};
    rte_malloc_get_socket_stats(0, &stats);
    return {ports_in_use(), devices(), stats.heap_allocsz_bytes, rte_mempool_in_use_count(pool)};
  }
  bool operator==(const Left&) const = default;
};

void expect_same(const Left& now, const Left& before) {
  EXPECT_EQ(now.ports, before.ports);
  EXPECT_EQ(now.on_bus, before.on_bus);
  EXPECT_EQ(now.dpdk_bytes, before.dpdk_bytes);
  EXPECT_EQ(now.buffers, before.buffers);
}

struct Step {
  MockFault fault;
  const char* says;
};

class PortFaults : public ::testing::TestWithParam<Step> {
 protected:
  PortFaults() {
    MockNic::fault = MockFault::none;
    auto opened = open("net_mocknic0");
    EXPECT_TRUE(opened) << opened.error();
    bystander_ = std::move(*opened);
  }
  ~PortFaults() override { MockNic::fault = MockFault::none; }

  std::unique_ptr<Port> bystander_;
};

TEST_P(PortFaults, LeaveNothing) {
  // The first one makes what DPDK keeps for good: tables of names, the port's slot.
  MockNic::fault = GetParam().fault;
  (void)open("net_mocknic7");
  MockNic::fault = MockFault::none;
  ASSERT_TRUE(open("net_mocknic7"));
  const Left before = Left::now();
  const std::size_t heap = mallinfo2().uordblks;
  for (int turn = 0; turn < 100; ++turn) {
    MockNic::fault = GetParam().fault;
    auto port = open("net_mocknic7");
    ASSERT_FALSE(port);
    EXPECT_NE(port.error().find(GetParam().says), std::string::npos) << port.error();
    EXPECT_TRUE(port.error().starts_with("net_mocknic7: ")) << port.error();
    // As the next attach asks, of this name and of others.
    EXPECT_FALSE(is_open("net_mocknic7"));
    EXPECT_FALSE(is_open("net_mocknic7x"));
    EXPECT_TRUE(is_open("net_mocknic0"));
    MockNic::fault = MockFault::none;
    expect_same(Left::now(), before);
    if (HasFailure()) return;
    auto other = open("net_mocknic" + std::to_string(8 + turn % 2));
    ASSERT_TRUE(other) << other.error();
    auto again = open("net_mocknic7");
    ASSERT_TRUE(again) << again.error();
    EXPECT_NE((*again)->ethdev(), (*other)->ethdev());
    EXPECT_NE((*again)->ethdev(), bystander_->ethdev());
  }
  expect_same(Left::now(), before);
  // 100 devices that stay would be 60 kB. A sanitizer counts otherwise, and looks for what leaks itself.
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(mallinfo2().uordblks, heap + 4096);
#endif
  EXPECT_TRUE(bystander_->link_up());
}

INSTANTIATE_TEST_SUITE_P(AtEachStep, PortFaults, ::testing::Values(
    Step{MockFault::refuses, "its driver refused it"},
    Step{MockFault::refuses_and_leaves_port, "its driver refused it"},
    Step{MockFault::refuses_and_leaves_half, "its driver refused it"}, Step{MockFault::makes_no_port, "made no port"},
    Step{MockFault::makes_two_ports, "made 2 ports"}, Step{MockFault::makes_other_name, "called net_mocknic7x"},
    Step{MockFault::no_information, "no device information"},
    Step{MockFault::refuses_configuration, "cannot be configured"},
    Step{MockFault::refuses_receive_queue, "receive queue refused"},
    Step{MockFault::refuses_send_queue, "transmit queue refused"},
    Step{MockFault::refuses_start, "cannot be started"}));

class Closing : public PortFaults {};

// A driver that fails here has had its turn: its port goes all the same.
TEST_P(Closing, LeavesNothing) {
  ASSERT_TRUE(open("net_mocknic7"));
  const Left before = Left::now();
  for (int turn = 0; turn < 20; ++turn) {
    auto port = open("net_mocknic7");
    ASSERT_TRUE(port) << port.error();
    MockNic::fault = GetParam().fault;
    port->reset();
    MockNic::fault = MockFault::none;
    expect_same(Left::now(), before);
  }
}

INSTANTIATE_TEST_SUITE_P(AtEachStep, Closing,
                         ::testing::Values(Step{MockFault::refuses_stop, ""}, Step{MockFault::refuses_close, ""}));

// The device stays on the bus, and nothing points to it: its name is taken, others are not.
TEST_F(PortFaults, ADriverThatDoesNotRemoveItsDevice) {
  MockNic::fault = MockFault::refuses_removal;
  const std::uint16_t ports = ports_in_use();
  { ASSERT_TRUE(open("net_mocknic5")); }
  MockNic::fault = MockFault::none;
  EXPECT_EQ(ports_in_use(), ports);
  const auto again = open("net_mocknic5");
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().find("open already"), std::string::npos) << again.error();
  EXPECT_TRUE(open("net_mocknic6"));
  EXPECT_EQ(rte_eal_hotplug_remove("vdev", "net_mocknic5"), 0);
  EXPECT_TRUE(open("net_mocknic5"));
}

TEST_F(PortFaults, ANameThatIsTakenIsRefusedAndNotTouched) {
  const Left before = Left::now();
  const auto twice = open("net_mocknic0,another=1");
  ASSERT_FALSE(twice);
  EXPECT_NE(twice.error().find("open already"), std::string::npos) << twice.error();
  expect_same(Left::now(), before);
  EXPECT_TRUE(bystander_->link_up());
}

TEST_F(PortFaults, AnMtuThatCannotBeSetIsNoFailure) {
  MockNic::fault = MockFault::refuses_mtu;
  const auto port = open("net_mocknic7");
  ASSERT_TRUE(port) << port.error();
  EXPECT_FALSE((*port)->capabilities().front().available);
}

// Real drivers, with arguments that they take otherwise than they should.
TEST_F(PortFaults, DriversOfDpdk) {
  (void)open("net_ring7,nodeaction=x:0:CREATE");
  (void)open("net_null7,size=0");
  const Left before = Left::now();
  const std::string long_name = "net_null" + std::string(80, '1');
  const char* const refused[] = {
      "net_ring7,nodeaction=x:0:CREATE", "net_ring7,nodeaction=x:0:CREATE,nodeaction=y:0:CREATE",
      "net_ring7,nodeaction=x:0:ATTACH", "net_ring7,nodeaction=:0:CREATE",
      "net_ring7,internal=0x1", "net_ring7,internal=",
      "net_vhost7,queues=1", "net_vhost7,iface=/tmp/trunkline-port-faults,queues=2000",
      "net_pcap7,rx_pcap=/nowhere",
      "net_af_packet7,iface=nothing", "net_memif7,role=nothing", "no_such_driver0", "", ",",
      "net_null7\n", "bus=vdev,name=net_null7", "net_null",
      long_name.c_str(), "0000:ff:1f.7", "::::", "net_tap7,iface=a/b",
  };
  for (const char* const devargs : refused) {
    const auto port = open(devargs);
    if (std::string(devargs) != "net_null") EXPECT_FALSE(port) << devargs;
    const auto next = open("net_null8");
    EXPECT_TRUE(next) << devargs << ", then: " << next.error();
  }
  const Left after = Left::now();
  EXPECT_EQ(after.ports, before.ports);
  EXPECT_EQ(after.on_bus, before.on_bus);
}

}  // namespace
}  // namespace trunkline::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::string prefix = "trunkline-port-faults-" + std::to_string(getpid());
  const char* arguments[] = {"port_faults_test", "--no-huge", "-m", "256", "--no-shconf", "--no-telemetry",
                             "--no-pci", "--file-prefix", prefix.c_str(),
                             "-l", "0", "--log-level=critical"};
  if (rte_eal_init(static_cast<int>(std::size(arguments)), const_cast<char**>(arguments)) < 0) return 1;
  trunkline::test::pool = rte_pktmbuf_pool_create("port_faults", 8191, 0, 0, 2176, SOCKET_ID_ANY);
  if (trunkline::test::pool == nullptr) return 1;
  return RUN_ALL_TESTS();
}
