// SPDX-License-Identifier: BSD-3-Clause
//
// Core is what all clients share: the listening socket, the methods, the options. Session is one client. Both live as
// long as a handler of theirs is on its way in the io_context; after stop() a handler finds its session closed.
#include "control/server.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "config/safe_file.h"
#include "config/words.h"
#include "control/rpc/observer_budget.h"

namespace trunkline::control {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using config::Json;

constexpr std::size_t kReadBytes = 64 << 10;
constexpr int kAcceptsAtOnce = 16;  // then whoever is connected gets a turn
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

std::string failure(std::string_view what, const std::string& path, int error) {
  return "cannot " + std::string(what) + ' ' + path + ": " + std::strerror(error);
}

RpcError limit(std::string message) { return {"limit", std::move(message), {}, {}}; }

std::expected<Caller, std::string> peer_of(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::unexpected(std::strerror(errno));
  return Caller{.uid = peer.uid, .gid = peer.gid, .pid = peer.pid};
}

// For a connection that gets no session: what fits into an empty socket buffer is sent, and it is closed.
void turn_away(int fd, const std::string& message) {
  const std::string line = error_line(nullptr, limit(message));
  [[maybe_unused]] const ssize_t n = ::send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  ::close(fd);
}

std::expected<gid_t, std::string> find_group(const std::string& name) {
  gid_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) return number;
  std::vector<char> buffer(1 << 16);
  group entry{};
  group* found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return std::unexpected("there is no group " + config::words::in_quotes(name) + " to give the control socket to");
  }
  return found->gr_gid;
}

// Makes room at `path` if what is there is the socket of an engine that is gone.
std::expected<void, std::string> clear_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return std::unexpected(failure("look at", path, errno));
  }
  if (!S_ISSOCK(status.st_mode)) {
    return std::unexpected(path + " is there and is not a socket; move it, or set another control.socket");
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return std::unexpected(failure("probe", path, errno));
  const int error = ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  ::close(probe);
  // EAGAIN: so alive that its queue is full.
  if (error == 0 || error == EAGAIN) {
    return std::unexpected("another engine answers on " + path + "; stop it, or set another control.socket");
  }
  if (error == ENOENT) return {};
  if (error == EACCES) {
    return std::unexpected(path + " is another user's socket, so it cannot be told whether an engine listens there; remove it if none does, "
                           "or set another control.socket");
  }
  if (error != ECONNREFUSED) return std::unexpected(failure("probe", path, error));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return std::unexpected(failure("remove the stale socket", path, errno));
  }
  return {};
}

}  // namespace

