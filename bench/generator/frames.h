// SPDX-License-Identifier: BSD-3-Clause
//
// What the generator's frames look like, and how one is made in a few cycles: a prebuilt header per ENI and side, into
// which the flow's address and port, the stamp and the checksums are patched.
//
//  * On the trunk side a frame carries the ENI's VLAN tag, on the task side none. The remote end of flow n is an address
//    in 198.18.0.0/15, spread so that any number of flows meets all rules of a policy over that range, and a port from
//    1024 on; ENI n % enis is the local end.
//  * Frame sizes are those of the untagged frame with its CRC, as RFC 2544 counts them; a tagged one is 4 bytes longer.
//  * The stamp is the first 6 bytes after the L4 header: in a segment without payload they are the padding of the frame.
//  * Checksums are right, payload included: a device that looks at them must not be flattered, nor made to drop.
#pragma once

#include <rte_ether.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace trunkline::generator {

enum class Side : std::uint8_t { trunk, task };
enum class Protocol : std::uint8_t { tcp = 6, udp = 17 };

constexpr std::uint32_t kRemoteAddresses = 1U << 17;
constexpr std::uint16_t kHeaderRoom = 64;  // bytes that a prebuilt header covers, stamp included
constexpr std::uint16_t kNoPayload = 0;

struct Addressing {
  std::uint32_t enis = 1;
  std::uint16_t vlan = 101;               // of the first ENI; the next ones count up, so do MAC and address
  std::uint64_t mac = 0x0a0000000100;     // of the first ENI
  std::uint64_t router_mac = 0x0a0000000001;
  std::uint32_t address = 0x0a00000a;     // 10.0.0.10, of the first ENI
  std::uint32_t remote = 0xc6120000;      // 198.18.0.0/15
  std::uint16_t port = 80;                // the ENIs'
};

// TCP's view of one frame; for UDP only the direction of the frame matters.
struct Segment {
  std::uint8_t flags;
  std::uint32_t sequence, acknowledged;
};
constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kFinAck = 0x11;
constexpr Segment kOpening{kSyn, 1000, 0};
constexpr Segment kDataInward{kAck, 1001, 5001};
constexpr Segment kDataOutward{kAck, 5001, 1001};

struct [[gnu::packed]] Stamp {
  std::uint16_t sequence;
  std::uint32_t value;  // TSC / 16, or the flow's number while connections are made
};

class Frames {
 public:
  Frames(const Addressing& addressing, Protocol protocol);

  // Writes a frame whose IP packet has `payload` bytes after its L4 header. Returns the frame's length without CRC.
  // What lies behind the first kHeaderRoom bytes must be zero. `payload` is kNoPayload or at least a stamp.
  std::uint16_t write(std::uint8_t* data, Side side, std::uint32_t flow, std::uint16_t payload, const Segment& segment,
                      Stamp stamp) const;
  // Payload of a frame of this size, CRC included.
  std::uint16_t payload_of(std::uint16_t frame_size) const {
    return static_cast<std::uint16_t>(frame_size - 18 - 20 - l4_bytes_);
  }

 private:
  struct alignas(64) Template {
    std::uint8_t bytes[kHeaderRoom];
    std::uint32_t ip_sum, l4_sum;  // of what is never patched
  };
  Template build(const Addressing& addressing, Side side, std::uint32_t eni) const;

  Protocol protocol_;
  std::uint16_t l4_bytes_;
  std::uint32_t enis_, remote_;
  std::vector<Template> templates_;  // ENI, then side
};

// A frame that came back.
struct Received {
  std::uint8_t* l3;
  std::uint8_t* l4;
  std::uint8_t protocol;
  Stamp stamp;
};
// Empty: not one of ours, or cut short.
std::optional<Received> read(std::uint8_t* data, std::uint32_t bytes);

// Turns a received TCP or UDP frame into its answer where it lies: ends swapped, flags and numbers set.
void answer(std::uint8_t* data, const Received& received, std::uint8_t flags);
std::uint8_t tcp_flags(const Received& received);

}  // namespace trunkline::generator
