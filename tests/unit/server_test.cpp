// SPDX-License-Identifier: BSD-3-Clause
//
// The control socket with real clients: every limit with its refusal, who may what, junk, and the socket file. Server
// and clients share one thread: a client that waits runs the io_context, so nothing here depends on timing except the
// limits that are about time.
#include "control/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <new>
#include <random>
#include <stdexcept>

namespace trunkline::control {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using config::Json;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 10s;  // more than anything here takes, sanitizers included

int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

std::string request(int id, const std::string& method, const Json& params = Json::object()) {
  return Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}}.dump() + '\n';
}

class Client {
 public:
  Client(boost::asio::io_context& io, const std::string& path) : Client(io, connect_to(path)) {}
  Client(boost::asio::io_context& io, int fd) : io_(io), fd_(fd) { EXPECT_GE(fd_, 0); }
  ~Client() { hang_up(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void hang_up() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void end_of_requests() { ::shutdown(fd_, SHUT_WR); }

  // Sends all of it, or until the server has hung up.
  bool send(std::string_view text) {
    const auto deadline = Clock::now() + kPatience;
    while (!text.empty() && Clock::now() < deadline) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n > 0) {
        text.remove_prefix(static_cast<std::size_t>(n));
      } else if (errno != EAGAIN) {
        return false;
      }
      io_.poll();
      io_.restart();
    }
    return text.empty();
  }

  // The next line; null when the server has hung up.
  Json next() {
    const auto deadline = Clock::now() + kPatience;
    while (Clock::now() < deadline) {
      if (const std::size_t newline = received_.find('\n'); newline != std::string::npos) {
        const Json line = Json::parse(received_.substr(0, newline), nullptr, false);
        received_.erase(0, newline + 1);
        EXPECT_FALSE(line.is_discarded());
        return line;
      }
      if (closed_) return nullptr;
      receive();
    }
    ADD_FAILURE() << "no answer";
    return nullptr;
  }

  // Whether the server has hung up; takes what comes before.
  bool closed() {
    const auto deadline = Clock::now() + kPatience;
    while (!closed_ && Clock::now() < deadline) receive();
    return closed_;
  }
  std::size_t received() const { return received_.size(); }

  Json ask(int id, const std::string& method, const Json& params = Json::object()) {
    EXPECT_TRUE(send(request(id, method, params)));
    return next();
  }

 private:
  void receive() {
    char buffer[1 << 16];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n > 0) received_.append(buffer, static_cast<std::size_t>(n));
    if (n == 0 || (n < 0 && errno != EAGAIN)) closed_ = true;
    if (n < 0 && errno == EAGAIN) io_.run_one_for(2ms);
    io_.poll();
    io_.restart();
  }

  boost::asio::io_context& io_;
  int fd_;
  std::string received_;
  bool closed_ = false;
};