class Server::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& io_context, ServerOptions server_options, std::function<Json(const Caller&)> params)
      : io(io_context), options(std::move(server_options)), hello_params(std::move(params)), listener_(io), pause_(io) {
    if (!options.find_caller) options.find_caller = peer_of;
  }
  ~Core() { close_reserve(); }

  std::expected<void, std::string> listen();
  void stop();
  // The answer to one line, without exceptions; nullopt: there is none to give.
  struct Answer {
    std::string line;
    bool close = false;  // over a limit
  };
  std::optional<Answer> answer(std::string_view line, const Caller& caller);
  // Whether this session may receive a line above max_line_bytes: the only one at a time.
  bool claim_large(const Session* session) {
    if (large_methods.empty() || (large_ != nullptr && large_ != session)) return false;
    large_ = session;
    return true;
  }
  void release_large(const Session* session) {
    if (large_ == session) large_ = nullptr;
  }

  struct Entry {
    Access access;
    Method call;
  };

  asio::io_context& io;
  ServerOptions options;
  std::function<Json(const Caller&)> hello_params;
  std::function<void(std::string)> audit;
  std::function<void(std::uint64_t)> gone;
  std::map<std::string, Entry, std::less<>> methods;
  std::set<std::string, std::less<>> large_methods;
  std::size_t unread = 0;  // bytes of answers, at all clients
  std::set<std::shared_ptr<Session>> sessions;
  CallTimes times;
  ObserverBudget observers;

 private:
  void accept();
  void accept_some();
  void accept_later();
  void welcome(int fd);
  bool is_admin(uid_t uid) const;
  std::optional<Answer> dispatch(const Request& request, const Caller& caller);
  void tell_audit(const Request& request, const Caller& caller, std::string_view outcome);
  void open_reserve() { reserve_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
  void close_reserve() {
    if (reserve_ >= 0) ::close(std::exchange(reserve_, -1));
  }

  const Session* large_ = nullptr;
  asio::posix::stream_descriptor listener_;
  asio::steady_timer pause_;
  int reserve_ = -1;  // given up for the moment it takes to turn a connection away
  std::uint64_t connections_ = 0;  // so many there were
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// One client. At any moment it either waits for bytes, or has a posted advance() that takes the next line.
class Server::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(const std::shared_ptr<Core>& core, int fd, const Caller& caller)
      : core_(core),
        caller_(caller),
        socket_(core->io, asio::local::stream_protocol(), fd),
        timer_(core->io),
        turn_(core->io) {}

  const Caller& caller() const { return caller_; }

  void start() {
    queue(notification_line("hello", core_->hello_params(caller_)));
    advance();
  }

  // Ends at once; what is unsent is lost.
  void close() {
    if (closed_) return;
    closed_ = true;
    count_unread(-static_cast<std::ptrdiff_t>(unsent()));
    if (!caller_.admin) core_->observers.disconnected(caller_.uid, std::chrono::steady_clock::now());
    core_->release_large(this);
    error_code ignored;
    timer_.cancel(ignored);
    turn_.cancel(ignored);
    socket_.shutdown(asio::socket_base::shutdown_both, ignored);
    socket_.close(ignored);
    core_->sessions.erase(shared_from_this());
    if (core_->gone) core_->gone(caller_.connection);
  }

 private:
  // For what runs straight from the io_context: memory that is short costs this client, not the engine.
  template <typename Work>
  void guard(Work work) {
    try {
      work();
    } catch (const std::exception&) {
      close();
    }
  }

  void count_unread(std::ptrdiff_t by) {
    core_->unread += static_cast<std::size_t>(by);
    if (!caller_.admin) core_->observers.unread_changed(caller_.uid, by);
  }

  std::size_t unsent() const { return sending_.size() - sent_ + waiting_.size(); }

  void advance() {
    if (closed_ || ending_) return;
    const std::size_t newline = input_.find('\n', std::max(scanned_, begin_));
    if (newline != std::string::npos) {
      set_deadline(false);
      if (!caller_.admin && must_wait()) return;
      const bool is_large = newline - begin_ >= core_->options.max_line_bytes;
      if (is_large && !may_be_large(newline - begin_ + 1)) return;
      const std::string_view line = std::string_view(input_).substr(begin_, newline - begin_);
      const auto answer = core_->answer(line, caller_);
      if (closed_) return;  // the method stopped the server
      begin_ = scanned_ = newline + 1;
      if (is_large) {  // its memory goes at once
        core_->release_large(this);
        input_ = input_.substr(begin_);
        begin_ = scanned_ = 0;
      }
      if (answer && !queue(answer->line)) return;
      if (answer && answer->close) return end();
      asio::post(core_->io, [self = shared_from_this()] { self->guard([&] { self->advance(); }); });
      return;
    }
    // Only now, so that a thousand short lines do not move the rest a thousand times.
    input_.erase(0, begin_);
    begin_ = 0;
    scanned_ = input_.size();
    if (at_end_) return end();  // what has no newline was not finished, and is not guessed at
    if (input_.size() >= core_->options.max_line_bytes && !may_be_large(input_.size())) return;
    set_deadline(!input_.empty());
    read();
  }

  // The observer's uid has had its time: advance() comes again later.
  bool must_wait() {
    const ObserverBudget::Duration wait = core_->observers.wait(caller_.uid, std::chrono::steady_clock::now());
    if (wait <= ObserverBudget::Duration(0)) return false;
    turn_.expires_after(wait);
    turn_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->guard([&] { self->advance(); });
    });
    return true;
  }

  void read() {
    const std::size_t had = input_.size();
    input_.resize(had + kReadBytes);
    socket_.async_read_some(asio::buffer(input_.data() + had, kReadBytes),
                            [self = shared_from_this(), had](const error_code& error, std::size_t n) {
                              if (self->closed_) return;
                              self->input_.resize(had + n);
                              if (error && error != asio::error::eof) {
                                if (!self->ending_) self->close();
                                return;
                              }
                              self->at_end_ = static_cast<bool>(error);
                              self->guard([&] { self->advance(); });
                            });
  }

  // The time of a line runs from its first byte and is not prolonged by the bytes that follow.
  void set_deadline(bool wanted) {
    if (wanted == timed_) return;
    timed_ = wanted;
    error_code ignored;
    timer_.cancel(ignored);
    const unsigned deadline = ++deadline_;  // the handler of a cancelled one may be on its way already
    if (!wanted) return;
    timer_.expires_after(core_->options.line_timeout);
    timer_.async_wait([self = shared_from_this(), deadline](const error_code& error) {
      if (error || self->closed_ || deadline != self->deadline_) return;
      if (self->ending_) return self->close();  // it does not read what it is told
      self->timed_ = false;
      const auto ms = self->core_->options.line_timeout.count();
      self->guard([&] {
        self->end_with("the line that has begun was not finished within " +
                       (ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms"));
      });
    });
  }

  // False: it may not, and the client has been told.
  bool may_be_large(std::size_t bytes) {
    const ServerOptions& options = core_->options;
    if (!caller_.admin || core_->large_methods.empty()) {
      end_with("the line is longer than " + std::to_string(options.max_line_bytes) + " bytes");
    } else if (bytes > options.max_large_line_bytes) {
      end_with("the line is longer than " + std::to_string(options.max_large_line_bytes) + " bytes");
    } else if (!core_->claim_large(this)) {
      end_with("the line is longer than " + std::to_string(options.max_line_bytes) + " bytes, and one such line is received at a time; try again in a moment");
    } else {
      return true;
    }
    return false;
  }

  void end_with(std::string message) {
    if (queue(error_line(nullptr, limit(std::move(message))))) end();
  }

  // Takes nothing more, and closes when all is sent or the deadline has passed.
  void end() {
    if (closed_ || ending_) return;
    if (unsent() == 0) return close();
    restart_deadline();
    ending_ = true;
  }

  void restart_deadline() {
    set_deadline(false);
    set_deadline(true);
  }

  // False: the client has too much unread, and is gone. It cannot be told why, it does not read.
  bool queue(const std::string& line) {
    if (closed_) return false;
    if (unsent() > 0 && unsent() + line.size() > core_->options.max_unread_bytes) {
      close();
      return false;
    }
    waiting_ += line;
    count_unread(static_cast<std::ptrdiff_t>(line.size()));
    if (!writing_) write();
    return !closed_;
  }

  void write() {
    if (sent_ == sending_.size()) {
      sending_.clear();
      sent_ = 0;
      if (sending_.capacity() > kReadBytes) sending_.shrink_to_fit();  // one large answer, once
      sending_.swap(waiting_);
    }
    writing_ = true;
    socket_.async_write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                             [self = shared_from_this()](const error_code& error, std::size_t n) {
                               if (self->closed_) return;
                               self->writing_ = false;
                               if (error) return self->close();
                               self->sent_ += n;
                               self->count_unread(-static_cast<std::ptrdiff_t>(n));
                               if (self->unsent() == 0 && self->ending_) return self->close();
                               if (self->unsent() == 0) return;
                               self->guard([&] {
                                 if (self->ending_ && self->at_end_) self->restart_deadline();  // slow, but it reads
                                 self->write();
                               });
                             });
  }

  std::shared_ptr<Core> core_;
  Caller caller_;
  asio::local::stream_protocol::socket socket_;
  asio::steady_timer timer_;
  asio::steady_timer turn_;  // an observer's, when it has had its time
  std::string input_;  // [0, begin_) is done with, no newline in [begin_, scanned_)
  std::size_t begin_ = 0;
  std::size_t scanned_ = 0;
  std::string sending_;  // [0, sent_) is with the kernel
  std::size_t sent_ = 0;
  std::string waiting_;  // behind sending_
  unsigned deadline_ = 0;
  bool timed_ = false;
  bool writing_ = false;
  bool at_end_ = false;  // the client has said all it will say
  bool ending_ = false;
  bool closed_ = false;
};

