// SPDX-License-Identifier: BSD-3-Clause
//
// trunklined: the composition root. Reads the config, starts DPDK, opens the trunk, starts the workers, restores the last
// accepted state, and only then opens the control socket and tells the service manager that it is ready: what can be
// seen from outside is there when packets flow.
//
// Exit codes: 0 stopped when asked to; 1 could not run (the last line on stderr says why), and may at another time; 2 the command line or
// the config is wrong, or asks for what this machine does not have: starting again would not mend it (packaging/trunklined.service).
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/program_options.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "config/engine_config.h"
#include "config/safe_file.h"
#include "control/controller.h"
#include "control/flow_logs.h"
#include "control/flow_source.h"
#include "control/inspect_methods.h"
#include "control/methods.h"
#include "control/server.h"
#include "dataplane/io/dpdk_log.h"
#include "dataplane/io/eal.h"
#include "dataplane/io/ethdev_flows.h"
#include "dataplane/io/log_writer.h"
#include "dataplane/io/peer_memory.h"
#include "dataplane/io/steering.h"

#ifndef TRUNKLINE_VERSION
#define TRUNKLINE_VERSION "0.1.0"
#endif

namespace {

using namespace trunkline;
using namespace trunkline::control;

// The journal wants a level in front of each line; a person does not.
void log(const char* level, const std::string& message) {
  static const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  LogWriter::of_process().write((journal ? level : "") + message + '\n');
}
void info(const std::string& message) { log(SD_INFO, message); }
void warning(const std::string& message) { log(SD_WARNING, message); }
int fail(const std::string& message, int code = 1) {
  log(SD_ERR, "trunklined: " + message);
  return code;
}

constexpr std::size_t kMaxConfigBytes = 16 << 20;

struct CommandLine {
  std::string config_path;
  bool check_only = false;
  std::vector<std::string> eal_extras;
};

std::expected<CommandLine, int> parse_command_line(int argc, char** argv) {
  namespace po = boost::program_options;
  CommandLine line;
  int count = argc;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--") continue;
    line.eal_extras.assign(argv + i + 1, argv + argc);
    count = i;
    break;
  }
  po::options_description options("trunklined --config FILE [-- EAL ARGUMENTS]");
  options.add_options()("config,c", po::value(&line.config_path)->default_value("/etc/trunkline/trunklined.json"), "the config file")(
      "check-config", "read the config file, say what is wrong with it, and exit")("version", "print the version")("help,h", "this");
  try {
    po::variables_map values;
    po::store(po::command_line_parser(count, argv).options(options).positional(po::positional_options_description()).run(), values);  // no stray words
    po::notify(values);
    if (values.contains("help")) {
      std::cout << options;
      return std::unexpected(0);
    }
    if (values.contains("version")) {
      std::cout << "trunklined " TRUNKLINE_VERSION "\n";
      return std::unexpected(0);
    }
    line.check_only = values.contains("check-config");
  } catch (const po::error& error) {
    return std::unexpected(fail(std::string(error.what()) + "; see trunklined --help", 2));
  }
  return line;
}

std::expected<config::EngineConfig, int> load_config(const std::string& path) {
  // Links to it are fine where nobody else can have made them: what is installed is often one.
  const auto text = config::read_file(path, kMaxConfigBytes, {.own_links = true});
  if (!text) return std::unexpected(fail("cannot read the config file " + path + ": " + text.error().message, 2));
  auto config = config::parse_engine_config(*text);
  if (config) return std::move(*config);
  for (const config::Problem& problem : config.error()) {
    log(SD_ERR, path + ": " + (problem.pointer.empty() ? "" : problem.pointer + ": ") + problem.message);
  }
  return std::unexpected(fail("the config has " + std::to_string(config.error().size()) + " problem(s)", 2));
}

