#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Random documents made from AWS's own service models, read by the engine's readers.

    aws_documents.py path/to/read_documents [COUNT]        COUNT documents a shape (TRUNKLINE_DOCUMENTS, else 1000)

Every member that a model has is there or not, by chance. A document is `whole` if what EC2 always prints is there: such a one is
read, with the counts that the generator knows. Otherwise it has holes: a document of rules is refused, and one of facts loses the
elements that have them. Whatever is refused says where (a pointer into the document) and how to mend it. TRUNKLINE_SEED replays a run.
"""
import gzip
import ipaddress
import json
import os
import random
import subprocess
import sys

MODELS = ("/usr/lib/python3/dist-packages/botocore/data", "/usr/lib/python3/dist-packages/awscli/botocore/data")
TASK_TYPES = ("interface", "branch", "efa")


def model(service):
    for root in MODELS:
        for folder in sorted(os.listdir(f"{root}/{service}"), reverse=True) if os.path.isdir(f"{root}/{service}") else []:
            for name, read in (("service-2.json", open), ("service-2.json.gz", gzip.open)):
                path = f"{root}/{service}/{folder}/{name}"
                if os.path.exists(path):
                    with read(path, "rt") as file:
                        return json.load(file)
    sys.exit(f"no service model of {service}: install python3-botocore")


class Maker:
    """One document. `holes` counts the members that EC2 always prints and that are not there."""

    # What EC2 always prints of what the engine reads.
    REQUIRED = {
        "SecurityGroup": ("GroupId", "IpPermissions", "IpPermissionsEgress"), "IpPermission": ("IpProtocol",), "IpRange": ("CidrIp",),
        "Ipv6Range": ("CidrIpv6",), "PrefixListId": ("PrefixListId",), "UserIdGroupPair": ("GroupId",),
        "SecurityGroupRule": ("GroupId", "IsEgress", "IpProtocol"), "ReferencedSecurityGroup": ("GroupId",),
        "Subnet": ("SubnetId",), "SubnetIpv6CidrBlockAssociation": ("Ipv6CidrBlock",), "Vpc": ("VpcId", "CidrBlock"),
        "NetworkInterface": ("NetworkInterfaceId",), "NetworkInterfacePrivateIpAddress": ("PrivateIpAddress",),
        "NetworkInterfaceIpv6Address": ("Ipv6Address",), "Ipv4PrefixSpecification": ("Ipv4Prefix",), "Ipv6PrefixSpecification": ("Ipv6Prefix",),
        "GroupIdentifier": ("GroupId",),
        "NetworkAcl": ("NetworkAclId", "Entries", "Associations"), "NetworkAclEntry": ("RuleNumber", "Egress", "RuleAction", "Protocol"),
        "NetworkAclAssociation": ("SubnetId",), "IcmpTypeCode": ("Type", "Code"), "PortRange": ("From", "To"),
        "PrefixListEntry": ("Cidr",), "TrunkInterfaceAssociation": ("BranchInterfaceId", "VlanId"),
        "Task": ("taskArn",), "ecs.Attachment": ("id", "status"),
    }

    def __init__(self, seed, models):
        self.random = random.Random(seed)
        self.models = models
        self.whole = self.random.random() < 0.5
        self.density = self.random.choice((0.2, 0.5, 0.9, 1.0))
        self.holes = 0
        self.unread = False
        self.taken = set()
        self.shapes = None
        self.service = None

    def chance(self, likely):
        return self.random.random() < likely

    def unique(self, make):
        while True:
            value = make()
            if value not in self.taken:
                self.taken.add(value)
                return value

    def hex(self, prefix):
        return self.unique(lambda: f"{prefix}-" + "".join(self.random.choices("0123456789abcdef", k=self.random.choice((8, 17)))))

    def text(self):
        return "".join(self.random.choices("abcXYZ019 -_./:{}\"\\é漢\U0001f600", k=self.random.randrange(0, 12)))

    def ipv4(self):
        return self.unique(lambda: str(ipaddress.IPv4Address(0x0a000000 + self.random.randrange(1 << 24))))

    def ipv6(self):
        return self.unique(lambda: str(ipaddress.IPv6Address((0x20010db8 << 96) + self.random.randrange(1 << 90))))

    def cidr4(self, least=0, most=32):
        length = self.random.randint(least, most)
        host = self.random.randrange(1 << 32) if self.chance(0.2) else self.random.randrange(1 << 32) >> (32 - length) << (32 - length)
        return f"{ipaddress.IPv4Address(host)}/{length}"

    def cidr6(self, lengths=range(0, 129)):
        length = self.random.choice(lengths)
        host = self.random.randrange(1 << 128) >> (128 - length) << (128 - length)
        if host >> 32 == 0xffff:
            host = 0
        return f"{ipaddress.IPv6Address(host)}/{length}"

    def apart(self, cidr):
        """A range that overlaps none of the same family so far."""
        while True:
            range_ = ipaddress.ip_network(cidr(), strict=False)
            mine = [other for other in self.taken if isinstance(other, type(range_))]
            if not any(range_.overlaps(other) for other in mine):
                self.taken.add(range_)
                return str(range_)

    def special(self, of, key):
        """A value with a meaning, or None."""
        make = {
            "GroupId": lambda: self.hex("sg"), "SubnetId": lambda: self.hex("subnet"), "VpcId": lambda: self.random.choice(("vpc-1", "vpc-0a1b2c3d")),
            "NetworkInterfaceId": lambda: self.hex("eni"), "BranchInterfaceId": lambda: self.hex("eni"), "TrunkInterfaceId": lambda: "eni-0000000f",
            "PrefixListId": lambda: self.hex("pl"), "NetworkAclId": lambda: self.hex("acl"), "InstanceId": lambda: self.hex("i"),
            "CidrIp": self.cidr4, "CidrIpv4": self.cidr4, "CidrIpv6": self.cidr6, "MacAddress": lambda: self.unique(self.mac),
            "PrivateIpAddress": self.ipv4, "Ipv6Address": self.ipv6, "Ipv4Prefix": lambda: self.cidr4(28, 28), "Ipv6Prefix": lambda: self.cidr6((80,)),
            "VlanId": lambda: self.unique(lambda: self.random.randint(1, 4094)), "RuleNumber": lambda: self.unique(lambda: self.random.randint(1, 32766)),
            "Cidr": self.cidr4, "version": lambda: self.random.randint(1, 9), "NextToken": lambda: "",
        }.get(key)
        if (of, key) == ("Subnet", "CidrBlock"):
            make = lambda: self.apart(lambda: self.cidr4(16, 28))  # noqa: E731
        elif (of, key) == ("Vpc", "VpcId"):
            make = lambda: self.hex("vpc")  # noqa: E731
        elif (of, key) == ("Vpc", "CidrBlock"):
            make = lambda: self.cidr4(16, 28)  # noqa: E731
        elif (of, key) == ("SubnetIpv6CidrBlockAssociation", "Ipv6CidrBlock"):
            make = lambda: self.apart(lambda: self.cidr6(range(44, 65, 4)))  # noqa: E731
        elif of == "NetworkInterfaceAttachment":
            make = make if key == "InstanceId" else None
        elif of == "VpcIpv6CidrBlockAssociation" or of == "VpcCidrBlockAssociation":
            make = None
        return make() if make else None

    def mac(self):
        return ":".join(["0a"] + [f"{self.random.randrange(256):02x}" for _ in range(5)])

    def value(self, of, key, name):
        special = self.special(of, key)
        if special is not None:
            return special
        shape = self.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            return self.structure(name)
        if kind == "list":
            return [self.value(of, None, shape["member"]["shape"]) for _ in range(self.random.randrange(0, 4))]
        if kind == "map":
            return {}
        if kind == "boolean":
            return self.chance(0.5)
        if kind in ("integer", "long"):
            return self.random.choice((0, 1, -1, 2**31 - 1))
        if kind in ("float", "double"):
            return self.random.random()
        if kind == "timestamp":
            return self.random.choice(("2026-11-30T19:00:00.000Z", "2026-11-30 19:00:00+00:00", 1764529200.125))
        return self.random.choice(shape["enum"]) if "enum" in shape else self.text()

    def structure(self, name):
        made = {}
        known = f"{self.service}.{name}" if f"{self.service}.{name}" in self.REQUIRED else name
        required = () if self.service == "ecs" and known not in ("Task", "ecs.Attachment") else self.REQUIRED.get(known, ())
        for key, member in self.shapes[name].get("members", {}).items():
            if key in required:
                if not self.whole and self.chance(0.02):
                    self.holes += 1
                    if self.chance(0.3):
                        made[key] = None
                    continue
            elif not self.chance(self.density):
                continue
            made[key] = self.value(name, key, member["shape"])
        after = getattr(self, f"after_{self.service}_{name}", None)
        if after:
            after(made)
        if self.chance(0.01):
            made["MemberOfTomorrow"] = 1
            self.unread = True
        return made

    # -- what has to fit together --

    def ports(self, made, protocol):
        for key in ("FromPort", "ToPort"):
            made.pop(key, None)
        if protocol in ("tcp", "udp", "6", "17"):
            first = self.random.randint(0, 65535)
            made.update(FromPort=first, ToPort=self.random.randint(first, 65535))
        elif protocol in ("icmp", "1") or (protocol in ("icmpv6", "58") and self.chance(0.5)):
            kind = self.random.choice((-1, 0, 8, 255))
            made.update(FromPort=kind, ToPort=-1 if kind == -1 else self.random.choice((-1, 0, 255)))
        elif self.chance(0.5):
            made.update(FromPort=-1, ToPort=-1)

    def after_ec2_IpPermission(self, made):
        if made.get("IpProtocol") is not None:
            made["IpProtocol"] = self.random.choice(("tcp", "udp", "icmp", "icmpv6", "-1", "6", "17", "1", "58", "50", "0", "255"))
        self.ports(made, made.get("IpProtocol"))

    def after_ec2_SecurityGroupRule(self, made):
        if made.get("IpProtocol") is not None:
            made["IpProtocol"] = self.random.choice(("tcp", "udp", "icmp", "icmpv6", "-1", "50"))
        self.ports(made, made.get("IpProtocol"))
        source = self.random.choice(("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupInfo"))
        if isinstance(made.get("ReferencedGroupInfo"), dict) and source != "ReferencedGroupInfo" and not made["ReferencedGroupInfo"].get("GroupId"):
            self.holes -= 1  # it goes again
        for key in ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupInfo"):
            if key != source:
                made.pop(key, None)
        if source not in made:
            made[source] = {"GroupId": self.hex("sg")} if source == "ReferencedGroupInfo" else self.special("SecurityGroupRule", source)

    def after_ec2_Subnet(self, made):
        blocks = made.get("Ipv6CidrBlockAssociationSet")
        if blocks:  # EC2 lets a subnet have one in use
            in_use = False
            for block in blocks:
                gone = in_use or self.chance(0.3)
                if gone and "Ipv6CidrBlock" in block and block["Ipv6CidrBlock"] is None or gone and "Ipv6CidrBlock" not in block:
                    self.holes -= 1  # nobody looks at it
                block["Ipv6CidrBlockState"] = {"State": self.random.choice(("disassociating", "disassociated", "failed")) if gone else "associated"}
                in_use = in_use or not gone
        usable = any(block["Ipv6CidrBlockState"]["State"] == "associated" and block.get("Ipv6CidrBlock") for block in blocks or ())
        made["Ipv6Native"] = usable and self.chance(0.5)
        if made["Ipv6Native"]:
            made.pop("CidrBlock", None)
        elif "CidrBlock" not in made:
            if self.whole or self.chance(0.95):
                made["CidrBlock"] = self.special("Subnet", "CidrBlock")
            else:
                self.holes += 1

    def after_ec2_NetworkInterface(self, made):
        for first in [address for address in made.get("PrivateIpAddresses", ()) if address.get("PrivateIpAddress")][:1]:
            first["Primary"] = True
            made["PrivateIpAddress"] = first["PrivateIpAddress"]
        made.pop("Ipv6Address", None)

    def after_ec2_NetworkAclEntry(self, made):
        for key in ("CidrBlock", "Ipv6CidrBlock", "PortRange", "IcmpTypeCode"):
            part = made.pop(key, None)
            if isinstance(part, dict):
                self.holes -= sum(1 for need in self.REQUIRED["PortRange" if key == "PortRange" else "IcmpTypeCode"] if part.get(need) is None)
        ipv4 = self.chance(0.6)
        made["CidrBlock" if ipv4 else "Ipv6CidrBlock"] = self.cidr4() if ipv4 else self.cidr6()
        if made.get("RuleAction") is not None:
            made["RuleAction"] = self.random.choice(("allow", "deny"))
        if made.get("Protocol") is None:
            return
        made["Protocol"] = self.random.choice(("-1", "6", "17", "1" if ipv4 else "58", "50", "0"))
        if made["Protocol"] in ("6", "17") and self.chance(0.8):
            first = self.random.randint(0, 65535)
            made["PortRange"] = {"From": first, "To": self.random.randint(first, 65535)}
        if made["Protocol"] in ("1", "58"):
            kind = self.random.choice((-1, 0, 8))
            made["IcmpTypeCode"] = {"Type": kind, "Code": -1 if kind == -1 else self.random.choice((-1, 0))}

    def after_ec2_TrunkInterfaceAssociation(self, made):
        if made.get("InterfaceProtocol") == "GRE":
            self.holes -= 1 if made.get("VlanId") is None else 0

    def after_ecs_Task(self, made):
        if made.get("taskArn") is not None:
            made["taskArn"] = f"arn:aws:ecs:us-west-2:123456789012:task/cluster/{self.random.getrandbits(128):032x}"
        made["lastStatus"] = self.random.choice(("PENDING", "RUNNING", "STOPPED", "DEPROVISIONING"))

    def after_ecs_Attachment(self, made):
        made["type"] = self.random.choice(("ElasticNetworkInterface", "ElasticNetworkInterface", "AmazonElasticBlockStorage", "Service Connect"))
        if made["type"] != "ElasticNetworkInterface":
            self.holes -= sum(1 for key in ("id", "status") if made.get(key) is None)
            return
        if made.get("id") is not None:
            made["id"] = f"{self.random.getrandbits(64):016x}-1"
        if made.get("status") is not None:
            made["status"] = self.random.choice(("PRECREATED", "CREATED", "ATTACHING", "ATTACHED", "DETACHING", "DETACHED", "DELETED", "FAILED"))
        details = {"subnetId": self.hex("subnet"), "networkInterfaceId": self.hex("eni"), "macAddress": self.unique(self.mac),
                   "privateDnsName": "ip-10-0-0-1", "privateIPv4Address": self.ipv4(), "ipv6Address": self.ipv6(), "of tomorrow": "x"}
        made["details"] = [{"name": name, "value": value} for name, value in details.items() if name == "networkInterfaceId" or self.chance(0.8)]
        if any(detail["name"] == "of tomorrow" for detail in made["details"]):
            self.unread = True
        self.random.shuffle(made["details"])

    def after_ecs_NetworkInterface(self, made):
        made.clear()
        if self.chance(0.5):
            made.update(attachmentId="nobody's", privateIpv4Address=self.ipv4())

    def elements(self, service, name, most):
        """Elements of a document's list, and of each whether it has holes."""
        self.service, self.shapes = service, self.models[service]["shapes"]
        made, bad = [], []
        for _ in range(self.random.randint(0, most)):
            before = self.holes
            made.append(self.structure(name))
            bad.append(self.holes != before)
        return made, bad


