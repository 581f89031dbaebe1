// SPDX-License-Identifier: BSD-3-Clause
#include "control/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <system_error>
#include <thread>

namespace trunkline {
namespace {

std::unexpected<InterfaceError> refuse(InterfaceError::Kind kind, std::string message) {
  return std::unexpected(InterfaceError{kind, std::move(message)});
}

std::string reason(int code) { return std::generic_category().message(code); }

// A new thread inherits the mask of its maker: with every signal blocked, none is handled in a foreign namespace.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;
  ~AllSignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

std::expected<NetworkNamespace, InterfaceError> NetworkNamespace::open(std::string_view name_or_path) {
  using enum InterfaceError::Kind;
  std::string label = "the namespace of the process";
  std::string path = "/proc/self/ns/net";
  if (!name_or_path.empty()) {
    label = "namespace " + std::string(name_or_path);
    if (name_or_path == "." || name_or_path == ".." || name_or_path.find('\0') != std::string_view::npos)
      return refuse(netns_missing, label + ": this cannot be the name of a network namespace");
    const bool is_path = name_or_path.find('/') != std::string_view::npos;
    path = (is_path ? "" : "/run/netns/") + std::string(name_or_path);
  }

  // O_NONBLOCK: a wrong path may be a FIFO, and the control thread must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const int code = errno;
    if (code == EACCES || code == EPERM)
      return refuse(permission, "cannot open " + path + ": " + reason(code) +
                                    "; run as root or give CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH");
    if (code == ENOENT || code == ENOTDIR || code == ESRCH || code == ENAMETOOLONG || code == ELOOP)
      return refuse(netns_missing, "there is no network namespace at " + path + ": " + reason(code) +
                                       " (`ip netns list` shows the names; a path such as "
                                       "/proc/PID/ns/net will do as well)");
    return refuse(kernel, "cannot open " + path + ": " + reason(code));
  }
  NetworkNamespace opened(fd, std::move(label));

  // The file system is asked first: on any other file the number of the ioctl may mean something else.
  struct statfs where {};
  if (::fstatfs(fd, &where) != 0 || where.f_type != NSFS_MAGIC || ::ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
    return refuse(netns_missing, path +
                                     " is not a network namespace (an empty file of that name is what is left of a "
                                     "namespace whose mount is gone)");
  return opened;
}

NetworkNamespace::~NetworkNamespace() {
  if (fd_ >= 0) ::close(fd_);
}

std::expected<void, InterfaceError> NetworkNamespace::enter(const std::function<void()>& work) const {
  using enum InterfaceError::Kind;
  int entering = 0;
  std::exception_ptr thrown;
  std::thread thread;
  try {
    const AllSignalsBlocked blocked;
    thread = std::thread([&] {
      if (::setns(fd_, CLONE_NEWNET) != 0) {
        entering = errno;
        return;
      }
      try {
        work();
      } catch (...) {
        thrown = std::current_exception();
      }
    });
  } catch (const std::system_error& error) {
    return refuse(kernel, "cannot start a thread to enter " + label_ + ": " + error.code().message());
  }
  thread.join();
  if (entering == EPERM)
    return refuse(permission,
                  "cannot enter " + label_ + ": " + reason(entering) + "; run as root or give CAP_SYS_ADMIN");
  if (entering != 0) return refuse(kernel, "cannot enter " + label_ + ": " + reason(entering));
  if (thrown) std::rethrow_exception(thrown);
  return {};
}

}  // namespace trunkline