std::expected<void, std::string> Server::Core::listen() {
  if (listener_.is_open()) return std::unexpected("already listening on " + options.socket_path);
  const std::string& path = options.socket_path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
    return std::unexpected("the path of the control socket has " + std::to_string(path.size()) +
                           " bytes; a unix socket takes 1 to " + std::to_string(sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  std::optional<gid_t> group;
  if (!options.socket_group.empty()) {
    auto found = find_group(options.socket_group);
    if (!found) return std::unexpected(std::move(found.error()));
    group = *found;
  }
  const std::filesystem::path directory = std::filesystem::path(path).parent_path();
  if (!directory.empty()) {
    std::error_code ignored;  // mkdir says what is wrong
    if (directory.has_parent_path()) std::filesystem::create_directories(directory.parent_path(), ignored);
    if (::mkdir(directory.c_str(), 0750) == 0) {
      // Whoever may use the socket has to get to it, whatever the umask.
      if (::chmod(directory.c_str(), 0750) != 0) return std::unexpected(failure("set the mode of", directory, errno));
      if (group && ::chown(directory.c_str(), static_cast<uid_t>(-1), *group) != 0) {
        return std::unexpected(failure("give the group to", directory, errno));
      }
    } else if (errno != EEXIST) {
      return std::unexpected(failure("create", directory, errno));
    }
  }
  // In a folder that others may write, anybody could put a socket of his in the place of ours.
  if (auto folder = config::open_folder(directory.empty() ? "." : directory.string()); !folder) {
    return std::unexpected("cannot make the control socket " + path + ": " + folder.error().message);
  }
  if (auto clear = clear_stale(path, address); !clear) return clear;

  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return std::unexpected(failure("make the socket", path, errno));
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd);
    return std::unexpected(failure("bind", path, error));
  }
  // The owner and the mode are set before listen(): until then nobody can connect, whatever the umask left open.
  const char* step = nullptr;
  struct stat status {};
  if (group && ::lchown(path.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    step = "give the group to";
  } else if (::chmod(path.c_str(), options.socket_mode) != 0) {
    step = "set the mode of";
  } else if (::lstat(path.c_str(), &status) != 0) {
    step = "look at";
  } else if (::listen(fd, 128) != 0) {
    step = "listen on";
  }
  if (step != nullptr) {
    const int error = errno;
    ::unlink(path.c_str());
    ::close(fd);
    return std::unexpected(failure(step, path, error));
  }
  error_code error;
  listener_.assign(fd, error);
  if (error) {
    ::unlink(path.c_str());
    ::close(fd);
    return std::unexpected("cannot wait for " + path + ": " + error.message());
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  close_reserve();
  open_reserve();
  accept();
  return {};
}

void Server::Core::stop() {
  error_code ignored;
  if (listener_.is_open()) {
    // While the listener is open its inode is not given to another file, so the comparison means something.
    struct stat status {};
    const std::string& path = options.socket_path;
    if (::lstat(path.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
      ::unlink(path.c_str());
    }
    listener_.close(ignored);
  }
  pause_.cancel(ignored);
  close_reserve();
  while (!sessions.empty()) {
    const std::shared_ptr<Session> session = *sessions.begin();
    session->close();
  }
}

void Server::Core::accept() {
  listener_.async_wait(asio::posix::stream_descriptor::wait_read, [self = shared_from_this()](const error_code& error) {
    if (!self->listener_.is_open() || error == asio::error::operation_aborted) return;
    if (error) return self->accept_later();
    self->accept_some();
  });
}

void Server::Core::accept_some() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    const int fd = ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      welcome(fd);
      if (!listener_.is_open()) return;
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if ((errno == EMFILE || errno == ENFILE) && reserve_ >= 0) {
      close_reserve();
      const int refused = ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (refused >= 0)
        turn_away(refused, "the engine has no file descriptor left for another client; try again later");
      open_reserve();
    }
    // Whatever it is, the connection is still waiting and would wake us at once.
    return accept_later();
  }
  accept();
}

void Server::Core::accept_later() {
  pause_.expires_after(kAcceptPause);
  pause_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || !self->listener_.is_open()) return;
    if (self->reserve_ < 0) self->open_reserve();
    self->accept_some();
  });
}

