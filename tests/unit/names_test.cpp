// SPDX-License-Identifier: BSD-3-Clause
// The file of names: what it says, when it is written, and that one that cannot be written holds up nobody.
#include "control/names.h"

#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "tests/support/controller_fixture.h"

namespace trunkline::control {
namespace {

config::Attachment with_addresses(const std::vector<std::string>& addresses, const std::string& name = "") {
  config::Attachment result;
  for (const std::string& text : addresses) result.addresses.push_back(*IpAddress::parse(text));
  result.private_dns_name = name;
  return result;
}

// Without the first line, which is for people.
std::string lines(const config::Attachment& attachment, const std::string& region) {
  const std::string text = hosts_text({{"eni-1", attachment}}, region);
  EXPECT_TRUE(text.starts_with("# "));
  return text.substr(text.find('\n') + 1);
}

TEST(HostsText, NamesAreEc2s) {
  EXPECT_EQ(lines(with_addresses({"10.0.0.35"}), "us-west-2"), "10.0.0.35 ip-10-0-0-35.us-west-2.compute.internal ip-10-0-0-35\n");
  EXPECT_EQ(lines(with_addresses({"10.0.0.35"}), "us-east-1"), "10.0.0.35 ip-10-0-0-35.ec2.internal ip-10-0-0-35\n");
  EXPECT_EQ(lines(with_addresses({"10.0.0.35"}), ""), "10.0.0.35 ip-10-0-0-35\n");
}

TEST(HostsText, TheEnisOwnNameIsItsPrimaryAddresss) {
  EXPECT_EQ(lines(with_addresses({"10.0.0.35"}, "ip-10-0-0-35.eu-west-1.compute.internal"), "us-west-2"),
            "10.0.0.35 ip-10-0-0-35.eu-west-1.compute.internal ip-10-0-0-35\n");
  EXPECT_EQ(lines(with_addresses({"10.0.0.35"}, "ip-10-0-0-35"), ""), "10.0.0.35 ip-10-0-0-35\n") << "no name twice";
  // IPv6 has no name of this form, and does not make the next IPv4 address a secondary one.
  EXPECT_EQ(lines(with_addresses({"2001:db8::35", "10.0.0.35", "10.0.0.36"}, "web.internal"), "us-west-2"),
            "10.0.0.35 web.internal ip-10-0-0-35\n10.0.0.36 ip-10-0-0-36.us-west-2.compute.internal ip-10-0-0-36\n");
  EXPECT_EQ(lines(with_addresses({"2001:db8::35"}, "web.internal"), "us-west-2"), "");
}

TEST(HostsText, WhatIsNoNameDoesNotGetIn) {
  const std::string plain = "10.0.0.35 ip-10-0-0-35.us-west-2.compute.internal ip-10-0-0-35\n";
  const std::vector<std::string> bad = {"a\n10.0.0.9 bank", "a b", "a#b", ".a", "a..b", "a.", "-a", "a-.b", "a-", "a_b", std::string(64, 'a'), {"a\0b", 3}};
  for (const std::string& name : bad) {
    EXPECT_EQ(lines(with_addresses({"10.0.0.35"}, name), "us-west-2"), plain) << name;
  }
  for (const std::string& name : {std::string("a"), std::string("A-1.b"), std::string(63, 'a')}) {
    EXPECT_EQ(lines(with_addresses({"10.0.0.35"}, name), "us-west-2"), "10.0.0.35 " + name + " ip-10-0-0-35\n");
  }
}

class NamesTest : public ControllerTest {
 protected:
  NamesTest() {
    folder_ = directory_ / "hosts";
    std::filesystem::create_directories(folder_);
    config_.names = {.hosts_file = (folder_ / "enis").string(), .region = "us-west-2"};
    controller_.reset();
    make_controller();
    controller_->restore();
    put_group();
  }
  std::string file() const {
    std::ifstream stream(folder_ / "enis");
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }
  bool has(int number) const {
    const std::string last = std::to_string(16 + number);
    return file().find("\n10.0.0." + last + " ip-10-0-0-" + last + ".us-west-2.compute.internal ") != std::string::npos;
  }
  ino_t inode() const {
    struct stat status {};
    EXPECT_EQ(::stat((folder_ / "enis").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0644U);
    return status.st_ino;
  }
  std::ptrdiff_t files() const { return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator()); }
  std::filesystem::path folder_;
};

TEST_F(NamesTest, FollowsWhatIsActive) {
  EXPECT_FALSE(has(1));
  ASSERT_TRUE(attach(1));
  ASSERT_TRUE(attach(2));
  EXPECT_TRUE(has(1) && has(2));
  ASSERT_TRUE(detach(1));
  EXPECT_FALSE(has(1)) << "a name goes with the answer";
  EXPECT_TRUE(has(2));
  EXPECT_EQ(files(), 1) << "nothing is left aside";
}

TEST_F(NamesTest, OnlyWhatIsInServiceHasAName) {
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-3"] = attachment(3);
    next.attachments["eni-3"].group_ids = {"sg-unknown"};
    return config::Problems{};
  }));
  EXPECT_FALSE(has(3));
}

TEST_F(NamesTest, IsNotWrittenWhenItSaysTheSame) {
  ASSERT_TRUE(attach(1));
  const ino_t before = inode();
  ASSERT_TRUE(put_group(81));
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].source_dest_check = false;
    return config::Problems{};
  }));
  EXPECT_EQ(inode(), before);
  ASSERT_TRUE(attach(2));
  EXPECT_NE(inode(), before) << "another file, so that nobody reads half of one";
}

TEST_F(NamesTest, ARestartTakesAwayWhatIsNoLonger) {
  ASSERT_TRUE(attach(1));
  controller_.reset();
  std::ofstream(folder_ / "enis") << "10.9.9.9 ghost\n";
  journal_ = std::make_unique<Journal>(directory_);
  make_controller();
  controller_->restore();
  EXPECT_TRUE(has(1));
  EXPECT_EQ(file().find("ghost"), std::string::npos);
}

TEST_F(NamesTest, WithoutAStateThereAreNoNames) {
  ASSERT_TRUE(attach(1));
  controller_.reset();
  journal_ = nullptr;
  for (const char* name : {"state.json", "state.log", "state.json.previous", "state.log.previous"}) std::filesystem::remove(directory_ / name);
  journal_ = std::make_unique<Journal>(directory_);
  make_controller();
  controller_->restore();
  EXPECT_FALSE(has(1));
  EXPECT_TRUE(file().starts_with("# "));
}

TEST_F(NamesTest, WhatCannotBeWrittenIsAWarningAndTriedAgain) {
  std::filesystem::remove_all(folder_);
  const auto result = attach(1);
  ASSERT_TRUE(result) << "never an error of the change";
  ASSERT_EQ(result->warnings.size(), 1U);
  EXPECT_NE(result->warnings[0].find((folder_ / "enis").string()), std::string::npos) << result->warnings[0];
  EXPECT_NE(endpoint(1), nullptr);
  EXPECT_FALSE(controller_->names_trouble().empty());
  std::filesystem::create_directories(folder_);
  for (int i = 0; i < 30; ++i) controller_->tick();
  EXPECT_TRUE(has(1));
  EXPECT_EQ(controller_->names_trouble(), "");
}

TEST_F(NamesTest, ADryRunWritesNothing) {
  const std::string before = file();
  ChangeOptions options;
  options.dry_run = true;
  ASSERT_TRUE(attach(1, options));
  EXPECT_EQ(file(), before);
}

}  // namespace
}  // namespace trunkline::control