def describe(kind, maker):
    """(list of the document, elements, which have holes, what is read of the sound ones)."""
    service, key, name, most = {
        "groups": ("ec2", "SecurityGroups", "SecurityGroup", 4), "rules": ("ec2", "SecurityGroupRules", "SecurityGroupRule", 8),
        "subnets": ("ec2", "Subnets", "Subnet", 6), "vpcs": ("ec2", "Vpcs", "Vpc", 4), "acls": ("ec2", "NetworkAcls", "NetworkAcl", 4),
        "interfaces": ("ec2", "NetworkInterfaces", "NetworkInterface", 6), "entries": ("ec2", "Entries", "PrefixListEntry", 20),
        "managed": ("ec2", "PrefixLists", "ManagedPrefixList", 4), "branches": ("ec2", "InterfaceAssociations", "TrunkInterfaceAssociation", 5),
        "tasks": ("ecs", "tasks", "Task", 4)}[kind]
    return (key, *maker.elements(service, name, most))


def expected(kind, elements, bad):
    """Whether it is read, and then the counts that are sure."""
    sound = [element for element, hole in zip(elements, bad) if not hole]
    if kind in ("groups", "rules", "acls", "entries") and any(bad):
        return False, {}
    if kind == "managed":
        return not elements, {}
    if elements and not sound and any(bad) and kind != "interfaces":
        return False, {}
    if kind == "groups":
        return True, {"groups": len(elements), "rules": sum(len(each["IpPermissions"]) + len(each["IpPermissionsEgress"]) for each in elements)}
    if kind == "rules":
        return True, {"groups": len({each["GroupId"] for each in elements})}
    if kind == "acls":
        return True, {"acls": len(elements), "entries": sum(len(each["Entries"]) for each in elements)}
    if kind == "entries":
        return True, {"entries": len(elements)}
    if kind == "subnets":
        return True, {"subnets": len(sound)}
    if kind == "branches":
        usable = sum(each.get("InterfaceProtocol") != "GRE" for each in sound)
        return (None if any(bad) and not usable else True), {"attachments": usable}
    if kind == "interfaces":
        taken = [each for each in elements if (each.get("InterfaceType") or "interface") in TASK_TYPES]
        usable = [each for each, hole in zip(elements, bad) if not hole and each in taken]
        if any(bad) and not usable:
            return None, {}  # an element that no task can have may have the hole: either is right
        return True, {"attachments": len(usable), "prefixes": sum(len(each.get(key) or ()) for each in usable for key in ("Ipv4Prefixes", "Ipv6Prefixes"))}
    return True, {}


