// SPDX-License-Identifier: BSD-3-Clause
//
// After the last stage, at a port's door: what forward asked of a port (TX_TCP_SEG, TX_TCP_CKSUM, TX_UDP_CKSUM) and its driver cannot do.
// DPDK's own rte_gso is not for packets that a task wrote: it believes the lengths it is given (CVE-2026-100236). Here each is held
// against the bytes that are there, and each segment is a copy in buffers of its own.
//
// Called by the worker that sends. No state but a Segmenter's; nothing is taken for granted of the mbuf but that it is a valid chain.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <span>

#include "dataplane/stages/chain_reader.h"
#include "dataplane/stages/complete_checksum.h"

namespace trunkline {

// Cuts one super-frame (TX_TCP_SEG) into frames of at most tso_segsz octets of payload, in order. As Linux does: the IPv4
// identification counts up, FIN and PSH are the last one's, CWR the first one's.
class Segmenter {
 public:
  // The super-frame must live as long as this. Nothing is made of one that is not what its lengths say: is_sound() is false.
  explicit Segmenter(const rte_mbuf& super_frame);

  bool is_sound() const { return header_bytes_ != 0; }
  std::uint32_t left() const { return count_ - made_; }
  std::uint32_t made() const { return made_; }
  // Goes on behind so many segments that were made before; of a sound one, and of no more than there are.
  void resume_after(std::uint32_t made);
  // Makes the next ones out of the super-frame's pool, up to `out.size()`; answers how many. Fewer than were left and asked for: the pool is empty.
  // `checksums`: complete; otherwise each asks the port for its own (TX_TCP_CKSUM).
  std::uint32_t next(std::span<rte_mbuf*> out, bool checksums);

 private:
  rte_mbuf* make(bool checksums);
  void finish_headers(rte_mbuf& segment, std::uint32_t bytes) const;

  const rte_mbuf& frame_;
  ChainReader from_;  // where the payload goes on
  std::uint32_t header_bytes_ = 0;
  std::uint32_t payload_ = 0;
  std::uint32_t count_ = 0, made_ = 0;
  bool ipv4_ = false;
};

}  // namespace trunkline