bool Server::Core::is_admin(uid_t uid) const {
  return uid == 0 || uid == ::geteuid() || std::ranges::find(options.admin_uids, uid) != options.admin_uids.end();
}

void Server::Core::welcome(int fd) {
  std::shared_ptr<Session> session;
  try {
    auto caller = options.find_caller(fd);
    if (!caller) return turn_away(fd, "the engine cannot tell who you are: " + caller.error());
    caller->admin = is_admin(caller->uid);
    caller->connection = ++connections_;
    const auto observers_here = static_cast<std::size_t>(
        std::ranges::count_if(sessions, [](const auto& other) { return !other->caller().admin; }));
    const std::size_t most_observers = options.max_clients - options.max_clients / 8;
    if (!caller->admin && observers_here < most_observers &&
        !observers.may_connect(caller->uid, most_observers - observers_here)) {
      return turn_away(fd, "uid " + std::to_string(caller->uid) +
                               " has as many connections as one may that only looks, beside others; close some");
    }
    if (sessions.size() >= options.max_clients || (!caller->admin && observers_here >= most_observers)) {
      return turn_away(fd, "there are " + std::to_string(sessions.size()) + " clients already; at most " +
                               std::to_string(caller->admin ? options.max_clients : most_observers) + " are served");
    }
    session = std::make_shared<Session>(shared_from_this(), fd, *caller);
  } catch (const std::exception& error) {
    return turn_away(fd, std::string("the engine cannot serve another client: ") + error.what());
  }
  // From here on the session owns the descriptor.
  try {
    if (!session->caller().admin) observers.connected(session->caller().uid);
    sessions.insert(session);
    session->start();
  } catch (const std::exception&) {
    session->close();
  }
}

