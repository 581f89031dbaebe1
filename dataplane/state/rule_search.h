// SPDX-License-Identifier: BSD-3-Clause
//
// Finding the interval that a key lies in, one cache line of keys a comparison.
//
// The keys of a dimension (ports, addresses) are cut into intervals; what is kept of each is its last key. A node is as
// many of them as fill one cache line (two for IPv6), compared all at once: the number that are less than the key is the
// child to go to. Nodes lie in one array as in a heap, root first, the children of node n at n * kFanout + 1 and on; a
// search goes down `depth` of them. What is beyond the last interval is the highest key, which is less than no key, so
// nobody ever goes there.
//
// Search is one of the structs below; they give the same answers. Whoever uses one for more than the baseline
// instruction set does so within a function whose target allows it. Pure, any thread.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace trunkline::detail {

// The dimensions that are looked up by a number of 16 bits; which one a packet's protocol says. ICMP exists in IPv4
// alone, ICMPv6 in IPv6. The last one is the protocol number itself.
enum PortKind : std::uint8_t { kTcpPorts, kUdpPorts, kIcmp4Types, kIcmp6Types, kProtocols, kPortKinds };

// An IPv6 address as two host order words, so that it compares as a number.
struct Key128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend auto operator<=>(const Key128&, const Key128&) = default;
};

template <typename Key>
struct alignas(64) SearchNode {
  static constexpr std::uint32_t kFanout = 64 / sizeof(Key);
  std::array<Key, kFanout> last;

  void set(std::size_t i, Key key) { last[i] = key; }
};
template <>
struct alignas(64) SearchNode<Key128> {
  static constexpr std::uint32_t kFanout = 8;
  std::array<std::uint64_t, kFanout> high, low;

  void set(std::size_t i, const Key128& key) {
    high[i] = key.high;
    low[i] = key.low;
  }
};

template <typename Key>
inline constexpr Key kHighestKey = std::numeric_limits<Key>::max();
template <>
inline constexpr Key128 kHighestKey<Key128>{~std::uint64_t{0}, ~std::uint64_t{0}};

// How many of a node's keys are less than the key.
struct ScalarSearch {
  template <typename Key>
  static std::uint32_t rank(const SearchNode<Key>& node, Key key) {
    std::uint32_t less = 0;
    for (const Key last : node.last) less += last < key;
    return less;
  }
  static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
    std::uint32_t less = 0;
    for (std::size_t i = 0; i < node.kFanout; ++i) less += Key128{node.high[i], node.low[i]} < key;
    return less;
  }
};

