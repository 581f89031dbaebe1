// SPDX-License-Identifier: BSD-3-Clause
//
// Ordered maps and sets whose copies share what they have in common. The desired state is made of them, so that "build
// the next state beside the present one" costs in proportion to what differs, and so does telling two states apart.
//
// Elements lie in sorted chunks, the chunks under one root; root, chunks and a map's values are each shared between copies
// and copied the first time that a copy changes them. A copy of the whole is one pointer; a change copies the root (a
// pointer for each chunk), one chunk and one value; for_each_difference() passes over everything that is shared.
//
// Rules:
//  * Reading is as with std::map and std::set. Writing goes through operator[], insert_or_assign(), try_emplace(), erase();
//    iterators do not write, since whoever writes has to say so before it is known whether there is something to copy.
//  * A reference that operator[] or try_emplace() gave is good until the map is copied: after that, what is written
//    through it would show in the copy too. Ask again after a copy.
//  * The address of a value identifies it: two maps that give the same address for a key have the same value there. The
//    converse does not hold; values that are equal may lie apart.
//  * Iterators and references are good while the map is not changed; references to other values survive a change.
//
// Each object for one thread at a time; two copies in two threads are two objects that share (count what you do: the
// last owner of a part changes it in place).
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace trunkline::config {

// What the map and the set have in common. `Element` is what lies in a chunk; Order::key(element) is what it is sorted by.
template <class Element, class Order, std::size_t kChunk>
class SharedChunks {
 public:
  using Key = typename Order::Key;

  class const_iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = typename Order::Value;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = const value_type&;

    const_iterator() = default;
    reference operator*() const { return Order::value(element()); }
    pointer operator->() const { return &Order::value(element()); }
    const_iterator& operator++() {
      if (++place_ == (*root_)[chunk_]->size()) {
        ++chunk_;
        place_ = 0;
      }
      return *this;
    }
    const_iterator operator++(int) {
      const_iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const const_iterator& a, const const_iterator& b) {
      return a.chunk_ == b.chunk_ && a.place_ == b.place_;
    }

   private:
    friend SharedChunks;
    using Root = std::vector<std::shared_ptr<std::vector<Element>>>;
    const_iterator(const Root* root, std::size_t chunk, std::size_t place) : root_(root), chunk_(chunk), place_(place) {}
    const Element& element() const { return (*(*root_)[chunk_])[place_]; }
    bool at_end() const { return root_ == nullptr || chunk_ == root_->size(); }
    const void* whole_chunk() const { return place_ == 0 ? (*root_)[chunk_].get() : nullptr; }
    void skip_chunk() {
      ++chunk_;
      place_ = 0;
    }

    const Root* root_ = nullptr;
    std::size_t chunk_ = 0;
    std::size_t place_ = 0;
  };
  using iterator = const_iterator;

  const_iterator begin() const { return {root_.get(), 0, 0}; }
  const_iterator end() const { return {root_.get(), root_ ? root_->size() : 0, 0}; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool contains(const Key& key) const { return find(key) != end(); }
  const_iterator find(const Key& key) const {
    const const_iterator place = lower_bound(key);
    return !place.at_end() && Order::key(place.element()) == key ? place : end();
  }
  void clear() {
    root_.reset();
    size_ = 0;
  }
  std::size_t erase(const Key& key) {
    const const_iterator place = find(key);
    if (place == end()) return 0;
    Root& root = own_root();
    Chunk& chunk = own_chunk(place.chunk_);
    chunk.erase(chunk.begin() + static_cast<std::ptrdiff_t>(place.place_));
    --size_;
    if (chunk.empty()) {
      root.erase(root.begin() + static_cast<std::ptrdiff_t>(place.chunk_));
    } else if (place.chunk_ + 1 < root.size() && chunk.size() + root[place.chunk_ + 1]->size() <= kChunk / 2) {
      const Chunk& next = *root[place.chunk_ + 1];
      chunk.insert(chunk.end(), next.begin(), next.end());
      root.erase(root.begin() + static_cast<std::ptrdiff_t>(place.chunk_ + 1));
    }
    return 1;
  }
  template <class Predicate>
  std::size_t erase_if(Predicate predicate) {
    std::vector<Key> gone;
    for (const auto& value : *this) {
      if (predicate(value)) gone.push_back(Order::key_of(value));
    }
    for (const Key& key : gone) erase(key);
    return gone.size();
  }

 protected:
  using Chunk = std::vector<Element>;
  using Root = std::vector<std::shared_ptr<Chunk>>;

  // The first element that is not below `key`.
  const_iterator lower_bound(const Key& key) const {
    if (!root_) return end();
    // The last chunk that begins at or below the key, or else the first one.
    const auto above = std::partition_point(root_->begin(), root_->end(), [&](const auto& chunk) {
      return !(key < Order::key(chunk->front()));
    });
    if (above == root_->begin()) return begin();
    const auto number = static_cast<std::size_t>(above - root_->begin()) - 1;
    const Chunk& chunk = *(*root_)[number];
    const auto found =
        std::partition_point(chunk.begin(), chunk.end(), [&](const Element& each) { return Order::key(each) < key; });
    if (found == chunk.end()) return {root_.get(), number + 1, 0};
    return {root_.get(), number, static_cast<std::size_t>(found - chunk.begin())};
  }

  // `place` is lower_bound() of its key, which is not there yet. The element where it now lies.
  Element& insert(const const_iterator& place, Element element) {
    Root& root = own_root();
    ++size_;
    if (root.empty()) {
      root.push_back(std::make_shared<Chunk>());
      root.back()->reserve(kChunk);
    }
    // At the end of the chunk before, rather than at the beginning of the next one.
    std::size_t number = place.chunk_, at = place.place_;
    if (at == 0 && number > 0) at = root[--number]->size();
    if (root[number]->size() == kChunk) {
      Chunk& left = own_chunk(number);
      // What comes in order fills its chunks.
      const std::size_t half = number + 1 == root.size() && at == kChunk ? kChunk : kChunk / 2;
      auto right = std::make_shared<Chunk>();
      right->reserve(kChunk);
      right->assign(left.begin() + static_cast<std::ptrdiff_t>(half), left.end());
      left.resize(half);
      root.insert(root.begin() + static_cast<std::ptrdiff_t>(number) + 1, std::move(right));
      if (at > half || half == kChunk) {
        ++number;
        at -= half;
      }
    }
    Chunk& chunk = own_chunk(number);
    return *chunk.insert(chunk.begin() + static_cast<std::ptrdiff_t>(at), std::move(element));
  }

  Element& own_element(const const_iterator& place) {
    own_root();
    return own_chunk(place.chunk_)[place.place_];
  }

  // Calls visit(a's element or null, b's element or null) for each key whose elements are not the same one, in order,
  // until it says false.
  template <class Visit>
  static void differences(const SharedChunks& a, const SharedChunks& b, Visit visit) {
    if (a.root_ == b.root_) return;
    const_iterator left = a.begin(), right = b.begin();
    while (!left.at_end() || !right.at_end()) {
      if (left.at_end()) {
        if (!visit(nullptr, &right.element())) return;
        ++right;
      } else if (right.at_end()) {
        if (!visit(&left.element(), nullptr)) return;
        ++left;
      } else if (left.whole_chunk() != nullptr && left.whole_chunk() == right.whole_chunk()) {
        left.skip_chunk();
        right.skip_chunk();
      } else {
        const Element& mine = left.element();
        const Element& other = right.element();
        if (Order::same(mine, other)) {
          ++left;
          ++right;
        } else if (Order::key(mine) < Order::key(other)) {
          if (!visit(&mine, nullptr)) return;
          ++left;
        } else if (Order::key(other) < Order::key(mine)) {
          if (!visit(nullptr, &other)) return;
          ++right;
        } else {
          if (!visit(&mine, &other)) return;
          ++left;
          ++right;
        }
      }
    }
  }

 private:
  Root& own_root() {
    if (!root_) {
      root_ = std::make_shared<Root>();
    } else if (root_.use_count() != 1) {
      root_ = std::make_shared<Root>(*root_);
    }
    return *root_;
  }
  Chunk& own_chunk(std::size_t number) {
    std::shared_ptr<Chunk>& chunk = (*root_)[number];
    if (chunk.use_count() != 1) {
      auto copy = std::make_shared<Chunk>();
      copy->reserve(kChunk);
      copy->assign(chunk->begin(), chunk->end());
      chunk = std::move(copy);
    }
    return *chunk;
  }

  std::shared_ptr<Root> root_;
  std::size_t size_ = 0;
};

template <class K>
struct SharedSetOrder {
  using Key = K;
  using Value = K;
  static const K& key(const K& element) { return element; }
  static const K& key_of(const K& element) { return element; }
  static const K& value(const K& element) { return element; }
  static bool same(const K& a, const K& b) { return a == b; }
};

// For small values without pointers.
template <class K>
class SharedSet : public SharedChunks<K, SharedSetOrder<K>, 256> {
  using Base = SharedChunks<K, SharedSetOrder<K>, 256>;

 public:
  SharedSet() = default;
  SharedSet(std::initializer_list<K> keys) : SharedSet(keys.begin(), keys.end()) {}
  template <class Iterator>
  SharedSet(Iterator first, Iterator last) {
    std::vector<K> keys(first, last);
    std::sort(keys.begin(), keys.end());
    for (const K& key : keys) insert(key);
  }

  bool insert(const K& key) {
    const auto place = this->lower_bound(key);
    if (place != this->end() && *place == key) return false;
    Base::insert(place, key);
    return true;
  }

  friend bool operator==(const SharedSet& a, const SharedSet& b) {
    if (a.size() != b.size()) return false;
    bool equal = true;
    Base::differences(a, b, [&](const K*, const K*) { return equal = false; });
    return equal;
  }

  // visit(key, whether `after` has it) for each key that only one of them has, in order.
  template <class Visit>
  friend void for_each_difference(const SharedSet& before, const SharedSet& after, Visit visit) {
    Base::differences(before, after, [&](const K* gone, const K* come) {
      visit(come != nullptr ? *come : *gone, come != nullptr);
      return true;
    });
  }
};

template <class K, class T>
struct SharedMapOrder {
  using Key = K;
  using Value = std::pair<const K, T>;
  using Element = std::shared_ptr<Value>;
  static const K& key(const Element& element) { return element->first; }
  static const K& key_of(const Value& value) { return value.first; }
  static const Value& value(const Element& element) { return *element; }
  static bool same(const Element& a, const Element& b) { return a == b; }
};

template <class K, class T>
class SharedMap : public SharedChunks<std::shared_ptr<std::pair<const K, T>>, SharedMapOrder<K, T>, 32> {
  using Element = std::shared_ptr<std::pair<const K, T>>;
  using Base = SharedChunks<Element, SharedMapOrder<K, T>, 32>;

 public:
  using value_type = std::pair<const K, T>;

  const T& at(const K& key) const {
    const T* found = get(key);
    if (found == nullptr) throw std::out_of_range("SharedMap::at");
    return *found;
  }
  // nullptr: not there.
  const T* get(const K& key) const {
    const auto place = this->find(key);
    return place == this->end() ? nullptr : &place->second;
  }
  T& operator[](const K& key) { return try_emplace(key).first; }
  // The value that is there now, and whether it is new. An old one is left as it is.
  template <class... Args>
  std::pair<T&, bool> try_emplace(const K& key, Args&&... args) {
    const auto place = this->lower_bound(key);
    if (place != this->end() && place->first == key) {
      Element& element = this->own_element(place);
      if (element.use_count() != 1) element = std::make_shared<value_type>(*element);
      return {element->second, false};
    }
    auto element = std::make_shared<value_type>(std::piecewise_construct, std::forward_as_tuple(key),
                                                std::forward_as_tuple(std::forward<Args>(args)...));
    return {Base::insert(place, std::move(element))->second, true};
  }
  // The key may be a part of the value that is moved from: it is read first.
  template <class V>
  void insert_or_assign(const K& key, V&& value) {
    const auto place = this->lower_bound(key);
    auto element = std::make_shared<value_type>(key, std::forward<V>(value));
    if (place != this->end() && place->first == element->first) {
      this->own_element(place) = std::move(element);
    } else {
      Base::insert(place, std::move(element));
    }
  }

  friend bool operator==(const SharedMap& a, const SharedMap& b) {
    if (a.size() != b.size()) return false;
    bool equal = true;
    Base::differences(a, b, [&](const Element* x, const Element* y) {
      return equal = x != nullptr && y != nullptr && (*x)->second == (*y)->second;
    });
    return equal;
  }

  // visit(key, before's value or null, after's value or null) for each key whose values are not one and the same, in
  // order. They may be equal still, which costs a comparison to find out.
  template <class Visit>
  friend void for_each_unshared(const SharedMap& before, const SharedMap& after, Visit visit) {
    Base::differences(before, after, [&](const Element* x, const Element* y) {
      visit((x != nullptr ? *x : *y)->first, x != nullptr ? &(*x)->second : nullptr, y != nullptr ? &(*y)->second : nullptr);
      return true;
    });
  }
  // The same for each key whose values differ.
  template <class Visit>
  friend void for_each_difference(const SharedMap& before, const SharedMap& after, Visit visit) {
    for_each_unshared(before, after, [&](const K& key, const T* old_value, const T* new_value) {
      if (old_value == nullptr || new_value == nullptr || !(*old_value == *new_value)) visit(key, old_value, new_value);
    });
  }
};

}  // namespace trunkline::config
