// SPDX-License-Identifier: BSD-3-Clause
//
// The journal against disks that lie, fill up or are read-only, and against engines that died half-way. Real files in a
// directory of its own; the tests that need root (a small tmpfs, an immutable mount) are skipped without it.
#include "control/journal.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "config/json_reader.h"
#include "config/state_json.h"

namespace trunkline::control {
namespace {

namespace fs = std::filesystem;
using config::DesiredState;
using config::Json;

DesiredState state_of(std::uint64_t revision) {
  DesiredState state;
  state.revision = revision;
  config::Subnet subnet;
  subnet.id = "subnet-c070009b";
  subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
  subnet.availability_zone = "eu-central-1a";
  subnet.vpc_id = "vpc-12345678";
  state.subnets[subnet.id] = subnet;
  config::SecurityGroup group;
  group.id = "sg-9effe8e4";
  group.name =
      "w\xc3\xa9"
      "b";
  state.security_groups[group.id] = group;
  state.remote_members["sg-9effe8e4"] = {*IpAddress::parse("10.0.9.9")};
  state.finished_tasks["arn:aws:ecs:eu-central-1:123456789012:task/c/0123456789abcdef0123456789abcdef"] = 4;
  return state;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

std::string fnv(const std::string& text) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  char digits[17];
  snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

// A file as an engine of that version would write it.
std::string file_of(int version, const Json& state) {
  return Json{{"format", "trunkline-state"},
              {"version", version},
              {"checksum", fnv(std::to_string(version) + ':' + state.dump())},
              {"state", state}}
             .dump() +
         '\n';
}

std::string error_of(const std::expected<void, std::string>& result) { return result ? "" : result.error(); }

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "trunkline-journal-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    path_ = directory_ + "/state.json";
    previous_ = path_ + ".previous";
    log_ = directory_ + "/state.log";
    mark_ = directory_ + "/state.mark";
  }
  void TearDown() override {
    std::error_code ignored;
    fs::permissions(directory_, fs::perms::owner_all, ignored);
    fs::remove_all(directory_, ignored);
  }

  // Names in the directory that begin so.
  std::vector<std::string> names(const std::string& beginning) const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      const std::string name = entry.path().filename();
      if (name.starts_with(beginning)) found.push_back(name);
    }
    std::ranges::sort(found);
    return found;
  }

  void empty_directory() const {
    for (const auto& entry : fs::directory_iterator(directory_)) fs::remove_all(entry.path());
  }

  // Two generations, revisions 1 (previous) and 2.
  void save_two() const {
    Journal journal(directory_);
    ASSERT_TRUE(journal.save(state_of(1)));
    ASSERT_TRUE(journal.save(state_of(2)));
  }

  std::string directory_, path_, previous_, log_, mark_;
};

TEST_F(JournalTest, NothingThereIsNothingLoaded) {
  Journal journal(directory_);
  const auto loaded = journal.load();
  EXPECT_FALSE(loaded.state);
  EXPECT_FALSE(loaded.quarantined);
  EXPECT_EQ(loaded.note, "");
  EXPECT_EQ(journal.path(), path_);
}

TEST_F(JournalTest, WhatIsSavedIsLoaded) {
  save_two();
  const auto loaded = Journal(directory_).load();
  ASSERT_TRUE(loaded.state);
  EXPECT_EQ(*loaded.state, state_of(2));
  EXPECT_EQ(loaded.note, "");
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(names(""), (std::vector<std::string>{"state.json", "state.json.previous", "state.mark"}));  // no temporary is left
}

TEST_F(JournalTest, AnEmptyStateIsAState) {
  ASSERT_TRUE(Journal(directory_).save({}));
  const auto loaded = Journal(directory_).load();
  ASSERT_TRUE(loaded.state);
  EXPECT_EQ(*loaded.state, DesiredState());
}

TEST_F(JournalTest, TheFileIsWhatTheHeaderSays) {
  save_two();
  const Json file = Json::parse(read_file(path_));
  EXPECT_EQ(file.size(), 4U);
  EXPECT_EQ(read_file(path_), file_of(3, file["state"]));
}

TEST_F(JournalTest, ABrokenFileIsSetAsideAndThePreviousUsed) {
  save_two();
  write_file(path_, "{\"format\":");
  const auto loaded = Journal(directory_).load();
  ASSERT_TRUE(loaded.state);
  EXPECT_EQ(loaded.state->revision, 1U);
  ASSERT_TRUE(loaded.quarantined);
  EXPECT_TRUE(loaded.quarantined->starts_with(path_ + ".bad-2"));
  EXPECT_TRUE(loaded.quarantined->ends_with("Z"));
  EXPECT_EQ(read_file(*loaded.quarantined), "{\"format\":");
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_NE(loaded.note.find("is broken"), std::string::npos) << loaded.note;

  // Killed before anything was saved: the same generation again, and no second quarantine.
  const auto again = Journal(directory_).load();
  ASSERT_TRUE(again.state);
  EXPECT_EQ(again.state->revision, 1U);
  EXPECT_FALSE(again.quarantined);
}

