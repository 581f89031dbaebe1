// SPDX-License-Identifier: BSD-3-Clause
//
// The task's eth0 on a real kernel: namespaces of its own (tltest-<pid>-<n>, removed afterwards), and `ip -j` as the
// witness that did not write them. Needs root, /dev/net/tun and IPv6; without them it fails and does not skip.
#include "control/task_interface.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <thread>

namespace trunkline {
namespace {

using Kind = InterfaceError::Kind;
using Json = nlohmann::json;

// What `ip` and a driver would do by hand.
std::string output_of(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen: " + command);
  std::string output;
  std::array<char, 4096> chunk;
  while (const std::size_t size = std::fread(chunk.data(), 1, chunk.size(), pipe)) output.append(chunk.data(), size);
  if (::pclose(pipe) != 0) throw std::runtime_error("failed: " + command);
  return output;
}

std::string inode_of_own_namespace() { return std::filesystem::read_symlink("/proc/thread-self/ns/net"); }

int attach_driver(const std::string& name, int more_flags) {
  const int fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE | more_flags);
  if (fd < 0 || ::ioctl(fd, TUNSETIFF, &request) != 0) return -errno;
  return fd;
}

class TaskInterfaceTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0U) << "this test makes network namespaces: run it as root";
    static int number = 0;
    name_ = "tltest-" + std::to_string(::getpid()) + "-" + std::to_string(number++);
    output_of("ip netns add " + name_);
    made_ = true;
  }
  void TearDown() override {
    if (made_) output_of("ip netns delete " + name_);
  }

  NetworkNamespace netns() const { return NetworkNamespace::open(name_).value(); }

  std::string ip(const std::string& arguments) const { return output_of("ip -n " + name_ + " " + arguments); }
  Json ip_json(const std::string& arguments) const {
    const std::string text = ip("-j " + arguments);
    return text.empty() ? Json::array() : Json::parse(text);
  }
  Json link(const std::string& interface = "eth0") const {
    for (const Json& entry : ip_json("-d link show"))
      if (entry.value("ifname", "") == interface) return entry;
    return nullptr;
  }
  // The kernel notices a little later that the last queue has gone. Only then do two looks compare.
  void wait_for_lost_carrier() const {
    for (int attempt = 0; attempt < 500; ++attempt) {
      const Json flags = link()["flags"];
      if (std::ranges::find(flags, "NO-CARRIER") != flags.end()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "eth0 still has a carrier";
  }
  // "address/length" of every address but the kernel's link-local one.
  std::set<std::string> addresses(const std::string& interface = "eth0") const {
    std::set<std::string> found;
    for (const Json& entry : ip_json("addr show dev " + interface))
      for (const Json& address : entry.value("addr_info", Json::array()))
        if (address["scope"] != "link")
          found.insert(address["local"].get<std::string>() + "/" + std::to_string(address["prefixlen"].get<int>()));
    return found;
  }
  Json default_routes(const std::string& family) const { return ip_json(family + " route show default"); }
  std::string ipv6_setting(const std::string& setting, const std::string& interface = "eth0") const {
    std::string value;
    const auto read = netns().run([&] {
      std::ifstream("/proc/sys/net/ipv6/conf/" + interface + "/" + setting) >> value;
    });
    EXPECT_TRUE(read);
    return value;
  }

  static TaskInterface dual_stack() {
    TaskInterface wanted;
    wanted.name = "eth0";
    wanted.mac = *MacAddress::parse("02:11:22:33:44:55");
    wanted.mtu = 9001;
    wanted.addresses = {*IpPrefix::parse("10.0.1.35/24"), *IpPrefix::parse("2600:1f13:1::35/128")};
    wanted.gateways = {*IpAddress::parse("10.0.1.1"), *IpAddress::parse("fe80:ec2::1")};
    wanted.default_route = true;
    return wanted;
  }
  static TaskInterface ipv4_only() {
    TaskInterface wanted = dual_stack();
    wanted.addresses.resize(1);
    wanted.gateways.resize(1);
    return wanted;
  }
  void ensure(const TaskInterface& wanted, std::string_view tag = "eni-1") const {
    const auto done = ensure_task_interface(netns(), wanted, tag);
    EXPECT_TRUE(done) << done.error().message;
  }
  void expect_refused(const TaskInterface& wanted, Kind kind, const std::string& words,
                      std::string_view tag = "eni-1") const {
    const auto done = ensure_task_interface(netns(), wanted, tag);
    ASSERT_FALSE(done) << "expected a refusal with: " << words;
    EXPECT_EQ(done.error().kind, kind) << done.error().message;
    EXPECT_NE(done.error().message.find(words), std::string::npos) << done.error().message;
  }

  std::string name_;
  bool made_ = false;
};

// ---- namespaces ----

TEST_F(TaskInterfaceTest, NamespaceIsFoundByNameByPathAndAsOwn) {
  const std::string inode = netns().run(inode_of_own_namespace).value();
  EXPECT_NE(inode, inode_of_own_namespace());
  EXPECT_EQ(NetworkNamespace::open("/run/netns/" + name_).value().run(inode_of_own_namespace).value(), inode);
  EXPECT_EQ(NetworkNamespace::open("").value().run(inode_of_own_namespace).value(), inode_of_own_namespace());
  EXPECT_EQ(NetworkNamespace::open("/proc/self/ns/net").value().run(inode_of_own_namespace).value(),
            inode_of_own_namespace());
}

TEST_F(TaskInterfaceTest, NamespaceThatIsNotThereIsRefused) {
  for (const std::string& missing :
       {name_ + "-unknown", std::string("/run/netns/") + name_ + "-unknown", std::string("/proc/2147483646/ns/net"),
        std::string(".."), std::string(300, 'x')}) {
    const auto opened = NetworkNamespace::open(missing);
    ASSERT_FALSE(opened) << missing;
    EXPECT_EQ(opened.error().kind, Kind::netns_missing) << opened.error().message;
    EXPECT_NE(opened.error().message.find(missing), std::string::npos) << opened.error().message;
  }
}

TEST_F(TaskInterfaceTest, FileThatIsNotANetworkNamespaceIsRefused) {
  const auto folder = std::filesystem::temp_directory_path() / name_;
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "file") << "not a namespace";
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);  // must not make the caller wait
  for (const std::string& path : {(folder / "file").string(), (folder / "fifo").string(), folder.string(),
                                 std::string("/proc/self/ns/mnt"), std::string("/dev/null")}) {
    const auto opened = NetworkNamespace::open(path);
    ASSERT_FALSE(opened) << path;
    EXPECT_EQ(opened.error().kind, Kind::netns_missing);
    EXPECT_NE(opened.error().message.find("is not a network namespace"), std::string::npos) << opened.error().message;
  }
  std::filesystem::remove_all(folder);
}

