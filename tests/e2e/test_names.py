#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Names of tasks: the engine writes them into a folder, dnsmasq reads them from there, and a task finds another by its name."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import PING, LabTest, group, main, tcp  # noqa: E402
from lab import Nginx  # noqa: E402

DNS = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "IpRanges": [{"CidrIp": "10.0.0.0/24"}]}


class TestNames(LabTest):
    """Task 1 has nginx, task 2 asks, task 3 is the DNS server."""

    starts_engine = False

    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.lab.directory, "hosts")
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o755)
        self.lab.start_engine(self.lab.engine_config(names={"hosts_file": os.path.join(self.folder, "enis"), "region": "us-west-2"}))
        self.put_groups(group(tcp(80), PING, DNS))
        self.asking, self.server = self.attach(2), self.attach(3)
        self.start_dnsmasq()
        # getent and curl ask whom /etc/resolv.conf names, so they run where another file lies over it.
        self.resolv_conf = os.path.join(self.lab.directory, "resolv.conf")
        with open(self.resolv_conf, "w") as file:
            file.write(f"nameserver {self.server.address}\noptions timeout:1 attempts:1\n")

    def start_dnsmasq(self):
        self.dnsmasq = self.lab.spawn(
            self.server.netns, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
            "--pid-file=", "--bind-interfaces", f"--listen-address={self.server.address}", "--log-facility=-", f"--hostsdir={self.folder}",
            log="dnsmasq.log")

    def run_with_dns(self, *command):
        """A program in the asking task's namespace that asks our server for names."""
        script = f"mount --bind {self.resolv_conf} /etc/resolv.conf && exec \"$@\""
        return self.lab.exec(self.asking.netns, "unshare", "--mount", "sh", "-c", script, "sh", *command)

    def ask(self, what):
        """What getent prints, split: [address, name, ...], or nothing."""
        return self.run_with_dns("getent", "hosts", what).stdout.split()

    def assert_answers(self, what, *wanted):
        found = self.lab.wait_until(lambda: all(word in self.ask(what) for word in wanted) and self.ask(what), 10)
        self.assertTrue(found, f"{what}: {self.ask(what)}; {self.lab.tail('dnsmasq.log')}")

    def assert_unknown(self, what):
        self.assertTrue(self.lab.wait_until(lambda: not self.ask(what), 10), f"{what}: {self.ask(what)}")

    def hosts_file(self):
        with open(os.path.join(self.folder, "enis")) as file:
            return file.read()

    def test_a_task_is_found_by_its_name_while_it_is_there(self):
        name = "ip-10-0-0-31.us-west-2.compute.internal"
        # The server itself was there first, so it is known that it answers at all.
        self.assert_answers("ip-10-0-0-33.us-west-2.compute.internal", "10.0.0.33")
        self.assert_unknown(name)
        web = self.attach(1)
        self.assertEqual(web.address, "10.0.0.31")
        Nginx(self.lab, web.netns, "page of task 1")
        self.assert_answers(name, "10.0.0.31")
        self.assert_answers("ip-10-0-0-31", "10.0.0.31")
        self.assert_answers("10.0.0.31", name)
        page = self.run_with_dns("curl", "--silent", "--show-error", "--max-time", "5", f"http://{name}/")
        self.assertEqual((page.returncode, page.stdout), (0, "page of task 1\n"), page.stderr)

        self.call("task.detach", {"task": web.eni})
        self.assertNotIn("10.0.0.31", self.hosts_file(), "the name goes with the answer")
        self.assert_unknown(name)
        self.assert_unknown("10.0.0.31")
        self.assertNotEqual(self.run_with_dns("curl", "--silent", "--max-time", "5", f"http://{name}/").returncode, 0)
        self.assert_answers("ip-10-0-0-33.us-west-2.compute.internal", "10.0.0.33")
        self.assertEqual(os.listdir(self.folder), ["enis"])

    def test_a_folder_that_is_away_holds_up_nobody(self):
        self.assertIn("10.0.0.32 ip-10-0-0-32", self.hosts_file())
        away = self.folder + ".away"
        os.rename(self.folder, away)
        task = self.task(1)
        self.lab.add_netns(task.name)
        self.tell_vpc()
        answer = self.call("task.attach", task.facts())
        self.assertIn("names are not", answer["warnings"][0])
        self.assert_state(task, "active")
        status = self.call("status")
        self.assertIn("hosts/enis: cannot open", status["names"]["why"])
        os.rename(away, self.folder)
        self.assertTrue(self.lab.wait_until(lambda: "10.0.0.31 " in self.hosts_file(), 5), self.hosts_file())
        self.assertEqual(self.call("status")["names"]["why"], "")


if __name__ == "__main__":
    main("dnsmasq", "nginx", "curl")
