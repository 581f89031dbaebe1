// SPDX-License-Identifier: BSD-3-Clause
#include "mapping.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdio>

namespace trunkline::fabric {
namespace {

constexpr std::uint16_t kEtherIpv4 = 0x0800, kEtherArp = 0x0806, kEtherVlan = 0x8100, kEtherQinq = 0x88a8,
                        kEtherIpv6 = 0x86dd;
constexpr std::uint8_t kProtocolIcmp = 1, kProtocolIcmp6 = 58;
constexpr std::uint8_t kRouterSolicitation = 133, kRouterAdvertisement = 134, kNeighbourSolicitation = 135,
                       kNeighbourAdvertisement = 136, kRedirect = 137;
constexpr std::size_t kArpLength = 28, kIpv6Header = 40, kLinkLayerOption = 8;

// fe80:ec2::1, the router's address in every subnet of every VPC.
constexpr Address kRouterLinkLocal{{0xfe, 0x80, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, true};
constexpr Address kAllNodes{{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, true};

std::uint16_t load16(const std::uint8_t* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }
void store16(std::uint8_t* at, std::size_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}

Mac mac_at(const std::uint8_t* at) {
  Mac mac;
  std::memcpy(mac.data(), at, mac.size());
  return mac;
}
void put(std::uint8_t* at, const Mac& mac) { std::memcpy(at, mac.data(), mac.size()); }
void put(std::uint8_t* at, const Address& address) { std::memcpy(at, address.bytes.data(), address.size()); }

bool is_multicast(const std::uint8_t* mac) { return (mac[0] & 1) != 0; }
bool is_link_local(const Address& a) { return a.v6 && a.bytes[0] == 0xfe && (a.bytes[1] & 0xc0) == 0x80; }

std::uint64_t sender_key(std::uint16_t vlan, const Mac& mac) {
  std::uint64_t key = vlan;
  for (const std::uint8_t byte : mac) key = key << 8 | byte;
  return key;
}

std::uint32_t sum_of(const std::uint8_t* at, std::size_t length, std::uint32_t sum) {
  for (; length >= 2; at += 2, length -= 2) sum += load16(at);
  if (length != 0) sum += static_cast<std::uint32_t>(at[0] << 8);
  return sum;
}
std::uint16_t fold(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}
// The ones' complement sum over an ICMPv6 message and its pseudo header; 0xffff when the checksum in it is right.
std::uint16_t icmp6_sum(const std::uint8_t* ip, std::size_t length) {
  const auto start = static_cast<std::uint32_t>(length + kProtocolIcmp6);
  return fold(sum_of(ip + kIpv6Header, length, sum_of(ip + 8, 32, start)));
}

// Writes Ethernet and IPv6 headers around an ICMPv6 message of `length` bytes, and its checksum.
void finish_icmp6(Frame& frame, const Mac& from, const Mac& to, const Address& source, const Address& destination,
                  std::size_t length) {
  std::uint8_t* const ethernet = frame.buffer.data();
  std::uint8_t* const ip = ethernet + kEthernetHeader;
  put(ethernet, to);
  put(ethernet + 6, from);
  store16(ethernet + 12, kEtherIpv6);
  store16(ip, 0x6000);
  store16(ip + 2, 0);
  store16(ip + 4, length);
  ip[6] = kProtocolIcmp6;
  ip[7] = 255;
  put(ip + 8, source);
  put(ip + 24, destination);
  store16(ip + kIpv6Header + 2, 0);
  store16(ip + kIpv6Header + 2, static_cast<std::uint16_t>(~icmp6_sum(ip, length)));
  frame.length = kEthernetHeader + kIpv6Header + length;
}

// The MAC in a source link-layer address option, if there is one; false when the options are malformed.
bool source_link_layer(std::span<const std::uint8_t> options, std::optional<Mac>& mac) {
  while (!options.empty()) {
    if (options.size() < 2) return false;
    const std::size_t length = std::size_t{options[1]} * 8;
    if (length == 0 || length > options.size()) return false;
    if (options[0] == 1) mac = mac_at(options.data() + 2);
    options = options.subspan(length);
  }
  return true;
}

}  // namespace

Address Address::from_v4(const std::uint8_t* wire) {
  Address address;
  std::memcpy(address.bytes.data(), wire, 4);
  return address;
}

Address Address::from_v6(const std::uint8_t* wire) {
  Address address;
  address.v6 = true;
  std::memcpy(address.bytes.data(), wire, 16);
  return address;
}

std::optional<Address> Address::parse(const std::string& text) {
  Address address;
  address.v6 = text.find(':') != std::string::npos;
  if (inet_pton(address.v6 ? AF_INET6 : AF_INET, text.c_str(), address.bytes.data()) != 1) return std::nullopt;
  return address;
}

std::string Address::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof text);
  return text;
}

std::size_t AddressHash::operator()(const Address& address) const noexcept {
  std::uint64_t halves[2];
  std::memcpy(halves, address.bytes.data(), sizeof halves);
  std::uint64_t hash = (halves[0] ^ (halves[1] * 0x9e3779b97f4a7c15U)) * 0xbf58476d1ce4e5b9U;
  hash ^= hash >> 31;
  return static_cast<std::size_t>(hash + (address.v6 ? 1 : 0));
}

bool Prefix::contains(const Address& other) const {
  if (other.v6 != address.v6) return false;
  const std::size_t whole = length / 8;
  if (std::memcmp(address.bytes.data(), other.bytes.data(), whole) != 0) return false;
  const unsigned rest = length % 8;
  return rest == 0 || ((address.bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == 0;
}

Address Prefix::router() const {
  Address base = address;
  for (std::size_t bit = length; bit < base.size() * 8; ++bit) {
    base.bytes[bit / 8] = static_cast<std::uint8_t>(base.bytes[bit / 8] & ~(0x80U >> (bit % 8)));
  }
  base.bytes[base.size() - 1] |= 1;
  return base;
}

Address link_local_of(const Mac& mac) {
  return Address{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe,
                  mac[3], mac[4], mac[5]},
                 true};
}

std::string to_string(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
  return text;
}

std::string_view name_of(Verdict verdict) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Verdict::kCount)> kNames{
      "forwarded", "arp_answered", "nd_answered", "echo_answered", "spoofed",
      "no_route",  "unknown_vlan", "malformed",   "too_big",       "swallowed"};
  return kNames[static_cast<std::size_t>(verdict)];
}

