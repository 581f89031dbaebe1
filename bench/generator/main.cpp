// SPDX-License-Identifier: BSD-3-Clause
// trunkline-generator: see bench/README.md and --help.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>
#include <unistd.h>

#include <iostream>

#include "bench/generator/clock.h"
#include "bench/generator/flows.h"
#include "bench/generator/options.h"
#include "bench/generator/self_test.h"

namespace trunkline::generator {
namespace {

constexpr std::uint32_t kZipfDraws = 1U << 22;

void say(const Json& line) { std::cout << line.dump() << std::endl; }

int complain(const std::string& sentence) {
  say({{"event", "error"}, {"error", sentence}});
  std::cerr << "trunkline-generator: " << sentence << std::endl;
  return 1;
}

Json run(Wires& wires, const Traffic& traffic) {
  if (traffic.command != "reflect") {
    wires.trunk.drain();
    wires.task.drain();
  }
  if (traffic.command == "stream") {
    StreamSettings settings{.timing = traffic.timing, .addressing = traffic.addressing, .protocol = traffic.protocol,
                            .order = traffic.order == "zipf" ? zipf_order(traffic.flows, traffic.zipf_exponent, kZipfDraws, traffic.seed)
                                                             : shuffled_order(traffic.flows, traffic.seed),
                            .sizes = traffic.sizes, .inward = traffic.inward, .outward = traffic.outward,
                            .latency = traffic.latency};
    return run_stream(wires, settings, say);
  }
  if (traffic.command == "ramp") {
    return run_ramp(wires, {.addressing = traffic.addressing, .protocol = traffic.protocol, .flows = traffic.flows, .window = traffic.window},
                    say);
  }
  if (traffic.command == "connections") {
    return run_connections(wires, {.timing = traffic.timing, .addressing = traffic.addressing, .first = traffic.first, .window = traffic.window},
                           say);
  }
  if (traffic.command == "reflect") return run_reflector(wires, traffic.timing.seconds, say);
  return {{"event", "error"}, {"error", "no such command: " + traffic.command + "; it is stream, ramp, connections, reflect, commands or quit"}};
}

void run_lines(Wires& wires) {
  for (std::string line; std::getline(std::cin, line);) {
    if (line.empty()) continue;
    const auto traffic = parse_line(line);
    if (!traffic) {
      say({{"event", "error"}, {"error", traffic.error()}});
      continue;
    }
    if (traffic->command == "quit") return;
    say(run(wires, *traffic));
  }
}

std::expected<void, std::string> start_dpdk(const General& general) {
  // One file a segment: a port that shares its memory with the peer must hand over few files.
  std::vector<std::string> words{"trunkline-generator", "-l", std::to_string(general.lcore), "-m", std::to_string(general.memory_mb),
                                 "--no-pci", "--in-memory", "--single-file-segments", "--no-telemetry", "--log-level", "error", "--log-level", "pmd.net.memif:critical"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0) {
    return std::unexpected("DPDK did not start: " + std::string(rte_strerror(rte_errno)) + "; are there " +
                           std::to_string(general.memory_mb) + " MB of free hugepages?");
  }
  return {};
}

std::expected<Wires, std::string> connect(const General& general) {
  Wires wires;
  auto pools = make_pools(general.buffers);
  if (!pools) return std::unexpected(pools.error());
  wires.pools = *pools;
  for (auto [devargs, port] : {std::pair{&general.trunk, &wires.trunk}, std::pair{&general.task, &wires.task}}) {
    auto opened = Port::open(*devargs, general.rx_queues, general.descriptors, *wires.pools.receive);
    if (!opened) return std::unexpected(opened.error());
    *port = *opened;
  }
  for (int attempt = 0; !wires.trunk.link_up() || !wires.task.link_up(); ++attempt) {
    if (attempt == 600) return std::unexpected("the link did not come up in 60 s: is the other end there?");
    usleep(100000);
  }
  usleep(100000);  // the server's end is up a little later than ours
  return wires;
}

int run_program(int argc, char** argv) {
  auto parsed = parse(argc, argv);
  if (!parsed) return complain(parsed.error());
  auto& [general, traffic] = *parsed;
  if (general.help || traffic.command.empty()) {
    std::cout << usage();
    return general.help ? 0 : 2;
  }
  std::unique_ptr<ReflectorProcess> reflector;
  if (general.self_test) {
    auto started = ReflectorProcess::start(general);
    if (!started) return complain(started.error());
    reflector = std::move(*started);
  }
  if (general.trunk.empty() || general.task.empty()) return complain("--trunk and --task name the ports, or --self-test");
  if (auto started = start_dpdk(general); !started) return complain(started.error());
  auto wires = connect(general);
  if (!wires) return complain(wires.error());
  say({{"event", "ready"}, {"tsc_hz", rte_get_tsc_hz()}, {"dpdk", rte_version()}});
  int status = 0;
  if (traffic.command == "commands") {
    run_lines(*wires);
  } else {
    const Json result = run(*wires, traffic);
    say(result);
    status = result["event"] == "error" ? 1 : 0;
  }
  wires->trunk.close();
  wires->task.close();
  return status;
}

}  // namespace
}  // namespace trunkline::generator

int main(int argc, char** argv) { return trunkline::generator::run_program(argc, argv); }
