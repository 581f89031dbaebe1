// SPDX-License-Identifier: BSD-3-Clause
#define ALLOW_INTERNAL_API  // what DPDK shows to its own drivers only
#include "tests/support/mock_nic.h"

#include <ethdev_driver.h>
#include <ethdev_vdev.h>
#include <rte_bus_vdev.h>
#include <rte_flow_driver.h>
#include <rte_malloc.h>
#include <rte_ring.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <optional>
#include <thread>

// rte_flow leaves the contents to the driver.
struct rte_flow {
  std::optional<std::uint16_t> vlan;
  std::optional<std::array<std::uint8_t, 6>> mac;
  std::optional<std::array<std::uint8_t, 4>> ipv4;
  std::optional<std::array<std::uint8_t, 16>> ipv6;
  std::optional<std::uint32_t> mark;
  bool count = false;
  std::uint16_t queue = 0;
  std::uint64_t hits = 0;

  bool same_match(const rte_flow& other) const { return vlan == other.vlan && mac == other.mac && ipv4 == other.ipv4 && ipv6 == other.ipv6; }
};

namespace trunkline::test {

struct MockNic::State {
  static constexpr std::uint16_t kQueues = 16;
  std::uint16_t ethdev = 0;
  rte_mempool* pool = nullptr;
  rte_ring* in[kQueues] = {};
  rte_ring* out = nullptr;
  mutable std::mutex mutex;  // of the rules
  std::list<rte_flow> rules;
  std::uint64_t changes = 0;
  std::atomic<std::uint32_t> last_mark{0};
  int interrupt[kQueues];
  std::atomic<bool> armed[kQueues] = {};
  struct Queue {
    State* nic;
    std::uint16_t number;
  } rx[kQueues], tx[kQueues];

