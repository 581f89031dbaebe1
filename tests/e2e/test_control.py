#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The control socket: events repeated and out of order, refusals with a name and a place, who may do what, abuse.
T-28, T-78..T-84."""
import copy
import itertools
import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (DATA, GROUP, MTU, PING, SUBNET, SUBNET_ID, Connection, LabTest, Ping, group, main, tcp)  # noqa: E402
from lab import Nginx  # noqa: E402

NOBODY = 65534


def data(name):
    with open(os.path.join(DATA, name)) as file:
        return json.load(file)


class AsNobody:
    """Calls of a user who may only look."""

    def as_nobody(self, *words, input=None):
        return subprocess.run(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                               self.lab.binaries["trunkctl"], *words], input=input, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=20, cwd="/",
                              env={**os.environ, "TRUNKLINE_SOCKET": self.lab.socket})


class TestEvents(LabTest):
    """The task of tests/data: what ECS, the agent and EC2 say of it."""

    ENI, ADDRESS, ARN = "eni-b0aaa4b2", "10.0.0.35", data("describe-tasks.json")["tasks"][0]["taskArn"]
    overrides = {"subnets": [{"id": SUBNET_ID, "cidr": SUBNET, "ipv6_cidr": "2001:db8:1234:1a00::/64"}]}

    def setUp(self):
        super().setUp()
        self.netns = self.lab.add_netns("web")
        self.lab.fabric_enis([{"vlan": vlan, "mac": f"0a:47:e4:7a:2b:{mac}", "addresses": [address], "subnet": SUBNET}
                              for vlan, mac, address in ((102, "02", self.ADDRESS),)])

    def defaults(self, **more):
        return {"groups": [GROUP], "port": {"kind": "tap", "netns": self.netns, "ifname": "eth0"}, **more}

    def submit(self, event, **defaults):
        return self.call("event.submit", {"event": event, **({"defaults": defaults} if defaults else {})})

    def state(self):
        line = self.lab.task(self.ENI)
        return None if line is None else line["state"]

    def bridge(self, version, status="RUNNING"):
        event = data("ecs-task-state-change.json")
        detail = event["detail"]
        detail["version"], detail["lastStatus"] = version, status
        detail["desiredStatus"] = "STOPPED" if status in ("STOPPED", "DEPROVISIONING") else "RUNNING"
        detail["attachments"][0]["status"] = {"PROVISIONING": "ATTACHING", "STOPPED": "DELETED"}.get(status, "ATTACHED")
        return event

    def assert_serves(self):
        self.assertEqual(self.state(), "active")
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{self.ADDRESS}/")[:2], (200, "a page\n"))
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.ADDRESS, 22), "silence")

    def test_describe_tasks_twice(self):
        self.put_groups(group(tcp(80), PING))
        first = self.submit(data("describe-tasks.json"), **self.defaults(vlan=102))
        self.assertTrue(first["changed"])
        second = self.submit(data("describe-tasks.json"), **self.defaults(vlan=102))
        self.assertEqual((second["changed"], second["revision"], second["steps"]), (False, first["revision"], []))
        Nginx(self.lab, self.netns, "a page")
        self.assert_serves()

    def test_groups_before_and_after(self):
        self.submit(data("describe-tasks.json"), **self.defaults(vlan=102))
        self.assertEqual(self.state(), "waiting")
        self.assertIn(f"group {GROUP}", self.lab.task(self.ENI)["reason"])
        self.assertIsNone(self.lab.interface(self.netns))
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.ADDRESS, 80), "silence")
        self.assertEqual(self.lab.drops().get("no_policy"), 1)
        put = self.put_groups(group(tcp(80), PING))
        self.assertTrue(put["changed"])
        Nginx(self.lab, self.netns, "a page")
        self.assert_serves()
        again = self.put_groups(group(tcp(80), PING))
        self.assertEqual((again["changed"], again["revision"], again["steps"]), (False, put["revision"], []))
        # The groups come from EC2 here: nothing is said of them in the event's defaults.
        self.call("task.detach", {"task": self.ENI})
        self.submit(data("describe-network-interfaces.json"))
        self.assertEqual(self.state(), "waiting")
        event = data("describe-tasks.json")
        event["tasks"][0]["version"] = 50
        self.submit(event, vlan=102, port=self.defaults()["port"])
        self.assertEqual(self.state(), "active", self.lab.task(self.ENI))

    def test_eventbridge_in_any_order(self):
        """Versions 1..6 of one task's life, shuffled: once it has stopped it stays away, whatever comes late."""
        self.put_groups(group(tcp(80), PING))
        life = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEPROVISIONING", "STOPPED"]
        events = [self.bridge(version, status) for version, status in enumerate(life, 1)]
        shuffler = random.Random(20171114)
        orders = [shuffler.sample(range(6), 6) for _ in range(12)]
        arn = self.ARN
        for number, order in enumerate(orders):
            # Each order is the life of another task, since the engine remembers what has stopped.
            other = arn[:-2] + f"{number + 10:02d}"
            highest = -1
            for index in order:
                event = json.loads(json.dumps(events[index]).replace(arn, other))
                answer = self.submit(event, **self.defaults(vlan=102))
                if index < highest:
                    self.assertFalse(answer["changed"], (order, index))
                    self.assertIn("stale_event", " ".join(answer["warnings"]), (order, index))
                else:
                    self.assertNotIn("stale_event", " ".join(answer["warnings"]), (order, index))
                    highest = index
                wanted = "active" if highest < 4 else None
                self.assertEqual(self.state(), wanted, (order, index, self.lab.task(self.ENI)))
                self.assertEqual(self.lab.interface(self.netns) is not None, wanted == "active", (order, index))
            # Everything once more changes nothing.
            for event in events:
                answer = self.submit(json.loads(json.dumps(event).replace(arn, other)), **self.defaults(vlan=102))
                self.assertFalse(answer["changed"])
        self.assertEqual(self.lab.ctl("status")["endpoints"]["active"], 0)
        self.note(f"{len(orders)} orders of 6 events, and all of them again")

    def test_agent_payload(self):
        """The VLAN is a string there, and nobody else says it."""
        self.put_groups(group(tcp(80), PING))
        payload = data("acs-payload.json")
        vlan = payload["message"]["tasks"][0]["elasticNetworkInterfaces"][0]["interfaceVlanProperties"]
        self.assertEqual(vlan["vlanId"], "102")
        self.submit(payload, **self.defaults())
        line = self.lab.task(self.ENI)
        self.assertEqual((line["state"], line["vlan"], line["subnet"]), ("active", 102, SUBNET_ID), line)
        self.assertEqual(line["addresses"], [self.ADDRESS, "2001:db8:1234:1a00::35"])
        Nginx(self.lab, self.netns, "a page")
        self.assert_serves()
        self.assertFalse(self.submit(payload, **self.defaults())["changed"])
        # The same task by its other names adds nothing that contradicts.
        self.submit(data("acs-attach-task.json"))
        self.submit(data("describe-tasks.json"))
        self.assert_serves()
        for wrong in ("abc", "0", "4095", "-1", "1e2", ""):
            broken = copy.deepcopy(payload)
            broken["message"]["tasks"][0]["elasticNetworkInterfaces"][0]["interfaceVlanProperties"]["vlanId"] = wrong
            self.refused("event.submit", {"event": broken}, "invalid_params",
                         "/event/message/tasks/0/elasticNetworkInterfaces/0/interfaceVlanProperties/vlanId")
        self.assert_serves()

    def test_every_order_of_three_sources(self):
        """ECS, the agent and the groups: the result does not depend on who speaks first."""
        ecs = data("describe-tasks.json")
        ecs["tasks"][0]["attachments"][0]["details"].append({"name": "ipv6Address", "value": "2001:db8:1234:1a00::35"})
        sources = {
            "ecs": lambda: self.submit(ecs, **self.defaults()),
            "agent": lambda: self.submit(data("acs-attach-task.json"), **self.defaults()),
            "groups": lambda: self.put_groups(group(tcp(80), PING)),
        }
        empty = self.call("state.get")
        results = {}
        for order in itertools.permutations(sources):
            for name in order:
                sources[name]()
            self.assertEqual(self.state(), "active", (order, self.lab.task(self.ENI)))
            show = self.call("task.show", {"task": self.ENI})
            results[order] = {key: show[key] for key in ("vlan", "mac", "addresses", "subnet", "groups", "port", "task_arn")}
            self.call("state.replace", {"document": empty, "allow_empty": True, "allow_removal": True})
            self.assertIsNone(self.state())
        first = next(iter(results.values()))
        self.assertEqual(first["addresses"], [self.ADDRESS, "2001:db8:1234:1a00::35"])
        for order, result in results.items():
            self.assertEqual(result, first, order)

    def test_describe_answers_the_walkthrough(self):
        self.put_groups(group(tcp(80)))
        self.submit(data("describe-tasks.json"), **self.defaults(vlan=102))
        described = self.lab.ctl("task", "describe", self.ARN)
        task = described["tasks"][0]
        details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
        self.assertEqual(details, {"subnetId": SUBNET_ID, "networkInterfaceId": self.ENI, "macAddress": "0a:47:e4:7a:2b:02",
                                   **({"privateDnsName": details["privateDnsName"]} if "privateDnsName" in details else {}),
                                   "privateIPv4Address": self.ADDRESS})
        self.assertEqual(task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"], self.ADDRESS)
        self.assertEqual(task["taskArn"], self.ARN)
        self.assertEqual(described["failures"], [])
        nobody = self.call("task.describe", {"tasks": [self.ARN[:-1] + "9"]})
        self.assertEqual((nobody["tasks"], nobody["failures"]), ([], [{"arn": self.ARN[:-1] + "9", "reason": "MISSING"}]))
        self.assertEqual(self.lab.trunkctl("task", "describe", self.ARN[:-1] + "9").returncode, 3)


class TestRefusals(AsNobody, LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.web1 = self.attach(1)
        self.lab.add_netns("t2")
        self.lab.add_netns("t3")
        self.web2 = self.task(2)
        self.tell_vpc()

    def refuse_attach(self, name, pointer, says=None, **wrong):
        facts = self.web2.facts(**wrong)
        for extra in ({}, {"dry_run": True}):
            self.refused("task.attach", {**facts, **extra}, name, pointer, says)
        self.assertIsNone(self.lab.interface(self.web2.netns))

    def test_duplicates(self):
        one = self.web1
        self.refuse_attach("duplicate_vlan", "/vlan", f"VLAN {one.vlan} is taken by {one.eni}", vlan=one.vlan)
        self.refuse_attach("duplicate_mac", "/mac", one.eni, mac=one.mac)
        self.refuse_attach("duplicate_ip", "/addresses/0", one.eni, addresses=[one.address])
        self.refuse_attach("duplicate_ip", "/addresses/1", one.eni, addresses=[self.web2.address, one.address])
        self.refuse_attach("duplicate_ip", "/addresses/1", "twice", addresses=[self.web2.address] * 2)
        self.refuse_attach("duplicate_interface", "/port", one.eni,
                           port={"kind": "tap", "netns": one.netns, "ifname": "eth0"})
        self.refuse_attach("duplicate_interface", "/port", one.eni,
                           port={"kind": "tap", "netns": "/run/netns/" + one.netns, "ifname": "eth0"})
        # All of it at once: every problem is listed, the first on top.
        error = self.refused("task.attach", self.web2.facts(vlan=one.vlan, mac=one.mac, addresses=[one.address]),
                             "duplicate_vlan", "/vlan")
        self.assertEqual({problem["name"] for problem in error["data"]["problems"]},
                         {"duplicate_vlan", "duplicate_mac", "duplicate_ip"})
        # One ENI twice in one event; and the beside: the same with values of its own is welcome.
        event = data("describe-tasks.json")
        twice = copy.deepcopy(event["tasks"][0])
        twice["taskArn"] = twice["taskArn"][:-1] + "2"
        twice["attachments"][0]["id"] = "1789bcae-ddfb-4d10-8ebe-8ac87ddba5b9"
        event["tasks"].append(twice)
        answer = self.lab.rpc("event.submit", {"event": event})
        self.assertIn("error", answer, answer)
        self.assertTrue(answer["error"]["data"]["pointer"].startswith("/event/tasks/1"), answer)
        self.attach(2)

    def test_addresses_and_vlans(self):
        self.refuse_attach("address_outside_subnet", "/addresses/0", "10.0.1.5", addresses=["10.0.1.5"])
        for reserved in ("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.255"):
            self.refuse_attach("reserved_address", "/addresses/0", reserved, addresses=[reserved])
        for vlan in (0, 4095, 4096, -1, 1.5, "x", True):
            self.refuse_attach("invalid_params", "/vlan", vlan=vlan)
        self.refuse_attach("invalid_params", "/mac", mac="01:00:5e:00:00:01")
        self.refuse_attach("invalid_params", "/mac", mac="00:00:00:00:00:00")
        self.refused("task.attach", self.web2.facts(port={"kind": "tap", "netns": "nowhere", "ifname": "eth0"}),
                     "netns_missing", "/port/netns", "nowhere")
        self.refuse_attach("invalid_params", "/port/mtu", port={"kind": "tap", "netns": self.web2.netns, "ifname": "eth0",
                                                                "mtu": MTU + 1})
        self.refuse_attach("invalid_params", "/vlann", vlann=3)
        for vlan in (1, 4094):  # the ends of the range are VLANs
            self.call("task.attach", self.web2.facts(vlan=vlan))
            self.assert_state(self.web2, "active")
            self.call("task.detach", {"task": self.web2.eni})

    def test_an_interface_of_somebody_else_is_left_alone(self):
        self.lab.run("ip", "-n", self.web2.netns, "link", "add", "eth0", "type", "veth", "peer", "name", "other0")
        before = self.lab.interface(self.web2.netns)
        self.refused("task.attach", self.web2.facts(), "interface_exists", "/port/ifname")
        self.assertEqual(self.lab.interface(self.web2.netns), before)
        self.lab.exec(self.web2.netns, "ip", "link", "del", "eth0")
        self.attach(2)

    def test_unknown_group_waits(self):
        answer = self.call("task.attach", self.web2.facts(groups=["sg-0000aaaa"]))
        self.assertTrue(answer["changed"])
        self.assert_state(self.web2, "waiting")
        self.assertIn("sg-0000aaaa", self.lab.task(self.web2.eni)["reason"])
        with self.expect_drops(None, no_policy=1):
            self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web2.address, 80), "silence")
        self.put_groups(group(tcp(80), PING, group_id="sg-0000aaaa"))
        self.assert_state(self.web2, "active")
        self.assert_ping(self.lab.client, self.web2.address, 3)
        self.refused("sg.delete", {"group": "sg-0000aaaa"}, "group_in_use", "/group", self.web2.eni)
        self.refused("sg.put", {"document": {"SecurityGroups": []}, "replace_all": True}, "group_in_use")

    def test_round_trip(self):
        state = self.call("state.get")
        answer = self.call("state.replace", {"document": state})
        self.assertEqual((answer["changed"], answer["revision"], answer["steps"]), (False, state["revision"], []))
        # By trunkctl as a person does it.
        path = self.lab.write_file("state.json", self.lab.ctl("state", "get"))
        self.assertFalse(self.lab.ctl("state", "replace", path)["changed"])
        # Without the task it leaves, with it it is back, and the round trip of groups changes nothing either.
        groups = self.call("sg.show")
        self.assertFalse(self.call("sg.put", {"document": groups})["changed"])
        empty = {**state, "attachments": type(state["attachments"])()}
        self.refused("state.replace", {"document": empty}, "would_remove", "/document", "1 of 1 ENIs")
        self.refused("state.replace", {"document": empty, "dry_run": True}, "would_remove", "/document", "1 of 1 ENIs")
        self.assert_ping(self.lab.client, self.web1.address, 3)
        answer = self.call("state.replace", {"document": empty, "allow_removal": True})
        self.assertTrue(answer["changed"])
        self.assertIn("1 of 1 ENIs go out of service", " ".join(answer["warnings"]))
        self.assertIsNone(self.lab.interface(self.web1.netns))
        self.assertTrue(self.call("state.replace", {"document": state})["changed"])
        self.assert_ping(self.lab.client, self.web1.address, 3)
        # One bad object in it, and nothing of it is taken.
        broken = copy.deepcopy(state)
        some = broken["attachments"][0] if isinstance(broken["attachments"], list) else next(iter(broken["attachments"].values()))
        some["vlan"] = 4095
        self.refused("state.replace", {"document": broken}, "invalid_params")

    def test_nothing_is_taken_for_a_state_only_when_it_is_said_twice(self):
        state = self.call("state.get")
        for nothing in ({"revision": 0}, {"attachments": {}}, {"attachments": {}, "security_groups": {}, "subnets": {}}):
            self.refused("state.replace", {"document": nothing}, "would_empty", "/document", "--allow-empty")
        path = self.lab.write_file("nothing.json", {"attachments": {}})
        done = self.lab.trunkctl("state", "replace", path)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("--allow-empty", done.stderr)
        self.assertEqual(self.call("state.get"), state)
        self.assert_ping(self.lab.client, self.web1.address, 3)
        self.assertTrue(self.lab.ctl("state", "replace", path, "--allow-empty")["changed"])
        self.assertEqual(self.lab.ctl("task", "list")["tasks"], [])
        self.assertTrue(self.call("state.replace", {"document": state})["changed"])
        self.assert_ping(self.lab.client, self.web1.address, 3)

    def test_a_backup_of_any_size_can_be_put_back(self):
        """A state of the largest tables: what `state get` writes is what `state replace` takes, by trunkctl and files."""
        for number in range(8):
            first = number * 12000
            self.call("sg.members.put", {"group": f"sg-0000000{number}", "members": [
                f"10.{64 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(first, first + 12000)]})
        self.call("sg.members.put", {"group": "sg-00000008", "members": [f"2001:db8::{n:x}" for n in range(1, 20001)]})
        before = self.call("state.get")
        text = self.lab.trunkctl("state", "get").stdout
        self.assertGreater(len(json.dumps(before)), 3 << 19, "larger than a request of any other method may be")
        path = os.path.join(self.lab.directory, "backup.json")
        with open(path, "w") as file:
            file.write(text)
        began = time.monotonic()
        self.assertFalse(self.lab.ctl("state", "replace", path)["changed"])
        self.assertTrue(self.lab.ctl("sg", "members-put", "sg-00000000", "10.1.1.1")["changed"])
        self.assertTrue(self.lab.ctl("state", "replace", path)["changed"])
        self.note(f"{len(text)} bytes put back twice in {time.monotonic() - began:.1f} s")
        after = self.call("state.get")
        self.assertEqual({**after, "revision": 0}, {**before, "revision": 0})
        self.assert_ping(self.lab.client, self.web1.address, 3)
        # The same of any other method is too long, and who may only look has the small limit.
        self.refused("state.get", {"x": "y" * (2 << 20)}, "limit")
        done = self.as_nobody("state", "replace", "-", input=text)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.call("state.get"), after)

    def test_dry_run(self):
        before = self.call("state.get")
        attach = self.call("task.attach", {**self.web2.facts(), "dry_run": True})
        self.assertTrue(attach["dry_run"] and attach["changed"])
        self.assertEqual(attach["revision"], before["revision"])
        steps = " ".join(attach["steps"])
        self.assertIn(self.web2.eni, steps)
        self.assertIn("eth0", steps)
        detach = self.call("task.detach", {"task": self.web1.eni, "dry_run": True})
        self.assertIn(self.web1.eni, " ".join(detach["steps"]))
        self.call("sg.put", {"document": {"SecurityGroups": [group(tcp(81))]}, "dry_run": True})
        self.assertEqual(self.call("state.get"), before)
        self.assertIsNone(self.lab.interface(self.web2.netns))
        self.assert_ping(self.lab.client, self.web1.address, 3)
        done = self.call("task.attach", self.web2.facts())
        self.assertEqual(done["steps"], attach["steps"], "the dry run said something else")

    def test_expect_revision(self):
        revision = self.lab.revision()
        error = self.refused("task.attach", {**self.web2.facts(), "expect_revision": revision - 1}, "conflict")
        self.assertEqual(error["code"], -32003)
        done = self.lab.trunkctl("task", "detach", self.web1.eni, "--expect-revision", str(revision + 1))
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assert_state(self.web1, "active")
        self.call("task.attach", {**self.web2.facts(), "expect_revision": revision})
        # Two writers who read the same revision: one of them hears of it.
        revision = self.lab.revision()
        with Connection(self.lab.socket) as first, Connection(self.lab.socket) as second:
            answers = [one.call("sg.put", {"document": {"SecurityGroups": [group(tcp(port))]}, "expect_revision": revision})
                       for one, port in ((first, 81), (second, 82))]
        self.assertIn("result", answers[0])
        self.assertEqual(answers[1]["error"]["data"]["name"], "conflict")
        self.assertEqual(self.call("sg.show")["SecurityGroups"][0]["IpPermissions"][0]["FromPort"], 81)

    def test_detach_again_and_of_nobody(self):
        self.refused("task.detach", {"task": "eni-00000fff"}, "not_found", "/task")
        self.assertFalse(self.call("task.detach", {"task": "eni-00000fff", "missing_ok": True})["changed"])
        self.assertTrue(self.call("task.detach", {"task": self.web1.eni, "missing_ok": True})["changed"])
        self.assertFalse(self.call("task.detach", {"task": self.web1.eni, "missing_ok": True})["changed"])
        self.assertEqual(self.lab.trunkctl("task", "detach", self.web1.eni).returncode, 3)


SLOW_CLIENTS = """
import os, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connections, refused = [], 0
for number in range(200):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(3)
    try:
        one.connect(sys.argv[1])
        greeting = one.recv(65536)
        if b'"hello"' in greeting: connections.append(one)
        else: refused += 1
    except OSError: refused += 1
print(len(connections), refused, flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for one in connections[::2]:
        try: one.send(b"{")
        except OSError: pass
    time.sleep(1)
open_still = 0
for one in connections:
    one.setblocking(False)
    try:
        while True:
            if not one.recv(65536): break
    except BlockingIOError: open_still += 1
    except OSError: pass
print(open_still, flush=True)
"""


class TestAbuse(AsNobody, LabTest):
    overrides = {"control": {"socket_mode": "0666"}}

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.web1 = self.attach(1)

    def test_observer_looks_and_changes_nothing(self):
        before = self.call("state.get")
        for words in (("status",), ("stats",), ("drops",), ("task", "list"), ("task", "show", self.web1.eni),
                      ("task", "describe"), ("sg", "list"), ("sg", "show"), ("sg", "members", GROUP), ("subnet", "list"),
                      ("state", "get"), ("ping",)):
            done = self.as_nobody(*words)
            self.assertEqual(done.returncode, 0, (words, done.stderr))
        attempts = {("task", "detach", self.web1.eni): None, ("sg", "delete", GROUP): None,
                    ("task", "attach", "--eni", "eni-0000ffff"): None, ("sg", "members-put", GROUP, "10.0.9.9"): None,
                    ("sg", "put", "-"): {"SecurityGroups": [group(tcp(22))]}, ("state", "replace", "-"): before,
                    ("event", "submit", "-"): data("describe-tasks.json"),
                    ("subnet", "put", "-"): {"Subnets": [{"SubnetId": "subnet-00000001", "CidrBlock": "10.0.7.0/24"}]}}
        for words, document in attempts.items():
            done = self.as_nobody(*words, input=None if document is None else json.dumps(document))
            self.assertEqual(done.returncode, 1, (words, done.stdout, done.stderr))
            self.assertIn("may", done.stderr, words)
        self.assertEqual(self.call("state.get"), before)
        self.assertEqual(self.lab.tail("engine.log", 200).count("forbidden"), len(attempts), self.lab.tail("engine.log", 40))

    def test_socket_mode_keeps_others_out(self):
        os.chmod(self.lab.socket, 0o660)
        done = self.as_nobody("status")
        self.assertEqual(done.returncode, 4, done.stderr)

    def test_junk(self):
        before = self.call("state.get")
        randomly = random.Random(7)
        kinds = {}
        with Ping(self.lab, self.lab.client, self.web1.address) as ping:
            with Connection(self.lab.socket) as connection:
                for number in range(1000):
                    line = bytes(randomly.randrange(1, 256) for _ in range(randomly.randrange(1, 200))).replace(b"\n", b" ")
                    if number % 4 == 1:
                        line = json.dumps({"jsonrpc": "2.0", "id": number, "method": randomly.choice(
                            ["task.attach", "sg.put", "nothing", "state.replace", "event.submit"]),
                            "params": randomly.choice([[], 3, None, {"eni": 5}, {"x": {}}, {"event": []}])}).encode()
                    if number % 4 == 2:
                        line = b'{"jsonrpc":"2.0","id":1,"method":"status","params":' + b"[" * randomly.randrange(40) + b"NaN"
                    if number % 4 == 3:
                        line = b'{"jsonrpc":"2.0","id":1,"method":"status","method":"task.detach","params":{}}'
                    try:
                        connection.socket.sendall(line + b"\n")
                        answer = connection.lines.readline()
                    except OSError:
                        answer = b""
                    if not answer:  # thrown out, which is fine; come back
                        connection.__exit__()
                        connection = Connection(self.lab.socket)
                        kinds["thrown out"] = kinds.get("thrown out", 0) + 1
                        continue
                    said = json.loads(answer)
                    self.assertIn("error", said, (line, said))
                    self.assertIn(said["error"]["code"], (-32700, -32600, -32601, -32602, -32001, -32004), (line, said))
                    kinds[said["error"]["data"]["name"]] = kinds.get(said["error"]["data"]["name"], 0) + 1
                connection.__exit__()
            # A line of 2 MB is over the limit of 1 MiB.
            with Connection(self.lab.socket) as big, Connection(self.lab.socket) as bystander:
                with self.assertRaises((ConnectionError, AssertionError, StopIteration)):
                    try:
                        big.socket.sendall(b'{"jsonrpc":"2.0","id":1,"method":"status","x":"' + b"a" * (2 << 20) + b'"}\n')
                    except ConnectionError:
                        pass  # closed while we were still talking
                    said = big.lines.readline()
                    if said:
                        self.assertEqual(json.loads(said)["error"]["code"], -32001)
                        said = big.lines.readline()
                    self.assertEqual(said, b"", "the connection was not closed")
                    raise ConnectionError
                self.assertIn("result", bystander.call("status"))
            deep = self.lab.rpc_raw(b"[" * 100000 + b"]" * 100000 + b"\n")
            self.assertIn(deep["error"]["code"], (-32001, -32700))
            sent, received = ping.finish()
        self.assertEqual(sent, received)
        self.assertEqual(self.call("state.get"), before)
        self.assertEqual(self.lab.trunkctl("ping").returncode, 0)
        self.note(f"answers to 1000 lines of junk: {kinds}; {sent} pings meanwhile, none lost")

    def test_200_idle_and_slow_clients(self):
        fds = self.engine_fds()
        helper = subprocess.Popen([sys.executable, "-c", SLOW_CLIENTS, self.lab.socket, "13"], stdout=subprocess.PIPE, text=True)
        try:
            with Ping(self.lab, self.lab.client, self.web1.address) as ping:
                connected, refused = map(int, helper.stdout.readline().split())
                slowest = 0.0
                for _ in range(20):
                    began = time.monotonic()
                    self.assertEqual(self.lab.trunkctl("status").returncode, 0)
                    slowest = max(slowest, time.monotonic() - began)
                port = itertools.count(1000)
                self.assertTrue(self.put_groups(group(tcp(80), tcp(next(port)), PING))["changed"])
                open_still = int(helper.stdout.readline())
                sent, received = ping.finish()
        finally:
            helper.kill()
            helper.wait(timeout=10)
            helper.stdout.close()
        self.assertEqual(connected + refused, 200)
        self.assertLess(connected, 64)
        self.assertEqual(open_still, connected // 2, "those who dribble a line are thrown out after 10 s, the idle stay")
        self.assertEqual(sent, received)
        self.assertLess(slowest, 1)
        self.assertTrue(self.lab.wait_until(lambda: self.engine_fds() == fds, 5), (self.engine_fds(), fds))
        self.note(f"{connected} observers were let in and {refused} refused; {open_still} left after 13 s; an admin's status "
                  f"took {slowest * 1000:.0f} ms at most; {sent} pings, none lost")

    def test_client_that_never_reads(self):
        with Connection(self.lab.socket) as deaf:
            deaf.socket.settimeout(1)
            asked = 0
            request = b'{"jsonrpc":"2.0","id":1,"method":"state.get"}\n' * 100
            try:
                for _ in range(2000):
                    deaf.socket.sendall(request)
                    asked += 100
            except OSError:
                pass
            self.assertEqual(self.lab.trunkctl("status").returncode, 0)
        self.assertEqual(self.lab.trunkctl("status").returncode, 0)
        self.note(f"the engine stopped listening to a deaf client after about {asked} requests")

    def test_200_rule_changes_under_traffic(self):
        Nginx(self.lab, self.web1.netns, "a page")
        with Ping(self.lab, self.lab.client, self.web1.address) as ping, Connection(self.lab.socket) as connection:
            began = time.monotonic()
            for number in range(200):
                answer = connection.call("sg.put", {"document": {"SecurityGroups": [
                    group(tcp(80), PING, *[tcp(2000 + (number + i) % 50) for i in range(number % 40)])]}})
                self.assertTrue(answer["result"]["changed"] or number % 50 == 0, answer)
            took = time.monotonic() - began
            while time.monotonic() < began + 1:
                time.sleep(0.05)
            sent, received = ping.finish()
        self.assertEqual(sent, received)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{self.web1.address}/")[0], 200)
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web1.address, 2300), "silence")
        self.note(f"200 rule changes in {took:.2f} s ({200 / took:.0f}/s), each on disk; {sent} pings, none lost")


if __name__ == "__main__":
    main("setpriv")
