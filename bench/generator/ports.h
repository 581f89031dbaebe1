// SPDX-License-Identifier: BSD-3-Clause
//
// The generator's one or two ports: any vdev by its devargs. One transmit queue, and as many receive queues as the other
// end may send on: a memif end with more transmit queues than the peer has rings drops on the others without a word.
// One thread.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>

struct rte_mbuf;
struct rte_mempool;

namespace trunkline::generator {

class Port {
 public:
  static constexpr std::uint16_t kBurst = 32;

  static std::expected<Port, std::string> open(const std::string& devargs, std::uint16_t rx_queues, std::uint16_t descriptors,
                                               rte_mempool& receive_pool);
  // Asks a memif client to connect, too. The server may still drop for a moment: begin with a ramp, which tries again.
  bool link_up() const;
  // From the next queue that has something; up to 2 * kBurst packets.
  std::uint16_t receive(std::span<rte_mbuf*> packets);
  std::uint16_t send(std::span<rte_mbuf*> packets) const;
  // Throws away what is still under way from before; for a tenth of a second at most, should it never end.
  void drain();
  void close() const;

 private:
  std::uint16_t ethdev_ = 0;
  std::uint16_t rx_queues_ = 1;
  std::uint16_t next_queue_ = 0;
};

struct Pools {
  rte_mempool* send = nullptr;     // zeroed once; nothing is received into it, so payloads stay zero
  rte_mempool* receive = nullptr;
};
std::expected<Pools, std::string> make_pools(std::uint32_t buffers);

}  // namespace trunkline::generator
