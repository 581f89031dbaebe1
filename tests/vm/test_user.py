#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The engine as packaging/trunklined.service runs it: an ordinary user with that unit's groups and capabilities, and what it says
where one of them is missing."""
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CLIENT, GuestTest, PING, group, main, tcp  # noqa: E402
from kernel_vpc import KernelVpcOnPci, bind  # noqa: E402
from lab import LabError, Nginx  # noqa: E402

UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "packaging", "trunklined.service")
USER = "trunkline"


def setUpModule():
    with open("/etc/passwd") as file:
        if not any(line.startswith(USER + ":") for line in file):
            subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", USER], check=True)


def of_unit(key):
    with open(UNIT) as file:
        return re.search(rf"^{key}=(.*)$", file.read(), re.MULTILINE)[1].split()


def as_user(capabilities, groups):
    """Before the engine's command: what systemd does of the unit for User, Group, SupplementaryGroups, both sets, NoNewPrivileges."""
    words = ",".join("+" + name.lower().removeprefix("cap_") for name in capabilities)
    numbers = ["--clear-groups"] if not groups else ["--groups", ",".join(groups)]
    return ["setpriv", "--reuid", USER, "--regid", USER, *numbers, "--inh-caps", "-all," + words, "--ambient-caps", "-all," + words,
            "--bounding-set", "-all," + words, "--no-new-privs"]


class UserTest(GuestTest):
    without, groups = (), None
    starts_engine = False

    def setUp(self):
        super().setUp()
        self.assertEqual(of_unit("AmbientCapabilities"), of_unit("CapabilityBoundingSet"))
        capabilities = [name for name in of_unit("AmbientCapabilities") if name not in self.without]
        self.lab.engine_prefix = as_user(capabilities, of_unit("SupplementaryGroups") if self.groups is None else self.groups)
        # The folders that systemd makes for it.
        os.makedirs(os.path.join(self.lab.directory, "state"))
        subprocess.run(["chown", f"{USER}:{USER}", self.lab.directory], check=True)
        self.start()
        self.put_groups(group(tcp(80), PING))

    def start(self):
        # Whoever wrote there before: systemd gives StateDirectory and RuntimeDirectory with what is in them to the unit's user.
        for path in (os.path.join(self.lab.directory, "state"), self.lab.socket):
            if os.path.lexists(path):
                subprocess.run(["chown", "-R", f"{USER}:{USER}", path], check=True)
        self.lab.start_engine(self.lab.engine_config(**self.overrides))
        with open(f"/proc/{self.lab.engine.pid}/status") as file:
            status = file.read()
        self.assertNotIn("0", re.search(r"^Uid:(.*)$", status, re.MULTILINE)[1].split(), "it is root")


    def give_folders_to(self, user):
        subprocess.run(["chown", f"{user}:{user}", self.lab.directory], check=True)
        subprocess.run(["chown", "-R", f"{user}:{user}", os.path.join(self.lab.directory, "state")], check=True)


class TestUser(UserTest):
    def test_every_kind_of_port(self):
        one, two = self.attach(1), self.attach(2, port={**self.port(2), "kind": "tap"})
        self.lab.add_netns("t3")
        sleeper = self.lab.spawn_in(self.task(3).netns, "sleep", "600", log="sleep.log")
        three = self.attach(3, port={**self.port(3), "netns": f"/proc/{sleeper.pid}/ns/net"})
        Nginx(self.lab, one.netns, "a page", ports=(80, 8080))
        for task in (one, two, three):
            self.assert_ping(self.lab.client, task.address, 5)
            self.assert_ping(task.netns, CLIENT, 5)
        for netns in (self.lab.client, two.netns, three.netns):
            self.assertEqual(self.lab.http_get(netns, f"http://{one.address}/")[:2], (200, "a page\n"))
            with self.expect_drops(one.eni, 5, security_group_ingress=1):
                self.assertEqual(self.lab.tcp_probe(netns, one.address, 8080), "silence")
        # Killed and started again: as root, which makes another interface, and as the same user, which adopts that too.
        prefix, self.lab.engine_prefix = self.lab.engine_prefix, []
        self.lab.kill_engine(signal.SIGKILL)
        # Root takes no folder that another user may write.
        with self.assertRaises(LabError) as refusal:
            self.lab.start_engine()
        self.assertIn("belongs to uid", str(refusal.exception))
        self.give_folders_to("root")
        self.lab.start_engine()
        four = self.attach(4)
        before = [self.lab.interface(task.netns) for task in (one, two, three, four)]
        self.lab.engine_prefix = prefix
        self.lab.kill_engine(signal.SIGKILL)
        self.give_folders_to(USER)
        with self.assertRaises(LabError) as refusal:
            self.lab.start_engine()
        self.assertIn("is another user's socket", str(refusal.exception))
        self.start()
        self.assertEqual([self.lab.interface(task.netns) for task in (one, two, three, four)], before)
        for task in (one, two, three, four):
            self.assert_ping(self.lab.client, task.address, 5)
            self.call("task.detach", {"task": task.eni})
            self.assertIsNone(self.lab.interface(task.netns))


class TestUserOnPci(UserTest):
    class laboratory(KernelVpcOnPci):
        nic = "0000:00:11.0"

    def setUp(self):
        bind(self.laboratory.nic, "vfio-pci")
        # What packaging/60-trunkline-vfio.rules does.
        group_of_nic = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{self.laboratory.nic}/iommu_group"))
        subprocess.run(["chgrp", USER, f"/dev/vfio/{group_of_nic}"], check=True)
        subprocess.run(["chmod", "0660", f"/dev/vfio/{group_of_nic}"], check=True)
        super().setUp()

    def test_trunk_by_vfio(self):
        one = self.attach(1)
        self.assert_ping(self.lab.client, one.address, 10)
        with self.expect_drops(one.eni, 5, security_group_ingress=1):
            self.assertEqual(self.lab.tcp_probe(self.lab.client, one.address, 8080), "silence")


class TestUserWithoutGroup(UserTest):
    groups = []

    def test_vhost_net_is_refused_and_a_tap_is_not(self):
        two = self.task(2)
        self.lab.add_netns(two.name)
        self.refused("task.attach", two.facts(port=self.port(2)), "port_failed", "/port/kind", "group (kvm")
        self.assertIsNone(self.lab.interface(two.netns))
        self.attach(2, port={**self.port(2), "kind": "tap"})
        self.assert_ping(self.lab.client, two.address, 3)


class TestUserWithoutSysAdmin(UserTest):
    without = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")

    def test_no_namespace_is_entered(self):
        two = self.task(2)
        self.lab.add_netns(two.name)
        self.refused("task.attach", two.facts(port=self.port(2)), "port_failed", says="CAP_SYS_ADMIN")
        sleeper = self.lab.spawn_in(two.netns, "sleep", "600", log="sleep.log")
        port = {**self.port(2), "netns": f"/proc/{sleeper.pid}/ns/net"}
        self.refused("task.attach", two.facts(port=port), "port_failed", says="CAP_SYS_PTRACE")
        self.assertIsNone(self.lab.interface(two.netns))


if __name__ == "__main__":
    main("ethtool", "nginx", "setpriv", "useradd")
