// SPDX-License-Identifier: BSD-3-Clause
#include "tests/scenarios/packet_text.h"

#include <charconv>
#include <optional>
#include <sstream>

namespace trunkline::test {
namespace {

constexpr char kFlagLetters[] = "FSRPAUEC";  // from the lowest bit

// Takes a line's words one after the other.
class Reader {
 public:
  explicit Reader(const Words& words) : words_(words) {}
  bool done() const { return at_ == words_.size(); }
  const std::string& peek() const {
    static const std::string nothing;
    return done() ? nothing : words_[at_];
  }
  const std::string& next(const char* wanted) {
    if (done()) throw ScenarioError(std::string("the line ends where ") + wanted + " is wanted");
    return words_[at_++];
  }
  bool take(const char* word) {
    if (peek() != word) return false;
    ++at_;
    return true;
  }
  void want(const char* word) {
    if (!take(word)) throw ScenarioError("here is \"" + peek() + "\", but \"" + word + "\" is wanted");
  }
  Words rest() {
    Words words(words_.begin() + static_cast<std::ptrdiff_t>(at_), words_.end());
    at_ = words_.size();
    return words;
  }

 private:
  const Words& words_;
  std::size_t at_ = 0;
};

MacAddress read_mac(const std::string& text) {
  const auto parsed = MacAddress::parse(text);
  if (!parsed) throw ScenarioError("\"" + text + "\" is no MAC address");
  return *parsed;
}

IpAddress read_address(const std::string& text) {
  const auto parsed = IpAddress::parse(text);
  if (!parsed) throw ScenarioError("\"" + text + "\" is no IP address");
  return *parsed;
}

Frame read_hex(const std::string& text) {
  Frame bytes;
  if (text.size() % 2 != 0) throw ScenarioError("an odd number of hex digits");
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned byte = 0;
    const auto [end, error] = std::from_chars(&text[i], &text[i] + 2, byte, 16);
    if (error != std::errc{} || end != &text[i] + 2) throw ScenarioError("\"" + text.substr(i, 2) + "\" is no hex byte");
    bytes.push_back(static_cast<std::uint8_t>(byte));
  }
  return bytes;
}

std::uint8_t read_flags(const std::string& text) {
  std::uint8_t flags = 0;
  if (text == ".") return 0;
  for (const char letter : text) {
    const char* at = std::strchr(kFlagLetters, letter);
    if (at == nullptr || letter == '\0') throw ScenarioError("\"" + text + "\" are no TCP flags: the letters of FSRPAUEC, or . for none");
    flags = static_cast<std::uint8_t>(flags | 1U << (at - kFlagLetters));
  }
  return flags;
}

// What the words behind the addresses say.
struct Options {
  std::optional<std::uint32_t> length;
  std::uint8_t ttl = 64, tcp_flags = 0, type = 0, code = 0;
  std::uint16_t identifier = 0, mtu = 0, ip_id = 1, offset = 0;
  bool dont_fragment = true, fragment = false, more = false;
  Frame ip_options, about;
};

// `opaque`: bytes without a meaning in the place of a header.
Frame transport(std::uint8_t protocol, bool opaque, const AddressAndPort& from, const AddressAndPort& to, const Options& options) {
  if (opaque) return Frame(options.length.value_or(16), 'x');
  if (options.offset != 0) return Frame(options.length.value_or(8), 'f');
  const auto source = static_cast<std::uint16_t>(from.port), destination = static_cast<std::uint16_t>(to.port);
  const auto length = [&](std::uint32_t usual) { return std::size_t{options.length.value_or(usual)}; };
  switch (protocol) {
    case 6: return tcp_segment(source, destination, options.tcp_flags, length(0));
    case 17: return udp_datagram(source, destination, length(4));
    case 1:
    case 58: {
      if (options.about.empty()) return icmp_message(options.type, options.code, options.identifier, length(8));
      Frame message{options.type, options.code, 0, 0, 0, 0};
      put16(message, options.mtu);
      put(message, options.about.data(), options.about.size());
      return message;
    }
    default: return Frame(length(16), 'x');
  }
}

Frame ip_frame(const L2& l2, const IpAddress& from, const IpAddress& to, std::uint8_t protocol, const Frame& payload, const Options& options) {
  if (from.is_v4() != to.is_v4()) throw ScenarioError("the two addresses are of two families");
  const std::size_t ip = l2.vlan >= 0 ? 18 : 14;
  if (from.is_v4()) {
    Frame frame = ip_packet(l2, from, to, protocol, payload, options.dont_fragment);
    frame[ip + 4] = static_cast<std::uint8_t>(options.ip_id >> 8), frame[ip + 5] = static_cast<std::uint8_t>(options.ip_id);
    if (options.fragment) {
      frame[ip + 6] = static_cast<std::uint8_t>((options.more ? 0x20 : 0) | options.offset >> 11);
      frame[ip + 7] = static_cast<std::uint8_t>(options.offset >> 3);
    }
    frame[ip + 8] = options.ttl;
    if (!options.ip_options.empty()) {
      if (options.ip_options.size() % 4 != 0) throw ScenarioError("IP options are a multiple of four bytes");
      frame.insert(frame.begin() + static_cast<std::ptrdiff_t>(ip) + 20, options.ip_options.begin(), options.ip_options.end());
      frame[ip] = static_cast<std::uint8_t>(0x45 + options.ip_options.size() / 4);
      const auto total = static_cast<std::uint16_t>(20 + options.ip_options.size() + payload.size());
      frame[ip + 2] = static_cast<std::uint8_t>(total >> 8), frame[ip + 3] = static_cast<std::uint8_t>(total);
    }
    return frame;
  }
  Frame inner = payload;
  std::uint8_t first = protocol;
  if (options.fragment) {
    Frame extension{protocol, 0};
    put16(extension, static_cast<std::uint16_t>(options.offset | (options.more ? 1 : 0)));
    put16(extension, 0);
    put16(extension, options.ip_id);
    inner.insert(inner.begin(), extension.begin(), extension.end());
    first = 44;
  }
  Frame frame = ip_packet(l2, from, to, first, inner);
  frame[ip + 7] = options.ttl;
  return frame;
}

// "7:0+": identification, offset in octets, and more to come.
void read_fragment(const std::string& text, Options& options, std::uint32_t repetition) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) throw ScenarioError("\"" + text + "\" is no fragment: write ID:OFFSET, with a + if more come");
  options.fragment = true;
  options.dont_fragment = false;
  options.more = text.back() == '+';
  const bool counts = colon != 0 && text[colon - 1] == '+';
  options.ip_id = static_cast<std::uint16_t>(read_number(text.substr(0, colon - (counts ? 1 : 0)), 65535) + (counts ? repetition : 0));
  options.offset = static_cast<std::uint16_t>(read_number(text.substr(colon + 1, text.size() - colon - 1 - (options.more ? 1 : 0)), 65535));
  if (options.offset % 8 != 0) throw ScenarioError("a fragment's offset is a multiple of eight");
}