std::optional<Server::Core::Answer> Server::Core::answer(std::string_view line, const Caller& caller) {
  Json id;
  try {
    const bool is_large = line.size() >= options.max_line_bytes;
    auto request = parse_request(line, is_large ? options.max_large_line_bytes : options.max_line_bytes, options.max_depth);
    const auto too_long = [this](const Json& of) {
      return Answer{error_line(of, limit("the line is longer than " + std::to_string(options.max_line_bytes) + " bytes, and is no request that may be")), true};
    };
    if (!request) {
      const BadRequest& bad = request.error();
      if (is_large && bad.error.name != "parse_error") return too_long(bad.id);
      return Answer{error_line(bad.id, bad.error), bad.error.name == "limit"};
    }
    id = request->id;
    if (is_large && !large_methods.contains(request->method)) return too_long(id);
    std::optional<Answer> answered;
    {
      const auto known = methods.find(request->method);
      const TimedCall timed(times, known != methods.end() ? std::string_view(known->first) : "no method");
      answered = dispatch(*request, caller);
      if (!caller.admin) observers.had(caller.uid, timed.took(), std::chrono::steady_clock::now());
    }
    if (answered && !caller.admin && observers.unread(caller.uid) != 0 &&
        observers.unread(caller.uid) + answered->line.size() > ObserverBudget::kUnreadOfUid) {
      return Answer{error_line(
          id, limit("clients of uid " + std::to_string(caller.uid) + " have not read " +
                    std::to_string(observers.unread(caller.uid)) + " bytes of answers yet; try again when they have"))};
    }
    if (answered && answered->line.size() > options.max_unread_bytes && unread != 0 && unread + answered->line.size() > options.max_unread_of_all_bytes) {
      return Answer{error_line(id, limit("this answer has " + std::to_string(answered->line.size()) + " bytes, and clients have not read " +
                                         std::to_string(unread) + " bytes of others yet; try again when they have"))};
    }
    return answered;
  } catch (const std::exception& error) {
    return Answer{error_line(id, {"internal", std::string("the engine could not answer: ") + error.what(), {}, {}})};
  }
}

