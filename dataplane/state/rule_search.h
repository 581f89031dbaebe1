// SPDX-License-Identifier: BSD-3-Clause
//
// Finding the interval that a key lies in, one cache line of keys a comparison.
//
// The keys of a dimension (ports, addresses) are cut into intervals; what is kept of each is its last key.
//
// Addresses: a node is as many last keys as fill one cache line (two for IPv6), compared all at once: the number that
// are less than the key is the child to go to. Nodes lie in one array as in a heap, root first, the children of node n
// at n * kFanout + 1 and on; a search goes down `depth` of them. What is beyond the last interval is the highest key,
// which is less than no key, so nobody ever goes there.
//
// Ports: the last keys lie in one sorted array, and a table by the upper bits of the port says where in it to look; so
// many bits that a line holds all that have them in common. Two loads, however many rules there are.
//
// Search is one of the structs below; they give the same answers. Whoever uses one for more than the baseline
// instruction set does so within a function whose target allows it. Pure, any thread.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace trunkline::detail {

// The dimensions that are looked up by a number of 16 bits; which one a packet's protocol says. ICMP exists in IPv4
// alone, ICMPv6 in IPv6. The last one is the protocol number itself.
enum PortKind : std::uint8_t { kTcpPorts, kUdpPorts, kIcmp4Types, kIcmp6Types, kProtocols, kPortKinds };

// An IPv6 address as two host order words, so that it compares as a number.
struct Key128 {
  std::uint64_t high;
  std::uint64_t low;
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

// How many last keys are compared at once.
template <typename Key>
inline constexpr std::uint32_t kLine = 64 / sizeof(Key);

// What two sets of rules have in common, as RuleBits keeps sets of more than 64 rules.
struct CommonRules {
  bool exist;
  bool with_marked;      // some of them are in a third set
  std::uint16_t lowest;  // if any exist
};

// rank(): how many of a node's keys are less than the key. first_not_less(): the place, from `last` on, of the first
// key that is not less, kLine of the type if none is (of 32 bits there must be one); what follows it may be of any
// value. any_of(): one bit for each of 64 values that has one of the bits; what it says of values that nobody has set
// has no meaning. kWidestSet: up to how many rules common() works; 0 if there is none, and then RuleBits goes word by
// word.
struct ScalarSearch {
  static constexpr std::size_t kWidestSet = 0;
  template <typename Key>
  static std::uint32_t first_not_less(const Key* last, Key key) {
    Key at = kLine<Key>;  // of the keys' width, and without a way out, so that compilers make vectors of it
    for (std::uint32_t i = kLine<Key>; i-- > 0;) at = last[i] < key ? at : static_cast<Key>(i);
    return at;
  }
  static std::uint64_t any_of(const std::uint32_t* values, std::uint32_t bits) {
    std::uint64_t result = 0;
    for (std::size_t i = 0; i < 64; ++i) result |= std::uint64_t{(values[i] & bits) != 0} << i;
    return result;
  }
  static std::uint32_t rank(const SearchNode<std::uint32_t>& node, std::uint32_t key) {
    std::uint32_t less = 0;
    for (const std::uint32_t last : node.last) less += last < key;
    return less;
  }
  static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
    std::uint32_t less = 0;
    for (std::size_t i = 0; i < node.kFanout; ++i) less += Key128{node.high[i], node.low[i]} < key;
    return less;
  }
};

#if defined(__x86_64__)
#define TRUNKLINE_AVX2 "avx2,bmi,bmi2,popcnt"
// There is no unsigned comparison; max(last, key) == last says "not less".
struct Avx2Search {
  static constexpr std::size_t kWidestSet = 0;
  [[gnu::target(TRUNKLINE_AVX2)]] static std::uint32_t first_not_less(const std::uint16_t* last, std::uint16_t key) {
    const auto* const lines = reinterpret_cast<const __m256i*>(last);
    const __m256i wanted = _mm256_set1_epi16(static_cast<short>(key));
    const __m256i a = _mm256_loadu_si256(lines), b = _mm256_loadu_si256(lines + 1);
    const auto low =
        static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(a, wanted), a)));
    const auto high =
        static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(b, wanted), b)));
    return static_cast<std::uint32_t>(std::countr_zero(std::uint64_t{high} << 32 | low)) / 2;
  }
  [[gnu::target(TRUNKLINE_AVX2)]] static std::uint32_t first_not_less(const std::uint32_t* last, std::uint32_t key) {
    const auto* const lines = reinterpret_cast<const __m256i*>(last);
    const __m256i wanted = _mm256_set1_epi32(static_cast<int>(key));
    const __m256i a = _mm256_loadu_si256(lines), b = _mm256_loadu_si256(lines + 1);
    const int low = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, wanted), a)));
    const int high = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(b, wanted), b)));
    return static_cast<std::uint32_t>(std::countr_zero(static_cast<std::uint32_t>(high << 8 | low)));
  }
  [[gnu::target(TRUNKLINE_AVX2)]] static std::uint64_t any_of(const std::uint32_t* values, std::uint32_t bits) {
    const __m256i wanted = _mm256_set1_epi32(static_cast<int>(bits));
    std::uint64_t none = 0;
    for (std::size_t i = 0; i < 64; i += 8) {
      const __m256i some = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i)), wanted);
      const __m256i is_none = _mm256_cmpeq_epi32(some, _mm256_setzero_si256());
      none |= std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(is_none)))} << i;
    }
    return ~none;
  }
  [[gnu::target(TRUNKLINE_AVX2)]] static std::uint32_t rank(const SearchNode<std::uint32_t>& node, std::uint32_t key) {
    const auto* const lines = reinterpret_cast<const __m256i*>(node.last.data());
    const __m256i wanted = _mm256_set1_epi32(static_cast<int>(key));
    const __m256i a = _mm256_load_si256(lines), b = _mm256_load_si256(lines + 1);
    const __m256i not_less = _mm256_packs_epi32(_mm256_cmpeq_epi32(_mm256_max_epu32(a, wanted), a),
                                                _mm256_cmpeq_epi32(_mm256_max_epu32(b, wanted), b));
    return 16 - ones(_mm256_movemask_epi8(not_less)) / 2;
  }
  [[gnu::target(TRUNKLINE_AVX2)]] static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
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
  static std::uint32_t ones(int mask) {
    return static_cast<std::uint32_t>(std::popcount(static_cast<std::uint32_t>(mask)));
  }
};

