# SPDX-License-Identifier: BSD-3-Clause
"""One policy, said to each device in its own words: N rules a direction over 198.18.0.0/15 (the generator's remote ends),
which together cover it without overlapping; TCP to the ENI's port 80 inwards, TCP to port 443 outwards, answers by state,
everything else refused."""
import ipaddress

REMOTES = ipaddress.ip_network("198.18.0.0/15")
VLAN = 101
MAC = "0a:00:00:00:01:00"
ROUTER_MAC = "0a:00:00:00:00:01"
ADDRESS = "10.0.0.10"
INWARD_PORT, OUTWARD_PORT = 80, 443
FORBIDDEN_PORT = 81  # inwards: what must not come through


def prefixes(rules):
    """`rules` networks that tile REMOTES: of one length, or of two neighbouring ones."""
    bits = max(0, (rules - 1).bit_length())
    whole = list(REMOTES.subnets(prefixlen_diff=bits))
    merged = len(whole) - rules
    return [whole[2 * i].supernet() for i in range(merged)] + whole[2 * merged:]


def security_group(rules):
    """As describe-security-groups prints one."""
    def permission(network, port):
        return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": str(network)}]}

    networks = prefixes(rules)
    return {"GroupId": "sg-0000bench", "GroupName": "bench", "Description": "the benchmark's policy",
            "VpcId": "vpc-0a1b2c3d4e5f60718",
            "IpPermissions": [permission(network, INWARD_PORT) for network in networks],
            "IpPermissionsEgress": [permission(network, OUTWARD_PORT) for network in networks]}


def openflow(rules):
    """Lines for ovs-ofctl add-flows: trunk is port 1, the task port 2."""
    networks = prefixes(rules)
    to_task, to_trunk = "output:2", f"mod_vlan_vid:{VLAN},output:1"
    flows = [f"table=0,priority=100,in_port=1,dl_vlan={VLAN},dl_dst={MAC},ip,nw_dst={ADDRESS},actions=strip_vlan,ct(table=1,zone=1)",
             f"table=0,priority=100,in_port=2,dl_src={MAC},ip,nw_src={ADDRESS},actions=ct(table=2,zone=1)",
             "table=0,priority=0,actions=drop"]
    for table, side, port, out in ((1, "nw_src", INWARD_PORT, to_task), (2, "nw_dst", OUTWARD_PORT, to_trunk)):
        flows.append(f"table={table},priority=200,ct_state=+trk+est-inv,ip,actions={out}")
        flows += [f"table={table},priority=100,ct_state=+trk+new,tcp,{side}={network},tp_dst={port},actions=ct(commit,zone=1),{out}"
                  for network in networks]
        flows.append(f"table={table},priority=0,actions=drop")
    return flows