struct Fabric::Packet {
  Address source;
  Address destination;
  std::size_t payload = 0;  // offset in the frame
  std::size_t end = 0;      // the IP packet's end in the frame, which may have padding after it
  std::uint8_t protocol = 0;
  std::uint8_t hop_limit = 0;
  bool fragment = false;

  const std::uint8_t* message = nullptr;  // the payload
  std::size_t message_length() const { return end - payload; }

  // False when the header and the frame contradict each other.
  bool parse(const Frame& frame, bool v6) {
    const std::uint8_t* const ip = frame.buffer.data() + kEthernetHeader;
    const std::size_t available = frame.length - kEthernetHeader;
    std::size_t header = 0;
    std::size_t total = 0;
    if (v6) {
      if (available < kIpv6Header || ip[0] >> 4 != 6) return false;
      header = kIpv6Header;
      total = kIpv6Header + load16(ip + 4);
      source = Address::from_v6(ip + 8);
      destination = Address::from_v6(ip + 24);
      protocol = ip[6];
      hop_limit = ip[7];
    } else {
      if (available < 20 || ip[0] >> 4 != 4) return false;
      header = std::size_t{ip[0] & 0xfU} * 4;
      total = load16(ip + 2);
      source = Address::from_v4(ip + 12);
      destination = Address::from_v4(ip + 16);
      protocol = ip[9];
      hop_limit = ip[8];
      fragment = (load16(ip + 6) & 0x3fff) != 0;
      if (header < 20) return false;
    }
    if (header > total || total > available) return false;
    payload = kEthernetHeader + header;
    end = kEthernetHeader + total;
    message = frame.buffer.data() + payload;
    return true;
  }
};