#define TRUNKLINE_AVX512 "avx512f,avx512bw,bmi,bmi2,popcnt"
struct Avx512Search {
  static constexpr std::size_t kWidestSet = 1024;
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t first_not_less(const std::uint16_t* last, std::uint16_t key) {
    const __mmask32 not_less =
        _mm512_cmple_epu16_mask(_mm512_set1_epi16(static_cast<short>(key)), _mm512_loadu_si512(last));
    return static_cast<std::uint32_t>(std::countr_zero(not_less));
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t first_not_less(const std::uint32_t* last, std::uint32_t key) {
    const __mmask16 not_less =
        _mm512_cmple_epu32_mask(_mm512_set1_epi32(static_cast<int>(key)), _mm512_loadu_si512(last));
    return static_cast<std::uint32_t>(std::countr_zero(std::uint32_t{not_less}));
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint64_t any_of(const std::uint32_t* values, std::uint32_t bits) {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int>(bits));
    std::uint64_t result = 0;
    for (std::size_t i = 0; i < 64; i += 16)
      result |= std::uint64_t{_mm512_test_epi32_mask(_mm512_loadu_si512(values + i), wanted)} << i;
    return result;
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t rank(const SearchNode<std::uint32_t>& node,
                                                              std::uint32_t key) {
    return ones(_mm512_cmpgt_epu32_mask(_mm512_set1_epi32(static_cast<int>(key)), _mm512_load_si512(&node)));
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static std::uint32_t rank(const SearchNode<Key128>& node, const Key128& key) {
    const __m512i highs = _mm512_load_si512(node.high.data()), lows = _mm512_load_si512(node.low.data());
    const __m512i high = _mm512_set1_epi64(static_cast<long long>(key.high));
    const __mmask8 low_less = _mm512_cmplt_epu64_mask(lows, _mm512_set1_epi64(static_cast<long long>(key.low)));
    return ones(_mm512_cmplt_epu64_mask(highs, high) | _mm512_mask_cmpeq_epi64_mask(low_less, highs, high));
  }

  // All words of all sets at once: those that a set has are spread to their places by its summary. What is read behind
  // a set's words, up to two lines, goes nowhere.
  [[gnu::target(TRUNKLINE_AVX512)]] static CommonRules common(const std::uint64_t* words, std::uint64_t ports,
                                                              std::span<const std::uint64_t> sources,
                                                              std::uint64_t marked) {
    struct Wide {
      __m512i low, high;
    };
    const auto spread = [words](std::uint64_t set) __attribute__((target(TRUNKLINE_AVX512), always_inline)) {
      const std::uint64_t* const from = words + (set >> 32);
      const auto low = static_cast<__mmask8>(set), high = static_cast<__mmask8>(set >> 8);
      return Wide{_mm512_maskz_expand_epi64(low, _mm512_loadu_si512(from)),
                  _mm512_maskz_expand_epi64(high, _mm512_loadu_si512(from + ones(low)))};
    };
    Wide remote = spread(sources[0]);
    for (const std::uint64_t source : sources.subspan(1)) {
      const Wide more = spread(source);
      remote = {_mm512_or_si512(remote.low, more.low), _mm512_or_si512(remote.high, more.high)};
    }
    const Wide own = spread(ports);
    const Wide hit{_mm512_and_si512(remote.low, own.low), _mm512_and_si512(remote.high, own.high)};
    const std::uint32_t hit_words =
        _mm512_test_epi64_mask(hit.low, hit.low) | _mm512_test_epi64_mask(hit.high, hit.high) << 8;
    alignas(64) std::array<std::uint64_t, 16> all;
    _mm512_store_si512(&all[0], hit.low);
    _mm512_store_si512(&all[8], hit.high);
    const std::uint32_t first = static_cast<std::uint32_t>(std::countr_zero(hit_words | 1U << 15));
    bool with_marked = false;
    if (marked != 0) {
      const Wide third = spread(marked);
      with_marked = (_mm512_test_epi64_mask(hit.low, third.low) | _mm512_test_epi64_mask(hit.high, third.high)) != 0;
    }
    return {hit_words != 0, with_marked,
            static_cast<std::uint16_t>(first * 64 + static_cast<std::uint32_t>(std::countr_zero(all[first])))};
  }

 private:
  static std::uint32_t ones(std::uint32_t mask) { return static_cast<std::uint32_t>(std::popcount(mask)); }
};
#endif

// How deep a search goes, and how many nodes there are on all its levels, used or not: where the "nodes" below the last
// level, which are the intervals, begin.
struct SearchShape {
  std::uint32_t depth;
  std::uint32_t nodes;
};

// Where to look for a port: places in arrays that the ports of all kinds share. `begins`: the place in the table that
// says, by the port's upper bits, how many intervals of this kind end before those with these bits. `intervals`: the
// place of the kind's first interval. Behind the arrays of last keys may follow what is not theirs, kLine keys of it.
struct PortIndex {
  std::uint32_t begins = 0;
  std::uint32_t intervals = 0;
  std::uint32_t shift = 16;  // at most kLine intervals end on ports that have the bits above it in common

  // Where in the table to look.
  std::uint32_t place(std::uint16_t port) const { return begins + (std::uint32_t{port} >> shift); }
  // The place of the port's interval.
  template <class Search>
  [[gnu::always_inline]] std::uint32_t find(const std::uint16_t* table, const std::uint16_t* last,
                                            std::uint16_t port) const {
    const std::uint32_t from = intervals + table[place(port)];
    return from + Search::first_not_less(last + from, port);
  }
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
    std::size_t at = 0;
    for (std::uint32_t level = shape.depth; level != 0; --level) at = step<Search>(nodes, at, key);
    return values[at / sizeof(Node) - shape.nodes];
  }

  // One level down. `at` is the node's place in bytes, which saves a shift.
  template <class Search>
  [[gnu::always_inline]] static std::size_t step(const Node* nodes, std::size_t at, const Key& key) {
    const auto* const node = reinterpret_cast<const Node*>(reinterpret_cast<const std::byte*>(nodes) + at);
    return at * Node::kFanout + std::size_t{Search::rank(*node, key)} * sizeof(Node) + sizeof(Node);
  }
};

// Many searches at once, level by level. One search is a chain of dependent loads; a processor overlaps those that
// stand near each other in the program, so the first steps of all searches stand together, then the second ones.
template <typename Key, typename Value>
struct OneSearch {
  const SearchNode<Key>* nodes;
  const Value* values;
  SearchShape shape;
  Key key;

  // Field by field: as a whole it would be put together elsewhere and copied.
  [[gnu::always_inline]] void set(const IntervalMap<Key, Value>& map, SearchShape its_shape, const Key& its_key) {
    nodes = map.nodes;
    values = map.values;
    shape.depth = its_shape.depth;
    shape.nodes = its_shape.nodes;
    key = its_key;
  }
};

// How deep the searches of a batch go. A local variable of the loop that fills the batch, or it would live in memory.
struct DepthRange {
  std::uint32_t least = ~std::uint32_t{0};
  std::uint32_t most = 0;
  void add(SearchShape shape) {
    least = std::min(least, shape.depth);
    most = std::max(most, shape.depth);
  }
};

// result[i]: the value of the i-th key.
template <class Search, typename Key, typename Value>
[[gnu::always_inline]] inline void find_all(const OneSearch<Key, Value>* searches, std::size_t count, DepthRange depth,
                                            std::size_t* at, Value* result) {
  using Map = IntervalMap<Key, Value>;
  if (count == 0) return;
  for (std::size_t i = 0; i < count; ++i) {
    at[i] = depth.least == 0 ? 0 : Map::template step<Search>(searches[i].nodes, 0, searches[i].key);
  }
  for (std::uint32_t level = 1; level < depth.least; ++level) {
    for (std::size_t i = 0; i < count; ++i)
      at[i] = Map::template step<Search>(searches[i].nodes, at[i], searches[i].key);
  }
  if (depth.least != depth.most) {
    for (std::size_t i = 0; i < count; ++i) {
      for (std::uint32_t level = depth.least; level < searches[i].shape.depth; ++level) {
        at[i] = Map::template step<Search>(searches[i].nodes, at[i], searches[i].key);
      }
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    result[i] = searches[i].values[at[i] / sizeof(typename Map::Node) - searches[i].shape.nodes];
  }
}

}  // namespace trunkline::detail
