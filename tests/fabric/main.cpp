// SPDX-License-Identifier: BSD-3-Clause
//
// trunkline-fabric plays the VPC at the far end of an instance's trunk interface: the router, the mapping of
// addresses to ENIs, and other hosts in network namespaces. See README.md.
#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>

#include "config.h"
#include "io.h"

int main(int argc, char** argv) {
  namespace po = boost::program_options;
  std::string path;
  bool verbose = false;
  po::options_description options("trunkline-fabric plays the VPC at the far end of a trunk interface");
  // clang-format off
  options.add_options()
      ("config", po::value(&path)->required()->value_name("FILE"), "what the VPC consists of (JSON); SIGHUP reads it again")
      ("verbose", po::bool_switch(&verbose), "one line on stderr for every frame")
      ("help", "this text");
  // clang-format on
  try {
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, options), values);
    if (values.contains("help")) {
      std::cout << options;
      return 0;
    }
    po::notify(values);
  } catch (const po::error& error) {
    std::cerr << "trunkline-fabric: " << error.what() << '\n';
    return 2;
  }

  using namespace trunkline::fabric;
  try {
    Loop loop(read_config(path), path, verbose);
    std::cout << "ready" << std::endl;
    loop.run();
    std::cerr << loop.counters() << '\n';
  } catch (const ConfigError& error) {
    std::cerr << "trunkline-fabric: " << path << ": " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "trunkline-fabric: " << error.what() << '\n';
    return 1;
  }
}