std::string error_name(const Json& answer) {
  if (!answer.is_object() || !answer.contains("error")) return "no error: " + answer.dump();
  return answer["error"]["data"]["name"];
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "trunkline-server-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    path_ = directory_ + "/control.sock";
    options_.socket_path = path_;
    options_.find_caller = [this](int) -> std::expected<Caller, std::string> { return Caller{uid_, 0, 4711, false}; };
  }
  void TearDown() override {
    server_.reset();
    fs::remove_all(directory_);
  }

  std::unique_ptr<Server> make() {
    auto server = std::make_unique<Server>(io_, options_, [](const Caller& caller) {
      return Json{{"server", "test"}, {"role", caller.admin ? "admin" : "observer"}};
    });
    server->add("echo", Access::look, [](const Json& params, const Caller&) { return params; });
    server->add("count", Access::change, [this](const Json&, const Caller&) { return Json(++count_); });
    server->add("refuse", Access::change, [](const Json&, const Caller&) -> std::expected<Json, RpcError> {
      return std::unexpected(refuse({{"duplicate_vlan", "/vlan", "taken"}}));
    });
    server->add("throw", Access::change, [](const Json& params, const Caller&) -> std::expected<Json, RpcError> {
      if (params.contains("memory")) throw std::bad_alloc();
      if (params.contains("odd")) throw 7;
      throw std::runtime_error("oops \xff");
    });
    server->add("big", Access::look, [](const Json& params, const Caller&) {
      return Json(std::string(params.at("bytes").get<std::size_t>(), 'x'));
    });
    server->add("hold", Access::look, [this](const Json& params, const Caller&) -> std::expected<Json, RpcError> {
      std::this_thread::sleep_for(std::chrono::milliseconds(params.at("ms").get<int>()));
      ++calls_of_hold_;
      return Json::object();
    });
    server->set_audit([this](std::string line) { audit_.push_back(std::move(line)); });
    return server;
  }

  void start() {
    server_ = make();
    const auto listening = server_->listen();
    ASSERT_TRUE(listening) << listening.error();
  }

  // A client that has been greeted.
  std::unique_ptr<Client> client() {
    auto made = std::make_unique<Client>(io_, path_);
    EXPECT_EQ(made->next()["method"], "hello");
    return made;
  }

  void expect_all_is_well() { EXPECT_EQ(client()->ask(1, "echo", {{"a", 1}})["result"], Json({{"a", 1}})); }

  void run_for(std::chrono::milliseconds time) {
    io_.run_for(time);
    io_.restart();
  }

  boost::asio::io_context io_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::string directory_, path_;
  uid_t uid_ = 0;
  int calls_of_hold_ = 0;
  int count_ = 0;
  std::vector<std::string> audit_;
};

TEST_F(ServerTest, GreetsAndAnswers) {
  start();
  Client client(io_, path_);
  EXPECT_EQ(client.next(),
            Json::parse(R"({"jsonrpc":"2.0","method":"hello","params":{"server":"test","role":"admin"}})"));
  EXPECT_EQ(client.ask(3, "echo", {{"x", 1}}), Json::parse(R"({"jsonrpc":"2.0","id":3,"result":{"x":1}})"));
  EXPECT_EQ(error_name(client.ask(4, "no.such")), "unknown_method");
  const Json refused = client.ask(5, "refuse");
  EXPECT_EQ(refused["error"]["code"], -32010);
  EXPECT_EQ(refused["error"]["data"]["pointer"], "/vlan");
}

TEST_F(ServerTest, ARequestMayComeBeforeTheHello) {
  start();
  Client client(io_, path_);
  client.send(request(1, "echo"));
  EXPECT_EQ(client.next()["method"], "hello");
  EXPECT_EQ(client.next()["id"], 1);
}

TEST_F(ServerTest, ByteByByteAndManyAtOnce) {
  start();
  auto slow = client();
  for (const char c : request(1, "echo", {{"t", "\xc3\xa9"}})) {
    ASSERT_TRUE(slow->send({&c, 1}));
    io_.poll();
    io_.restart();
  }
  EXPECT_EQ(slow->next()["result"]["t"], "\xc3\xa9");

  std::string all;
  for (int i = 0; i < 2000; ++i) all += request(i, i % 2 == 0 ? "echo" : "count");
  auto fast = client();
  ASSERT_TRUE(fast->send(all));
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(fast->next()["id"], i);
  EXPECT_EQ(count_, 1000);
}

TEST_F(ServerTest, NobodyWaitsForAnotherClientsQueue) {
  start();
  auto busy = client(), quick = client();
  std::string all;
  for (int i = 0; i < 500; ++i) all += request(i, "count");
  busy->send(all);
  EXPECT_EQ(quick->ask(1, "echo")["id"], 1);
  for (int i = 0; i < 500; ++i) ASSERT_EQ(busy->next()["id"], i);
}

