// SPDX-License-Identifier: BSD-3-Clause
#include "bench/generator/self_test.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

extern char** environ;

namespace trunkline::generator {

std::expected<std::unique_ptr<ReflectorProcess>, std::string> ReflectorProcess::start(General& general) {
  char directory[] = "/tmp/trunkline-generator-XXXXXX";
  if (mkdtemp(directory) == nullptr) return std::unexpected("cannot make a directory in /tmp");
  const auto end = [&](const char* name, const char* role) {
    return "net_memif_" + std::string(name) + ",role=" + role + ",id=0,rsize=10,socket-abstract=no,socket=" + directory + "/" + name;
  };
  int input[2];
  if (pipe2(input, O_CLOEXEC) != 0) return std::unexpected("no pipe");
  const std::vector<std::string> words{
      "trunkline-generator", "--trunk",    end("trunk", "server"),
      "--task",              end("task", "server"),
      "--lcore",             std::to_string(general.reflector_lcore),
      "--memory",            std::to_string(general.memory_mb),
      "--prefix",            general.prefix + "-reflector",
      "reflect",             "--seconds",  "3600"};
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);  // what it reports is not ours to report
  pid_t process = 0;
  const int failed = posix_spawn(&process, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  if (failed != 0) {
    close(input[1]);
    return std::unexpected("cannot start the reflector");
  }
  general.trunk = end("trunk", "client");
  general.task = end("task", "client");
  return std::unique_ptr<ReflectorProcess>(new ReflectorProcess(directory, process, input[1]));
}

ReflectorProcess::~ReflectorProcess() {
  close(input_);
  kill(process_, SIGTERM);
  waitpid(process_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace trunkline::generator