TEST_F(TaskInterfaceTest, WorkReturnsItsResultOrItsExceptionAndTheCallerStays) {
  const std::string before = inode_of_own_namespace();
  const NetworkNamespace inside = netns();
  const std::thread::id caller = std::this_thread::get_id();
  EXPECT_NE(inside.run([] { return std::this_thread::get_id(); }).value(), caller);
  int calls = 0;
  static_assert(std::is_same_v<decltype(inside.run([] {})), std::expected<void, InterfaceError>>);
  EXPECT_TRUE(inside.run([&] { ++calls; }));
  EXPECT_EQ(calls, 1);
  static_assert(std::is_same_v<decltype(inside.run([]() -> std::expected<int, InterfaceError> { return 1; })),
                               std::expected<int, InterfaceError>>);
  const auto failed = inside.run([]() -> std::expected<int, InterfaceError> {
    return std::unexpected(InterfaceError{Kind::kernel, "words"});
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "words");
  EXPECT_THROW((void)inside.run([] { throw std::out_of_range("carried over"); }), std::out_of_range);
  EXPECT_EQ(inode_of_own_namespace(), before);
}

// ---- making one ----

TEST_F(TaskInterfaceTest, DualStackInterfaceIsAsAsked) {
  ensure(dual_stack());
  const Json made = link();
  ASSERT_FALSE(made.is_null());
  EXPECT_EQ(made["address"], "02:11:22:33:44:55");
  EXPECT_EQ(made["mtu"], 9001);
  EXPECT_EQ(made["ifalias"], "trunkline:eni-1");
  const Json tun = made["linkinfo"]["info_data"];
  EXPECT_EQ(tun["type"], "tap");
  EXPECT_EQ(tun["persist"], true);
  EXPECT_EQ(tun["multi_queue"], true);
  EXPECT_EQ(tun["pi"], false);
  EXPECT_EQ(tun["vnet_hdr"], false);
  EXPECT_EQ(tun["user"], "root");
  for (const char* interface : {"eth0", "lo"}) {
    const Json flags = link(interface)["flags"];
    EXPECT_NE(std::ranges::find(flags, "UP"), flags.end()) << interface;
  }

  EXPECT_EQ(addresses(), (std::set<std::string>{"10.0.1.35/24", "2600:1f13:1::35/128"}));
  const Json shown = ip_json("-6 addr show dev eth0");
  int global = 0;
  for (const Json& address : shown.at(0).at("addr_info")) {
    if (address["scope"] != "global") continue;
    ++global;
    EXPECT_EQ(address.value("nodad", false), true) << address;
    EXPECT_EQ(address.value("tentative", false), false) << address;
  }
  EXPECT_EQ(global, 1);
  ASSERT_EQ(default_routes("-4").size(), 1U);
  EXPECT_EQ(default_routes("-4")[0]["gateway"], "10.0.1.1");
  EXPECT_EQ(default_routes("-4")[0]["dev"], "eth0");
  ASSERT_EQ(default_routes("-6").size(), 1U);
  EXPECT_EQ(default_routes("-6")[0]["gateway"], "fe80:ec2::1");
  EXPECT_EQ(ipv6_setting("accept_ra"), "0");
  EXPECT_EQ(ipv6_setting("disable_ipv6"), "0");
  EXPECT_TRUE(task_interface_exists(netns(), "eth0"));

  // None of it in the namespace of the test.
  EXPECT_EQ(output_of("ip -j link").find("trunkline:eni-1"), std::string::npos);
}

TEST_F(TaskInterfaceTest, Ipv4OnlyInterfaceIsSilentOnIpv6) {
  ensure(ipv4_only());
  EXPECT_EQ(ipv6_setting("disable_ipv6"), "1");
  EXPECT_EQ(ipv6_setting("disable_ipv6", "lo"), "0");
  EXPECT_TRUE(ip_json("-6 addr show dev eth0").empty() || ip_json("-6 addr show dev eth0")[0].empty());
  EXPECT_TRUE(default_routes("-6").empty());
}

TEST_F(TaskInterfaceTest, Ipv6WithoutAGivenGatewayListensToRouters) {
  TaskInterface wanted = dual_stack();
  wanted.gateways.resize(1);
  ensure(wanted);
  EXPECT_EQ(ipv6_setting("accept_ra"), "1");
  EXPECT_TRUE(default_routes("-6").empty());
  ensure(dual_stack());
  EXPECT_EQ(ipv6_setting("accept_ra"), "0");
  ensure(wanted);
  EXPECT_EQ(ipv6_setting("accept_ra"), "1");
  EXPECT_TRUE(default_routes("-6").empty());
}

TEST_F(TaskInterfaceTest, Ipv6IsEnabledWhereTheRuntimeDisabledIt) {
  ASSERT_TRUE(netns().run([] { std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << "1"; }));
  ensure(dual_stack());
  EXPECT_EQ(ipv6_setting("disable_ipv6"), "0");
  EXPECT_EQ(addresses().count("2600:1f13:1::35/128"), 1U);
  EXPECT_EQ(ipv6_setting("disable_ipv6", "default"), "1");
}

TEST_F(TaskInterfaceTest, GatewayOutsideOfEverySubnetAndNoDefaultRoute) {
  TaskInterface wanted = dual_stack();
  wanted.addresses[0] = *IpPrefix::parse("10.0.1.35/32");
  wanted.gateways[0] = *IpAddress::parse("169.254.1.1");
  ensure(wanted);
  EXPECT_EQ(default_routes("-4")[0]["gateway"], "169.254.1.1");
  wanted.default_route = false;
  ensure(wanted);
  EXPECT_TRUE(default_routes("-4").empty());
  EXPECT_TRUE(default_routes("-6").empty());
}

TEST_F(TaskInterfaceTest, OutlivesTheProcessThatMadeIt) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(ensure_task_interface(netns(), dual_stack(), "eni-1") ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(addresses().size(), 2U);
  EXPECT_EQ(default_routes("-4").size(), 1U);
  EXPECT_EQ(default_routes("-6").size(), 1U);
  EXPECT_TRUE(task_interface_exists(netns(), "eth0"));
}

// ---- adopting one ----

TEST_F(TaskInterfaceTest, SecondEnsureChangesNothing) {
  ensure(dual_stack());
  wait_for_lost_carrier();
  const Json link_before = link(), addresses_before = ip_json("addr show dev eth0 scope global");
  const Json routes_before = ip_json("route"), routes6_before = ip_json("-6 route");
  ensure(dual_stack());
  EXPECT_EQ(link(), link_before);
  EXPECT_EQ(ip_json("addr show dev eth0 scope global"), addresses_before);
  EXPECT_EQ(ip_json("route"), routes_before);
  EXPECT_EQ(ip_json("-6 route"), routes6_before);
}

TEST_F(TaskInterfaceTest, AdoptedInterfaceIsBroughtToWhatIsAsked) {
  ensure(dual_stack());
  const Json index = link()["ifindex"];
  TaskInterface wanted = dual_stack();
  wanted.mac = *MacAddress::parse("02:aa:bb:cc:dd:ee");
  wanted.mtu = 1500;
  wanted.vnet_hdr = true;
  wanted.addresses = {*IpPrefix::parse("10.0.1.35/20"), *IpPrefix::parse("10.0.1.36/20"),
                      *IpPrefix::parse("2600:1f13:1::35/64")};
  wanted.gateways = {*IpAddress::parse("10.0.0.1"), *IpAddress::parse("2600:1f13:1::1")};
  ensure(wanted);
  EXPECT_EQ(link()["ifindex"], index);
  EXPECT_EQ(link()["address"], "02:aa:bb:cc:dd:ee");
  EXPECT_EQ(link()["mtu"], 1500);
  EXPECT_EQ(link()["linkinfo"]["info_data"]["vnet_hdr"], true);
  EXPECT_EQ(addresses(), (std::set<std::string>{"10.0.1.35/20", "10.0.1.36/20", "2600:1f13:1::35/64"}));
  ASSERT_EQ(default_routes("-4").size(), 1U);
  EXPECT_EQ(default_routes("-4")[0]["gateway"], "10.0.0.1");
  ASSERT_EQ(default_routes("-6").size(), 1U);
  EXPECT_EQ(default_routes("-6")[0]["gateway"], "2600:1f13:1::1");

  // The primary address of a subnet takes the others with it when it goes; those that are wanted come back.
  wanted.addresses.erase(wanted.addresses.begin());
  ensure(wanted);
  EXPECT_EQ(addresses(), (std::set<std::string>{"10.0.1.36/20", "2600:1f13:1::35/64"}));
  EXPECT_EQ(default_routes("-4").size(), 1U);

  ensure(ipv4_only());
  EXPECT_EQ(addresses(), (std::set<std::string>{"10.0.1.35/24"}));
  EXPECT_EQ(ipv6_setting("disable_ipv6"), "1");
  ensure(dual_stack());
  EXPECT_EQ(addresses(), (std::set<std::string>{"10.0.1.35/24", "2600:1f13:1::35/128"}));
  EXPECT_EQ(link()["ifindex"], index);
}

TEST_F(TaskInterfaceTest, TaskOwnRoutesAreLeftAlone) {
  ensure(dual_stack());
  ip("route add 192.0.2.0/24 via 10.0.1.9");
  ip("link add other type veth peer name other-peer");
  ip("link set other up");
  ip("route add default dev other metric 500");
  ensure(dual_stack());
  EXPECT_EQ(ip_json("route show 192.0.2.0/24").size(), 1U);
  EXPECT_EQ(default_routes("-4").size(), 2U);
}

TEST_F(TaskInterfaceTest, DriverAttachesAndKeepsItsQueueToItself) {
  ensure(dual_stack());
  const int driver = netns().run([] { return attach_driver("eth0", 0); }).value();
  ASSERT_GE(driver, 0) << std::strerror(-driver);
  const auto has_carrier = [this] {
    const Json flags = link()["flags"];
    return std::ranges::find(flags, "LOWER_UP") != flags.end();
  };
  EXPECT_TRUE(has_carrier());
  TaskInterface wanted = dual_stack();
  wanted.mtu = 1500;
  ensure(wanted);
  EXPECT_EQ(link()["mtu"], 1500);
  EXPECT_EQ(link()["linkinfo"]["info_data"].value("numqueues", 0), 1);

  // What the driver agreed upon with the kernel is not changed below it.
  wanted.vnet_hdr = true;
  expect_refused(wanted, Kind::kernel, "while a driver is attached");
  ::close(driver);
  EXPECT_FALSE(has_carrier());
  ensure(wanted);
  EXPECT_EQ(link()["linkinfo"]["info_data"]["vnet_hdr"], true);
  const int again = netns().run([] { return attach_driver("eth0", IFF_VNET_HDR); }).value();
  EXPECT_GE(again, 0) << std::strerror(-again);

  // Removal does not wait for the driver.
  EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-1"));
  EXPECT_TRUE(link().is_null());
  ::close(again);
}

// ---- not ours ----

TEST_F(TaskInterfaceTest, ForeignInterfaceIsLeftUntouched) {
  for (const std::string make :
       {"link add eth0 type veth peer name peer", "tuntap add dev eth0 mode tap multi_queue",
        "tuntap add dev eth0 mode tun multi_queue"}) {
    ip(make);
    if (make.find("mode tun ") != std::string::npos) ip("link set eth0 alias trunkline:eni-1");  // a tun is no tap
    const Json before = link();
    expect_refused(dual_stack(), Kind::interface_exists, "the name is taken");
    const auto removed = remove_task_interface(netns(), "eth0", "eni-1");
    ASSERT_FALSE(removed) << make;
    EXPECT_EQ(removed.error().kind, Kind::interface_exists);
    EXPECT_FALSE(task_interface_exists(netns(), "eth0"));
    EXPECT_EQ(link(), before) << make;
    ip("link delete eth0");
  }
}

TEST_F(TaskInterfaceTest, InterfaceOfAnotherAttachmentIsLeftUntouched) {
  ensure(dual_stack(), "eni-1");
  wait_for_lost_carrier();
  const Json before = link();
  TaskInterface other = ipv4_only();
  other.mac = *MacAddress::parse("02:11:22:33:44:66");
  expect_refused(other, Kind::interface_exists, "belongs to another attachment", "eni-10");
  expect_refused(other, Kind::interface_exists, "belongs to another attachment", "eni-");
  EXPECT_FALSE(remove_task_interface(netns(), "eth0", "eni-10", other.mac));
  EXPECT_FALSE(remove_task_interface(netns(), "eth0", "eni-10"));
  EXPECT_EQ(link(), before);
  EXPECT_EQ(addresses().size(), 2U);
}

TEST_F(TaskInterfaceTest, AlternativeNameOfAnotherInterfaceIsTaken) {
  ip("link add veth7 type veth peer name peer");
  ip("link property add dev veth7 altname eth0");
  const Json before = link("veth7");
  expect_refused(dual_stack(), Kind::interface_exists, "veth7");
  EXPECT_FALSE(remove_task_interface(netns(), "eth0", "eni-1"));
  EXPECT_EQ(link("veth7"), before);
}

TEST_F(TaskInterfaceTest, SingleQueueTapWithOurMarkIsRefused) {
  ip("tuntap add dev eth0 mode tap");
  ip("link set eth0 alias trunkline:eni-1");
  expect_refused(dual_stack(), Kind::interface_exists, "not multi-queue");
}

// ---- failures ----

TEST_F(TaskInterfaceTest, FailureHalfWayLeavesNothing) {
  TaskInterface wanted = dual_stack();
  wanted.mtu = 65535;  // above what a tap can have
  expect_refused(wanted, Kind::kernel, "set its MTU to 65535");
  EXPECT_TRUE(link().is_null());

  wanted = dual_stack();
  wanted.gateways[0] = *IpAddress::parse("10.0.1.35");  // the task itself
  expect_refused(wanted, Kind::kernel, "default route via 10.0.1.35");
  EXPECT_TRUE(link().is_null());
  ensure(dual_stack());
}

TEST_F(TaskInterfaceTest, DefaultRouteOverAnotherInterfaceIsNotReplaced) {
  ip("link add other type veth peer name other-peer");
  ip("link set other up");
  ip("route add default dev other");
  expect_refused(dual_stack(), Kind::kernel, "over another interface");
  EXPECT_TRUE(link().is_null());
  ASSERT_EQ(default_routes("-4").size(), 1U);
  EXPECT_EQ(default_routes("-4")[0]["dev"], "other");
  TaskInterface wanted = dual_stack();
  wanted.default_route = false;
  ensure(wanted);
}

TEST_F(TaskInterfaceTest, FailureOnAnAdoptedInterfaceLeavesItInPlace) {
  ensure(dual_stack());
  const Json index = link()["ifindex"];
  TaskInterface wanted = dual_stack();
  wanted.mtu = 65535;
  expect_refused(wanted, Kind::kernel, "MTU");
  EXPECT_EQ(link()["ifindex"], index);
  EXPECT_EQ(addresses().size(), 2U);
}

TEST_F(TaskInterfaceTest, WithoutPrivilegeSaysWhatToGive) {
  const NetworkNamespace inside = netns();
  const auto as_nobody = [&](auto attempt) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
      ::_exit(attempt() ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  };
  EXPECT_EQ(as_nobody([&] {
    const auto done = ensure_task_interface(inside, dual_stack(), "eni-1");
    return !done && done.error().kind == Kind::permission &&
           done.error().message.find("run as root or give CAP_SYS_ADMIN") != std::string::npos;
  }), 0);
  EXPECT_EQ(as_nobody([&] { return !task_interface_exists(inside, "eth0"); }), 0);
  EXPECT_EQ(as_nobody([&] {
    const auto opened = NetworkNamespace::open("/proc/" + std::to_string(::getppid()) + "/ns/net");
    return !opened && opened.error().kind == Kind::permission;
  }), 0);
  EXPECT_TRUE(link().is_null());
}

TEST_F(TaskInterfaceTest, WhatCannotBeIsRefusedBeforeTheKernelIsAsked) {
  for (const std::string name : {"", "sixteen-letters1", "a/b", "a b", "eth%d", "a:1", "..", "lo", "all", "default"}) {
    TaskInterface wanted = dual_stack();
    wanted.name = name;
    expect_refused(wanted, Kind::invalid, "cannot be a");
    const auto removed = remove_task_interface(netns(), name, "eni-1");
    ASSERT_FALSE(removed) << name;
    EXPECT_EQ(removed.error().kind, Kind::invalid);
    EXPECT_FALSE(task_interface_exists(netns(), name));
  }
  expect_refused(dual_stack(), Kind::invalid, "tag", "");
  expect_refused(dual_stack(), Kind::invalid, "tag", "two words");
  expect_refused(dual_stack(), Kind::invalid, "tag", std::string(246, 't'));

  TaskInterface wanted = dual_stack();
  wanted.mac = *MacAddress::parse("01:00:5e:00:00:01");
  expect_refused(wanted, Kind::invalid, "MAC");
  wanted = dual_stack();
  wanted.mtu = 1279;
  expect_refused(wanted, Kind::invalid, "1280");
  wanted = ipv4_only();
  wanted.mtu = 67;
  expect_refused(wanted, Kind::invalid, "68");
  wanted = dual_stack();
  wanted.gateways.push_back(*IpAddress::parse("10.0.1.2"));
  expect_refused(wanted, Kind::invalid, "more than one gateway");
  wanted = ipv4_only();
  wanted.gateways.push_back(*IpAddress::parse("fe80:ec2::1"));
  expect_refused(wanted, Kind::invalid, "needs an address of its family");
  wanted = ipv4_only();
  wanted.gateways.clear();
  expect_refused(wanted, Kind::invalid, "no gateway is given");
  wanted = ipv4_only();
  wanted.addresses[0].length = 33;
  expect_refused(wanted, Kind::invalid, "not an interface's address");
  EXPECT_TRUE(link().is_null());
}

TEST_F(TaskInterfaceTest, LongestNameAndTagAreAccepted) {
  TaskInterface wanted = ipv4_only();
  wanted.name = "fifteen-letters";
  const std::string tag(245, 't');
  ensure(wanted, tag);
  EXPECT_EQ(link(wanted.name)["ifalias"], "trunkline:" + tag);
  ensure(wanted, tag);
  EXPECT_TRUE(remove_task_interface(netns(), wanted.name, tag));
}

// ---- removing one ----

// The lost carrier of a tap without a driver is taken notice of late, and so is the one that a driver brings back.
TEST_F(TaskInterfaceTest, SettledWhenADriverHasAttachedAndNotBefore) {
  ensure(ipv4_only());
  wait_for_lost_carrier();
  EXPECT_FALSE(settle_task_interface(netns(), "eth0"));
  EXPECT_FALSE(settle_task_interface(netns(), "eth1"));
  const int driver = netns().run([] { return attach_driver("eth0", 0); }).value();
  ASSERT_GE(driver, 0);
  EXPECT_TRUE(settle_task_interface(netns(), "eth0"));
  EXPECT_EQ(link()["operstate"], "UP");
  ::close(driver);
}

TEST_F(TaskInterfaceTest, RemovedUnderTheNameThatTheTaskGaveIt) {
  ensure(dual_stack());
  ip("link set dev eth0 down");
  ip("link set dev eth0 name mine0");
  // What has the old name now is somebody else's, and stays.
  ip("link add eth0 type veth peer name eth1");
  EXPECT_FALSE(remove_task_interface(netns(), "eth0", "eni-2"));
  const auto removed = remove_task_interface(netns(), "eth0", "eni-1");
  ASSERT_FALSE(removed) << "the next attachment could not have the name";
  EXPECT_EQ(removed.error().kind, Kind::interface_exists);
  EXPECT_FALSE(task_interface_exists(netns(), "mine0"));
  EXPECT_FALSE(link().is_null());
}

// Everything that a task may do to its interface, alone and all at once. The driver's descriptor is what tells it.
TEST_F(TaskInterfaceTest, WhatADriverHoldsIsRemovedWhateverTheTaskHasDoneToIt) {
  output_of("ip netns add " + name_ + "-2");
  const std::string other = name_ + "-2";
  const auto in_other = [&](const std::string& arguments) { return output_of("ip -n " + other + " " + arguments); };
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"nothing", {}},
      {"another alias", {"link set dev eth0 alias trunkline:eni-other"}},
      {"no alias", {"link set dev eth0 alias ''"}},
      {"another name", {"link set dev eth0 down", "link set dev eth0 name mine0"}},
      {"another MAC", {"link set dev eth0 down", "link set dev eth0 address 02:00:00:00:00:09"}},
      {"down", {"link set dev eth0 down"}},
      {"another namespace", {"link set dev eth0 netns " + other}},
      {"another namespace and name", {"link set dev eth0 netns " + other + " name mine0"}},
      {"all of it", {"link set dev eth0 alias x", "link set dev eth0 down", "link set dev eth0 address 02:00:00:00:00:09", "link set dev eth0 netns " + other + " name mine0"}},
      {"another under its name", {"link set dev eth0 down", "link set dev eth0 name mine0", "link set dev mine0 alias x", "link add eth0 type veth peer name peer0"}},
      {"another tap under its name", {"link set dev eth0 down", "link set dev eth0 name mine0", "tuntap add eth0 mode tap multi_queue"}},
  };
  for (const auto& [what, commands] : cases) {
    SCOPED_TRACE(what);
    ensure(ipv4_only());
    const int driver = netns().run([] { return attach_driver("eth0", 0); }).value();
    ASSERT_GE(driver, 0);
    const int kept = ::dup(driver);
    for (const std::string& command : commands) ip(command);
    ::close(driver);  // as a port is closed before its interface goes
    const auto removed = remove_attached_tap(kept);
    EXPECT_TRUE(removed) << removed.error().message;
    ifreq request{};
    EXPECT_NE(::ioctl(kept, TUNGETIFF, &request), 0) << "nothing is attached to the descriptor any more";
    EXPECT_TRUE(remove_attached_tap(kept));
    ::close(kept);
    EXPECT_TRUE(link("mine0").is_null());
    EXPECT_EQ(in_other("-o link show").find("eth0"), std::string::npos);
    EXPECT_EQ(in_other("-o link show").find("mine0"), std::string::npos);
    const bool has_another = what.starts_with("another under") || what.starts_with("another tap");
    EXPECT_EQ(link().is_null(), !has_another) << "what is not ours stays";
    const auto name = remove_task_interface(netns(), "eth0", "eni-1", ipv4_only().mac);
    EXPECT_EQ(name.has_value(), !has_another);
    if (has_another) ip("link delete eth0");
    // And the next one can come.
    ensure(ipv4_only(), "eni-2");
    EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-2"));
  }
  output_of("ip netns delete " + other);
}