TEST_F(ServerTest, HalfClosedClientsGetTheirAnswers) {
  start();
  auto one = client();
  one->send(request(1, "count") + request(2, "count") + R"({"jsonrpc":"2.0","id":3,"method":"count"})");
  one->end_of_requests();
  EXPECT_EQ(one->next()["id"], 1);
  EXPECT_EQ(one->next()["id"], 2);
  EXPECT_TRUE(one->closed());
  EXPECT_EQ(count_, 2);  // the third had no newline, so nobody knows that it was all
}

TEST_F(ServerTest, AnAnswerToAClientThatLeftHurtsNobody) {
  start();
  for (int i = 0; i < 20; ++i) {
    auto leaving = client();
    leaving->send(request(1, "big", {{"bytes", 1 << 20}}));
    leaving->hang_up();
  }
  expect_all_is_well();
  run_for(20ms);
  EXPECT_EQ(server_->clients(), 0U);
}

TEST_F(ServerTest, AThrowingMethodCostsOneRequest) {
  start();
  auto one = client();
  const Json first = one->ask(1, "throw");
  EXPECT_EQ(error_name(first), "internal");
  EXPECT_EQ(first["id"], 1);
  EXPECT_EQ(error_name(one->ask(2, "throw", {{"memory", true}})), "internal");
  EXPECT_EQ(error_name(one->ask(3, "throw", {{"odd", true}})), "internal");
  EXPECT_EQ(error_name(one->ask(4, "big", {{"wrong", 1}})), "internal");
  EXPECT_EQ(one->ask(5, "echo")["id"], 5);
}

TEST_F(ServerTest, NotificationsAreNeverExecuted) {
  start();
  auto one = client();
  one->send(R"({"jsonrpc":"2.0","method":"count"})"
            "\n"
            R"({"jsonrpc":"2.0","method":"no.such","params":3})"
            "\n");
  EXPECT_EQ(one->ask(1, "echo")["id"], 1);  // and this is the first line that comes
  EXPECT_EQ(count_, 0);
  EXPECT_EQ(audit_, std::vector<std::string>{"audit: count by uid 0, pid 4711: ignored (no id)"});
}

TEST_F(ServerTest, ObserversLookAndAdminsChange) {
  options_.admin_uids = {4000000000U};
  start();
  uid_ = 3999999999U;
  Client observer(io_, path_);
  EXPECT_EQ(observer.next()["params"]["role"], "observer");
  EXPECT_EQ(observer.ask(1, "echo")["id"], 1);
  EXPECT_EQ(error_name(observer.ask(2, "count")), "forbidden");
  EXPECT_EQ(count_, 0);
  uid_ = 4000000000U;
  Client admin(io_, path_);
  EXPECT_EQ(admin.next()["params"]["role"], "admin");
  EXPECT_EQ(admin.ask(1, "count")["result"], 1);
  uid_ = ::geteuid();
  Client owner(io_, path_);
  EXPECT_EQ(owner.next()["params"]["role"], "admin");
  // Who it was when it connected is what counts.
  EXPECT_EQ(error_name(observer.ask(3, "count")), "forbidden");
}

TEST_F(ServerTest, EveryChangeIsAudited) {
  start();
  auto one = client();
  one->ask(1, "count");
  one->ask(2, "count", {{"dry_run", true}});
  one->ask(3, "refuse");
  one->ask(4, "throw");
  one->ask(5, "echo");
  uid_ = 12345;
  client()->ask(1, "count");
  EXPECT_EQ(audit_, (std::vector<std::string>{"audit: count by uid 0, pid 4711: done",
                                              "audit: count (dry run) by uid 0, pid 4711: done",
                                              "audit: refuse by uid 0, pid 4711: refused (duplicate_vlan)",
                                              "audit: throw by uid 0, pid 4711: refused (internal)",
                                              "audit: count by uid 12345, pid 4711: forbidden"}));
}