Frame read_ip(Reader& words, const L2& l2, std::uint8_t protocol, bool opaque, std::uint32_t repetition) {
  const AddressAndPort from = read_address_and_port(words.next("the source"), repetition);
  words.want(">");
  const AddressAndPort to = read_address_and_port(words.next("the destination"), repetition);
  Options options;
  bool has_ports = !opaque && (protocol == 6 || protocol == 17), has_type = !opaque && (protocol == 1 || protocol == 58);
  while (!words.done()) {
    const std::string& word = words.next("an option");
    if (word == "len") {
      options.length = read_number(words.next("a length"), 65535);
    } else if (word == "ttl") {
      options.ttl = static_cast<std::uint8_t>(read_number(words.next("a time to live"), 255));
    } else if (word == "id") {
      options.identifier = static_cast<std::uint16_t>(read_number(words.next("an identifier"), 65535));
    } else if (word == "mtu") {
      options.mtu = static_cast<std::uint16_t>(read_number(words.next("an MTU"), 65535));
    } else if (word == "nodf") {
      options.dont_fragment = false;
    } else if (word == "frag") {
      read_fragment(words.next("ID:OFFSET"), options, repetition);
      if (options.offset != 0) has_ports = has_type = false;
    } else if (word == "ipopt") {
      options.ip_options = read_hex(words.next("hex digits"));
    } else if (word == "about") {
      const Frame quoted = read_packet(words.rest(), {}, repetition);
      options.about.assign(quoted.begin() + 14, quoted.end());
    } else if (has_type && word.find('/') != std::string::npos) {
      options.type = static_cast<std::uint8_t>(read_number(word.substr(0, word.find('/')), 255));
      options.code = static_cast<std::uint8_t>(read_number(word.substr(word.find('/') + 1), 255));
      has_type = false;
    } else if (protocol == 6 && !opaque && options.offset == 0) {
      options.tcp_flags = read_flags(word);
    } else {
      throw ScenarioError("\"" + word + "\" is no option of this packet");
    }
  }
  if (has_type) throw ScenarioError("an ICMP packet says its type and code, like 8/0");
  if (has_ports != (from.port >= 0 && to.port >= 0) || has_ports != (from.port >= 0 || to.port >= 0)) {
    throw ScenarioError(has_ports ? "both ports are wanted" : "this packet has no ports");
  }
  return ip_frame(l2, from.address, to.address, protocol, transport(protocol, opaque, from, to, options), options);
}