TEST_F(JournalTest, ASaveAfterAQuarantineIsKeptTwice) {
  save_two();
  write_file(path_, "junk");
  Journal journal(directory_);
  ASSERT_TRUE(journal.load().quarantined);
  ASSERT_TRUE(journal.save(state_of(3)));
  EXPECT_EQ(Journal(directory_).load().state->revision, 3U);
  write_file(path_, "junk again");
  EXPECT_EQ(Journal(directory_).load().state->revision, 3U) << "not what was there before it";
  EXPECT_EQ(names("state.json.bad-").size(), 2U);
}

TEST_F(JournalTest, BothGenerationsBrokenIsNothingLoaded) {
  save_two();
  write_file(path_, "junk");
  write_file(previous_, "older junk");
  Journal journal(directory_);
  const auto loaded = journal.load();
  EXPECT_FALSE(loaded.state);
  EXPECT_EQ(names("state.json.bad-").size(), 1U);
  EXPECT_EQ(names("state.json.previous.bad-").size(), 1U);
  ASSERT_TRUE(journal.save(state_of(9)));
  EXPECT_EQ(Journal(directory_).load().state->revision, 9U);
}

TEST_F(JournalTest, ManyQuarantinesInOneSecondDoNotOverwriteEachOther) {
  for (int i = 0; i < 5; ++i) {
    write_file(path_, "junk " + std::to_string(i));
    ASSERT_TRUE(Journal(directory_).load().quarantined);
  }
  EXPECT_EQ(names("state.json.bad-").size(), 5U);
}

TEST_F(JournalTest, TruncatedAnywhereIsTheOldStateOrTheNewOne) {
  save_two();
  const std::string good = read_file(path_);
  const std::string before = read_file(previous_);
  for (std::size_t size = 0; size <= good.size(); ++size) {
    empty_directory();
    write_file(path_, std::string_view(good).substr(0, size));
    write_file(previous_, before);
    Journal::Loaded loaded;
    ASSERT_NO_THROW(loaded = Journal(directory_).load());
    ASSERT_TRUE(loaded.state) << size;
    // Without the newline at its end it is still whole.
    const bool whole = size + 1 >= good.size();
    ASSERT_EQ(*loaded.state, state_of(whole ? 2 : 1)) << size;
    ASSERT_EQ(loaded.quarantined.has_value(), !whole) << size;
  }
}

TEST_F(JournalTest, AFlippedBitNeverYieldsAnotherState) {
  save_two();
  const std::string good = read_file(path_);
  const std::string before = read_file(previous_);
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    empty_directory();
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    write_file(path_, flipped);
    write_file(previous_, before);
    Journal::Loaded loaded;
    ASSERT_NO_THROW(loaded = Journal(directory_).load());
    ASSERT_TRUE(loaded.state) << bit;
    ASSERT_EQ(*loaded.state, state_of(1)) << "bit " << bit;
    ASSERT_TRUE(loaded.quarantined) << bit;
  }
}

TEST_F(JournalTest, RandomDamageNeverThrows) {
  const auto seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  save_two();
  const std::string good = read_file(path_);
  const std::string before = read_file(previous_);
  for (int i = 0; i < 1000; ++i) {
    empty_directory();
    std::string damaged = good;
    for (auto n = random() % 20 + 1; n > 0; --n) damaged[random() % damaged.size()] = static_cast<char>(random());
    write_file(path_, damaged);
    write_file(previous_, before);
    Journal::Loaded loaded;
    ASSERT_NO_THROW(loaded = Journal(directory_).load());
    ASSERT_TRUE(loaded.state);
    ASSERT_EQ(*loaded.state, state_of(damaged == good ? 2 : 1));
  }
}

TEST_F(JournalTest, AMatchingChecksumDoesNotMakeAState) {
  const Json bad_states[] = {Json::array(), "x", nullptr, {{"revision", "one"}}, {{"no_such_member", 1}}};
  for (const Json& bad : bad_states) {
    empty_directory();
    write_file(path_, file_of(1, bad));
    const auto loaded = Journal(directory_).load();
    EXPECT_FALSE(loaded.state) << bad;
    EXPECT_TRUE(loaded.quarantined) << bad;
  }
}

TEST_F(JournalTest, ThingsThatAreNotFilesDoNotHoldUpTheStart) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  ASSERT_EQ(::mkdir(previous_.c_str(), 0700), 0);
  Journal journal(directory_);
  EXPECT_FALSE(journal.load().state);
  ASSERT_TRUE(journal.save(state_of(1)));
  ASSERT_TRUE(journal.save(state_of(2)));
  EXPECT_EQ(Journal(directory_).load().state->revision, 2U);
}