Fabric::Fabric(const Mac& router_mac, std::size_t mtu, std::vector<Inhabitant> inhabitants)
    : router_mac_(router_mac), mtu_(mtu) {
  replace(std::move(inhabitants));
}

void Fabric::replace(std::vector<Inhabitant> inhabitants) {
  inhabitants_ = std::move(inhabitants);
  owners_.clear();
  trunk_senders_.clear();
  hosts_.clear();
  vlans_.reset();
  for (std::size_t i = 0; i < inhabitants_.size(); ++i) {
    const Inhabitant& inhabitant = inhabitants_[i];
    for (const Address& address : inhabitant.addresses) owners_.emplace(address, i);
    if (inhabitant.port == kTrunk) {
      trunk_senders_.emplace(sender_key(inhabitant.vlan, inhabitant.mac), i);
      vlans_.set(inhabitant.vlan);
    } else {
      hosts_.emplace(inhabitant.port, i);
    }
  }
}

const Inhabitant* Fabric::sender_of(const Frame& frame) const {
  const Mac mac = mac_at(frame.buffer.data() + 6);
  if (frame.port == kTrunk) {
    const auto found = trunk_senders_.find(sender_key(frame.vlan, mac));
    return found == trunk_senders_.end() ? nullptr : &inhabitants_[found->second];
  }
  const auto found = hosts_.find(frame.port);
  return found == hosts_.end() || inhabitants_[found->second].mac != mac ? nullptr : &inhabitants_[found->second];
}

const Inhabitant* Fabric::owner_of(const Address& address) const {
  const auto found = owners_.find(address);
  return found == owners_.end() ? nullptr : &inhabitants_[found->second];
}

bool Fabric::may_send_from(const Inhabitant& sender, const Address& source) const {
  return sender.port != kTrunk || owner_of(source) == &sender;
}

bool Fabric::is_router(const Inhabitant& sender, const Address& address) const {
  const std::optional<Prefix>& subnet = address.v6 ? sender.subnet6 : sender.subnet;
  if (subnet && address == subnet->router()) return true;
  return address == kRouterLinkLocal || address == link_local_of(router_mac_);
}

bool Fabric::is_routers_error(const Inhabitant& sender, const Packet& packet) const {
  const bool v6 = packet.source.v6;
  const std::optional<Prefix>& subnet = v6 ? sender.subnet6 : sender.subnet;
  if (!subnet || packet.source != subnet->router() || packet.fragment || packet.message_length() < 8) return false;
  if (packet.protocol != (v6 ? kProtocolIcmp6 : kProtocolIcmp)) return false;
  return v6 ? packet.message[0] == 2 && packet.message[1] == 0 : packet.message[0] == 3 && packet.message[1] == 4;
}

Verdict Fabric::handle(Frame& frame) {
  const Verdict verdict = decide(frame);
  count(verdict);
  return verdict;
}

Verdict Fabric::decide(Frame& frame) const {
  if (frame.length < kEthernetHeader || frame.vlan >= vlans_.size()) return Verdict::kMalformed;
  if (frame.port == kTrunk && !vlans_[frame.vlan]) return Verdict::kUnknownVlan;
  const Inhabitant* const sender = sender_of(frame);
  if (sender == nullptr) return Verdict::kSpoofed;

  const std::uint16_t ether_type = load16(frame.buffer.data() + 12);
  if (ether_type == kEtherArp) return answer_arp(frame, *sender);
  if (ether_type == kEtherVlan || ether_type == kEtherQinq) return Verdict::kMalformed;
  if (ether_type != kEtherIpv4 && ether_type != kEtherIpv6) return Verdict::kSwallowed;

  Packet packet;
  if (!packet.parse(frame, ether_type == kEtherIpv6)) return Verdict::kMalformed;
  if (frame.length - kEthernetHeader > mtu_) return Verdict::kTooBig;
  const bool is_icmp6 = packet.destination.v6 && packet.protocol == kProtocolIcmp6 && packet.message_length() > 0;
  if (is_icmp6 && packet.message[0] >= kRouterSolicitation && packet.message[0] <= kRedirect) {
    // Whoever it is addressed to: discovery never reaches a peer.
    return answer_neighbour_discovery(frame, *sender, packet);
  }
  if (is_multicast(frame.buffer.data())) return Verdict::kSwallowed;

  const bool to_router = is_router(*sender, packet.destination) && mac_at(frame.buffer.data()) == router_mac_;
  const bool from_own_link_local = is_link_local(packet.destination) && packet.source == link_local_of(sender->mac);
  if (!may_send_from(*sender, packet.source) && !(to_router && from_own_link_local) && !is_routers_error(*sender, packet)) {
    return Verdict::kSpoofed;
  }
  return to_router ? answer_echo(frame, *sender, packet) : forward(frame, *sender, packet);
}