Frame read_arp(Reader& words, L2 l2) {
  const bool reply = words.take("reply");
  if (!reply) words.want("who-has");
  const IpAddress first = read_address(words.next("an address"));
  MacAddress sender_mac = l2.source;
  if (reply && words.take("is-at")) sender_mac = read_mac(words.next("a MAC address"));
  words.want("tell");
  const IpAddress second = read_address(words.next("an address"));
  if (words.take("sender")) sender_mac = read_mac(words.next("a MAC address"));
  return arp_packet(l2, reply ? 2 : 1, sender_mac, reply ? first : second, reply ? second : first);
}

// ns who-has T tell S, na T is-at MAC tell D from S, rs from S, ra from S.
Frame read_discovery(Reader& words, const L2& l2, const std::string& kind) {
  Frame message;
  IpAddress from, to = ip("ff02::2");
  const auto option = [&](std::uint8_t type, const MacAddress& owner) {
    put(message, (type == 1 ? "\1\1" : "\2\1"), 2);
    put(message, owner.bytes.data(), 6);
  };
  if (kind == "ns") {
    words.want("who-has");
    const IpAddress target = read_address(words.next("the target"));
    words.want("tell");
    from = read_address(words.next("who asks"));
    to = ip("ff02::1:ff00:0");
    std::memcpy(&to.bytes[13], &target.bytes[13], 3);
    message = {135, 0, 0, 0, 0, 0, 0, 0};
    put(message, target.bytes.data(), 16);
    if (!from.is_zero()) option(1, words.take("sender") ? read_mac(words.next("a MAC address")) : l2.source);
  } else if (kind == "na") {
    const IpAddress target = read_address(words.next("the target"));
    words.want("is-at");
    const MacAddress owner = read_mac(words.next("a MAC address"));
    words.want("tell");
    to = read_address(words.next("who asked"));
    from = words.take("from") ? read_address(words.next("the sender")) : target;
    message = {136, 0, 0, 0, static_cast<std::uint8_t>(words.take("unsolicited") ? 0x20 : 0x60), 0, 0, 0};
    put(message, target.bytes.data(), 16);
    option(2, owner);
  } else {
    words.want("from");
    from = read_address(words.next("the sender"));
    if (kind == "ra") to = ip("ff02::1");
    message = {static_cast<std::uint8_t>(kind == "rs" ? 133 : 134), 0, 0, 0};
    message.resize(kind == "rs" ? 8 : 16);
  }
  Options options;
  options.ttl = words.take("ttl") ? static_cast<std::uint8_t>(read_number(words.next("a hop limit"), 255)) : 255;
  return ip_frame(l2, from, to, 58, message, options);
}