TEST_F(JournalTest, ANewerVersionIsKeptAndNothingLoaded) {
  const std::string newer = file_of(4, {{"revision", 70}, {"of_the_future", true}});
  save_two();
  write_file(path_, newer);
  Journal journal(directory_);
  const auto loaded = journal.load();
  EXPECT_FALSE(loaded.state);
  EXPECT_FALSE(loaded.quarantined);
  EXPECT_NE(loaded.note.find("newer"), std::string::npos) << loaded.note;
  EXPECT_EQ(read_file(path_), newer);  // until something is saved

  ASSERT_TRUE(journal.save(state_of(3)));
  ASSERT_TRUE(journal.save(state_of(4)));
  const auto kept = names("state.json.newer-");
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(read_file(directory_ + '/' + kept[0]), newer);
  EXPECT_EQ(Journal(directory_).load().state->revision, 4U);
}

TEST_F(JournalTest, ANewerPreviousGenerationIsKeptToo) {
  const std::string newer = file_of(4, {{"revision", 69}});
  write_file(path_, file_of(4, {{"revision", 70}}));
  write_file(previous_, newer);
  ASSERT_TRUE(Journal(directory_).save(state_of(3)));  // without load() before it
  ASSERT_TRUE(Journal(directory_).save(state_of(4)));
  EXPECT_EQ(names("state.json.newer-").size(), 1U);
  const auto kept = names("state.json.previous.newer-");
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(read_file(directory_ + '/' + kept[0]), newer);
  EXPECT_EQ(Journal(directory_).load().state->revision, 4U);
}

TEST_F(JournalTest, SaveWithoutLoadDoesNotOverwriteABrokenFile) {
  write_file(path_, "junk");
  ASSERT_TRUE(Journal(directory_).save(state_of(3)));
  EXPECT_EQ(names("state.json.bad-").size(), 1U);
  EXPECT_EQ(Journal(directory_).load().state->revision, 3U);
}

TEST_F(JournalTest, LeftoversOfAKilledEngineDoNotMatter) {
  save_two();
  const std::string good = read_file(path_);
  // Killed while it wrote; after the link and before its rename; after the rename of the previous generation.
  write_file(path_ + ".tmp", good.substr(0, 20));
  EXPECT_EQ(Journal(directory_).load().state->revision, 2U);
  fs::create_hard_link(path_, previous_ + ".tmp");
  EXPECT_EQ(Journal(directory_).load().state->revision, 2U);
  fs::rename(previous_ + ".tmp", previous_);
  EXPECT_EQ(Journal(directory_).load().state->revision, 2U);
  // state.json and state.json.previous are one file now, and saving goes on all the same.
  write_file(previous_ + ".tmp", "old link");
  ASSERT_TRUE(Journal(directory_).save(state_of(3)));
  EXPECT_EQ(Journal(directory_).load().state->revision, 3U);
  fs::remove(path_);
  EXPECT_EQ(Journal(directory_).load().state->revision, 2U);
  EXPECT_EQ(names(""), (std::vector<std::string>{"state.json.previous", "state.mark"}));
}

TEST_F(JournalTest, KilledAtAnyMomentItIsOneOfTheStatesWhole) {
  // The real thing beside the simulated one: a writer that saves as fast as it can, killed at random moments.
  for (int i = 0; i < 20; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Journal journal(directory_);
      static_cast<void>(journal.load());
      for (std::uint64_t revision = 1;; ++revision) static_cast<void>(journal.save(state_of(revision)));
    }
    ::usleep(static_cast<useconds_t>(2000 + 977 * i));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const auto loaded = Journal(directory_).load();
    ASSERT_FALSE(loaded.quarantined) << loaded.note;
    ASSERT_EQ(loaded.note, "");
    if (loaded.state) {
      ASSERT_EQ(*loaded.state, state_of(loaded.state->revision));
    }
  }
}

// --- the log ---------------------------------------------------------------------------------------------------------

// Revision 1 is a generation, each one after it adds a member and changes a rule.
DesiredState with_changes(std::uint64_t revision) {
  DesiredState state = state_of(revision);
  for (std::uint64_t i = 1; i < revision; ++i) {
    state.remote_members["sg-9effe8e4"].insert(IpAddress::from_v4(static_cast<std::uint32_t>(0x0a010000U + i)));
  }
  config::SecurityGroupRule rule;
  rule.protocol = 6;
  rule.from_port = rule.to_port = static_cast<int>(revision % 60000);
  state.security_groups["sg-9effe8e4"].ingress = {rule};
  return state;
}

