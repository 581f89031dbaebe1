// SPDX-License-Identifier: BSD-3-Clause
#include "bench/generator/options.h"

#include <boost/program_options.hpp>
#include <sstream>

namespace trunkline::generator {
namespace {

namespace po = boost::program_options;

// Texts that are looked at once all options are there.
struct Words {
  std::string protocol = "tcp", size = "64", direction = "in";
};

po::options_description general_options(General& to) {
  po::options_description options("Ports and memory");
  options.add_options()                                                                                          //
      ("trunk", po::value(&to.trunk), "DPDK devargs of the port on the trunk's side")                            //
      ("task", po::value(&to.task), "and of the one on the task's side")                                         //
      ("lcore", po::value(&to.lcore), "which polls (0)")                                                         //
      ("rx-queues", po::value(&to.rx_queues), "receive queues a port: as many as the other end sends on (1)")    //
      ("descriptors", po::value(&to.descriptors), "a queue (1024)")                                              //
      ("buffers", po::value(&to.buffers), "packet buffers, for sending and for receiving each (16384)")          //
      ("memory", po::value(&to.memory_mb), "MB of hugepages (256)")                                              //
      ("prefix", po::value(&to.prefix), "name of this process in DPDK's log")                                    //
      ("self-test", po::bool_switch(&to.self_test), "run against a reflector that this program starts itself")   //
      ("reflector-lcore", po::value(&to.reflector_lcore), "of --self-test (1)")                                  //
      ("help,h", po::bool_switch(&to.help), "this");
  return options;
}

po::options_description traffic_options(Traffic& to, Words& words) {
  po::options_description options("Traffic");
  options.add_options()                                                                                                 //
      ("flows", po::value(&to.flows), "how many (1000)")                                                                //
      ("order", po::value(&to.order), "uniform: each once a round, shuffled; zipf (uniform)")                           //
      ("zipf", po::value(&to.zipf_exponent), "exponent (1.0)")                                                          //
      ("seed", po::value(&to.seed), "of the order (1)")                                                                 //
      ("protocol", po::value(&words.protocol), "tcp, udp (tcp)")                                                        //
      ("size", po::value(&words.size), "bytes a frame with CRC, 64 to 1518, or imix: 64, 570, 1518 as 7:4:1 (64)")      //
      ("direction", po::value(&words.direction), "in: trunk to task, out, both (in)")                                   //
      ("rate", po::value(&to.timing.rate), "frames or connections a second and direction; 0: as fast as they go (0)")   //
      ("seconds", po::value(&to.timing.seconds), "counted (1)")                                                         //
      ("warmup", po::value(&to.timing.warmup), "seconds before, not counted (0)")                                       //
      ("count", po::value(&to.timing.count), "frames a direction, or connections, at most; 0: no limit (0)")            //
      ("latency", po::bool_switch(&to.latency), "record it for each frame")                                             //
      ("window", po::value(&to.window), "connections under way at once (512)")                                          //
      ("first", po::value(&to.first), "number of the first new connection (0)")                                         //
      ("enis", po::value(&to.addressing.enis), "ENIs, by consecutive VLANs, MACs and addresses (1)")                    //
      ("vlan", po::value(&to.addressing.vlan), "of the first ENI (101)")                                                //
      ("port", po::value(&to.addressing.port), "at the ENI (80)");
  return options;
}

std::expected<void, std::string> finish(Traffic& traffic, const Words& words) {
  if (words.protocol != "tcp" && words.protocol != "udp") return std::unexpected("--protocol is tcp or udp, not " + words.protocol);
  traffic.protocol = words.protocol == "tcp" ? Protocol::tcp : Protocol::udp;
  if (words.direction != "in" && words.direction != "out" && words.direction != "both") {
    return std::unexpected("--direction is in, out or both, not " + words.direction);
  }
  traffic.inward = words.direction != "out";
  traffic.outward = words.direction != "in";
  if (words.size == "imix") {
    traffic.sizes = {64, 570, 64, 64, 570, 64, 570, 64, 1518, 64, 570, 64};
  } else {
    char* end = nullptr;
    const unsigned long size = std::strtoul(words.size.c_str(), &end, 10);
    if (*end != '\0' || size < 64 || size > 1518) return std::unexpected("--size is 64 to 1518 or imix, not " + words.size);
    traffic.sizes = {static_cast<std::uint16_t>(size)};
  }
  if (traffic.order != "uniform" && traffic.order != "zipf") return std::unexpected("--order is uniform or zipf, not " + traffic.order);
  if (traffic.flows == 0 || traffic.addressing.enis == 0) return std::unexpected("--flows and --enis are at least 1");
  if (traffic.addressing.vlan + traffic.addressing.enis > 4095) return std::unexpected("--vlan and --enis go beyond VLAN 4094");
  return {};
}

template <typename Parser>
std::expected<void, std::string> run_parser(Parser&& parser, const po::options_description& options) {
  try {
    po::positional_options_description positional;
    positional.add("command", 1);
    po::variables_map values;
    po::store(parser(options, positional), values);
    po::notify(values);
    return {};
  } catch (const po::error& error) {
    return std::unexpected(std::string(error.what()));
  }
}

}  // namespace

std::expected<CommandLine, std::string> parse(int argc, const char* const* argv) {
  CommandLine result;
  Words words;
  po::options_description all;
  all.add(general_options(result.general)).add(traffic_options(result.traffic, words));
  all.add_options()("command", po::value(&result.traffic.command));
  auto parsed = run_parser(
      [&](const auto& options, const auto& positional) {
        return po::command_line_parser(argc, argv).options(options).positional(positional).run();
      },
      all);
  if (!parsed) return std::unexpected(parsed.error());
  if (auto finished = finish(result.traffic, words); !finished) return std::unexpected(finished.error());
  return result;
}

std::expected<Traffic, std::string> parse_line(const std::string& line) {
  Traffic result;
  Words words;
  po::options_description all;
  all.add(traffic_options(result, words)).add_options()("command", po::value(&result.command));
  auto parsed = run_parser(
      [&](const auto& options, const auto& positional) {
        return po::command_line_parser(po::split_unix(line)).options(options).positional(positional).run();
      },
      all);
  if (!parsed) return std::unexpected(parsed.error());
  if (auto finished = finish(result, words); !finished) return std::unexpected(finished.error());
  return result;
}

std::string usage() {
  General general;
  Traffic traffic;
  Words words;
  std::ostringstream text;
  text << "trunkline-generator [PORTS...] COMMAND [TRAFFIC...]: traffic for a device between two ports. One JSON object a line.\n\n"
          "Commands:\n"
          "  stream       frames of established flows (ramp first, unless the device keeps no state)\n"
          "  ramp         the flows' connections come to be: a handshake, or a datagram each way\n"
          "  connections  new TCP connections of six packets\n"
          "  reflect      carry everything to the other port, until stdin ends or --seconds are over\n"
          "  commands     one command with its traffic a line of stdin; `quit` ends\n\n"
       << general_options(general) << '\n'
       << traffic_options(traffic, words);
  return text.str();
}

}  // namespace trunkline::generator
