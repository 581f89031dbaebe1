// SPDX-License-Identifier: BSD-3-Clause
//
// Entering a network namespace. A task's interface lives in the task's own namespace; everything that makes, changes
// or looks at it has to run there. NetworkNamespace holds such a namespace and runs a piece of work inside it.
//
// Rules:
//  * The calling thread never changes its namespace. run() starts a short-lived thread that enters the namespace, does
//    the work and ends, so nothing can forget to come back.
//  * As long as a NetworkNamespace is alive the kernel keeps the namespace, even when its last process has gone.
//    A task's port holds one until detach, so that its interface can be removed when the name is gone already.
//  * Only the network namespace is entered. Files keep their meaning, with one exception: /proc/sys/net answers for the
//    namespace of the thread that asks. /sys does not, it stays with the mount, and neither does /proc/net (it is the
//    main thread's): inside run() ask netlink, an ioctl or /proc/sys/net.
//
// Who may call: the control thread (and the CNI plugin), never a worker: run() starts a thread and waits for it.
//
// Errors are values: a missing or false namespace, or a thread that may not enter it (CAP_SYS_ADMIN). An exception
// that the work throws is carried over and thrown in the caller.
#pragma once

#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace trunkline {

// A failure outside the packet path: what went wrong, in words that an operator can act upon.
struct InterfaceError {
  enum class Kind {
    invalid,           // what was asked for cannot be: a bad name, a multicast MAC
    netns_missing,     // there is no such network namespace
    interface_exists,  // the name is taken by an interface that is not ours
    permission,        // a capability is missing
    kernel,            // the kernel refused; the message has its words
  };
  Kind kind;
  std::string message;
};

namespace detail {
template <class T>
inline constexpr bool is_expected_interface = false;
template <class T>
inline constexpr bool is_expected_interface<std::expected<T, InterfaceError>> = true;
}  // namespace detail

class NetworkNamespace {
 public:
  // "" is the namespace of the process. A name is looked up in /run/netns, as `ip netns` does. Anything with a '/' is a
  // path, such as /proc/PID/ns/net. A file that is not a network namespace is refused (netns_missing).
  static std::expected<NetworkNamespace, InterfaceError> open(std::string_view name_or_path);

  // One that the kernel gave a descriptor of, which is this object's to close.
  static NetworkNamespace of(int descriptor, std::string label) { return {descriptor, std::move(label)}; }

  NetworkNamespace(NetworkNamespace&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), label_(std::move(other.label_)) {}
  NetworkNamespace& operator=(NetworkNamespace&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(label_, other.label_);
    return *this;
  }
  ~NetworkNamespace();

  // What to call it in a message: "namespace web", "namespace /proc/17/ns/net", "the namespace of the process".
  const std::string& label() const { return label_; }

  // Runs `work` inside the namespace, waits for it and returns its result: std::expected<T, InterfaceError> for a work
  // that returns T, and the same for one that returns std::expected<T, InterfaceError> itself. Signals are blocked in
  // the work's thread.
  template <class Work>
  auto run(Work&& work) const {
    using Result = std::invoke_result_t<Work>;
    if constexpr (std::is_void_v<Result>) {
      return enter([&] { std::invoke(std::forward<Work>(work)); });
    } else {
      using Value = std::remove_cvref_t<Result>;
      using Outcome = std::conditional_t<detail::is_expected_interface<Value>, Value,
                                         std::expected<Value, InterfaceError>>;
      std::optional<Value> value;
      auto entered = enter([&] { value.emplace(std::invoke(std::forward<Work>(work))); });
      if (!entered) return Outcome(std::unexpected(std::move(entered).error()));
      return Outcome(*std::move(value));
    }
  }

 private:
  NetworkNamespace(int fd, std::string label) : fd_(fd), label_(std::move(label)) {}
  std::expected<void, InterfaceError> enter(const std::function<void()>& work) const;

  int fd_ = -1;
  std::string label_;
};

}  // namespace trunkline