TEST_F(JournalTest, AChangeIsALineAndIsLoaded) {
  {
    Journal journal(directory_);
    ASSERT_TRUE(journal.record(with_changes(1)));
    const std::string generation = read_file(path_);
    for (std::uint64_t revision = 2; revision <= 40; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
    EXPECT_EQ(read_file(path_), generation) << "the generation is not written again";
    const std::string log = read_file(log_);
    EXPECT_EQ(std::ranges::count(log, '\n'), 39);
    ASSERT_TRUE(journal.record(with_changes(40)));
    EXPECT_EQ(read_file(log_), log) << "the same state again is on disk already";
  }
  for (int restart = 0; restart < 3; ++restart) {
    Journal journal(directory_);
    const auto loaded = journal.load();
    EXPECT_EQ(loaded.note, "");
    const auto revision = static_cast<std::uint64_t>(40 + restart);
    ASSERT_EQ(loaded.state, with_changes(revision));
    // Goes on in the same log.
    ASSERT_TRUE(journal.record(with_changes(revision + 1)));
  }
  EXPECT_EQ(std::ranges::count(read_file(log_), '\n'), 42);
  EXPECT_EQ(names(""), (std::vector<std::string>{"state.json", "state.json.previous", "state.log", "state.mark"}));
}

TEST_F(JournalTest, ABrokenFileLosesNothingTwiceInARow) {
  std::uint64_t revision = 1;
  for (int round = 0; round < 3; ++round) {
    {
      Journal journal(directory_);
      if (round != 0) ASSERT_EQ(journal.load().state, with_changes(revision)) << round;
      for (int change = 0; change < 3; ++change) ASSERT_TRUE(journal.record(with_changes(++revision)));
    }
    write_file(path_, "{");
  }
  EXPECT_EQ(Journal(directory_).load().state, with_changes(revision));
}

TEST_F(JournalTest, ALogCutOffAnywhereIsToldAndIsTheStateOfItsLastWholeLine) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 6; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  const std::string log = read_file(log_), mark = read_file(mark_);
  for (std::size_t length = 0; length <= log.size(); length += length + 40 > log.size() ? 1 : 7) {
    for (const auto& name : names("state.log.bad-")) fs::remove(directory_ + '/' + name);
    write_file(log_, std::string_view(log).substr(0, length));
    write_file(mark_, mark);
    const auto lines = static_cast<std::uint64_t>(std::count(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(length), '\n'));
    const bool is_whole = length == log.size();
    const bool within_line = length != 0 && log[length - 1] != '\n';
    Journal again(directory_);
    const auto loaded = again.load();
    ASSERT_EQ(loaded.damage.empty(), is_whole) << length << ' ' << loaded.note;
    ASSERT_EQ(loaded.note.empty(), is_whole) << length;
    ASSERT_EQ(loaded.state, with_changes(1 + lines)) << length;
    ASSERT_EQ(names("state.log.bad-").size(), within_line ? 1U : 0U) << "what is not used is kept: " << length;
    if (within_line) {
      ASSERT_EQ(read_file(directory_ + "/" + names("state.log.bad-")[0]), log.substr(0, length));
    }
    // Told again until something is recorded, and nothing is kept twice.
    ASSERT_EQ(Journal(directory_).load().damage.empty(), is_whole) << length;
    ASSERT_EQ(names("state.log.bad-").size(), within_line ? 1U : 0U) << length;
    ASSERT_TRUE(again.record(with_changes(9)));
    const auto after = Journal(directory_).load();
    ASSERT_EQ(after.state, with_changes(9)) << length;
    ASSERT_EQ(after.note, "") << length;
    // The next length begins from the same log.
    write_file(log_, log);
  }
}

TEST_F(JournalTest, ALogThatIsMissingEmptyOrZeroedIsTold) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 4; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  const std::string log = read_file(log_);
  const std::pair<const char*, const char*> cases[] = {{"gone", "is missing"}, {"empty", "is empty"}, {"zeros", "is broken"}, {"zero tail", "ends too early"}};
  for (const auto& [kind, words] : cases) {
    SCOPED_TRACE(kind);
    std::string content = log;
    if (kind == std::string_view("empty")) content.clear();
    if (kind == std::string_view("zeros")) content.assign(log.size(), '\0');
    if (kind == std::string_view("zero tail")) std::fill(content.begin() + static_cast<std::ptrdiff_t>(log.find('\n') + 1), content.end(), '\0');
    write_file(log_, content);
    if (kind == std::string_view("gone")) fs::remove(log_);
    const auto loaded = Journal(directory_).load();
    EXPECT_EQ(loaded.state, with_changes(kind == std::string_view("zero tail") ? 2 : 1));
    EXPECT_NE(loaded.damage.find(log_ + ' ' + words), std::string::npos) << loaded.damage;
    EXPECT_NE(loaded.damage.find("revision 4 was the last one on disk"), std::string::npos) << loaded.damage;
    EXPECT_NE(loaded.note.find(loaded.damage), std::string::npos);
    const bool keeps = kind == std::string_view("zeros") || kind == std::string_view("zero tail");
    ASSERT_EQ(names("state.log.bad-").size(), keeps ? 1U : 0U);
    if (keeps) {
      EXPECT_EQ(loaded.quarantined, directory_ + '/' + names("state.log.bad-")[0]);
      EXPECT_EQ(read_file(*loaded.quarantined), content);
      fs::remove(*loaded.quarantined);
    }
  }
}