Verdict Fabric::answer_arp(Frame& frame, const Inhabitant& sender) const {
  std::uint8_t* const ethernet = frame.buffer.data();
  std::uint8_t* const arp = ethernet + kEthernetHeader;
  if (frame.length < kEthernetHeader + kArpLength) return Verdict::kMalformed;
  if (load16(arp) != 1 || load16(arp + 2) != kEtherIpv4 || arp[4] != 6 || arp[5] != 4) return Verdict::kMalformed;

  const Address asker = Address::from_v4(arp + 14);
  const Address target = Address::from_v4(arp + 24);
  if (mac_at(arp + 8) != sender.mac) return Verdict::kSpoofed;
  if (!asker.is_zero() && !may_send_from(sender, asker)) return Verdict::kSpoofed;
  if (load16(arp + 6) != 1) return Verdict::kSwallowed;  // nobody has asked for a reply

  const Inhabitant* const owner = owner_of(target);
  const bool to_router = is_router(sender, target);
  const bool of_neighbour = owner != nullptr && sender.subnet && sender.subnet->contains(target);
  // Gratuitous ARP and probes ask for the asker's own address; an answer would tell it that the address is taken.
  if (owner == &sender || !(to_router || of_neighbour)) return Verdict::kSwallowed;

  const Mac& mac = to_router ? router_mac_ : owner->mac;
  put(ethernet, sender.mac);
  put(ethernet + 6, mac);
  store16(arp + 6, 2);
  put(arp + 8, mac);
  put(arp + 14, target);
  put(arp + 18, sender.mac);
  put(arp + 24, asker);
  frame.length = kEthernetHeader + kArpLength;
  return Verdict::kArpAnswered;
}

