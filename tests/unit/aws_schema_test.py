#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The published schemas of AWS's shapes: every example under tests/data fits its own, and what is broken does not."""

import copy
import json
import pathlib
import unittest

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(name):
    return json.loads((ROOT / "tests/data" / f"{name}.json").read_text())


def schema_of(name):
    return json.loads((ROOT / "config/schema" / f"{name}.schema.json").read_text())


# schema -> the examples that fit it
EXAMPLES = {
    "describe-tasks": ["describe-tasks", "describe-tasks-newer"],
    "ecs-task-state-change": ["ecs-task-state-change"],
    "acs-message": ["acs-attach-task", "acs-attach-instance", "acs-payload"],
    "describe-security-groups": ["describe-security-groups"],
    "describe-subnets": ["describe-subnets"],
    "describe-network-acls": ["describe-network-acls"],
    "describe-vpcs": ["describe-vpcs"],
    "describe-network-interfaces": ["describe-network-interfaces"],
    "describe-security-group-rules": ["describe-security-group-rules"],
    "managed-prefix-list-entries": ["managed-prefix-list-entries"],
}

MISSING = object()

# (schema, example, path into it, value put there): each makes the example wrong
BROKEN = [
    ("describe-tasks", "describe-tasks", ["tasks"], {}),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "taskArn"], "arn:aws:ecs:us-west-2:123456789012:task/c/.."),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "version"], "4"),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "attachments", 0, "status"], "BUSY"),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "attachments", 0, "details"], []),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "attachments", 0, "details", 1, "value"], "eni_b0aaa4b2"),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "attachments", 0, "details", 2, "value"], "0a:47:e4:7a:2b"),
    ("describe-tasks", "describe-tasks", ["tasks", 0, "attachments", 0, "details", 3, "value"], "2001:db8::1"),
    ("ecs-task-state-change", "ecs-task-state-change", ["detail-type"], "ECS Container Instance State Change"),
    ("ecs-task-state-change", "ecs-task-state-change", ["detail", "version"], MISSING),
    ("ecs-task-state-change", "ecs-task-state-change", ["detail", "version"], None),
    ("ecs-task-state-change", "ecs-task-state-change", ["detail"], MISSING),
    ("acs-message", "acs-attach-task", ["type"], "HeartbeatMessage"),
    ("acs-message", "acs-attach-task", ["message", "taskArn"], MISSING),
    ("acs-message", "acs-attach-task", ["message", "messageId"], ""),
    ("acs-message", "acs-attach-task", ["message", "waitTimeoutMs"], 0),
    ("acs-message", "acs-attach-task", ["message", "elasticNetworkInterfaces"], []),
    ("acs-message", "acs-attach-instance", ["message", "elasticNetworkInterfaces", 0, "macAddress"], MISSING),
    ("acs-message", "acs-attach-instance", ["message", "elasticNetworkInterfaces", 0, "subnetGatewayIpv4Address"],
     MISSING),
    ("acs-message", "acs-attach-instance", ["message", "elasticNetworkInterfaces", 0, "subnetGatewayIpv4Address"],
     "10.0.0.1/24/24"),
    ("acs-message", "acs-attach-instance", ["message", "elasticNetworkInterfaces", 0, "interfaceAssociationProtocol"],
     "veth"),
    ("acs-message", "acs-payload", ["message", "tasks"], []),
    ("acs-message", "acs-payload",
     ["message", "tasks", 0, "elasticNetworkInterfaces", 0, "interfaceVlanProperties", "vlanId"], "4095"),
    ("acs-message", "acs-payload",
     ["message", "tasks", 0, "elasticNetworkInterfaces", 0, "interfaceVlanProperties", "vlanId"], 0),
    ("acs-message", "acs-payload", ["message", "tasks", 0, "elasticNetworkInterfaces", 0, "interfaceVlanProperties"],
     MISSING),
    ("describe-security-groups", "describe-security-groups", ["SecurityGroups", 0, "GroupId"], "9effe8e4"),
    ("describe-security-groups", "describe-security-groups",
     ["SecurityGroups", 0, "IpPermissions", 0, "IpProtocol"], "gre"),
    ("describe-security-groups", "describe-security-groups", ["SecurityGroups", 0, "IpPermissions", 0, "ToPort"],
     MISSING),
    ("describe-security-groups", "describe-security-groups", ["SecurityGroups", 0, "IpPermissions", 0, "ToPort"],
     65536),
    ("describe-security-groups", "describe-security-groups",
     ["SecurityGroups", 0, "IpPermissions", 4, "ToPort"], 3),
    ("describe-security-groups", "describe-security-groups",
     ["SecurityGroups", 0, "IpPermissions", 0, "IpRanges", 0, "CidrIp"], "0.0.0.0/33"),
    ("describe-security-groups", "describe-security-groups",
     ["SecurityGroups", 0, "IpPermissions", 6, "UserIdGroupPairs", 0], {"GroupName": "web"}),
    ("describe-subnets", "describe-subnets", ["Subnets", 0, "CidrBlock"], MISSING),
    ("describe-subnets", "describe-subnets", ["Subnets", 0, "SubnetId"], "vpc-0a1b2c3d"),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "NetworkAclId"], "sg-9aeb5ef7"),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries"], MISSING),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "RuleNumber"], 0),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "RuleNumber"], 32769),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "Protocol"], 6),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "Protocol"], "tcp"),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "RuleAction"], "ALLOW"),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "Egress"], MISSING),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "CidrBlock"], MISSING),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "Ipv6CidrBlock"], "::/0"),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 0, "PortRange", "To"], 65536),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 5, "IcmpTypeCode"], MISSING),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Entries", 5, "IcmpTypeCode", "Type"], -1),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Associations", 0, "SubnetId"], MISSING),
    ("describe-vpcs", "describe-vpcs", ["Vpcs", 0, "CidrBlock"], "10.0.0.0/8"),
    ("describe-vpcs", "describe-vpcs", ["Vpcs", 0, "VpcId"], MISSING),
    ("describe-network-acls", "describe-network-acls", ["NetworkAcls", 0, "Associations"], MISSING),
    ("describe-security-groups", "describe-security-groups", ["SecurityGroups", 0, "IpPermissions"], MISSING),
    ("describe-security-groups", "describe-security-groups", ["SecurityGroups", 0, "IpPermissionsEgress"], None),
    ("describe-subnets", "describe-subnets", ["Subnets", 0, "CidrBlock"], MISSING),
    ("describe-security-group-rules", "describe-security-group-rules", ["SecurityGroupRules", 0, "IsEgress"], MISSING),
    ("describe-security-group-rules", "describe-security-group-rules", ["SecurityGroupRules", 0, "CidrIpv6"], "::/0"),
    ("managed-prefix-list-entries", "managed-prefix-list-entries", ["Entries", 0, "Cidr"], MISSING),
    ("managed-prefix-list-entries", "managed-prefix-list-entries", ["PrefixListId"], "sg-1"),
    ("describe-network-interfaces", "describe-network-interfaces", ["NetworkInterfaces", 0, "SourceDestCheck"], "true"),
    ("describe-network-interfaces", "describe-network-interfaces",
     ["NetworkInterfaces", 0, "ConnectionTrackingConfiguration", "UdpTimeout"], 61),
    ("describe-network-interfaces", "describe-network-interfaces", ["NetworkInterfaces", 0, "MacAddress"], "0a-47"),
]


