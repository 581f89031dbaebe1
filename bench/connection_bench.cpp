// SPDX-License-Identifier: BSD-3-Clause
//
// The connection table alone, beside DPDK's rte_hash with the same 16-byte keys in the same process, in turns: a burst of 32 keys
// is hashed, looked up and its entry touched. What rte_hash finds is an index; it gets an array of 64-byte entries so that both do
// the same work. `./dev bench quick`.
#include <benchmark/benchmark.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>

#include <memory>
#include <stdexcept>

#include "bench/bench_world.h"
#include "bench/sampling.h"

namespace trunkline::bench {
namespace {

constexpr std::uint32_t kSample = 16384;  // keys

FlowKey key_of(std::uint32_t number) {
  FlowKey key;
  key.remote = 0xc6330000U + number / 50000;
  key.local = 0x0a000000U + number % 120;
  key.remote_port = static_cast<std::uint16_t>(number % 50000);
  key.local_port = 0x5000;
  key.owner = FlowKey::owner_of(EndpointId{static_cast<std::uint16_t>(number % 120)}, 1) | FlowKey::protocol_bits(6);
  return key;
}

void fill(ConnectionTable& table, std::uint32_t first, std::uint32_t count) {
  for (std::uint32_t i = first; i < first + count; ++i) {
    const FlowKey key = key_of(i);
    if (Connection* made = table.insert(Connection::of(key, 1), table.hash(key)).connection) made->state = ConnectionState::established;
  }
}

// The three passes of the track stage.
std::uint64_t look_up(const ConnectionTable& table, const FlowKey* keys, std::uint32_t count) {
  std::uint64_t hashes[kBurst], found = 0;
  Connection* entries[kBurst];
  for (std::uint32_t i = 0; i < count; ++i) hashes[i] = table.hash(keys[i]), table.prefetch(hashes[i]);
  for (std::uint32_t i = 0; i < count; ++i) entries[i] = table.candidate(hashes[i]);
  for (std::uint32_t i = 0; i < count; ++i) {
    Connection* entry = entries[i];
    if (entry == nullptr || !(entry->key == keys[i])) entry = table.find(keys[i], hashes[i]);
    if (entry == nullptr) continue;
    ++entry->totals[0].packets;
    ++found;
  }
  return found;
}

class Keys {
 public:
  Keys(std::uint32_t first, std::uint32_t count) : order_(shuffled(count, 5)), first_(first), keys_(new FlowKey[kSample]) {}
  const FlowKey* next() {
    for (std::uint32_t i = 0; i < kSample; ++i) {
      keys_[i] = key_of(first_ + order_[at_]);
      at_ = at_ + 1 == order_.size() ? 0 : at_ + 1;
    }
    return keys_.get();
  }

 private:
  std::vector<std::uint32_t> order_;
  std::uint32_t first_;
  std::size_t at_ = 0;
  std::unique_ptr<FlowKey[]> keys_;
};

struct Peer {
  explicit Peer(std::uint32_t count)
      : entries(static_cast<Connection*>(rte_zmalloc(nullptr, (count + 16) * sizeof(Connection), 64))) {
    if (entries == nullptr) throw std::runtime_error("no huge pages for rte_hash's entries");
    rte_hash_parameters parameters{};
    parameters.name = "peer";
    parameters.entries = std::max(count + count / 4, 1024U);
    parameters.key_len = sizeof(FlowKey);
    parameters.hash_func = rte_hash_crc;
    parameters.socket_id = 0;
    hash = rte_hash_create(&parameters);
    if (hash == nullptr) throw std::runtime_error(std::string("rte_hash_create: ") + rte_strerror(rte_errno));
    for (std::uint32_t i = 0; i < count; ++i) {
      const FlowKey key = key_of(i);
      if (rte_hash_add_key_data(hash, &key, &entries[i]) != 0) throw std::runtime_error("rte_hash is full");
    }
  }
  ~Peer() {
    rte_hash_free(hash);
    rte_free(entries);
  }

  std::uint64_t look_up(const FlowKey* keys, std::uint32_t count) const {
    const void* pointers[kBurst];
    void* data[kBurst] = {};
    std::uint64_t hits = 0;
    for (std::uint32_t i = 0; i < count; ++i) pointers[i] = &keys[i];
    rte_hash_lookup_bulk_data(hash, pointers, count, &hits, data);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (hits >> i & 1) ++static_cast<Connection*>(data[i])->totals[0].packets;
    }
    return static_cast<std::uint64_t>(std::popcount(hits));
  }