std::string random_id() {
  std::uint64_t words[2] = {};
  if (getrandom(words, sizeof words, 0) != sizeof words) words[0] = static_cast<std::uint64_t>(getpid());
  char text[33];
  std::snprintf(text, sizeof text, "%016lx%016lx", static_cast<unsigned long>(words[0]), static_cast<unsigned long>(words[1]));
  return text;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// What the config asks for and this machine can never give. Of what may be there later (hugepages, the trunk) DPDK tells.
std::optional<std::string> impossible_here(const config::EngineConfig& config, const std::vector<std::string>& eal_arguments) {
  const auto says = [&](std::string_view word) {
    return std::ranges::any_of(eal_arguments, [&](const std::string& each) { return each.starts_with(word); });
  };
  const long processors = sysconf(_SC_NPROCESSORS_CONF);
  std::vector<std::uint16_t> lcores = config.eal.worker_lcores;
  lcores.push_back(config.eal.main_lcore);
  const std::uint16_t last = *std::ranges::max_element(lcores);
  if (processors > 0 && last >= processors && !says("--lcores")) {
    return "eal.main_lcore or eal.worker_lcores names processor " + std::to_string(last) + ", and this machine has " +
           std::to_string(processors) + " (0 to " + std::to_string(processors - 1) + ")";
  }
  constexpr std::uint64_t kBufferOverhead = 192;  // of mbuf and pool, as docs/operations.md counts
  const std::uint64_t buffers = std::uint64_t{config.buffers.count} * (config.buffers.data_room_bytes + kBufferOverhead);
  if (buffers > std::uint64_t{config.eal.memory_mb} << 20 && !says("--socket-mem") && !says("-m")) {
    return "buffers.count x (buffers.data_room_bytes + 192) is " + std::to_string((buffers >> 20) + 1) + " MB, and eal.memory_mb is " +
           std::to_string(config.eal.memory_mb) + ": raise eal.memory_mb or lower buffers.count";
  }
  return std::nullopt;
}

int run_worker(void* worker) {
  static_cast<Worker*>(worker)->run();
  return 0;
}

// From the start of the first of them to the end of all. Whatever a worker uses must outlive this.
class RunningWorkers {
 public:
  RunningWorkers() = default;
  RunningWorkers(const RunningWorkers&) = delete;
  RunningWorkers& operator=(const RunningWorkers&) = delete;
  ~RunningWorkers() {
    for (const Running& each : running_) each.worker->stop();
    for (const Running& each : running_) rte_eal_wait_lcore(each.lcore);
  }

  bool start(Worker& worker, unsigned lcore) {
    if (rte_eal_remote_launch(run_worker, &worker, lcore) != 0) return false;
    running_.push_back({&worker, lcore});
    return true;
  }

  // Whether each of them has turned in the second before. A blocked one does so ten times a second.
  bool all_turn() {
    const auto now = std::chrono::steady_clock::now();
    bool all = true;
    for (Running& each : running_) {
      if (const std::uint64_t turns = each.worker->turns(); turns != each.turns) each.turns = turns, each.turned = now;
      all = all && now - each.turned < std::chrono::seconds(1);
    }
    return all;
  }

 private:
  struct Running {
    Worker* worker;
    unsigned lcore;
    std::uint64_t turns = 0;
    std::chrono::steady_clock::time_point turned{};
  };
  std::vector<Running> running_;
};

// Whatever tasks cause is told at once, and then as often as a person can follow.
class Patience {
 public:
  bool allows() {
    const auto now = std::chrono::steady_clock::now();
    if (told_ && now - *told_ < std::chrono::seconds(10)) return false;
    told_ = now;
    return true;
  }

 private:
  std::optional<std::chrono::steady_clock::time_point> told_;
};

// A task that shares its memory with the engine took some back.
void tell_of_lost_memory(std::uint64_t& told, Patience& patience) {
  const LostMemory lost = memory_lost();
  if (lost.mappings == told || !patience.allows()) return;
  warning("a vhost-user task took back memory that it had shown (" + std::to_string(lost.mappings - told) + " mapping(s), the last of " +
          std::to_string(lost.bytes) + " bytes); its port carries nothing until it connects again, and no other is touched");
  told = lost.mappings;
}

void tell_of_withheld_lines(LogBudget::Withheld& untold, Patience& patience) {
  const LogBudget::Withheld more = take_withheld_dpdk_lines();
  untold.lines += more.lines;
  if (more.lines != 0) untold.subject = more.subject;
  if (untold.lines == 0 || !patience.allows()) return;
  warning("DPDK said " + std::to_string(untold.lines) + " line(s) more than are written, the last of them about " + untold.subject);
  untold = {};
}

void tell_of_spared_lines(Server& server, std::uint64_t& untold, Patience& patience) {
  untold += server.take_withheld_lines();
  if (untold == 0 || !patience.allows()) return;
  warning("audit: " + std::to_string(untold) +
          " call(s) of observers that may not change anything were refused beside those that are written");
  untold = 0;
}

// SIGTERM and SIGINT end the engine, whatever the control thread does. Until there is something to ask they end it at once. Then it is
// asked to stop, and when it has not for kPatience the process ends.
class Ending {
 public:
  // Before any other thread starts, so that all of them leave the signals to this one's.
  Ending() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::thread([this] { wait(); }).detach();
  }
  // `ask` makes the control thread stop, and is called by another one.
  void ask_by(std::function<void()> ask) {
    const std::lock_guard lock(mutex_);
    ask_ = std::move(ask);
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};  // less than systemd's for a unit

  void wait() {
    int number = 0;
    while (sigwait(&signals_, &number) != 0) {
    }
    {
      const std::lock_guard lock(mutex_);
      if (!ask_) {
        std::signal(number, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
        raise(number);
      }
      ask_();
    }
    std::this_thread::sleep_for(kPatience);
    warning("the control thread has not stopped for " + std::to_string(kPatience.count()) + " s; ending without it");
    LogWriter::of_process().stop();
    _exit(1);
  }

  sigset_t signals_;
  std::mutex mutex_;
  std::function<void()> ask_;
};

// Each task's port has some; what a shell gives is a thousand, what it allows is more.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

// What flow logs have counted until now is still written, if that can be done in a moment.
void write_the_last(FlowLogs& logs, Tick now) {
  const std::uint32_t interval = logs.flush();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (!logs.is_written(interval) && std::chrono::steady_clock::now() < deadline) {
    logs.tick(now);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

int serve(const config::EngineConfig& config, const std::vector<std::string>& eal_extras) {
  // A full pipe, or more signals from taps than the kernel queues, must not end the engine.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGIO, SIG_IGN);
  raise_descriptor_limit();
  static Ending& ending = *new Ending;  // its thread outlives this function

  // Whoever holds the state directory is the engine of this host; asked first, because it is the cheapest to undo.
  const auto lock = lock_state_directory(config.state_dir);
  if (!lock) return fail(lock.error());

  EalSettings eal_settings{config.eal.main_lcore, config.eal.worker_lcores, config.eal.memory_mb, config.eal.file_prefix,
                           config.eal.hugepages,  config.eal.extra_args};
  eal_settings.extra_args.insert(eal_settings.extra_args.end(), eal_extras.begin(), eal_extras.end());
  if (const auto reason = impossible_here(config, eal_settings.extra_args)) return fail(*reason, 2);
  info("EAL: " + joined(Eal::arguments(eal_settings)));
  auto eal = Eal::start(eal_settings);
  if (!eal) return fail(eal.error());
  info("DPDK has room for " + std::to_string(max_ports()) + " ports");

  const unsigned cache = config.buffers.count >= 8192 ? 256 : 0;
  rte_mempool* pool = rte_pktmbuf_pool_create("trunkline", config.buffers.count, cache, 0, config.buffers.data_room_bytes, SOCKET_ID_ANY);
  if (pool == nullptr) {
    return fail("no memory for " + std::to_string(config.buffers.count) + " buffers of " + std::to_string(config.buffers.data_room_bytes) +
                " bytes; raise eal.memory_mb or lower buffers.count");
  }
  auto trunk = Port::open({config.trunk.device, config.trunk.mtu, config.buffers.rx_descriptors, config.buffers.tx_descriptors, true, config.trunk_queues(), config.trunk.offloads}, *pool);
  if (!trunk) return fail("the trunk cannot be opened: " + trunk.error() + "; see trunk.device in the config");
  for (const Capability& capability : (*trunk)->capabilities()) {
    info("trunk: " + capability.what + (capability.available ? ": yes" : ": no (" + capability.why + ")"));
  }

  info("trunk: " + std::to_string((*trunk)->queues()) + " queue(s) each way for " + std::to_string(config.workers()) + " worker(s)");

  EthdevFlows flows((*trunk)->ethdev());
  Steering steering(flows, (*trunk)->queues(), {.wanted = config.trunk.steering, .workers = config.workers(), .micros = {}, .note = warning});
  info("steering: " + (steering.active() ? std::string("the trunk's device is told which queue an ENI's packets are for") : steering.inactive_because()));

  const IdleSettings idle{config.idle.spin_us, config.idle.sleep_us, config.idle.block_after_ms, config.idle.long_sleep_us};
  Published<View> published(static_cast<std::uint32_t>(config.workers()));
  HandoffMesh mesh(static_cast<std::uint32_t>(config.workers()));
  std::vector<std::unique_ptr<Worker>> owned_workers;
  std::vector<Worker*> workers;
  for (std::size_t number = 0; number < config.workers(); ++number) {
    std::uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return fail("no random numbers for the connection table");
    owned_workers.push_back(std::make_unique<Worker>(static_cast<WorkerNumber>(number), published, idle, config.limits.endpoints,
                                                     config.connections_of_a_worker(), seed, &mesh, config.connection_file_of(number)));
    workers.push_back(owned_workers.back().get());
  }
  for (Worker* worker : workers) worker->meet(workers);

  // All memory of the engine's own is there by now.
  if (auto guarded = guard_peer_memory(); !guarded) return fail(guarded.error());

  Journal journal(config.state_dir);
  Controller controller(config, published, workers, make_port_opener(*pool, config),
                        TrunkPort{(*trunk)->ethdev(), (*trunk)->queues(), (*trunk)->wake(), (*trunk)->send_offloads()}, &journal);
  Inspector inspector(controller.workers());
  WorkerFlows worker_flows(workers, config.limits.endpoints);
  FlowLogs flow_logs(config, &worker_flows, controller.now(), {.unix_ms = {}, .note = warning, .make_sink = {}});
  controller.tell(&flow_logs);
  controller.remove_leftovers_with(remove_leftover_interface);
  Captures captures(controller, rte_get_tsc_hz());
  // From here on workers run, and are stopped before anything that they use goes.
  RunningWorkers running;
  for (std::size_t number = 0; number < workers.size(); ++number) {
    const unsigned lcore = config.eal.worker_lcores[number];
    if (!running.start(*workers[number], lcore)) {
      return fail("worker " + std::to_string(number) + " did not start on lcore " + std::to_string(lcore));
    }
  }

  for (const std::string& note : controller.restore()) warning(note);
  flow_logs.adopt_leftovers();

  boost::asio::io_context io(1);
  EngineFacts facts;
  facts.version = TRUNKLINE_VERSION;
  facts.boot_id = random_id();
  facts.journal_path = journal.path();
  facts.trunk = trunk->get();
  facts.pool = pool;
  facts.flow_logs = &flow_logs;
  facts.steering = &steering;
  ServerOptions options;
  options.socket_path = config.control.socket;
  options.socket_mode = config.control.socket_mode;
  options.socket_group = config.control.socket_group;
  options.admin_uids = config.control.admin_uids;
  Server server(io, options, [&](const Caller& caller) {
    return config::Json{{"server", "trunklined"},
                        {"version", facts.version},
                        {"api", {{"major", 1}, {"minor", 1}}},
                        {"features", {"dry_run", "expect_revision", "wait", "document", "sg.members.add", "flow.list", "flow_logs", "explain", "capture", "steering",
                                      "events.describe-tasks", "events.eventbridge", "events.acs"}},
                        {"boot_id", facts.boot_id},
                        {"revision", controller.desired().revision},
                        {"role", caller.admin ? "admin" : "observer"}};
  });
  server.set_audit([](std::string line) { info(line); });
  facts.call_times = &server.times();
  add_methods(server, controller, facts);
  add_inspect_methods(server, controller, inspector, captures);
  if (auto listening = server.listen(); !listening) return fail(listening.error());

  ending.ask_by([&io] { io.stop(); });
  boost::asio::steady_timer timer(io);
  std::uint64_t mappings_lost = 0, lines_spared = 0;
  LogBudget::Withheld lines_untold;
  Patience with_memory, with_lines, with_observers;
  // While the workers have told more than is taken at once, others get their turn in between.
  bool goes_on_writing = false;
  std::function<void()> write_flow_logs = [&] {
    {
      const TimedCall timed(server.times(), "(timer: flow logs)");
      flow_logs.tick(controller.now());
    }
    if (!flow_logs.has_more() || std::exchange(goes_on_writing, true)) return;
    boost::asio::post(io, [&] {
      goes_on_writing = false;
      write_flow_logs();
    });
  };
  std::function<void()> tick = [&] {
    timer.expires_after(std::chrono::milliseconds(100));
    timer.async_wait([&](const boost::system::error_code& error) {
      if (error) return;
      {
        const TimedCall timed(server.times(), "(timer: state)");
        controller.tick();
      }
      {
        const TimedCall timed(server.times(), "(timer: steering)");
        steering.tick(controller.view(), controller.now());
      }
      write_flow_logs();
      captures.tick();
      tell_of_spared_lines(server, lines_spared, with_observers);
      tell_of_lost_memory(mappings_lost, with_memory);
      tell_of_withheld_lines(lines_untold, with_lines);
      // The watchdog hears of us only while packets could flow.
      if (running.all_turn()) sd_notify(0, "WATCHDOG=1");
      tick();
    });
  };
  tick();
  info("ready: " + std::to_string(controller.active().size()) + " endpoint(s), socket " + config.control.socket);
  sd_notify(0, "READY=1\nSTATUS=forwarding");
  io.run();
  sd_notify(0, "STOPPING=1");
  info("stopping; the tasks' interfaces stay for the next engine");
  ending.ask_by([] {});
  server.stop();
  write_the_last(flow_logs, controller.now());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto line = parse_command_line(argc, argv);
  if (!line) return line.error();
  const auto config = load_config(line->config_path);
  if (!config) return config.error();
  if (line->check_only) {
    std::cout << line->config_path << ": ok\n";
    return 0;
  }
  LogWriter::of_process().start();
  int code = 1;
  try {
    code = serve(*config, line->eal_extras);
  } catch (const std::exception& error) {
    code = fail(error.what());
  }
  LogWriter::of_process().stop();
  return code;
}