class AwsSchemas(unittest.TestCase):
    def test_schemas_are_schemas(self):
        for name in EXAMPLES:
            with self.subTest(schema=name):
                jsonschema.Draft7Validator.check_schema(schema_of(name))

    def test_examples_fit(self):
        for name, examples in EXAMPLES.items():
            for example in examples:
                with self.subTest(schema=name, example=example):
                    jsonschema.Draft7Validator(schema_of(name)).validate(load(example))

    def test_other_shapes_do_not_fit(self):
        for name in EXAMPLES:
            validator = jsonschema.Draft7Validator(schema_of(name))
            for other, examples in EXAMPLES.items():
                for example in examples if other != name else []:
                    with self.subTest(schema=name, example=example):
                        self.assertFalse(validator.is_valid(load(example)))

    def test_broken_ones_do_not_fit(self):
        for schema, example, path, value in BROKEN:
            with self.subTest(example=example, path=path, value=value):
                document = copy.deepcopy(load(example))
                place = document
                for step in path[:-1]:
                    place = place[step]
                if value is MISSING:
                    del place[path[-1]]
                else:
                    place[path[-1]] = value
                self.assertFalse(jsonschema.Draft7Validator(schema_of(schema)).is_valid(document))


if __name__ == "__main__":
    unittest.main()
