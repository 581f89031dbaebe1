// SPDX-License-Identifier: BSD-3-Clause
//
// The loop that carries frames between the trunk, the fabric and the hosts, and obeys signals.
//
// Rules:
//  * One thread, one batch of frames in flight. A batch comes from one port; what goes to hosts is written at once,
//    what goes to the trunk is sent together at the batch's end.
//  * A frame that cannot be sent is dropped and counted, as a network would; nothing blocks.
//  * SIGINT and SIGTERM end the loop, SIGUSR1 prints the counters, SIGHUP reads the configuration again.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "config.h"
#include "netdev.h"

namespace trunkline::fabric {

class Loop {
 public:
  // `config` was read from `path`. Blocks the four signals, then makes all the interfaces.
  Loop(Config config, std::string path, bool verbose);

  void run();
  std::string counters();

 private:
  static constexpr std::size_t kBatch = 64;
  static constexpr std::size_t kTag = 4;

  std::uint8_t* slot(std::size_t index) { return storage_.data() + index * slot_size_; }
  bool obey_signals();
  void reload();
  void receive_from_trunk();
  void receive_from_host(Port port);
  void process(std::size_t index, std::size_t length, Port port, std::uint16_t vlan);
  void flush_trunk();

  Config config_;
  std::string path_;
  bool verbose_;
  Fabric fabric_;
  FileDescriptor signals_;
  FileDescriptor trunk_;
  std::vector<FileDescriptor> hosts_;
  FileDescriptor epoll_;

  // A slot: room for a tag, then the frame. Giving a frame its tag moves the two MACs four bytes forward.
  std::size_t slot_size_;
  std::vector<std::uint8_t> storage_;
  std::array<iovec, kBatch> to_trunk_{};
  std::size_t pending_ = 0;

  std::uint64_t trunk_rx_ = 0, trunk_tx_ = 0, hosts_rx_ = 0, hosts_tx_ = 0, rx_dropped_ = 0, tx_dropped_ = 0;
};

}  // namespace trunkline::fabric