TEST_F(ServerTest, AnAuditThatThrowsChangesNothing) {
  start();
  server_->set_audit([](const std::string&) { throw std::runtime_error("disk full"); });
  EXPECT_EQ(client()->ask(1, "count")["result"], 1);
}

TEST_F(ServerTest, TheKernelSaysWhoItIs) {
  options_.find_caller = nullptr;
  start();
  server_->add("who", Access::look, [](const Json&, const Caller& caller) {
    return Json{{"uid", caller.uid}, {"gid", caller.gid}, {"pid", caller.pid}, {"admin", caller.admin}};
  });
  EXPECT_EQ(client()->ask(1, "who")["result"],
            Json({{"uid", ::getuid()}, {"gid", ::getgid()}, {"pid", ::getpid()}, {"admin", true}}));
}

TEST_F(ServerTest, WhoCannotBeKnownIsTurnedAway) {
  start();
  server_.reset();
  options_.find_caller = [](int) -> std::expected<Caller, std::string> { return std::unexpected("no idea"); };
  start();
  Client one(io_, path_);
  EXPECT_EQ(error_name(one.next()), "limit");
  EXPECT_TRUE(one.closed());
}

TEST_F(ServerTest, LimitOfALine) {
  options_.max_line_bytes = 1000;
  start();
  const std::string frame = request(1, "echo", {{"x", ""}});
  auto exact = client();
  EXPECT_EQ(exact->ask(1, "echo", {{"x", std::string(1000 - frame.size(), 'x')}})["id"], 1);
  EXPECT_EQ(error_name(exact->ask(1, "echo", {{"x", std::string(1001 - frame.size(), 'x')}})), "limit");
  EXPECT_TRUE(exact->closed());

  auto endless = client();
  endless->send(std::string(1001, 'x'));  // no newline, and none awaited
  EXPECT_EQ(error_name(endless->next()), "limit");
  EXPECT_TRUE(endless->closed());
  expect_all_is_well();
}