#if defined(__x86_64__)
// There is no unsigned comparison; max(last, key) == last says "not less".
struct Avx2Search {
  [[gnu::target("avx2,popcnt")]] static std::uint32_t rank(const SearchNode<std::uint16_t>& node, std::uint16_t key) {
    const auto* const lines = reinterpret_cast<const __m256i*>(node.last.data());
    const __m256i wanted = _mm256_set1_epi16(static_cast<short>(key));
    const __m256i a = _mm256_load_si256(lines), b = _mm256_load_si256(lines + 1);
    const __m256i not_less = _mm256_packs_epi16(_mm256_cmpeq_epi16(_mm256_max_epu16(a, wanted), a),
                                                _mm256_cmpeq_epi16(_mm256_max_epu16(b, wanted), b));
    return 32 - ones(_mm256_movemask_epi8(not_less));
  }
  [[gnu::target("avx2,popcnt")]] static std::uint32_t rank(const SearchNode<std::uint32_t>& node, std::uint32_t key) {
    const auto* const lines = reinterpret_cast<const __m256i*>(node.last.data());
    const __m256i wanted = _mm256_set1_epi32(static_cast<int>(key));
    const __m256i a = _mm256_load_si256(lines), b = _mm256_load_si256(lines + 1);
    const __m256i not_less = _mm256_packs_epi32(_mm256_cmpeq_epi32(_mm256_max_epu32(a, wanted), a),
                                                _mm256_cmpeq_epi32(_mm256_max_epu32(b, wanted), b));
    return 16 - ones(_mm256_movemask_epi8(not_less)) / 2;
  }
  [[gnu::target("avx2,popcnt")]] static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
    // Signed comparison of numbers whose sign bit is turned over is the unsigned one.
    const __m256i sign = _mm256_set1_epi64x(std::numeric_limits<long long>::min());
    const __m256i high = _mm256_set1_epi64x(static_cast<long long>(key.high));
    const __m256i low = _mm256_xor_si256(_mm256_set1_epi64x(static_cast<long long>(key.low)), sign);
    const __m256i signed_high = _mm256_xor_si256(high, sign);
    std::uint32_t less = 0;
    for (std::size_t half = 0; half < node.kFanout; half += 4) {
      const __m256i h = _mm256_load_si256(reinterpret_cast<const __m256i*>(&node.high[half]));
      const __m256i l = _mm256_load_si256(reinterpret_cast<const __m256i*>(&node.low[half]));
      const __m256i high_less = _mm256_cmpgt_epi64(signed_high, _mm256_xor_si256(h, sign));
      const __m256i low_less = _mm256_cmpgt_epi64(low, _mm256_xor_si256(l, sign));
      const __m256i both = _mm256_or_si256(high_less, _mm256_and_si256(_mm256_cmpeq_epi64(h, high), low_less));
      less += ones(_mm256_movemask_pd(_mm256_castsi256_pd(both)));
    }
    return less;
  }

 private:
  static std::uint32_t ones(int mask) { return static_cast<std::uint32_t>(std::popcount(static_cast<std::uint32_t>(mask))); }
};

#define TRUNKLINE_AVX512 "avx512f,avx512bw,popcnt"
struct Avx512Search {
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t rank(const SearchNode<std::uint16_t>& node, std::uint16_t key) {
    return ones(_mm512_cmpgt_epu16_mask(_mm512_set1_epi16(static_cast<short>(key)), _mm512_load_si512(&node)));
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t rank(const SearchNode<std::uint32_t>& node, std::uint32_t key) {
    return ones(_mm512_cmpgt_epu32_mask(_mm512_set1_epi32(static_cast<int>(key)), _mm512_load_si512(&node)));
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
    const __m512i highs = _mm512_load_si512(node.high.data()), lows = _mm512_load_si512(node.low.data());
    const __m512i high = _mm512_set1_epi64(static_cast<long long>(key.high));
    const __mmask8 low_less = _mm512_cmplt_epu64_mask(lows, _mm512_set1_epi64(static_cast<long long>(key.low)));
    return ones(_mm512_cmplt_epu64_mask(highs, high) | _mm512_mask_cmpeq_epi64_mask(low_less, highs, high));
  }

 private:
  static std::uint32_t ones(std::uint32_t mask) { return static_cast<std::uint32_t>(std::popcount(mask)); }
};
#endif

// How deep a search goes, and how many nodes there are on all its levels, used or not: where the "nodes" below the last
// level, which are the intervals, begin.
struct SearchShape {
  std::uint32_t depth = 0;
  std::uint32_t nodes = 0;
};

// From keys to values: value i is that of the i-th interval. Views into somebody's arena.
template <typename Key, typename Value>
struct IntervalMap {
  using Node = SearchNode<Key>;

  // As long as nobody says otherwise, all keys have the empty value.
  static constexpr Value kEmpty{};
  const Node* nodes = nullptr;
  const Value* values = &kEmpty;

  template <class Search>
  [[gnu::always_inline]] const Value& find(const Key& key, SearchShape shape) const {
    // `at` is the node's place in bytes, which saves a shift a level.
    const auto* const bytes = reinterpret_cast<const std::byte*>(nodes);
    std::size_t at = 0;
    for (std::uint32_t level = shape.depth; level != 0; --level) {
      const std::size_t less = Search::rank(*reinterpret_cast<const Node*>(bytes + at), key);
      at = at * Node::kFanout + less * sizeof(Node) + sizeof(Node);
    }
    return values[at / sizeof(Node) - shape.nodes];
  }
};

}  // namespace trunkline::detail
