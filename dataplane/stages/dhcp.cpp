// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/dhcp.h"

#include <algorithm>
#include <cstring>

#include "dataplane/stages/parse.h"

namespace trunkline::dhcp {
namespace {

// Where BOOTP's fields are (RFC 951), and DHCP's options behind them (RFC 2131).
constexpr std::size_t kFlags = 10, kClientAddress = 12, kYourAddress = 16, kNextServer = 20, kRelayAgent = 24, kClientMac = 28, kServerName = 44, kCookie = 236,
                      kOptions = 240;
constexpr std::uint8_t kMagic[] = {99, 130, 83, 99};

enum Option : std::uint8_t {
  pad = 0,
  subnet_mask = 1,
  routers = 3,
  domain_name_servers = 6,
  host_name = 12,
  domain_name = 15,
  interface_mtu = 26,
  broadcast_address = 28,
  requested_address = 50,
  lease_seconds = 51,
  message_type = 53,
  server_identifier = 54,
  end = 255,
};

DropReason read_options(std::span<const std::uint8_t> options, Message& message) {
  for (std::size_t at = 0; at < options.size();) {
    const std::uint8_t code = options[at];
    if (code == Option::end) break;
    if (code == Option::pad) {
      ++at;
      continue;
    }
    if (at + 2 > options.size() || at + 2 + options[at + 1] > options.size()) return DropReason::malformed;
    const std::size_t length = options[at + 1];
    const std::uint8_t* value = options.data() + at + 2;
    switch (code) {
      case Option::message_type:
        if (length != 1) return DropReason::malformed;
        // Types of later standards (lease queries and the like) are nobody's here.
        message.type = *value <= static_cast<std::uint8_t>(MessageType::inform) ? static_cast<MessageType>(*value) : MessageType::none;
        break;
      case Option::requested_address:
      case Option::server_identifier:
        if (length != 4) return DropReason::malformed;
        (code == Option::server_identifier ? message.server : message.requested_address) = IpAddress::from_v4_bytes(value);
        break;
      default: break;
    }
    at += 2 + length;
  }
  return DropReason::none;
}

// Options one behind the other, as far as they fit.
class Writer {
 public:
  explicit Writer(std::span<std::uint8_t> room) : room_(room) {}

  void bytes(Option code, const void* value, std::size_t length) {
    fits_ = fits_ && at_ + 2 + length + 1 <= room_.size();  // one for the end
    if (!fits_) return;
    room_[at_] = code;
    room_[at_ + 1] = static_cast<std::uint8_t>(length);
    std::memcpy(room_.data() + at_ + 2, value, length);
    at_ += 2 + length;
  }
  void address(Option code, const IpAddress& value) {
    if (!value.is_zero()) bytes(code, &value.bytes[12], 4);
  }
  void word(Option code, std::uint32_t value) {
    const std::uint32_t wire = rte_cpu_to_be_32(value);
    bytes(code, &wire, sizeof wire);
  }
  // The bytes of all of them; 0: not all fit.
  std::size_t finish() {
    if (!fits_) return 0;
    room_[at_] = Option::end;
    return at_ + 1;
  }