TEST_F(JournalTest, AnOlderLogOrAnOlderStateInItsPlaceIsTold) {
  std::string first_log, first_state;
  {
    Journal journal(directory_);
    for (std::uint64_t revision = 1; revision <= 3; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
    first_log = read_file(log_);
    first_state = read_file(path_);
    ASSERT_TRUE(journal.save(with_changes(4)));
    for (std::uint64_t revision = 5; revision <= 6; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  }
  const std::string log = read_file(log_), state = read_file(path_);
  write_file(log_, first_log);
  auto loaded = Journal(directory_).load();
  EXPECT_EQ(loaded.state, with_changes(4));
  EXPECT_NE(loaded.damage.find("does not belong to state.json"), std::string::npos) << loaded.damage;
  ASSERT_EQ(names("state.log.bad-").size(), 1U);
  EXPECT_EQ(read_file(directory_ + '/' + names("state.log.bad-")[0]), first_log);

  // Both of an older time, as from a snapshot of half of the directory.
  fs::remove(directory_ + "/state.log.previous");
  write_file(path_, first_state);
  write_file(log_, first_log);
  loaded = Journal(directory_).load();
  EXPECT_EQ(loaded.state, with_changes(3));
  EXPECT_NE(loaded.damage.find("revision 6 was the last one on disk, and what is there leads to revision 3"), std::string::npos) << loaded.damage;

  write_file(path_, state);
  write_file(log_, log);
  EXPECT_EQ(Journal(directory_).load().note, "");
}

TEST_F(JournalTest, AFolderInPlaceOfTheMarkIsToldAndSetAside) {
  for (const char* name : {"state.mark", "state.mark.tmp"}) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(Journal(directory_).save(with_changes(1)));
    fs::remove(directory_ + "/state.mark");
    fs::create_directories(directory_ + '/' + name + "/full");
    Journal journal(directory_);
    EXPECT_NE(journal.load().damage.find("state.mark is"), std::string::npos);
    ASSERT_TRUE(journal.record(with_changes(2)));
    const auto loaded = Journal(directory_).load();
    EXPECT_EQ(loaded.damage, "");
    EXPECT_EQ(loaded.state, with_changes(2));
    EXPECT_EQ(names(std::string(name) + ".bad-1").size(), 1U);
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
}

TEST_F(JournalTest, ALogOfSomebodyElseIsNotCalledEmpty) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 3; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  fs::permissions(log_, fs::perms(0666));
  const std::string damage = Journal(directory_).load().damage;
  EXPECT_NE(damage.find("state.log is broken"), std::string::npos) << damage;
}

TEST_F(JournalTest, AMarkThatIsGoneOrBrokenIsToldAndMadeAnew) {
  for (const bool gone : {true, false}) {
    empty_directory();
    Journal journal(directory_);
    for (std::uint64_t revision = 1; revision <= 3; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
    const std::string mark = read_file(mark_);
    write_file(mark_, std::string(mark.size(), '\0'));
    if (gone) fs::remove(mark_);
    Journal again(directory_);
    const auto loaded = again.load();
    EXPECT_EQ(loaded.state, with_changes(3));
    EXPECT_NE(loaded.damage.find(gone ? "state.mark is missing" : "state.mark is broken"), std::string::npos) << loaded.damage;
    ASSERT_TRUE(again.record(with_changes(4)));
    EXPECT_EQ(Journal(directory_).load().note, "");
    fs::remove(log_);
    EXPECT_NE(Journal(directory_).load().damage, "");
  }
}

TEST_F(JournalTest, OneOfTheMarksTwoRecordsIsEnough) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 5; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  const std::string mark = read_file(mark_);
  for (std::size_t byte = 0; byte < mark.size(); ++byte) {
    std::string damaged = mark;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 1);
    write_file(mark_, damaged);
    ASSERT_EQ(Journal(directory_).load().note, "") << byte;
  }
}

TEST_F(JournalTest, WithoutAnyStateTheMarkSaysThatThereWasOne) {
  save_two();
  fs::remove(path_);
  fs::remove(previous_);
  const auto loaded = Journal(directory_).load();
  EXPECT_FALSE(loaded.state);
  EXPECT_NE(loaded.damage.find("state.json is missing; revision 2 was the last one on disk; started with nothing"), std::string::npos) << loaded.damage;
}

TEST_F(JournalTest, AJournalOfAnEngineWithoutMarksIsLoadedAndGetsOne) {
  write_file(path_, file_of(2, config::to_json(with_changes(1))));
  Journal journal(directory_);
  const auto loaded = journal.load();
  EXPECT_EQ(loaded.state, with_changes(1));
  EXPECT_EQ(loaded.note, "");
  ASSERT_TRUE(journal.record(with_changes(2)));
  EXPECT_EQ(Journal(directory_).load().state, with_changes(2));
  fs::remove(log_);
  EXPECT_NE(Journal(directory_).load().damage.find("is missing"), std::string::npos);
}

// --- files that are not what they seem ---------------------------------------------------------------------------------