Verdict Fabric::answer_neighbour_discovery(Frame& frame, const Inhabitant& sender, const Packet& packet) const {
  const std::uint8_t type = packet.message[0];
  const bool from_nowhere = packet.source.is_zero();
  if (!from_nowhere && packet.source != link_local_of(sender.mac) && !may_send_from(sender, packet.source)) {
    return Verdict::kSpoofed;
  }
  if (type != kRouterSolicitation && type != kNeighbourSolicitation) return Verdict::kSwallowed;

  const std::size_t fixed = type == kRouterSolicitation ? 8 : 24;
  const std::size_t length = packet.message_length();
  if (packet.hop_limit != 255 || length < fixed || packet.message[1] != 0) return Verdict::kMalformed;
  if (icmp6_sum(frame.buffer.data() + kEthernetHeader, length) != 0xffff) return Verdict::kMalformed;
  std::optional<Mac> link_layer;
  if (!source_link_layer({packet.message + fixed, length - fixed}, link_layer)) return Verdict::kMalformed;
  if (link_layer && (from_nowhere || *link_layer != sender.mac)) return Verdict::kSpoofed;

  const Address asker = from_nowhere ? kAllNodes : packet.source;
  std::uint8_t* const message = frame.buffer.data() + kEthernetHeader + kIpv6Header;
  if (type == kRouterSolicitation) {
    // No prefix: addresses are assigned by the VPC, an advertisement gives the default route only.
    constexpr std::size_t kFixed = 16;
    std::memset(message, 0, kFixed + kLinkLayerOption);
    message[0] = kRouterAdvertisement;
    message[4] = 64;             // current hop limit
    store16(message + 6, 1800);  // router lifetime, seconds
    message[kFixed] = 1;         // source link-layer address
    message[kFixed + 1] = 1;
    put(message + kFixed + 2, router_mac_);
    finish_icmp6(frame, router_mac_, sender.mac, kRouterLinkLocal, asker, kFixed + kLinkLayerOption);
    return Verdict::kNdAnswered;
  }

  const Address target = Address::from_v6(packet.message + 8);
  const Inhabitant* const owner = owner_of(target);
  const bool to_router = is_router(sender, target);
  const bool of_neighbour = owner != nullptr && sender.subnet6 && sender.subnet6->contains(target);
  // A solicitation for the asker's own address is duplicate address detection: silence means "go ahead".
  if (owner == &sender || !(to_router || of_neighbour)) return Verdict::kSwallowed;

  const Mac& mac = to_router ? router_mac_ : owner->mac;
  constexpr std::size_t kFixed = 24;
  std::memset(message, 0, kFixed + kLinkLayerOption);
  message[0] = kNeighbourAdvertisement;
  message[4] = static_cast<std::uint8_t>((to_router ? 0x80 : 0) | (from_nowhere ? 0 : 0x40) | 0x20);  // R, S, O
  put(message + 8, target);
  message[kFixed] = 2;  // target link-layer address
  message[kFixed + 1] = 1;
  put(message + kFixed + 2, mac);
  finish_icmp6(frame, mac, sender.mac, target, asker, kFixed + kLinkLayerOption);
  return Verdict::kNdAnswered;
}

Verdict Fabric::answer_echo(Frame& frame, const Inhabitant& sender, const Packet& packet) const {
  const bool v6 = packet.destination.v6;
  const std::uint8_t request = v6 ? 128 : 8;
  const std::uint8_t reply = v6 ? 129 : 0;
  if (packet.protocol != (v6 ? kProtocolIcmp6 : kProtocolIcmp) || packet.fragment) return Verdict::kSwallowed;
  if (packet.message_length() < 8 || packet.message[0] != request || packet.message[1] != 0) return Verdict::kSwallowed;

  std::uint8_t* const ethernet = frame.buffer.data();
  put(ethernet, sender.mac);
  put(ethernet + 6, router_mac_);
  std::uint8_t* const addresses = ethernet + kEthernetHeader + (v6 ? 8 : 12);
  put(addresses, packet.destination);
  put(addresses + packet.source.size(), packet.source);
  // Exchanging the addresses changes no checksum. The type does, and is patched (RFC 1624), so that a request whose
  // checksum was wrong gets a reply whose checksum is wrong.
  std::uint8_t* const icmp = ethernet + packet.payload;
  const std::uint32_t sum = (0xffffU & ~std::uint32_t{load16(icmp + 2)}) + (0xffffU & ~(std::uint32_t{request} << 8)) +
                            (std::uint32_t{reply} << 8);
  icmp[0] = reply;
  store16(icmp + 2, static_cast<std::uint16_t>(~fold(sum)));
  return Verdict::kEchoAnswered;
}

Verdict Fabric::forward(Frame& frame, const Inhabitant& sender, const Packet& packet) const {
  const Inhabitant* const owner = owner_of(packet.destination);
  if (owner == nullptr || owner == &sender) return Verdict::kNoRoute;
  std::uint8_t* const ethernet = frame.buffer.data();
  const Mac destination = mac_at(ethernet);
  if (destination != router_mac_ && destination != owner->mac) return Verdict::kNoRoute;

  const std::optional<Prefix>& subnet = packet.destination.v6 ? sender.subnet6 : sender.subnet;
  const bool same_subnet = subnet && subnet->contains(packet.destination);
  put(ethernet, owner->mac);
  put(ethernet + 6, same_subnet && !is_routers_error(sender, packet) ? sender.mac : router_mac_);
  frame.port = owner->port;
  frame.vlan = owner->vlan;
  return Verdict::kForwarded;
}

}  // namespace trunkline::fabric