TEST_F(TaskInterfaceTest, WhatADriverHoldsIsRemovedWhenTheNamespaceHasNoNameAnyMore) {
  ensure(ipv4_only());
  const int driver = netns().run([] { return attach_driver("eth0", 0); }).value();
  ASSERT_GE(driver, 0);
  const NetworkNamespace kept = netns();
  output_of("ip netns delete " + name_);
  made_ = false;
  EXPECT_TRUE(remove_attached_tap(driver));
  EXPECT_FALSE(task_interface_exists(kept, "eth0"));
  ::close(driver);
}

TEST_F(TaskInterfaceTest, ADescriptorThatIsNoTapsIsFine) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_TRUE(remove_attached_tap(null));
  ::close(null);
  EXPECT_TRUE(remove_attached_tap(-1));
}

// After a restart nothing is attached, and the mark is what the task left of it: the owner and the ENI's MAC tell it.
TEST_F(TaskInterfaceTest, ATapWhoseMarkTheTaskHasRewrittenIsAdoptedAndRemoved) {
  for (const std::string alias : {"''", "mine", "trunkline:eni-other"}) {
    SCOPED_TRACE(alias);
    ensure(dual_stack());
    wait_for_lost_carrier();
    const int index = link()["ifindex"];
    ip("link set dev eth0 alias " + alias);
    ensure(dual_stack());
    EXPECT_EQ(link()["ifindex"], index) << "the same interface";
    EXPECT_EQ(link()["ifalias"], "trunkline:eni-1");
    ip("link set dev eth0 alias " + alias);
    const auto without = remove_task_interface(netns(), "eth0", "eni-1");
    ASSERT_FALSE(without) << "by the mark alone it is not found";
    EXPECT_EQ(without.error().kind, alias == "trunkline:eni-other" ? Kind::interface_exists : Kind::kernel);
    EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-1", dual_stack().mac));
    EXPECT_TRUE(link().is_null());
  }
  // With another MAC too it is nobody's for certain: it stays, and that is told.
  ensure(dual_stack());
  wait_for_lost_carrier();
  ip("link set dev eth0 down alias mine address 02:00:00:00:00:09");
  expect_refused(dual_stack(), Kind::interface_exists, "without the mark");
  const auto left = remove_task_interface(netns(), "eth0", "eni-1", dual_stack().mac);
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().kind, Kind::kernel);
  EXPECT_NE(left.error().message.find("the next attach finds its name taken"), std::string::npos);
  ip("link delete eth0");
  // A tap of the task's own is not taken for one, whoever its owner is said to be.
  ip("tuntap add eth0 mode tap multi_queue user 0");
  expect_refused(dual_stack(), Kind::interface_exists, "without the mark");
  EXPECT_FALSE(remove_task_interface(netns(), "eth0", "eni-1", dual_stack().mac));
  EXPECT_FALSE(link().is_null());
}

TEST_F(TaskInterfaceTest, RemovedTwiceIsFine) {
  ensure(dual_stack());
  EXPECT_TRUE(task_interface_exists(netns(), "eth0"));
  EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-1"));
  EXPECT_FALSE(task_interface_exists(netns(), "eth0"));
  EXPECT_TRUE(link().is_null());
  EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-1"));
  ensure(dual_stack());
}

TEST_F(TaskInterfaceTest, NoDescriptorIsLeftOpen) {
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = open_files();
  ensure(dual_stack());
  TaskInterface wanted = dual_stack();
  wanted.mtu = 65535;
  expect_refused(wanted, Kind::kernel, "MTU");
  EXPECT_TRUE(remove_task_interface(netns(), "eth0", "eni-1"));
  EXPECT_FALSE(NetworkNamespace::open("/dev/null"));
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace trunkline