// A link of each name in the directory, to a file that must stay as it is, whatever the engine does.
TEST_F(JournalTest, ALinkInTheDirectoryIsNeverFollowed) {
  const std::string victim = directory_ + "/victim";
  const std::string content = "root:x:0:0:root:/root:/bin/bash\n";
  for (const char* name : {"state.json", "state.log", "state.mark", "state.json.previous", "state.log.previous", "state.json.tmp", "state.mark.tmp",
                           "state.json.previous.tmp", "lock"}) {
    for (const bool hard : {false, true}) {
      for (const bool records : {false, true}) {
        SCOPED_TRACE(std::string(name) + (hard ? ", hard" : ", symbolic") + (records ? ", recording" : ", saving"));
        empty_directory();
        {
          Journal journal(directory_);
          for (std::uint64_t revision = 1; revision <= 3; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
          ASSERT_TRUE(journal.save(with_changes(4)));
          ASSERT_TRUE(journal.record(with_changes(5)));
        }
        write_file(victim, content);
        fs::remove(directory_ + '/' + name);
        hard ? fs::create_hard_link(victim, directory_ + '/' + name) : fs::create_symlink(victim, directory_ + '/' + name);
        if (const auto lock = lock_state_directory(directory_)) ::close(*lock);
        Journal journal(directory_);
        static_cast<void>(journal.load());
        for (std::uint64_t revision = 6; revision <= 8; ++revision) {
          ASSERT_TRUE(records ? journal.record(with_changes(revision)) : journal.save(with_changes(revision)));
        }
        ASSERT_EQ(read_file(victim), content);
        const auto loaded = Journal(directory_).load();
        ASSERT_EQ(loaded.state, with_changes(8));
        ASSERT_EQ(loaded.note, "");
      }
    }
  }
}

TEST_F(JournalTest, ALinkIsSetAsideByItsName) {
  const std::string victim = directory_ + "/victim";
  write_file(victim, "");
  {
    Journal journal(directory_);
    for (std::uint64_t revision = 1; revision <= 3; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  }
  fs::remove(log_);
  fs::create_symlink(victim, log_);
  const auto loaded = Journal(directory_).load();
  EXPECT_EQ(loaded.state, with_changes(1));
  EXPECT_NE(loaded.note.find("is a symbolic link"), std::string::npos) << loaded.note;
  EXPECT_NE(loaded.damage, "");
  ASSERT_EQ(names("state.log.bad-").size(), 1U);
  EXPECT_TRUE(fs::is_symlink(directory_ + '/' + names("state.log.bad-")[0]));
}

TEST_F(JournalTest, ADirectoryThatOthersMayWriteIsRefused) {
  fs::permissions(directory_, fs::perms::all);
  auto lock = lock_state_directory(directory_);
  ASSERT_FALSE(lock);
  EXPECT_NE(lock.error().find("may be written by others (mode 0777)"), std::string::npos) << lock.error();
  EXPECT_NE(lock.error().find("chmod go-w"), std::string::npos) << lock.error();
  Journal journal(directory_);
  EXPECT_FALSE(journal.record(state_of(1)));
  EXPECT_TRUE(names("").empty());
  fs::permissions(directory_, fs::perms::owner_all);
  lock = lock_state_directory(directory_);
  ASSERT_TRUE(lock) << lock.error();
  ::close(*lock);
  // The directory itself, by a link.
  const std::string link = directory_ + "/link";
  fs::create_directory_symlink(directory_, link);
  lock = lock_state_directory(link);
  ASSERT_FALSE(lock);
  EXPECT_NE(lock.error().find("is a symbolic link"), std::string::npos) << lock.error();
}

TEST_F(JournalTest, AFlippedBitInTheLogNeverYieldsAnotherState) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 6; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  const std::string log = read_file(log_);
  const auto at_line = [&log](std::size_t byte) {
    return static_cast<std::uint64_t>(std::count(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(byte), '\n'));
  };
  for (std::size_t byte = 0; byte < log.size(); byte += 11) {
    std::string damaged = log;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 4);
    write_file(log_, damaged);
    const auto loaded = Journal(directory_).load();
    ASSERT_EQ(loaded.state, with_changes(1 + at_line(byte))) << byte;
    if (damaged[byte] == '\n' || log[byte] == '\n') continue;  // two lines in one, or one in two
    ASSERT_NE(loaded.note.find("broken"), std::string::npos) << byte;
    ASSERT_TRUE(loaded.quarantined);
    ASSERT_EQ(read_file(*loaded.quarantined), damaged) << "what was cut off is kept";
    fs::remove(*loaded.quarantined);  // a hundred copies a second are kept, and a fast machine makes more here
  }
}

TEST_F(JournalTest, TheGenerationBeforeAndBothLogsLeadToTheLastState) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 4; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  ASSERT_TRUE(journal.save(with_changes(4)));
  EXPECT_EQ(names("state.log"), (std::vector<std::string>{"state.log.previous"}));
  EXPECT_EQ(Journal(directory_).load().state, with_changes(4));
  for (std::uint64_t revision = 5; revision <= 7; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  EXPECT_EQ(Journal(directory_).load().state, with_changes(7));
  write_file(path_, "broken");
  const auto loaded = Journal(directory_).load();
  EXPECT_EQ(loaded.state, with_changes(7));
  EXPECT_NE(loaded.note.find("revision 1, and the changes up to revision 7"), std::string::npos) << loaded.note;
}

