#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Network ACLs, ranges of VPCs and an ENI's settings by the control socket: what goes in comes out, what leaves a subnet open is
refused or said, a restart forgets nothing. And what an edit does to live traffic: a network ACL cuts at once, audit mode lets pass."""
import copy
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, DATA, PING, SUBNET_ID, LabTest, group, main, tcp  # noqa: E402

OTHER_ID = "subnet-0a1b2c3d4e5f60719"


def acls():
    with open(os.path.join(DATA, "describe-network-acls.json")) as file:
        return json.load(file)["NetworkAcls"]


def acl(acl_id, *subnets, entries=()):
    return {"NetworkAclId": acl_id, "Entries": list(entries), "Associations": [{"SubnetId": subnet} for subnet in subnets]}


class TestAcls(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.web = self.attach(1)

    def put(self, *some, **options):
        return self.call("acl.put", {"document": {"NetworkAcls": list(some)}, **options})

    def acl_of(self, task):
        return self.call("task.show", {"task": task.eni})["network_acl"]

    def test_put_list_show(self):
        answer = self.put(*acls())
        self.assertEqual((answer["steps"], answer["warnings"]), ([f"update {self.web.eni}: network ACL acl-9aeb5ef7"], []))
        self.assertEqual(self.acl_of(self.web), "acl-9aeb5ef7")
        self.assertEqual(self.put(*acls())["changed"], False)
        listed = {each["id"]: each for each in self.call("acl.list")["acls"]}
        self.assertEqual(listed["acl-9aeb5ef7"], {
            "id": "acl-9aeb5ef7", "vpc": "vpc-0a1b2c3d4e5f60718", "is_default": False, "ingress_entries": 5, "egress_entries": 1,
            "subnets": [SUBNET_ID], "used_by": [self.web.eni]})
        self.assertEqual(listed["acl-5fb85d36"]["used_by"], [])
        shown = self.call("acl.show", {"acls": ["acl-9aeb5ef7"]})["NetworkAcls"]
        key = lambda entry: (entry["Egress"], entry["RuleNumber"])  # noqa: E731
        self.assertEqual(sorted(shown[0]["Entries"], key=key), sorted(acls()[0]["Entries"], key=key))
        self.assertEqual(self.put(*self.call("acl.show")["NetworkAcls"])["changed"], False)
        self.refused("acl.show", {"acls": ["acl-0"]}, "not_found", "/acls")
        broken = acls()
        broken[0]["Entries"][0]["PortRange"]["To"] = 70000
        self.refused("acl.put", {"document": {"NetworkAcls": broken}}, "invalid_params", "/document/NetworkAcls/0/Entries/0/PortRange/To")
        self.refused("acl.put", {"document": {"NetworkAcls": [acl("acl-2", SUBNET_ID)]}}, "duplicate_subnet", "/network_acls/acl-9aeb5ef7/subnets/0")
        self.refused("acl.put", {}, "invalid_params", "/document")

    def test_live_traffic_is_cut_at_once_within_the_subnet_it_is_not(self):
        def entry(number, egress, action, protocol, **more):
            return {"RuleNumber": number, "Egress": egress, "RuleAction": action, "Protocol": protocol, "CidrBlock": "0.0.0.0/0", **more}

        everything = [entry(100, False, "allow", "-1"), entry(100, True, "allow", "-1")]
        two = self.attach(2)
        self.assert_ping(self.lab.client, self.web.address, count=3)
        self.put(acl("acl-1", SUBNET_ID, entries=everything))
        self.assert_ping(self.lab.client, self.web.address, count=3)
        # No replies to pings: the query is let in, its answer is refused at the edge of the subnet.
        self.put(acl("acl-1", SUBNET_ID, entries=[*everything, entry(90, True, "deny", "1", IcmpTypeCode={"Type": 0, "Code": -1})]))
        with self.expect_drops(self.web.eni, network_acl_egress=1):
            self.assertFalse(self.lab.ping(self.lab.client, self.web.address))
        self.assert_ping(two.netns, self.web.address, count=3)  # nobody crosses the edge
        answer = self.call("explain", {"from": self.web.eni, "source": self.web.address, "destination": CLIENT, "protocol": "icmp", "icmp_type": 0})
        said = [stage["said"] for half in answer["halves"] for stage in half["stages"] if stage["refused"]]
        self.assertEqual((answer["delivered"], len(said)), (False, 1), answer)
        self.assertIn("Entry 90 of acl-1 denies", said[0])
        # Audit mode: counted, and let through.
        self.call("task.set", {"task": self.web.eni, "audit": True})
        with self.expect_drops(self.web.eni):
            self.assertTrue(self.lab.ping(self.lab.client, self.web.address))
        self.assertGreater(self.call("task.show", {"task": self.web.eni})["audited"].get("network_acl_egress", 0), 0)
        self.call("task.set", {"task": self.web.eni, "audit": False})
        with self.expect_drops(self.web.eni, network_acl_egress=1):
            self.assertFalse(self.lab.ping(self.lab.client, self.web.address))
        self.put(acl("acl-1", SUBNET_ID, entries=everything))
        self.assert_ping(self.lab.client, self.web.address, count=3)

    def test_dry_run(self):
        before = self.call("state.get")
        answer = self.put(*acls(), dry_run=True)
        self.assertEqual(answer["steps"], [f"update {self.web.eni}: network ACL acl-9aeb5ef7"])
        self.assertEqual(self.call("state.get"), before)

    def test_a_subnet_is_not_opened_by_leaving_out(self):
        self.put(acl("acl-1", SUBNET_ID), acl("acl-2"))
        self.refused("acl.delete", {"acl": "acl-1"}, "acl_in_use", "/acl")
        self.refused("acl.put", {"document": {"NetworkAcls": [acl("acl-2")]}, "replace_all": True}, "acl_in_use", "/document/NetworkAcls", says=SUBNET_ID)
        self.refused("acl.delete", {"acl": "acl-3"}, "not_found", "/acl")
        # To another ACL in one step is fine, and so is what was said.
        answer = self.put(acl("acl-2", SUBNET_ID), replace_all=True)
        self.assertEqual((self.acl_of(self.web), answer["warnings"]), ("acl-2", []))
        self.assertEqual([each["id"] for each in self.call("acl.list")["acls"]], ["acl-2"])
        answer = self.put(acl("acl-2"))
        self.assertEqual(answer["steps"], [f"update {self.web.eni}: no network ACL any more"])
        self.assertIn("everything passes", answer["warnings"][0])
        self.assertIsNone(self.acl_of(self.web))
        self.call("acl.delete", {"acl": "acl-2"})
        # Where nobody lives, nothing is opened.
        self.put(acl("acl-3", OTHER_ID))
        self.assertTrue(self.call("acl.delete", {"acl": "acl-3"})["changed"])

    def test_by_event_and_through_a_restart(self):
        self.call("event.submit", {"event": {"NetworkAcls": acls()}})
        before = self.call("state.get")
        self.assertEqual(self.acl_of(self.web), "acl-9aeb5ef7")
        changed = copy.deepcopy(acls()[0])
        changed["Associations"] = []
        warnings = self.call("event.submit", {"event": {"NetworkAcls": [changed]}})["warnings"]
        self.assertIn("everything passes", warnings[0])
        self.call("event.submit", {"event": {"NetworkAcls": acls()}})
        self.call("task.set", {"task": self.web.eni, "limits": {"egress_bits": 10**9}, "audit": True})
        self.lab.restart_engine()
        after = self.call("state.get")
        self.assertEqual(after["network_acls"], before["network_acls"])
        shown = self.call("task.show", {"task": self.web.eni})
        self.assertEqual((shown["state"], shown["network_acl"], shown["audit"], shown["limits"]["egress_bits"]),
                         ("active", "acl-9aeb5ef7", True, 10**9))

    def test_task_set(self):
        def settings():
            shown = self.call("task.show", {"task": self.web.eni})
            return {key: shown[key] for key in ("limits", "on_change", "always_track", "audit", "block_imds")}

        nothing = {"limits": {"ingress_bits": 0, "egress_bits": 0, "ingress_packets": 0, "egress_packets": 0}, "on_change": "keep",
                   "always_track": False, "audit": False, "block_imds": False}
        self.assertEqual(settings(), nothing)
        answer = self.call("task.set", {"task": self.web.arn, "audit": True, "limits": {"ingress_packets": 100}})
        self.assertEqual(answer["steps"], [f"update {self.web.eni}"])
        self.call("task.set", {"task": self.web.eni, "on_change": "revalidate", "limits": {"egress_bits": 8000}})
        self.assertEqual(settings(), {**nothing, "audit": True, "on_change": "revalidate",
                                      "limits": {**nothing["limits"], "ingress_packets": 100, "egress_bits": 8000}})
        self.assertEqual(self.call("task.set", {"task": self.web.eni})["changed"], False)
        self.refused("task.set", {"task": self.web.eni, "audit": "on"}, "invalid_params", "/audit")
        self.refused("task.set", {"task": self.web.eni, "limits": {"egress_bits": -1}}, "invalid_params", "/limits/egress_bits")
        self.refused("task.set", {"task": self.web.eni, "vlan": 5}, "invalid_params", "/vlan")
        self.refused("task.set", {"task": "eni-0", "audit": True}, "not_found", "/task")
        self.lab.trunkctl("task", "set", self.web.eni, "--audit", "off", "--egress-bits", "0", "--ingress-packets", "0", "--on-change", "keep")
        self.assertEqual(settings(), nothing)

    def test_the_range_of_a_vpc(self):
        subnet = {"SubnetId": OTHER_ID, "CidrBlock": "10.0.1.0/24", "VpcId": "vpc-1"}
        self.call("subnet.put", {"document": {"Subnets": [subnet]}})

        def range_of(subnet_id):
            return {each["SubnetId"]: each.get("VpcCidrBlock") for each in self.call("subnet.list")["Subnets"]}[subnet_id]

        self.assertIsNone(range_of(OTHER_ID))
        self.call("vpc.put", {"document": {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16"}]}})
        self.assertEqual(range_of(OTHER_ID), "10.0.0.0/16")
        # describe-subnets does not know it: what is put again keeps it, and a neighbour has the same.
        self.assertEqual(self.call("subnet.put", {"document": {"Subnets": [subnet]}})["changed"], False)
        self.call("subnet.put", {"document": {"Subnets": [{"SubnetId": "subnet-3", "CidrBlock": "10.0.3.0/24", "VpcId": "vpc-1"}]}})
        self.assertEqual(range_of("subnet-3"), "10.0.0.0/16")
        self.call("subnet.put", {"document": {"Subnets": [{**subnet, "VpcCidrBlock": "10.0.0.0/20"}]}})
        self.assertEqual((range_of(OTHER_ID), range_of("subnet-3")), ("10.0.0.0/20", "10.0.0.0/16"))
        self.assertIn("no subnet of vpc-2", self.call("vpc.put", {"document": {"Vpcs": [{"VpcId": "vpc-2", "CidrBlock": "10.1.0.0/16"}]}})["warnings"][0])
        self.refused("vpc.put", {"document": {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/8"}]}}, "invalid_params")
        self.refused("vpc.put", {"document": {"Vpcs": [{"VpcId": "vpc-1"}]}}, "invalid_params", "/document/Vpcs/0/CidrBlock")


if __name__ == "__main__":
    main()