std::optional<Server::Core::Answer> Server::Core::dispatch(const Request& request, const Caller& caller) {
  const auto refused = [&request](const RpcError& error) { return Answer{error_line(request.id, error)}; };
  const auto found = methods.find(request.method);
  const bool changes = found != methods.end() && found->second.access == Access::change;
  if (request.notification) {
    if (changes) tell_audit(request, caller, "ignored (no id)");
    return std::nullopt;
  }
  if (found == methods.end()) {
    return refused({"unknown_method", "there is no method " + config::words::in_quotes(request.method), {}, {}});
  }
  if (changes && !caller.admin) {
    tell_audit(request, caller, "forbidden");
    return refused({"forbidden",
                    request.method + " changes the engine, and uid " + std::to_string(caller.uid) +
                        " may only look; be root, or have the uid put into control.admin_uids",
                    {},
                    {}});
  }
  // A copy: the method may replace itself.
  const Method call = found->second.call;
  std::expected<Json, RpcError> result;
  std::string defect;
  try {
    result = call(request.params, caller);
  } catch (const std::exception& error) {
    defect = error.what();
    if (defect.empty()) defect = "an exception";
  } catch (...) {
    defect = "an unknown exception";
  }
  if (!defect.empty()) {
    result = std::unexpected(RpcError{
        "internal", request.method + " failed in the engine: " + defect + "; this is a defect of the engine", {}, {}});
  }
  if (changes) tell_audit(request, caller, result ? "done" : "refused (" + result.error().name + ")");
  if (!result) return refused(result.error());
  return Answer{result_line(request.id, *result)};
}

void Server::Core::tell_audit(const Request& request, const Caller& caller, std::string_view outcome) {
  if (!audit) return;
  if (!caller.admin && !observers.may_log(caller.uid, std::chrono::steady_clock::now())) return;
  try {
    const auto dry_run = request.params.find("dry_run");
    const bool dry = dry_run != request.params.end() && dry_run->is_boolean() && dry_run->get<bool>();
    audit("audit: " + request.method + (dry ? " (dry run)" : "") + " by uid " + std::to_string(caller.uid) + ", pid " +
          std::to_string(caller.pid) + ": " + std::string(outcome));
  } catch (...) {
    // A log that cannot be written must not turn a change that was made into an error.
  }
}

Server::Server(asio::io_context& io, ServerOptions options, std::function<Json(const Caller&)> hello_params)
    : core_(std::make_shared<Core>(io, std::move(options), std::move(hello_params))) {}

Server::~Server() { stop(); }

void Server::add(std::string method, Access access, Method call) {
  core_->methods.insert_or_assign(std::move(method), Core::Entry{access, std::move(call)});
}

void Server::takes_large(const std::string& method) { core_->large_methods.insert(method); }

void Server::set_audit(std::function<void(std::string)> audit) { core_->audit = std::move(audit); }

void Server::set_gone(std::function<void(std::uint64_t)> gone) { core_->gone = std::move(gone); }

std::expected<void, std::string> Server::listen() { return core_->listen(); }

void Server::stop() { core_->stop(); }

CallTimes& Server::times() { return core_->times; }

std::uint64_t Server::take_withheld_lines() { return core_->observers.take_withheld().lines; }

std::size_t Server::clients() const { return core_->sessions.size(); }

}  // namespace trunkline::control