TEST_F(JournalTest, KilledBetweenTheGenerationAndTheLogNothingIsAppliedTwice) {
  Journal journal(directory_);
  for (std::uint64_t revision = 1; revision <= 4; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  const std::string log = read_file(log_);
  ASSERT_TRUE(journal.save(with_changes(4)));
  // As if the log had not been put aside yet.
  fs::rename(log_ + ".previous", log_);
  {
    Journal again(directory_);
    const auto loaded = again.load();
    EXPECT_EQ(loaded.note, "");
    EXPECT_EQ(loaded.state, with_changes(4));
    ASSERT_TRUE(again.record(with_changes(5)));
  }
  EXPECT_EQ(Journal(directory_).load().state, with_changes(5));
  // As if only the later of the two renames had reached the disk.
  fs::remove(path_);
  fs::rename(previous_, path_);
  fs::remove(log_);
  write_file(log_ + ".previous", log);
  EXPECT_EQ(Journal(directory_).load().state, with_changes(4));
}

TEST_F(JournalTest, ALogOfAnotherStateIsSetAside) {
  {
    Journal journal(directory_);
    for (std::uint64_t revision = 1; revision <= 4; ++revision) ASSERT_TRUE(journal.record(with_changes(revision)));
  }
  write_file(path_, file_of(1, config::to_json(state_of(2))));
  Journal journal(directory_);
  const auto loaded = journal.load();
  EXPECT_EQ(loaded.state, state_of(2));
  EXPECT_NE(loaded.note.find("does not belong"), std::string::npos) << loaded.note;
  EXPECT_EQ(names("state.log.bad-").size(), 1U);
  ASSERT_TRUE(journal.record(state_of(3)));
  EXPECT_EQ(Journal(directory_).load().state, state_of(3));
}

TEST_F(JournalTest, ALogThatHasGrownLargeBecomesAGeneration) {
  Journal journal(directory_);
  DesiredState state = with_changes(1);
  std::size_t generations = 0;
  std::string before;
  for (std::uint64_t revision = 1; revision <= 60; ++revision) {
    state.revision = revision;
    state.security_groups["sg-9effe8e4"].description.assign(200'000, static_cast<char>('a' + revision % 26));
    ASSERT_TRUE(journal.record(state));
    if (const std::string now = read_file(path_); now != before) {
      ++generations;
      before = now;
    }
    if (revision % 9 == 0) {
      ASSERT_EQ(Journal(directory_).load().state, state);
    }
  }
  EXPECT_GE(generations, 3U);
  EXPECT_LE(generations, 5U);
}

TEST_F(JournalTest, KilledWhileItRecordsItIsOneOfTheStatesWhole) {
  std::uint64_t reached = 0;
  // However slow the disk is, as often as it takes.
  for (int i = 0; i < 20 || (reached <= 20 && i < 500); ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Journal journal(directory_);
      const auto loaded = journal.load();
      for (std::uint64_t revision = loaded.state ? loaded.state->revision + 1 : 1;; ++revision) {
        static_cast<void>(revision % 50 == 0 ? journal.save(with_changes(revision)) : journal.record(with_changes(revision)));
      }
    }
    ::usleep(static_cast<useconds_t>(4000 + 1977 * (i % 40)));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const auto loaded = Journal(directory_).load();
    ASSERT_FALSE(loaded.quarantined) << loaded.note;
    ASSERT_EQ(loaded.note, "");
    if (!loaded.state) continue;
    ASSERT_GE(loaded.state->revision, reached);
    reached = loaded.state->revision;
    ASSERT_EQ(*loaded.state, with_changes(reached));
  }
  EXPECT_GT(reached, 20U);
}

TEST_F(JournalTest, AMissingDirectoryIsAnErrorAndNotACrash) {
  Journal journal(directory_ + "/gone");
  EXPECT_FALSE(journal.load().state);
  const auto saved = journal.save(state_of(1));
  ASSERT_FALSE(saved);
  EXPECT_NE(saved.error().find("No such file"), std::string::npos) << saved.error();
}

// Runs `work` in a process with a mount namespace of its own, where `mount_here` has mounted something.
template <typename Mount, typename Work>
void in_mount_namespace(Mount mount_here, Work work) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        !mount_here()) {
      ::_exit(77);
    }
    work();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this container may not mount";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(JournalTest, AFullDiskKeepsTheOldStateAndRecovers) {
  in_mount_namespace([&] { return ::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=64k,mode=700") == 0; },
                     [&] {
                       Journal journal(directory_);
                       EXPECT_TRUE(journal.save(state_of(1)));
                       EXPECT_TRUE(journal.save(state_of(2)));
                       {
                         std::ofstream filler(directory_ + "/filler");
                         while (filler << std::string(4096, 'x') << std::flush) {
                         }
                       }
                       for (int i = 0; i < 3; ++i) {
                         const auto saved = journal.save(state_of(3));
                         EXPECT_NE(error_of(saved).find("No space"), std::string::npos);
                         EXPECT_FALSE(fs::exists(path_ + ".tmp"));
                         EXPECT_EQ(Journal(directory_).load().state, state_of(2));
                       }
                       EXPECT_EQ(names("").size(), 4U);
                       fs::remove(directory_ + "/filler");
                       EXPECT_TRUE(journal.save(state_of(3)));
                       EXPECT_EQ(Journal(directory_).load().state, state_of(3));
                     });
}