  State() {
    for (int& descriptor : interrupt) descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  }
  ~State() {
    for (const int descriptor : interrupt) close(descriptor);
    for (rte_ring* ring : in) rte_ring_free(ring);
    rte_ring_free(out);
  }
};

namespace {

bool is(MockFault fault) { return MockNic::fault == fault; }

MockNic& nic_of(const rte_eth_dev* device) { return **static_cast<MockNic**>(device->data->dev_private); }

int refuse(rte_flow_error* error, int code, rte_flow_error_type type, const char* message) {
  return rte_flow_error_set(error, code, type, nullptr, message);
}

// --- rules -------------------------------------------------------------------------------------------------------------

int read_items(const MockNicFaults& faults, const rte_flow_item* items, rte_flow& rule, rte_flow_error* error) {
  const auto no = [&](const char* message) { return refuse(error, ENOTSUP, RTE_FLOW_ERROR_TYPE_ITEM, message); };
  for (; items->type != RTE_FLOW_ITEM_TYPE_END; ++items) {
    switch (items->type) {
      case RTE_FLOW_ITEM_TYPE_ETH:
        if (items->spec == nullptr) break;
        if (faults.refuses_mac) return no("no destination MAC in a filter");
        std::memcpy(rule.mac.emplace().data(), static_cast<const rte_flow_item_eth*>(items->spec)->hdr.dst_addr.addr_bytes, 6);
        break;
      case RTE_FLOW_ITEM_TYPE_VLAN:
        if (faults.refuses_vlan) return no("no VLAN in a filter");
        rule.vlan = rte_be_to_cpu_16(static_cast<const rte_flow_item_vlan*>(items->spec)->hdr.vlan_tci) &
                    rte_be_to_cpu_16(static_cast<const rte_flow_item_vlan*>(items->mask)->hdr.vlan_tci);
        break;
      case RTE_FLOW_ITEM_TYPE_IPV4:
        if (faults.refuses_address) return no("no addresses in a filter");
        std::memcpy(rule.ipv4.emplace().data(), &static_cast<const rte_flow_item_ipv4*>(items->spec)->hdr.dst_addr, 4);
        break;
      case RTE_FLOW_ITEM_TYPE_IPV6:
        if (faults.refuses_address || faults.refuses_ipv6) return no("no IPv6 in a filter");
        std::memcpy(rule.ipv6.emplace().data(), static_cast<const rte_flow_item_ipv6*>(items->spec)->hdr.dst_addr, 16);
        break;
      default: return no("this item is unknown");
    }
  }
  return 0;
}

int read_rule(rte_eth_dev* device, const rte_flow_attr* attributes, const rte_flow_item* items, const rte_flow_action* actions, rte_flow& rule,
              rte_flow_error* error) {
  const MockNicFaults& faults = nic_of(device).faults;
  if (attributes->ingress == 0) return refuse(error, EINVAL, RTE_FLOW_ERROR_TYPE_ATTR_INGRESS, "ingress only");
  if (const int result = read_items(faults, items, rule, error); result != 0) return result;
  bool has_queue = false;
  for (; actions->type != RTE_FLOW_ACTION_TYPE_END; ++actions) {
    switch (actions->type) {
      case RTE_FLOW_ACTION_TYPE_QUEUE:
        rule.queue = static_cast<const rte_flow_action_queue*>(actions->conf)->index;
        has_queue = true;
        if (rule.queue >= device->data->nb_rx_queues) return refuse(error, EINVAL, RTE_FLOW_ERROR_TYPE_ACTION, "no such queue");
        break;
      case RTE_FLOW_ACTION_TYPE_MARK:
        if (faults.refuses_mark) return refuse(error, ENOTSUP, RTE_FLOW_ERROR_TYPE_ACTION, "no marks");
        rule.mark = static_cast<const rte_flow_action_mark*>(actions->conf)->id;
        break;
      case RTE_FLOW_ACTION_TYPE_COUNT:
        if (faults.refuses_count) return refuse(error, ENOTSUP, RTE_FLOW_ERROR_TYPE_ACTION, "no counters");
        rule.count = true;
        break;
      default: return refuse(error, ENOTSUP, RTE_FLOW_ERROR_TYPE_ACTION, "this action is unknown");
    }
  }
  return has_queue ? 0 : refuse(error, EINVAL, RTE_FLOW_ERROR_TYPE_ACTION, "a queue is wanted");
}

int flow_validate(rte_eth_dev* device, const rte_flow_attr* attributes, const rte_flow_item* items, const rte_flow_action* actions, rte_flow_error* error) {
  rte_flow rule;
  return read_rule(device, attributes, items, actions, rule, error);
}

rte_flow* flow_create(rte_eth_dev* device, const rte_flow_attr* attributes, const rte_flow_item* items, const rte_flow_action* actions, rte_flow_error* error) {
  MockNic& nic = nic_of(device);
  while (nic.faults.holds_inserts) std::this_thread::yield();
  rte_flow rule;
  if (read_rule(device, attributes, items, actions, rule, error) != 0) return nullptr;
  if (nic.faults.refuses_create) return refuse(error, EINVAL, RTE_FLOW_ERROR_TYPE_HANDLE, "the firmware refused it"), nullptr;
  MockNic::State& state = nic.state();
  const std::lock_guard lock(state.mutex);
  if (state.rules.size() >= nic.faults.room) return refuse(error, ENOSPC, RTE_FLOW_ERROR_TYPE_HANDLE, "filter table full"), nullptr;
  const bool twice = std::ranges::any_of(state.rules, [&](const rte_flow& each) { return each.same_match(rule); });
  if (twice && nic.faults.refuses_duplicates) return refuse(error, EEXIST, RTE_FLOW_ERROR_TYPE_HANDLE, "there is such a filter"), nullptr;
  ++state.changes;
  return &state.rules.emplace_back(rule);
}

int flow_destroy(rte_eth_dev* device, rte_flow* flow, rte_flow_error* error) {
  MockNic::State& state = nic_of(device).state();
  const std::lock_guard lock(state.mutex);
  if (std::erase_if(state.rules, [&](const rte_flow& each) { return &each == flow; }) == 0) {
    return refuse(error, ENOENT, RTE_FLOW_ERROR_TYPE_HANDLE, "no such filter");
  }
  ++state.changes;
  return 0;
}

int flow_flush(rte_eth_dev* device, rte_flow_error*) {
  nic_of(device).forget_rules();
  return 0;
}

int flow_query(rte_eth_dev* device, rte_flow* flow, const rte_flow_action*, void* data, rte_flow_error* error) {
  MockNic::State& state = nic_of(device).state();
  const std::lock_guard lock(state.mutex);
  const auto found = std::ranges::find_if(state.rules, [&](const rte_flow& each) { return &each == flow; });
  if (found == state.rules.end()) return refuse(error, ENOENT, RTE_FLOW_ERROR_TYPE_HANDLE, "no such filter");
  if (!found->count) return refuse(error, ENOTSUP, RTE_FLOW_ERROR_TYPE_ACTION, "it does not count");
  auto* count = static_cast<rte_flow_query_count*>(data);
  count->hits_set = 1;
  count->hits = found->hits;
  return 0;
}

constexpr rte_flow_ops make_flow_ops() {
  rte_flow_ops ops{};
  ops.validate = flow_validate;
  ops.create = flow_create;
  ops.destroy = flow_destroy;
  ops.flush = flow_flush;
  ops.query = flow_query;
  return ops;
}
constexpr rte_flow_ops kFlowOps = make_flow_ops();

// --- the ethdev --------------------------------------------------------------------------------------------------------

std::uint16_t rx_burst(void* queue, rte_mbuf** packets, std::uint16_t count) {
  auto& rx = *static_cast<MockNic::State::Queue*>(queue);
  const unsigned got = rte_ring_dequeue_burst(rx.nic->in[rx.number], reinterpret_cast<void**>(packets), count, nullptr);
  for (unsigned i = 0; i < got; ++i) {
    rx.nic->last_mark.store((packets[i]->ol_flags & RTE_MBUF_F_RX_FDIR_ID) != 0 ? packets[i]->hash.fdir.hi : 0, std::memory_order_relaxed);
  }
  return static_cast<std::uint16_t>(got);
}
std::uint16_t tx_burst(void* queue, rte_mbuf** packets, std::uint16_t count) {
  return static_cast<std::uint16_t>(rte_ring_enqueue_burst(static_cast<MockNic::State::Queue*>(queue)->nic->out, reinterpret_cast<void**>(packets), count, nullptr));
}

int dev_configure(rte_eth_dev*) { return is(MockFault::refuses_configuration) ? -EBUSY : 0; }
int dev_start(rte_eth_dev* device) {
  if (is(MockFault::refuses_start)) return -EIO;
  device->data->dev_link.link_status = RTE_ETH_LINK_UP;
  return 0;
}
int dev_stop(rte_eth_dev* device) {
  if (is(MockFault::refuses_stop)) return -EBUSY;
  device->data->dev_link.link_status = RTE_ETH_LINK_DOWN;
  if (nic_of(device).faults.forgets_at_stop) nic_of(device).forget_rules();
  return 0;
}
int dev_infos_get(rte_eth_dev*, rte_eth_dev_info* info) {
  if (is(MockFault::no_information)) return -EIO;
  info->max_rx_queues = info->max_tx_queues = MockNic::State::kQueues;
  info->max_rx_pktlen = 16384;
  info->max_mac_addrs = 1;
  info->min_rx_bufsize = 0;
  return 0;
}
int rx_queue_setup(rte_eth_dev* device, std::uint16_t number, std::uint16_t, unsigned, const rte_eth_rxconf*, rte_mempool* pool) {
  if (is(MockFault::refuses_receive_queue)) return -ENOMEM;
  MockNic::State& state = nic_of(device).state();
  state.pool = pool;
  const std::string name = std::string(device->data->name) + "_" + std::to_string(number);
  if (state.in[number] == nullptr) state.in[number] = rte_ring_create(name.c_str(), 4096, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
  state.rx[number] = {&state, number};
  device->data->rx_queues[number] = &state.rx[number];
  return state.in[number] != nullptr ? 0 : -ENOMEM;
}
int tx_queue_setup(rte_eth_dev* device, std::uint16_t number, std::uint16_t, unsigned, const rte_eth_txconf*) {
  if (is(MockFault::refuses_send_queue)) return -ENOMEM;
  MockNic::State& state = nic_of(device).state();
  state.tx[number] = {&state, number};
  device->data->tx_queues[number] = &state.tx[number];
  return 0;
}
int link_update(rte_eth_dev*, int) { return 0; }
int mtu_set(rte_eth_dev*, std::uint16_t) { return is(MockFault::refuses_mtu) ? -ENOTSUP : 0; }
int promiscuous(rte_eth_dev*) { return 0; }
int flow_ops_get(rte_eth_dev* device, const rte_flow_ops** ops) {
  *ops = nic_of(device).faults.no_rte_flow ? nullptr : &kFlowOps;
  return 0;
}
int dev_close(rte_eth_dev* device) {
  auto* slot = static_cast<MockNic**>(device->data->dev_private);
  delete *slot;
  *slot = nullptr;
  device->data->mac_addrs = nullptr;  // not on DPDK's heap
  return is(MockFault::refuses_close) ? -EIO : 0;
}

int rx_queue_intr_enable(rte_eth_dev* device, std::uint16_t queue) {
  MockNic& nic = nic_of(device);
  if (nic.faults.refuses_interrupts) return -ENOTSUP;
  nic.state().armed[queue] = true;
  return 0;
}
int rx_queue_intr_disable(rte_eth_dev* device, std::uint16_t queue) {
  nic_of(device).state().armed[queue] = false;
  return 0;
}

eth_dev_ops make_ops() {
  eth_dev_ops ops{};
  ops.dev_configure = dev_configure;
  ops.dev_start = dev_start;
  ops.dev_stop = dev_stop;
  ops.dev_close = dev_close;
  ops.dev_infos_get = dev_infos_get;
  ops.rx_queue_setup = rx_queue_setup;
  ops.tx_queue_setup = tx_queue_setup;
  ops.link_update = link_update;
  ops.mtu_set = mtu_set;
  ops.promiscuous_enable = ops.promiscuous_disable = promiscuous;
  ops.flow_ops_get = flow_ops_get;
  ops.rx_queue_intr_enable = rx_queue_intr_enable;
  ops.rx_queue_intr_disable = rx_queue_intr_disable;
  return ops;
}

int make_port(rte_vdev_device* vdev, const std::string& name) {
  static const eth_dev_ops ops = make_ops();
  static rte_ether_addr mac{{0x02, 0, 0, 0, 0, 0x0c}};
  rte_eth_dev* device = rte_eth_dev_allocate(name.c_str());
  if (device == nullptr) return -ENOMEM;
  if (is(MockFault::refuses_and_leaves_half)) return -EIO;
  device->data->dev_private = rte_zmalloc(nullptr, sizeof(MockNic*), 0);
  if (device->data->dev_private == nullptr) return rte_eth_dev_release_port(device), -ENOMEM;
  device->device = &vdev->device;
  auto state = std::make_unique<MockNic::State>();
  state->ethdev = device->data->port_id;
  state->out = rte_ring_create((std::string(device->data->name) + "_out").c_str(), 8192, 0, 0);
  if (state->out == nullptr) return rte_eth_dev_release_port(device), -ENOMEM;
  *static_cast<MockNic**>(device->data->dev_private) = new MockNic(std::move(state));
  device->data->mac_addrs = &mac;
  device->dev_ops = &ops;
  device->rx_pkt_burst = rx_burst;
  device->tx_pkt_burst = tx_burst;
  rte_eth_dev_probing_finish(device);
  return 0;
}

int probe(rte_vdev_device* vdev) {
  const std::string name = rte_vdev_device_name(vdev);
  if (is(MockFault::refuses)) return -ENODEV;
  if (is(MockFault::makes_no_port)) return 0;
  const int result = make_port(vdev, is(MockFault::makes_other_name) ? name + "x" : name);
  if (result != 0) return result;
  if (is(MockFault::makes_two_ports)) return make_port(vdev, name + "y");
  return is(MockFault::refuses_and_leaves_port) ? 1 : 0;  // net_ring answers with the port's number
}

int remove(rte_vdev_device* vdev) {
  if (is(MockFault::refuses_removal)) return -EBUSY;
  rte_eth_dev* device = rte_eth_dev_allocated(rte_vdev_device_name(vdev));
  return device == nullptr ? 0 : rte_eth_dev_close(device->data->port_id);
}

constexpr rte_vdev_driver make_driver() {
  rte_vdev_driver made{};
  made.probe = probe;
  made.remove = remove;
  return made;
}
// Registered by a constructor: nothing may initialise it after that.
constinit rte_vdev_driver driver = make_driver();
RTE_PMD_REGISTER_VDEV(net_mocknic, driver);

}  // namespace

// --- the wire ----------------------------------------------------------------------------------------------------------

std::atomic<MockFault> MockNic::fault{MockFault::none};

MockNic::MockNic(std::unique_ptr<State> state) : state_(std::move(state)) {}
MockNic::~MockNic() = default;
MockNic& MockNic::of(std::uint16_t ethdev) { return nic_of(&rte_eth_devices[ethdev]); }

bool MockNic::receive(const Frame& frame) {
  rte_mbuf* packet = rte_pktmbuf_alloc(state_->pool);
  if (packet == nullptr) return false;
  std::memcpy(rte_pktmbuf_append(packet, static_cast<std::uint16_t>(frame.size())), frame.data(), frame.size());
  const bool tagged = frame.size() > 18 && frame[12] == 0x81 && frame[13] == 0;
  const std::size_t at = tagged ? 18 : 14;
  const auto matches = [&](const rte_flow& rule) {
    if (rule.mac && !std::equal(rule.mac->begin(), rule.mac->end(), frame.begin())) return false;
    if (rule.vlan && (!tagged || ((frame[14] << 8 | frame[15]) & 0xfff) != *rule.vlan)) return false;
    const std::uint16_t ethertype = static_cast<std::uint16_t>(frame[at - 2] << 8 | frame[at - 1]);
    const auto has = [&](const auto& address, std::uint16_t type, std::size_t offset) {
      return ethertype == type && frame.size() >= at + offset + address->size() &&
             std::equal(address->begin(), address->end(), frame.begin() + static_cast<long>(at + offset));
    };
    if (rule.ipv4 && !has(rule.ipv4, 0x0800, 16)) return false;
    return !rule.ipv6 || has(rule.ipv6, 0x86dd, 24);
  };
  std::uint16_t queue = 0;
  {
    const std::lock_guard lock(state_->mutex);
    const auto rule = std::ranges::find_if(state_->rules, matches);
    if (rule != state_->rules.end()) {
      queue = rule->queue;
      ++rule->hits;
      if (rule->mark) {
        packet->hash.fdir.hi = *rule->mark;
        packet->ol_flags |= RTE_MBUF_F_RX_FDIR | RTE_MBUF_F_RX_FDIR_ID;
      }
    }
  }
  if (rte_ring_enqueue(state_->in[queue], packet) == 0) {
    const std::uint64_t one = 1;
    if (!faults.announces_nothing && state_->armed[queue].exchange(false)) [[maybe_unused]] const ssize_t written = write(state_->interrupt[queue], &one, sizeof one);
    return true;
  }
  rte_pktmbuf_free(packet);
  return false;
}

int MockNic::interrupt(std::uint16_t queue) const { return state_->interrupt[queue]; }
bool MockNic::is_armed(std::uint16_t queue) const { return state_->armed[queue]; }

std::vector<Frame> MockNic::sent() {
  std::vector<Frame> frames;
  void* packet = nullptr;
  while (rte_ring_dequeue(state_->out, &packet) == 0) {
    frames.push_back(Mbufs::bytes_of(static_cast<rte_mbuf*>(packet)));
    rte_pktmbuf_free(static_cast<rte_mbuf*>(packet));
  }
  return frames;
}

std::size_t MockNic::waiting(std::uint16_t queue) const { return rte_ring_count(state_->in[queue]); }
std::size_t MockNic::rules() const {
  const std::lock_guard lock(state_->mutex);
  return state_->rules.size();
}
std::uint64_t MockNic::rule_changes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->changes;
}
std::uint32_t MockNic::last_mark() const { return state_->last_mark; }
void MockNic::forget_rules() {
  const std::lock_guard lock(state_->mutex);
  state_->rules.clear();
}
void MockNic::announce_reset() { rte_eth_dev_callback_process(&rte_eth_devices[state_->ethdev], RTE_ETH_EVENT_INTR_RESET, nullptr); }

}  // namespace trunkline::test