TEST_F(ServerTest, AMethodMayTakeLargeLinesFromAdminsOneAtATime) {
  options_.max_line_bytes = 1000;
  options_.max_large_line_bytes = 300'000;
  start();
  server_->takes_large("echo");
  const std::size_t frame = request(1, "echo", {{"x", ""}}).size();
  const auto sized = [&](std::size_t bytes) { return request(1, "echo", {{"x", std::string(bytes - frame, 'x')}}); };
  auto one = client();
  for (const std::size_t bytes : {std::size_t{1000}, std::size_t{1001}, std::size_t{200'000}, std::size_t{300'000}}) {
    ASSERT_EQ(sized(bytes).size(), bytes);
    one->send(sized(bytes));
    EXPECT_EQ(one->next()["result"]["x"].get<std::string>().size(), bytes - frame) << bytes;
  }
  // Several in one go, with short ones between them.
  one->send(sized(50'000) + sized(100) + sized(60'000));
  for (const std::size_t bytes : {50'000U, 100U, 60'000U}) EXPECT_EQ(one->next()["result"]["x"].get<std::string>().size(), bytes - frame);

  // While one is half sent, a second one is told to come back, and short lines of others are served.
  one->send(sized(200'000).substr(0, 100'000));
  run_for(20ms);
  auto two = client();
  two->send(sized(200'000).substr(0, 100'000));
  const Json refused = two->next();
  EXPECT_EQ(error_name(refused), "limit");
  EXPECT_NE(refused["error"]["message"].get<std::string>().find("one such line is received at a time"), std::string::npos) << refused;
  EXPECT_TRUE(two->closed());
  expect_all_is_well();
  one->send(sized(200'000).substr(100'000));
  EXPECT_EQ(one->next()["result"]["x"].get<std::string>().size(), 200'000 - frame);
  // The place is free again, also after a client that went away in the middle.
  one->send(sized(200'000).substr(0, 100'000));
  run_for(20ms);
  one.reset();
  run_for(20ms);
  auto three = client();
  three->send(sized(200'000));
  EXPECT_TRUE(three->next().contains("result"));

  EXPECT_EQ(error_name(three->ask(1, "big", {{"x", std::string(2000, 'x')}})), "limit") << "another method's";
  EXPECT_TRUE(three->closed());
  auto four = client();
  four->send(sized(300'001));
  EXPECT_EQ(error_name(four->next()), "limit");
  EXPECT_TRUE(four->closed());
  uid_ = 1000;
  auto observer = client();
  observer->send(sized(1001));
  EXPECT_EQ(error_name(observer->next()), "limit") << "who may only look has the small limit";
  EXPECT_TRUE(observer->closed());
}

TEST_F(ServerTest, LargeAnswersThatNobodyReadsAreBoundedInAll) {
  options_.max_unread_bytes = 1 << 20;
  options_.max_unread_of_all_bytes = 8 << 20;
  start();
  std::vector<std::unique_ptr<Client>> deaf;
  for (int i = 0; i < 4; ++i) {
    deaf.push_back(client());
    deaf.back()->send(request(1, "big", {{"bytes", 3 << 20}}));
    run_for(20ms);
  }
  // Two or three lie unread; the others were told so, which they may read at any time.
  int refused = 0;
  for (auto& each : deaf) refused += error_name(each->next()) == "limit" ? 1 : 0;
  EXPECT_GE(refused, 1);
  EXPECT_LE(refused, 2);
  // All is read by now, so there is room again.
  auto again = client();
  EXPECT_TRUE(again->ask(1, "big", {{"bytes", 3 << 20}}).contains("result"));
}

TEST_F(ServerTest, AFolderThatOthersMayWriteIsNoPlaceForTheSocket) {
  fs::permissions(directory_, fs::perms::all);
  server_ = make();
  const auto listening = server_->listen();
  ASSERT_FALSE(listening);
  EXPECT_NE(listening.error().find("may be written by others (mode 0777)"), std::string::npos) << listening.error();
  EXPECT_FALSE(fs::exists(path_));
  fs::permissions(directory_, fs::perms::owner_all);
  // A link where the socket belongs.
  fs::create_symlink(directory_ + "/elsewhere", path_);
  EXPECT_FALSE(server_->listen());
  EXPECT_TRUE(fs::is_symlink(path_));
}

TEST_F(ServerTest, AGigabyteWithoutANewlineIsCutOff) {
  start();
  auto one = client();
  const std::string much(1 << 20, 'x');
  int sent = 0;
  while (sent < 1024 && one->send(much)) ++sent;
  EXPECT_LT(sent, 4);
  EXPECT_EQ(error_name(one->next()), "limit");
  EXPECT_TRUE(one->closed());
  expect_all_is_well();
}

TEST_F(ServerTest, LimitOfDepth) {
  start();
  auto one = client();
  one->send(std::string(100'000, '[') + '\n');
  EXPECT_EQ(error_name(one->next()), "limit");
  EXPECT_TRUE(one->closed());
  expect_all_is_well();
}

TEST_F(ServerTest, LimitOfTimeForALineThatHasBegun) {
  options_.line_timeout = 60ms;
  start();
  auto idle = client(), slow = client();
  const auto begun = Clock::now();
  // Bytes that keep coming do not prolong it.
  Json line;
  for (int i = 0; i < 100 && slow->received() == 0; ++i) {
    if (!slow->send("x")) break;
    run_for(5ms);
    if (Clock::now() - begun > 150ms) break;
  }
  EXPECT_EQ(error_name(slow->next()), "limit");
  EXPECT_TRUE(slow->closed());
  EXPECT_GE(Clock::now() - begun, 60ms);
  // A line that has not begun has no deadline, and neither has one that is answered.
  EXPECT_EQ(idle->ask(1, "echo")["id"], 1);
  run_for(100ms);
  EXPECT_EQ(idle->ask(2, "echo")["id"], 2);
}

TEST_F(ServerTest, LimitOfUnreadAnswers) {
  options_.max_unread_bytes = 1 << 20;
  start();
  auto deaf = client();
  std::string all;
  for (int i = 0; i < 100; ++i) all += request(i, "big", {{"bytes", 100'000}});
  deaf->send(all);
  run_for(50ms);
  EXPECT_EQ(server_->clients(), 0U);
  EXPECT_TRUE(deaf->closed());
  EXPECT_LT(deaf->received(), 2U << 20);
  expect_all_is_well();
}

TEST_F(ServerTest, OneAnswerIsLetThroughHoweverLarge) {
  options_.max_unread_bytes = 1 << 20;
  start();
  auto one = client();
  EXPECT_EQ(one->ask(1, "big", {{"bytes", 8 << 20}})["result"].get_ref<const std::string&>().size(), 8U << 20);
  EXPECT_EQ(one->ask(2, "echo")["id"], 2);
  // And still comes whole when the client has said all it wanted.
  one->send(request(3, "big", {{"bytes", 3 << 20}}));
  one->end_of_requests();
  EXPECT_EQ(one->next()["id"], 3);
  EXPECT_TRUE(one->closed());
}

TEST_F(ServerTest, WhoDoesNotHearItsRefusalIsDroppedInTheEnd) {
  options_.line_timeout = 50ms;
  options_.max_line_bytes = 1000;
  start();
  auto deaf = client();
  deaf->send(request(1, "big", {{"bytes", 2 << 20}}) + std::string(2000, 'x'));
  run_for(20ms);
  EXPECT_EQ(server_->clients(), 1U);
  run_for(100ms);
  EXPECT_EQ(server_->clients(), 0U);
}

TEST_F(ServerTest, LimitOfClients) {
  start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 64; ++i) clients.push_back(client());
  EXPECT_EQ(server_->clients(), 64U);
  Client late(io_, path_);
  EXPECT_EQ(error_name(late.next()), "limit");
  EXPECT_TRUE(late.closed());
  clients.pop_back();
  expect_all_is_well();
  EXPECT_EQ(clients[0]->ask(1, "echo")["id"], 1);
}

TEST_F(ServerTest, IdleObserversDoNotLockAdminsOut) {
  start();
  uid_ = 12345;
  std::vector<std::unique_ptr<Client>> observers;
  for (int i = 0; i < 56; ++i) uid_ = static_cast<uid_t>(12345 + i), observers.push_back(client());
  Client late(io_, path_);
  EXPECT_EQ(error_name(late.next()), "limit");
  uid_ = 0;
  expect_all_is_well();
}

TEST_F(ServerTest, OneObserverHasNoMorePlacesThanAreFree) {
  start();
  uid_ = 12345;
  std::vector<std::unique_ptr<Client>> observers;
  for (int i = 0; i < 28; ++i) observers.push_back(client());
  Client late(io_, path_);
  const Json refused = late.next();
  EXPECT_EQ(error_name(refused), "limit");
  EXPECT_NE(refused["error"]["message"].get<std::string>().find("uid 12345"), std::string::npos);
  uid_ = 12346;
  auto other = client();
  EXPECT_TRUE(other->ask(1, "echo").contains("result"));
  uid_ = 12345;
  observers.pop_back();
  run_for(20ms);
  EXPECT_TRUE(client()->ask(1, "echo").contains("result"));
}

// An observer that asks as fast as it can has a part of the thread's time; an admin who comes meanwhile waits for no
// more than a call.
TEST_F(ServerTest, AnObserverThatAsksWithoutEndDelaysNoAdmin) {
  start();
  uid_ = 12345;
  std::vector<std::unique_ptr<Client>> observers;
  for (int i = 0; i < 20; ++i) {
    observers.push_back(client());
    std::string requests;
    for (int n = 0; n < 200; ++n) requests += request(n, "hold", {{"ms", 2}});
    observers.back()->send(requests);
  }
  uid_ = 0;
  auto admin = client();
  run_for(100ms);
  auto longest = 0ms;
  const auto began = Clock::now();
  int asked = 0;
  for (; Clock::now() - began < 1s; ++asked) {
    const auto before = Clock::now();
    ASSERT_TRUE(admin->ask(asked, "echo").contains("result"));
    longest = std::max(longest, std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - before));
  }
  EXPECT_GT(asked, 500);
  EXPECT_LT(longest, 100ms) << "of the test machine, too";
  EXPECT_LT(calls_of_hold_, 250) << "a tenth of the time, and twenty milliseconds at once";
  EXPECT_GT(calls_of_hold_, 20);
}

TEST_F(ServerTest, ObserversMayNotFillTheLog) {
  start();
  uid_ = 12345;
  auto observer = client();
  for (int n = 0; n < 500; ++n) EXPECT_EQ(error_name(observer->ask(n, "count")), "forbidden");
  EXPECT_LT(audit_.size(), 120U);
  EXPECT_EQ(audit_.size() + server_->take_withheld_lines(), 500U);
}

TEST_F(ServerTest, WithoutDescriptorsClientsAreTurnedAwayAndLaterServed) {
  start();
  auto before = client();
  // The clients' own ends are made first: this process is both sides.
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  std::vector<int> fds;
  for (int i = 0; i < 3; ++i) fds.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  // Descriptors below the limit that are free would still be given out, so they are filled.
  rlimit low = old_limit;
  low.rlim_cur = static_cast<rlim_t>(*std::ranges::max_element(fds)) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<int> filler;
  for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) filler.push_back(fd);
  for (const int fd : fds) {
    ASSERT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  Client first(io_, fds[0]);
  EXPECT_EQ(error_name(first.next()), "limit");
  EXPECT_TRUE(first.closed());
  EXPECT_EQ(before->ask(1, "echo")["id"], 1);  // who is connected notices nothing
  // It backs off between two of them instead of spinning.
  const std::size_t turns = [&] {
    const auto end = Clock::now() + 60ms;
    std::size_t handlers = 0;
    while (Clock::now() < end) handlers += io_.run_one_until(end);
    io_.restart();
    return handlers;
  }();
  EXPECT_LT(turns, 10U);
  Client second(io_, fds[1]);
  EXPECT_EQ(error_name(second.next()), "limit");
  for (const int fd : filler) ::close(fd);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old_limit), 0);
  Client third(io_, fds[2]);
  EXPECT_EQ(third.next()["method"], "hello");
  EXPECT_EQ(third.ask(1, "echo")["id"], 1);
}

TEST_F(ServerTest, JunkIsAnsweredAndForgotten) {
  const auto seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  start();
  auto junk = client();
  const std::string pieces[] = {"{",    "}",    "[", "]", "\"", ":", ",", "jsonrpc", "2.0", "\"method\":\"count\"",
                                "\xff", "1e999"};
  for (int i = 0; i < 1000; ++i) {
    std::string line;
    for (auto n = random() % 40; n > 0; --n) {
      if (random() % 2 == 0) {
        line += pieces[random() % std::size(pieces)];
      } else if (const auto c = static_cast<char>(random()); c != '\n') {
        line += c;
      }
    }
    ASSERT_TRUE(junk->send(line + '\n'));
    const std::string name = error_name(junk->next());
    ASSERT_TRUE(name == "parse_error" || name == "invalid_request") << name << ": " << line;
  }
  EXPECT_EQ(junk->ask(1, "echo")["id"], 1);
  EXPECT_EQ(count_, 0);
  expect_all_is_well();
}

TEST_F(ServerTest, JunkWithoutReadingTheAnswersEndsInADisconnect) {
  options_.max_unread_bytes = 64 << 10;
  start();
  auto one = client();
  for (int i = 0; i < 100; ++i) one->send(std::string(1000, '\n'));
  EXPECT_EQ(server_->clients(), 0U);
  expect_all_is_well();
}

TEST_F(ServerTest, AMethodMayStopTheServer) {
  start();
  server_->add("stop", Access::change, [this](const Json&, const Caller&) {
    server_->stop();
    return Json(true);
  });
  auto one = client(), other = client();
  one->send(request(1, "stop") + request(2, "count"));
  EXPECT_TRUE(one->closed());
  EXPECT_TRUE(other->closed());
  EXPECT_EQ(count_, 0);
  EXPECT_FALSE(fs::exists(path_));
  run_for(1ms);
  start();  // and another may take its place
  expect_all_is_well();
}

TEST_F(ServerTest, TheServerMayGoWhileHandlersWait) {
  start();
  auto one = client();
  one->send(request(1, "echo") + "{");
  server_.reset();
  run_for(5ms);
  EXPECT_TRUE(one->closed());
}

TEST_F(ServerTest, TheSocketHasItsModeAndItsDirectory) {
  path_ = directory_ + "/run/trunkline/control.sock";
  options_.socket_path = path_;
  options_.socket_mode = 0640;
  options_.socket_group = std::to_string(::getegid());
  const mode_t old_mask = ::umask(077);
  start();
  ::umask(old_mask);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0640U);
  EXPECT_EQ(status.st_gid, ::getegid());
  ASSERT_EQ(::stat((directory_ + "/run/trunkline").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0750U);
  expect_all_is_well();
}

TEST_F(ServerTest, AStaleSocketIsReplaced) {
  const int dead = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(dead, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::listen(dead, 1);
  ::close(dead);
  ASSERT_TRUE(fs::exists(path_));
  start();
  expect_all_is_well();
}

TEST_F(ServerTest, ALiveSocketIsLeftAlone) {
  start();
  auto second = make();
  const auto listening = second->listen();
  ASSERT_FALSE(listening);
  EXPECT_NE(listening.error().find("another engine answers on " + path_), std::string::npos) << listening.error();
  second.reset();
  expect_all_is_well();
}

TEST_F(ServerTest, WhatIsNotASocketIsLeftAlone) {
  std::ofstream(path_) << "precious";
  server_ = make();
  ASSERT_FALSE(server_->listen());
  server_->stop();
  EXPECT_EQ(fs::file_size(path_), 8U);
  fs::remove(path_);
  fs::create_symlink("/etc/passwd", path_);
  EXPECT_FALSE(server_->listen());
  EXPECT_TRUE(fs::is_symlink(path_));
}

TEST_F(ServerTest, AnotherKindOfSocketIsLeftAlone) {
  const int other = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(other, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_FALSE(make()->listen());
  EXPECT_TRUE(fs::exists(path_));
  ::close(other);
}

TEST_F(ServerTest, StopRemovesOnlyItsOwnSocket) {
  start();
  fs::remove(path_);
  auto first = std::move(server_);
  start();  // another engine has taken the path
  first->stop();
  first->stop();
  EXPECT_TRUE(fs::exists(path_));
  expect_all_is_well();
  server_->stop();
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(ServerTest, WhatCannotListenSaysWhy) {
  options_.socket_group = "no-such-group-here";
  EXPECT_NE(make()->listen().error().find("no-such-group-here"), std::string::npos);
  EXPECT_FALSE(fs::exists(path_));
  options_.socket_group.clear();
  options_.socket_path = directory_ + '/' + std::string(120, 'x');
  EXPECT_NE(make()->listen().error().find("1 to 107"), std::string::npos);
  std::ofstream(directory_ + "/file") << "x";
  options_.socket_path = directory_ + "/file/control.sock";
  EXPECT_FALSE(make()->listen());
}

}  // namespace
}  // namespace trunkline::control