READ_AS = {"rules": "groups", "managed": "prefix_lists", "entries": "prefix_lists"}
RESULT_OF = {"groups": "DescribeSecurityGroupsResult", "tasks": "DescribeTasksResponse"}


def main():
    program = sys.argv[1]
    count = int(sys.argv[2] if len(sys.argv) > 2 else os.environ.get("TRUNKLINE_DOCUMENTS", 1000))
    seed = int(os.environ.get("TRUNKLINE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"TRUNKLINE_SEED={seed}, {count} documents a shape", flush=True)
    models = {"ec2": model("ec2"), "ecs": model("ecs")}
    cases, lines = [], []
    for kind in ("groups", "rules", "subnets", "vpcs", "acls", "interfaces", "entries", "managed", "branches", "tasks"):
        for number in range(count):
            maker = Maker(f"{seed}/{kind}/{number}", models)
            key, elements, bad = describe(kind, maker)
            document = {key: elements}
            if maker.chance(0.3):
                document["ResponseMetadata"] = {"HTTPStatusCode": 200}
            if maker.chance(0.3):
                document["NextToken"] = maker.random.choice((None, ""))
            if kind == "tasks" and maker.chance(0.3):
                document["failures"] = [{"arn": "a", "reason": "MISSING", "detail": "d"}]
            page = maker.chance(0.1)
            if page:
                document["NextToken"] = "eyJ2IjoiMiJ9"
            line = {"kind": READ_AS.get(kind, kind), "document": document}
            if kind == "entries":
                line["id"] = "pl-0a1b2c3d"
            if kind in ("groups", "acls") and maker.chance(0.2):
                line["replace_all"] = True
            cases.append((kind, number, line, elements, bad, page, maker))
            lines.append(json.dumps(line, ensure_ascii=maker.chance(0.5)))
    run = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=600)
    answers = run.stdout.splitlines()
    failures = []
    if run.returncode != 0 or len(answers) != len(cases):
        at = cases[min(len(answers), len(cases) - 1)]
        print(f"the reader ended with {run.returncode} at {at[0]} {at[1]}:\n{run.stderr[-3000:]}\n{json.dumps(at[2])[:2000]}")
        return 1
    tally = {}
    for (kind, number, line, elements, bad, page, maker), text in zip(cases, answers):
        answer = json.loads(text)
        problems, warnings = answer["problems"], answer["warnings"]
        is_read = not problems
        tally.setdefault(kind, [0, 0])[0 if is_read else 1] += 1
        wanted, counts = expected(kind, elements, bad)
        if page and (kind in ("rules", "entries") or line.get("replace_all")):
            wanted, counts = False, {}
        wrong = []
        if wanted is not None and is_read != wanted:
            wrong.append(f"wanted {'read' if wanted else 'refused'}")
        for problem in problems:
            if not problem["pointer"].startswith("/document") or len(problem["message"]) < 20 or problem["name"] == "internal":
                wrong.append(f"a refusal that does not say where or how: {problem}")
        if is_read and wanted:
            for name, number_of in counts.items():
                if answer["counts"][name] != number_of:
                    wrong.append(f"{answer['counts'][name]} {name}, wanted {number_of}")
            if any(bad) and not any("left out" in warning for warning in warnings) and kind not in ("interfaces", "branches"):
                wrong.append("an element was left out without a word")
            if page and kind != "managed" and not any("NextToken" in warning for warning in warnings):
                wrong.append("a page was taken without a word")
            if not any(bad) and not maker.unread and any("was not read" in warning and "DenyAllIgwTraffic" not in warning for warning in warnings):
                wrong.append(f"a member of the model is not known: {warnings}")
        if wrong:
            failures.append((kind, number, wrong, line, answer))
    for kind, number, wrong, line, answer in failures[:5]:
        print(f"FAILED {kind} {number}: {'; '.join(wrong)}\n  {json.dumps(line)[:3000]}\n  {json.dumps(answer)[:1500]}")
    print("; ".join(f"{kind}: {read} read, {refused} refused" for kind, (read, refused) in tally.items()))
    if failures:
        print(f"{len(failures)} documents went wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