constexpr MacAddress kEveryone{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

// The words that say where a frame goes, wherever they stand: to MAC, from-mac MAC, vlan N, untagged, tag2 N.
struct Envelope {
  std::optional<MacAddress> to, from;
  std::optional<int> vlan;
  std::optional<std::uint32_t> second_tag;
  std::size_t pad = 0;
};
Words take_envelope(const Words& words, Envelope& envelope) {
  Words rest;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool has_value = i + 1 < words.size();
    if (words[i] == "about") {
      rest.insert(rest.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    if (words[i] == "to-mac" && has_value) envelope.to = read_mac(words[++i]);
    else if (words[i] == "from-mac" && has_value) envelope.from = read_mac(words[++i]);
    else if (words[i] == "vlan" && has_value) envelope.vlan = static_cast<int>(read_number(words[++i], 4095));
    else if (words[i] == "tag2" && has_value) envelope.second_tag = read_number(words[++i], 4095);
    else if (words[i] == "pad" && has_value) envelope.pad = read_number(words[++i], 1500);
    else if (words[i] == "untagged") envelope.vlan = -1;
    else rest.push_back(words[i]);
  }
  return rest;
}

std::uint32_t at16(const Frame& frame, std::size_t at) { return at + 2 <= frame.size() ? static_cast<std::uint32_t>(frame[at] << 8 | frame[at + 1]) : 0; }
std::uint8_t at8(const Frame& frame, std::size_t at) { return at < frame.size() ? frame[at] : 0; }
std::string hex(const Frame& frame) {
  std::string text;
  for (const std::uint8_t byte : frame) {
    static constexpr char digits[] = "0123456789abcdef";
    text += digits[byte >> 4], text += digits[byte & 15];
  }
  return text;
}

std::string with_port(const IpAddress& address, std::uint32_t port) {
  return (address.is_v4() ? address.to_string() : '[' + address.to_string() + ']') + ':' + std::to_string(port);
}

std::string describe_ip(const Frame& packet, bool quoted = false);

std::string describe_layer4(const Frame& packet, std::size_t at, std::size_t end, std::uint8_t protocol, const IpAddress& from, const IpAddress& to, bool later, bool quoted) {
  const std::string ends = from.to_string() + " > " + to.to_string();
  const auto length = [&](std::size_t header) { return end >= at + header ? " len " + std::to_string(end - at - header) : " cut short"; };
  static const std::pair<int, const char*> kNames[] = {{6, "tcp "}, {17, "udp "}, {1, "icmp "}, {58, "icmp6 "}, {50, "esp "}};
  std::string name = "proto " + std::to_string(protocol) + ' ';
  for (const auto& [number, text] : kNames) name = number == protocol ? text : name;
  if (later) return name + ends + length(0);
  if (protocol == 6 || protocol == 17) {
    std::string text = name + with_port(from, at16(packet, at)) + " > " + with_port(to, at16(packet, at + 2));
    if (quoted) return text;  // which may end behind the ports
    if (protocol == 17) return text + length(8);
    text += ' ';
    const std::uint8_t flags = at8(packet, at + 13);
    if (flags == 0) text += '.';
    for (int i = 0; i < 8; ++i) {
      if (flags >> i & 1) text += kFlagLetters[i];
    }
    return text + length(at8(packet, at + 12) / 16 * 4U);
  }
  if (protocol != 1 && protocol != 58) return name + ends + length(0);
  const std::uint8_t type = at8(packet, at);
  std::string text = name + ends + ' ' + std::to_string(type) + '/' + std::to_string(at8(packet, at + 1));
  if (protocol == 58 && (type == 135 || type == 136) && at + 24 <= packet.size()) {
    text += " target " + IpAddress::from_v6_bytes(&packet[at + 8]).to_string();
    if (at + 32 <= packet.size()) text += " option " + hex(Frame(packet.begin() + static_cast<std::ptrdiff_t>(at) + 24, packet.begin() + static_cast<std::ptrdiff_t>(at) + 32));
    return text;
  }
  const bool error = protocol == 1 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
  if (!error) return text + " id " + std::to_string(at16(packet, at + 4)) + length(8);
  const Frame inner(packet.begin() + static_cast<std::ptrdiff_t>(std::min(at + 8, packet.size())), packet.end());
  return text + " mtu " + std::to_string(at16(packet, at + 6)) + (inner.size() < 28 ? std::string() : " about " + describe_ip(inner, true));
}

// From the IP header on. The lengths that the header says, since a quotation is cut.
std::string describe_ip(const Frame& packet, bool quoted) {
  if (packet.size() < 20) return "raw " + hex(packet);
  std::string suffix;
  if (packet[0] >> 4 == 4) {
    const std::size_t header = (packet[0] & 15) * 4U;
    const std::uint32_t place = at16(packet, 6);
    if (packet[8] != 64) suffix += " ttl " + std::to_string(packet[8]);
    if ((place & 0x3fff) != 0) {
      suffix += " frag " + std::to_string(at16(packet, 4)) + ':' + std::to_string((place & 0x1fff) * 8) + (place & 0x2000 ? "+" : "");
    } else if ((place & 0x4000) == 0) {
      suffix += " nodf";
    }
    return describe_layer4(packet, header, at16(packet, 2), packet[9], IpAddress::from_v4_bytes(&packet[12]), IpAddress::from_v4_bytes(&packet[16]), (place & 0x1fff) != 0, quoted) + suffix;
  }
  if (packet[0] >> 4 != 6 || packet.size() < 40) return "raw " + hex(packet);
  std::uint8_t protocol = packet[6];
  std::size_t at = 40;
  bool later = false;
  if (packet[7] != 64) suffix += " ttl " + std::to_string(packet[7]);
  if (protocol == 44 && packet.size() >= 48) {
    protocol = packet[40];
    const std::uint32_t place = at16(packet, 42);
    later = (place & 0xfff8) != 0;
    suffix += " frag " + std::to_string(at16(packet, 46)) + ':' + std::to_string(place & 0xfff8) + (place & 1 ? "+" : "");
    at = 48;
  }
  return describe_layer4(packet, at, 40 + at16(packet, 4), protocol, IpAddress::from_v6_bytes(&packet[8]), IpAddress::from_v6_bytes(&packet[24]), later, quoted) + suffix;
}

}  // namespace

Words split(const std::string& text) {
  std::istringstream stream(text);
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::uint32_t read_number(const std::string& text, std::uint32_t most) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > most) {
    throw ScenarioError("\"" + text + "\" is no number from 0 to " + std::to_string(most));
  }
  return number;
}

