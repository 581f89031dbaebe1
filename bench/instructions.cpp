// SPDX-License-Identifier: BSD-3-Clause
//
// Packets of established connections for callgrind, which counts instructions exactly, whatever else the machine does:
//
//     valgrind --tool=callgrind --callgrind-out-file=/tmp/callgrind.out --toggle-collect='*::process_ingress*' build/bench/trunkline-instructions in
//
// and the same with process_egress and "out". What is collected, divided by the packets that it prints, is instructions a packet, the benchmark's
// flush included; with --dump-instr=yes the file tells them one by one.
#include <cstdio>
#include <string_view>

#include "bench/established.h"

int main(int argc, char** argv) {
  using namespace trunkline::bench;
  const std::string_view way = argc == 2 ? argv[1] : "";
  if (way != "in" && way != "out") return std::fprintf(stderr, "usage: trunkline-instructions in|out\n"), 2;
  constexpr unsigned kPasses = 20;
  Established run(10'000, kEndpoints);
  for (unsigned i = 0; i < kPasses; ++i) way == "in" ? run.ingress(Upto::all) : run.egress();
  std::printf("packets: %u\n", kPasses * Ring::kPackets);
}