  Connection* entries;
  rte_hash* hash = nullptr;
};

// hit: keys that are there; miss: keys that are not.
void look(benchmark::State& state, bool hit) {
  const auto count = static_cast<std::uint32_t>(state.range(0));
  ConnectionTable table(count + count / 8 + 64, 7);
  fill(table, 0, count);
  Keys ours(hit ? 0 : count, count), theirs(hit ? 0 : count, count);
  std::uint64_t found = 0, peer_found = 0;
  // rte_hash at 10 million keys does not fit the memory that this program gives DPDK; the table is measured alone there.
  const auto peer = count <= 1'000'000 ? std::make_unique<Peer>(count) : nullptr;
  std::uint64_t our_samples = 0, peer_samples = 0;
  const auto sample = [&](bool mine) {
    const FlowKey* keys = mine ? ours.next() : theirs.next();
    const double cycles = cycles_a_packet([&] {
      for (std::uint32_t i = 0; i < kSample; i += kBurst) {
        if (mine) found += look_up(table, keys + i, kBurst);
        else peer_found += peer->look_up(keys + i, kBurst);
      }
      return std::size_t{kSample};
    });
    ++(mine ? our_samples : peer_samples);
    return cycles;
  };
  bool ours_first = false;
  for (auto _ : state) {
    if (peer == nullptr) {
      report(state.counters, samples_of(24, [&] { return sample(true); }));
      continue;
    }
    report(state.counters, samples_of(24, [&]() -> Row<2> {
             ours_first = !ours_first;
             const double first = sample(ours_first), second = sample(!ours_first);
             return ours_first ? Row<2>{first, second} : Row<2>{second, first};
           }));
  }
  if (found != (hit ? our_samples * kSample : 0)) state.SkipWithError("the table did not find what it should");
  if (peer != nullptr && peer_found != (hit ? peer_samples * kSample : 0)) state.SkipWithError("rte_hash did not find what it should");
  state.counters["bytes"] = static_cast<double>(table.memory_bytes()) / static_cast<double>(table.capacity());
  state.counters["page_kb"] = static_cast<double>(table.page_bytes()) / 1024;
}
void table_hit(benchmark::State& state) { look(state, true); }
void table_miss(benchmark::State& state) { look(state, false); }
BENCHMARK(table_hit)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Arg(10'000'000)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(table_miss)->Arg(10'000)->Arg(1'000'000)->Iterations(1)->Unit(benchmark::kMillisecond);

void table_insert(benchmark::State& state) {
  const auto count = static_cast<std::uint32_t>(state.range(0));
  ConnectionTable table(count + count / 8 + 2 * kSample, 7);
  fill(table, 0, count);
  std::uint32_t next = count;
  Samples<2> samples;
  std::vector<Connection*> made(kSample);
  for (auto _ : state) {
    samples.take(40, [&]() -> Row<2> {
      std::vector<FlowKey> keys(kSample);
      for (auto& key : keys) key = key_of(next++);
      const double insert = cycles_a_packet([&] {
        for (std::uint32_t first = 0; first < kSample; first += kBurst) {
          std::uint64_t hashes[kBurst];
          for (std::uint32_t k = 0; k < kBurst; ++k) hashes[k] = table.hash(keys[first + k]), table.prefetch(hashes[k]);
          for (std::uint32_t k = 0; k < kBurst; ++k) made[first + k] = table.insert(Connection::of(keys[first + k], 1), hashes[k]).connection;
        }
        return std::size_t{kSample};
      });
      return {insert, cycles_a_packet([&] {
                for (Connection* connection : made) table.erase(connection);
                return std::size_t{kSample};
              })};
    });
  }
  report(state.counters, samples, [](const Row<2>& row) { return row[0]; });
  state.counters["erase"] = median(samples.column(1));
}
BENCHMARK(table_insert)->Arg(10'000)->Arg(1'000'000)->Iterations(1)->Unit(benchmark::kMillisecond);

// The sweep over connections that live, and over ones that are all dead: cycles an entry.
void table_sweep(benchmark::State& state) {
  const bool dead = state.range(0) != 0;
  BenchWorld world(120, open_rules(), 1'100'000);
  ConnectionTable& table = world.worker.connections;
  std::vector<double> samples;
  for (auto _ : state) {
    for (int i = 0; i < (dead ? 5 : 20); ++i) {
      if (table.size() == 0) fill(table, 0, 1'000'000);
      const Tick now = dead ? seconds(432'001) : 2;
      samples.push_back(cycles_a_packet([&] {
        while (!table.sweep(64, now, *world.view)) {
        }
        return std::size_t{1'000'000};
      }));
    }
  }
  if ((table.size() == 0) != dead) state.SkipWithError("the sweep freed what it should not, or did not");
  report(state.counters, samples);
}
BENCHMARK(table_sweep)->ArgName("dead")->Arg(0)->Arg(1)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trunkline::bench

int main(int argc, char** argv) {
  // rte_hash takes its memory from DPDK: huge pages, as the connection table has them.
  char name[] = "trunkline-connection-bench", memory[] = "-m", megabytes[] = "384", no_pci[] = "--no-pci",
       no_telemetry[] = "--no-telemetry", lcore[] = "-l", zero[] = "0", level[] = "--log-level=1", in_memory[] = "--in-memory";
  char* eal[] = {name, memory, megabytes, no_pci, no_telemetry, lcore, zero, level, in_memory};
  if (rte_eal_init(std::size(eal), eal) < 0) {
    std::fprintf(stderr, "DPDK did not start: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