AddressAndPort read_address_and_port(const std::string& text, std::uint32_t repetition) {
  std::string address = text, port;
  if (text.starts_with('[')) {
    const std::size_t bracket = text.find(']');
    if (bracket == std::string::npos) throw ScenarioError("\"" + text + "\" lacks its ]");
    address = text.substr(1, bracket - 1);
    if (bracket + 1 < text.size()) port = text.substr(bracket + 2);
  } else if (const std::size_t colon = text.find(':'); colon != std::string::npos && colon == text.rfind(':')) {
    address = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  AddressAndPort result{read_address(address), -1};
  if (port.empty()) return result;
  const bool counts = port.back() == '+';
  if (counts) port.pop_back();
  result.port = static_cast<int>((read_number(port, 65535) + (counts ? repetition : 0)) & 0xffff);
  return result;
}

Frame read_packet(const Words& words, const L2& usual, std::uint32_t repetition) {
  Envelope envelope;
  const Words rest = take_envelope(words, envelope);
  Reader reader(rest);
  const std::string kind = reader.next("the packet's kind: tcp, udp, icmp, icmp6, esp, proto N, arp, ns, na, rs, ra, ether or raw");
  L2 l2 = usual;
  if (kind == "arp" && reader.peek() == "who-has") l2.destination = kEveryone;
  if (kind == "ns" && rest.size() > 2) {
    l2.destination = {{0x33, 0x33, 0xff, 0, 0, 0}};
    std::memcpy(&l2.destination.bytes[3], &read_address(rest[2]).bytes[13], 3);
  }
  if (kind == "rs" || kind == "ra") l2.destination = {{0x33, 0x33, 0, 0, 0, static_cast<std::uint8_t>(kind == "rs" ? 2 : 1)}};
  l2.destination = envelope.to.value_or(l2.destination);
  l2.source = envelope.from.value_or(l2.source);
  l2.vlan = envelope.vlan.value_or(l2.vlan);
  Frame frame;
  static const std::pair<const char*, int> kProtocols[] = {{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmp6", 58}, {"esp", 50}};
  int protocol = -1;
  for (const auto& [name, number] : kProtocols) protocol = kind == name ? number : protocol;
  const bool opaque = kind == "proto";
  if (opaque) protocol = static_cast<int>(read_number(reader.next("a protocol number"), 255));
  if (protocol >= 0) {
    frame = read_ip(reader, l2, static_cast<std::uint8_t>(protocol), opaque, repetition);
  } else if (kind == "arp") {
    frame = read_arp(reader, l2);
  } else if (kind == "ns" || kind == "na" || kind == "rs" || kind == "ra") {
    frame = read_discovery(reader, l2, kind);
  } else if (kind == "ether") {  // an EtherType and what follows it
    const Frame type = read_hex(reader.next("the EtherType"));
    if (type.size() != 2) throw ScenarioError("an EtherType has four hex digits");
    frame = ethernet(l2, static_cast<std::uint16_t>(type[0] << 8 | type[1]));
    const Frame payload = reader.done() ? Frame() : read_hex(reader.next("hex digits"));
    put(frame, payload.data(), payload.size());
  } else if (kind == "raw") {
    frame = read_hex(reader.next("hex digits"));
  } else {
    throw ScenarioError("\"" + kind + "\" is no kind of packet; there are tcp, udp, icmp, icmp6, esp, proto N, arp, ns, na, rs, ra, ether and raw");
  }
  if (!reader.done()) throw ScenarioError("\"" + reader.peek() + "\" is one word too many");
  if (envelope.second_tag) {
    if (l2.vlan < 0) throw ScenarioError("a second tag wants a first one");
    const std::uint8_t tag[] = {0x81, 0x00, static_cast<std::uint8_t>(*envelope.second_tag >> 8), static_cast<std::uint8_t>(*envelope.second_tag)};
    frame.insert(frame.begin() + 16, std::begin(tag), std::end(tag));
  }
  frame.resize(frame.size() + envelope.pad);
  return frame;
}

std::string describe(const Frame& frame) {
  std::size_t at = 14;
  std::uint32_t type = at16(frame, 12);
  if (type == 0x8100) type = at16(frame, 16), at = 18;
  if (frame.size() < at) return "raw " + hex(frame);
  const Frame packet(frame.begin() + static_cast<std::ptrdiff_t>(at), frame.end());
  if (type == 0x0800 || type == 0x86dd) return describe_ip(packet);
  if (type == 0x0806 && packet.size() >= 28) {
    MacAddress owner;
    std::memcpy(owner.bytes.data(), &packet[8], 6);
    const std::string sender = IpAddress::from_v4_bytes(&packet[14]).to_string(), target = IpAddress::from_v4_bytes(&packet[24]).to_string();
    if (at16(packet, 6) == 1) return "arp who-has " + target + " tell " + sender + " sender " + owner.to_string();
    return "arp reply " + sender + " is-at " + owner.to_string() + " tell " + target;
  }
  return "raw " + hex(frame);
}

std::string describe_l2(const Frame& frame) {
  if (frame.size() < 14) return "no Ethernet header";
  MacAddress to, from;
  std::memcpy(to.bytes.data(), &frame[0], 6);
  std::memcpy(from.bytes.data(), &frame[6], 6);
  return from.to_string() + " > " + to.to_string() + (at16(frame, 12) == 0x8100 ? " vlan " + std::to_string(at16(frame, 14) & 0xfff) : " untagged");
}

}  // namespace trunkline::test