TEST_F(JournalTest, AFullDiskKeepsTheLogWholeAndRecovers) {
  in_mount_namespace([&] { return ::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=64k,mode=700") == 0; },
                     [&] {
                       Journal journal(directory_);
                       for (std::uint64_t revision = 1; revision <= 3; ++revision) EXPECT_TRUE(journal.record(with_changes(revision)));
                       {
                         std::ofstream filler(directory_ + "/filler");
                         while (filler << std::string(4096, 'x') << std::flush) {
                         }
                       }
                       // The last page of the log has room for a few lines more.
                       std::uint64_t revision = 3;
                       while (revision < 1000 && journal.record(with_changes(revision + 1))) ++revision;
                       EXPECT_LT(revision, 1000U);
                       for (int i = 0; i < 3; ++i) {
                         EXPECT_NE(error_of(journal.record(with_changes(revision + 1))).find("No space"), std::string::npos);
                         const auto loaded = Journal(directory_).load();
                         EXPECT_EQ(loaded.note, "");
                         EXPECT_EQ(loaded.state, with_changes(revision));
                       }
                       fs::remove(directory_ + "/filler");
                       EXPECT_TRUE(journal.record(with_changes(revision + 1)));
                       EXPECT_EQ(Journal(directory_).load().state, with_changes(revision + 1));
                     });
}

TEST_F(JournalTest, AReadOnlyDiskKeepsTheOldStateAndRecovers) {
  const auto remount = [&](unsigned long flags) {
    return ::mount(nullptr, directory_.c_str(), nullptr, MS_REMOUNT | flags, nullptr) == 0;
  };
  in_mount_namespace([&] { return ::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=1m,mode=700") == 0; },
                     [&] {
                       Journal journal(directory_);
                       EXPECT_TRUE(journal.save(state_of(1)));
                       EXPECT_TRUE(journal.save(state_of(2)));
                       EXPECT_TRUE(remount(MS_RDONLY));
                       const auto saved = journal.save(state_of(3));
                       EXPECT_NE(error_of(saved).find("Read-only"), std::string::npos);
                       EXPECT_EQ(Journal(directory_).load().state, state_of(2));
                       EXPECT_TRUE(remount(0));
                       // A broken file that cannot be set aside is not used, and not in the way of the one before it.
                       const std::string good = read_file(path_);
                       write_file(path_, "junk");
                       EXPECT_TRUE(remount(MS_RDONLY));
                       Journal second(directory_);
                       const auto loaded = second.load();
                       EXPECT_EQ(loaded.state, state_of(1));
                       EXPECT_FALSE(loaded.quarantined);
                       EXPECT_FALSE(second.save(state_of(4)));
                       EXPECT_TRUE(remount(0));
                       EXPECT_TRUE(second.save(state_of(4)));
                       EXPECT_EQ(names("state.json.bad-").size(), 1U);
                       EXPECT_EQ(Journal(directory_).load().state, state_of(4));
                     });
}

TEST_F(JournalTest, ADirectoryThatMayNotBeWrittenIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  save_two();
  fs::permissions(directory_, fs::perms::owner_read | fs::perms::owner_exec);
  Journal journal(directory_);
  EXPECT_FALSE(journal.save(state_of(3)));
  EXPECT_EQ(journal.load().state, state_of(2));
}

TEST_F(JournalTest, ASecondEngineIsRefusedByThePidOfTheFirst) {
  const std::string nested = directory_ + "/var/lib/trunkline";
  const auto lock = lock_state_directory(nested);
  ASSERT_TRUE(lock) << lock.error();
  struct stat status {};
  ASSERT_EQ(::stat(nested.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0750U);
  const auto second = lock_state_directory(nested);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("pid " + std::to_string(::getpid())), std::string::npos) << second.error();
  ::close(*lock);
  const auto third = lock_state_directory(nested);
  ASSERT_TRUE(third) << third.error();
  ::close(*third);
}

TEST_F(JournalTest, TheLockOfADeadEngineIsFree) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(lock_state_directory(directory_) ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const auto lock = lock_state_directory(directory_);
  ASSERT_TRUE(lock) << lock.error();
  ::close(*lock);
}

}  // namespace
}  // namespace trunkline::control