 private:
  std::span<std::uint8_t> room_;
  std::size_t at_ = 0;
  bool fits_ = true;
};

// "ip-10-0-0-35", the first label of the ENI's private name. Returns its length.
std::size_t write_host_name(char (&text)[18], const IpAddress& address) {
  char* to = text;
  *to++ = 'i', *to++ = 'p';
  for (std::size_t i = 12; i < 16; ++i) {
    const unsigned byte = address.bytes[i];
    *to++ = '-';
    if (byte >= 100) *to++ = static_cast<char>('0' + byte / 100);
    if (byte >= 10) *to++ = static_cast<char>('0' + byte / 10 % 10);
    *to++ = static_cast<char>('0' + byte % 10);
  }
  return static_cast<std::size_t>(to - text);
}

}  // namespace

DropReason read(std::span<const std::uint8_t> bytes, Message& message) {
  if (bytes.size() < kOptions) return DropReason::malformed;
  if (bytes[0] != 1 && bytes[0] != 2) return DropReason::malformed;
  if (bytes[1] != 1 || bytes[2] != 6) return DropReason::malformed;  // Ethernet
  if (std::memcmp(bytes.data() + kCookie, kMagic, sizeof kMagic) != 0) return DropReason::malformed;
  message.is_reply = bytes[0] == 2;
  message.wants_broadcast = (bytes[kFlags] & 0x80) != 0;
  message.client_address = IpAddress::from_v4_bytes(bytes.data() + kClientAddress);
  message.your_address = IpAddress::from_v4_bytes(bytes.data() + kYourAddress);
  message.relay_agent = IpAddress::from_v4_bytes(bytes.data() + kRelayAgent);
  std::memcpy(message.client.bytes.data(), bytes.data() + kClientMac, message.client.bytes.size());
  return read_options(bytes.subspan(kOptions), message);
}

DropReason check_request(const Message& message, const MacAddress& own) {
  if (message.is_reply || message.client != own || !message.relay_agent.is_zero()) return DropReason::dhcp_refused;
  switch (message.type) {
    case MessageType::discover:
    case MessageType::request:
    case MessageType::decline:
    case MessageType::release:
    case MessageType::inform: return DropReason::none;
    default: return DropReason::dhcp_refused;
  }
}

MessageType answer_to(const Message& request, const Lease& lease) {
  switch (request.type) {
    case MessageType::discover: return MessageType::offer;
    case MessageType::inform: return request.client_address == lease.address ? MessageType::ack : MessageType::none;
    case MessageType::request: break;
    default: return MessageType::none;
  }
  if (!request.server.is_zero() && request.server != lease.router) return MessageType::none;
  // A client that chooses or comes back names the address in an option, one that renews uses it (RFC 2131, 4.3.2).
  const IpAddress& wanted = request.requested_address.is_zero() ? request.client_address : request.requested_address;
  return wanted == lease.address ? MessageType::ack : MessageType::nak;
}

std::uint32_t write_answer(std::span<std::uint8_t> bytes, const Message& request, MessageType type, const Lease& lease) {
  if (bytes.size() < kMinMessageBytes) return 0;
  std::uint8_t* message = bytes.data();
  const bool leased = type == MessageType::offer || (type == MessageType::ack && request.type == MessageType::request);
  message[0] = 2;
  message[3] = 0;                     // hops
  std::memset(message + 8, 0, 2);     // seconds; transaction, flags, ciaddr and chaddr stay as they were asked
  if (type != MessageType::ack) std::memset(message + kClientAddress, 0, 4);
  std::memset(message + kYourAddress, 0, 4);
  if (leased) std::memcpy(message + kYourAddress, &lease.address.bytes[12], 4);
  std::memset(message + kNextServer, 0, 8);  // and giaddr
  std::memset(message + kServerName, 0, kCookie - kServerName);

  Writer options(bytes.subspan(kOptions));
  const auto kind = static_cast<std::uint8_t>(type);
  options.bytes(Option::message_type, &kind, 1);
  options.address(Option::server_identifier, lease.router);
  if (type != MessageType::nak) {
    if (leased) options.word(Option::lease_seconds, Lease::kSeconds);
    const std::uint32_t mask = lease.subnet.length == 0 ? 0 : ~std::uint32_t{0} << (32 - lease.subnet.length);
    options.word(Option::subnet_mask, mask);
    options.address(Option::routers, lease.router);
    options.address(Option::domain_name_servers, lease.resolver);
    options.word(Option::broadcast_address, lease.subnet.address.v4() | ~mask);
    std::uint8_t mtu[2];
    store16(mtu, lease.mtu);
    options.bytes(Option::interface_mtu, mtu, sizeof mtu);
    char name[18];
    options.bytes(Option::host_name, name, write_host_name(name, lease.address));
    if (!lease.domain.empty()) options.bytes(Option::domain_name, lease.domain.data(), std::min(lease.domain.size(), kMaxDomain));
  }
  const std::size_t written = options.finish();
  if (written == 0) return 0;
  const auto length = static_cast<std::uint32_t>(kOptions + written);
  if (length >= kMinMessageBytes) return length;
  std::memset(message + length, 0, kMinMessageBytes - length);
  return kMinMessageBytes;
}

}  // namespace trunkline::dhcp
