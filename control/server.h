// SPDX-License-Identifier: BSD-3-Clause
//
// The control socket: a unix stream socket that speaks JSON-RPC 2.0, one object a line. It does the framing, the
// limits, who may call what, and the order of answers; what the methods mean is given to it with add().
//
// Rules:
//  * Requests of one client are answered in order. Between two requests of one client the others get their turn.
//  * A method that throws costs its own request an `internal` error, and nothing else.
//  * Over a limit the client hears `limit` if that can still be said, and is disconnected; nobody else notices. What
//    one client can make the server hold is bounded: a line, a read buffer, max_unread_bytes of answers or one answer.
//    One answer is always let through, however large, so that a large state can be read at all; further large ones only while
//    those that lie unread are not more than max_unread_of_all_bytes together.
//  * A method that takes_large() may get a line of up to max_large_line_bytes from an admin, so that what can be read can also be
//    put back. One such line is received at a time; a second client hears `limit` and tries again.
//  * An eighth of the places is kept for admins, so that observers who sit idle cannot lock them out. Observers have a
//    budget of places, time, unread answers and log lines by their uid (rpc/observer_budget.h): a call that is beyond
//    it waits, and admins go on meanwhile.
//  * A notification from a client (a request without an id) is never executed: whoever changes something has to be
//    told what came of it.
//  * Without file descriptors connections are refused with a sentence instead of left to hang, and nothing spins.
//
// Thread: the one that runs the io_context; everything, including the methods, is called there. A method may call
// stop(). The io_context outlives the Server. Errors are values; no exception leaves a public function except
// std::bad_alloc.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "control/protocol.h"
#include "control/rpc/call_times.h"

namespace trunkline::control {

// Who calls, as the kernel knew it when the client connected. The pid is for the log only: it may have been given to
// another process since.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  bool admin = false;
  std::uint64_t connection = 0;  // never the same for two connections of one engine
};

enum class Access {
  look,    // everyone whom the socket's mode lets in
  change,  // admins; each call is audited
};

// `params` is an object.
using Method = std::function<std::expected<config::Json, RpcError>(const config::Json& params, const Caller&)>;

struct ServerOptions {
  std::string socket_path;
  std::uint32_t socket_mode = 0660;
  std::string socket_group;  // a name or a number; empty leaves the group alone
  std::vector<std::uint32_t> admin_uids;  // beside root and the engine's own user
  std::size_t max_clients = 64;
  std::size_t max_line_bytes = 1 << 20;  // the newline included
  // Of a method that takes_large(), and one such line at a time; admins only.
  std::size_t max_large_line_bytes = 64 << 20;
  std::size_t max_depth = 32;
  std::size_t max_unread_bytes = 4 << 20;
  // Answers above max_unread_bytes that may lie unread at all clients together, beside one.
  std::size_t max_unread_of_all_bytes = 128 << 20;
  std::chrono::milliseconds line_timeout = std::chrono::seconds(10);
  // How the peer of a connected socket is known: SO_PEERCRED unless a test says otherwise. `admin` is decided by the
  // server, from the uid.
  std::function<std::expected<Caller, std::string>(int fd)> find_caller;
};

class Server {
 public:
  // `hello_params` makes the params of the hello that a client is greeted with.
  Server(boost::asio::io_context& io, ServerOptions options, std::function<config::Json(const Caller&)> hello_params);
  ~Server();  // stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A second method of the same name replaces the first.
  void add(std::string method, Access access, Method call);
  // This method's requests may be longer than max_line_bytes.
  void takes_large(const std::string& method);
  // One line for each call of a method that changes, whatever came of it: who, what, outcome.
  void set_audit(std::function<void(std::string)> audit);
  // Told of each connection that has ended, so that what belongs to it can go.
  void set_gone(std::function<void(std::uint64_t connection)> gone);

  // Binds and begins to accept. A stale socket (nobody answers) is replaced; a live one, or anything that is not a
  // socket, is left alone and is an error. A missing directory is made, mode 0750.
  std::expected<void, std::string> listen();
  // Disconnects everyone and removes the socket file if it is still ours. May be called twice.
  void stop();

  std::size_t clients() const;
  // How long calls held the thread, and whatever else is added to it.
  CallTimes& times();
  // Observers' lines that the log was spared, since this was last asked.
  std::uint64_t take_withheld_lines();

 private:
  class Core;
  class Session;
  std::shared_ptr<Core> core_;
};

}  // namespace trunkline::control
