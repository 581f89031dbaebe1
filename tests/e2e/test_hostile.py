#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a hostile task with CAP_NET_RAW, or a broken fabric, can send: each frame is dropped for its own reason, counted
exactly, and seen by nobody. T-24, T-25, T-39..T-45, T-49..T-51, T-61, T-65."""
import struct
import sys
import os
import signal
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (CLIENT, GROUP, PING, ROUTER_MAC, LabTest, Ping, Witness, arp, echo, ethernet,  # noqa: E402
                     group, icmp6, ipv4, main, tcp, tcp_segment, udp)
from lab import send_frames  # noqa: E402

MARK = b"HOSTILE-FRAME-OF-A-TEST"
FAIR = b"FAIR-FRAME-OF-A-TEST"
TIMES = 3
BROADCAST = "ff:ff:ff:ff:ff:ff"
ZERO = "00:00:00:00:00:00"
VLAN, QINQ = 0x8100, 0x88A8
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD


class Hostile(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.web1, self.web2 = self.attach(1), self.attach(2)
        # Neighbours are known before anything is counted.
        self.assert_ping(self.lab.client, self.web1.address, 2)
        self.assert_ping(self.lab.client, self.web2.address, 2)


class TestFromTask(Hostile):
    def frames(self, one, two):
        """(what, the reason it is dropped for, the frame)."""
        to = ROUTER_MAC

        def out(payload, ethertype=IPV4, source=one.mac, destination=to, tags=()):
            return ethernet(destination, source, ethertype, payload + MARK, tags)

        def ping(source=one.address, destination=CLIENT, **more):
            return ipv4(source, destination, 1, echo(MARK), **more)

        def ask(*words, **more):
            return out(arp(*words, **more), ARP, destination=BROADCAST)

        own6 = "fe80::847:e4ff:fe7a:2c01"
        all6 = "33:33:00:00:00:01"
        link_layer = b"\x02\x01" + bytes.fromhex(one.mac.replace(":", ""))
        foreign_link_layer = b"\x02\x01" + bytes.fromhex(two.mac.replace(":", ""))
        target6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
        return [
            ("another's MAC", "spoof_mac", out(ping(), source=two.mac)),
            ("the router's MAC", "spoof_mac", out(ping(), source=ROUTER_MAC)),
            ("a zero source MAC", "spoof_mac", out(ping(), source=ZERO)),
            ("a multicast source MAC", "spoof_mac", out(ping(), source="01:00:5e:00:00:01")),
            ("another's address", "spoof_ip", out(ping(two.address))),
            ("the client's address", "spoof_ip", out(ping(CLIENT))),
            ("an IPv6 address that it does not have", "spoof_ip",
             out(icmp6("2001:db8::1", "2001:db8::2", 128, bytes(4) + MARK), IPV6)),
            ("a VLAN tag, its own", "unexpected_vlan", out(ping(), tags=[(VLAN, one.vlan)])),
            ("a VLAN tag, another's", "unexpected_vlan", out(ping(), tags=[(VLAN, two.vlan)])),
            ("a priority tag", "unexpected_vlan", out(ping(), tags=[(VLAN, 0x6000)])),
            ("two tags", "unexpected_vlan", out(ping(), tags=[(VLAN, one.vlan), (VLAN, two.vlan)])),
            ("a service tag", "unexpected_vlan", out(ping(), tags=[(QINQ, two.vlan)])),
            ("QinQ", "unexpected_vlan", out(ping(), tags=[(QINQ, one.vlan), (VLAN, two.vlan)])),
            ("three tags", "unexpected_vlan", out(ping(), tags=[(VLAN, 0), (VLAN, one.vlan), (VLAN, two.vlan)])),
            ("ARP: I am the gateway (request)", "arp_spoof", ask(1, one.mac, "10.0.0.1", ZERO, two.address)),
            ("ARP: I am the gateway (reply)", "arp_spoof",
             out(arp(2, one.mac, "10.0.0.1", two.mac, two.address), ARP, destination=two.mac)),
            ("ARP: I am the peer", "arp_spoof", ask(2, one.mac, two.address, ZERO, "10.0.0.1")),
            ("ARP: another's MAC inside", "arp_spoof", ask(1, two.mac, one.address, ZERO, "10.0.0.1")),
            ("ARP: gratuitous request", "arp_gratuitous", ask(1, one.mac, one.address, ZERO, one.address)),
            ("ARP: gratuitous reply", "arp_gratuitous", ask(2, one.mac, one.address, BROADCAST, one.address)),
            ("ARP: a reply to all", "arp_gratuitous", ask(2, one.mac, one.address, ZERO, "10.0.0.1")),
            ("ARP: a probe for itself", "arp_own_address", ask(1, one.mac, "0.0.0.0", ZERO, one.address)),
            ("ARP: hlen 7", "malformed", ask(1, one.mac, one.address, ZERO, "10.0.0.1", hlen=7)),
            ("ARP: plen 16", "malformed", ask(1, one.mac, one.address, ZERO, "10.0.0.1", plen=16)),
            ("ND: router advertisement", "nd_refused",
             out(icmp6(own6, "ff02::1", 134, bytes(12) + link_layer), IPV6, destination=all6)),
            ("ND: redirect", "nd_refused",
             out(icmp6(own6, "fe80::1", 137, bytes(36) + link_layer), IPV6)),
            ("ND: advertisement for another", "arp_spoof",
             out(icmp6(own6, "ff02::1", 136, b"\x20\0\0\0" + target6 + link_layer), IPV6, destination=all6)),
            ("ND: another's MAC inside", "arp_spoof",
             out(icmp6(own6, "ff02::1", 135, bytes(4) + target6 + foreign_link_layer), IPV6, destination=all6)),
            ("ND: hop limit 64", "malformed",
             out(icmp6(own6, "ff02::1", 135, bytes(4) + target6 + link_layer, hop_limit=64), IPV6, destination=all6)),
            ("LLDP", "ethertype", out(b"\x02\x07\x04", 0x88CC, destination="01:80:c2:00:00:0e")),
            ("MPLS", "ethertype", out(b"\x00\x01\x01\x40" + ping(), 0x8847)),
            ("PPPoE", "ethertype", out(b"\x11\x00\x00\x01\x00\x10\x00\x21", 0x8864)),
            ("LLC (a length, no type)", "ethertype", out(b"\x42\x42\x03", 0x0040)),
            ("the last length, 0x05ff", "ethertype", out(b"\x42\x42\x03", 0x05FF)),
            ("IPv4 cut after 12 bytes", "malformed", ethernet(to, one.mac, IPV4, ping()[:12])),
            ("a total length above the frame", "malformed", out(ping(total=1400))),
            ("a total length below the header", "malformed", out(ping(total=19))),
            ("IHL 4", "malformed", out(ping(ihl=4))),
            ("IHL 15 in a short packet", "malformed", ethernet(to, one.mac, IPV4, ping(ihl=15, total=40)[:40])),
            ("IP version 6 in IPv4", "malformed", out(b"\x65" + ping()[1:])),
            ("a TCP header cut short", "malformed", ethernet(to, one.mac, IPV4, ipv4(one.address, CLIENT, 6, bytes(12)))),
            ("TCP with data offset 4", "malformed",
             out(ipv4(one.address, CLIENT, 6, tcp_segment(1, 80, 2, one.address, CLIENT, offset=4)))),
            ("UDP longer than its packet", "malformed",
             out(ipv4(one.address, CLIENT, 17, struct.pack("!HHHH", 1, 53, 999, 0)))),
            ("a first fragment that is no multiple of eight", "malformed", out(ping(flags=0x2000))),
            ("a last fragment without a first", "fragment_orphan", out(ping(flags=0x0010))),
            ("a fragment with offset 1", "fragment_tiny",
             out(ipv4(one.address, CLIENT, 6, tcp_segment(1, 80, 2, one.address, CLIENT), flags=0x0001))),
            ("a tiny first fragment", "fragment_tiny", out(ipv4(one.address, CLIENT, 6, bytes(8), flags=0x2000))),
            ("loose source route", "ip_options", out(ping(options=b"\x83\x07\x04\x0a\x00\x00\x01\x00"))),
            ("strict source route", "ip_options", out(ping(options=b"\x89\x07\x04\x0a\x00\x00\x01\x00"))),
            *[(f"TCP flags {name}", "tcp_flags",
               out(ipv4(one.address, CLIENT, 6, tcp_segment(1, 80, flags, one.address, CLIENT))))
              for name, flags in (("none", 0), ("XMAS", 0x29), ("SYN+FIN", 3), ("SYN+RST", 6))],
            ("broadcast", "multicast", out(ping(destination="255.255.255.255"), destination=BROADCAST)),
            ("multicast", "multicast",
             out(ipv4(one.address, "224.0.0.251", 17, udp(5353, 5353, MARK)), destination="01:00:5e:00:00:fb")),
            ("a unicast packet to the broadcast MAC", "multicast", out(ping(), destination=BROADCAST)),
            ("DHCP: a client that says nothing", "malformed",
             out(ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67, MARK)), destination=BROADCAST)),
            ("DHCP: a server", "dhcp_refused",
             out(ipv4(one.address, "255.255.255.255", 17, udp(67, 68, MARK)), destination=BROADCAST)),
            ("DHCP: a server that knows its client", "dhcp_refused", out(ipv4(one.address, two.address, 17, udp(67, 68, MARK)))),
        ]

    def test_each_is_dropped_for_its_reason_and_never_on_the_trunk(self):
        one, two = self.web1, self.web2
        spoofed = self.lab.fabric_counters()["spoofed"]
        frames = self.frames(one, two)
        with Witness(self.lab.vpc, "fabric0") as trunk, Witness(two.netns, "eth0") as peer:
            for what, reason, frame in frames:
                with self.subTest(what), self.expect_drops(one.eni, **{reason: TIMES}):
                    send_frames(one.netns, "eth0", [frame] * TIMES)
            # What is fair passes, so the witnesses see.
            send_frames(one.netns, "eth0", [
                ethernet(ROUTER_MAC, one.mac, IPV4, ipv4(one.address, CLIENT, 1, echo(FAIR))),
                ethernet(two.mac, one.mac, IPV4, ipv4(one.address, two.address, 1, echo(FAIR)))])
            self.lab.wait_until(lambda: trunk.with_text(FAIR) and peer.with_text(FAIR), 3)
            time.sleep(0.2)
        self.assertEqual((trunk.with_text(FAIR), peer.with_text(FAIR)), (1, 1))
        self.assertEqual((trunk.with_text(MARK), peer.with_text(MARK)), (0, 0))
        self.assertEqual(self.lab.fabric_counters()["spoofed"], spoofed)
        self.assertEqual(self.lab.drops(two.eni), {})
        self.note(f"{len(frames)} kinds of frames, {TIMES} each; the trunk's witness saw {trunk.seen} frames, none of them")

    def test_martians(self):
        """With the source check on they are spoofed as well; without it they are martians still."""
        one = self.web1
        sources = ("127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "240.0.0.1", "255.255.255.255")
        frames = [ethernet(ROUTER_MAC, one.mac, IPV4, ipv4(source, CLIENT, 1, echo(MARK))) for source in sources]
        mapped = ethernet(ROUTER_MAC, one.mac, IPV6, icmp6("::ffff:10.0.0.31", "2001:db8::1", 128, bytes(4) + MARK))
        with Witness(self.lab.vpc, "fabric0") as trunk:
            with self.expect_drops(one.eni, spoof_ip=len(sources)):
                send_frames(one.netns, "eth0", frames)
            with self.expect_drops(one.eni, martian=1):
                send_frames(one.netns, "eth0", [mapped])
            self.call("task.attach", {"eni": one.eni, "source_dest_check": False})
            with self.expect_drops(one.eni, martian=len(sources) + 1):
                send_frames(one.netns, "eth0", [*frames, mapped])
            # The check is off: an address of somebody else may be a source now (a NAT instance), and is on the wire.
            with self.expect_drops(one.eni):
                send_frames(one.netns, "eth0", [
                    ethernet(ROUTER_MAC, one.mac, IPV4, ipv4("192.0.2.7", CLIENT, 1, echo(FAIR)))])
                self.assertTrue(self.lab.wait_until(lambda: trunk.with_text(FAIR) == 1, 3))
        self.assertEqual(trunk.with_text(MARK), 0)

    def test_storm_of_one_task_costs_the_other_nothing(self):
        one, two = self.web1, self.web2
        storm = [ethernet(BROADCAST, one.mac, IPV4, ipv4(one.address, "255.255.255.255", 17, udp(1, 2, MARK)))] * 20000

        def counted():
            """What the engine took, and what the task's own queue towards it had no room for."""
            lost = self.lab.exec(one.netns, "cat", "/sys/class/net/eth0/statistics/tx_dropped").stdout
            return self.lab.drops(one.eni).get("multicast", 0), int(lost)

        before = counted()
        with Ping(self.lab, self.lab.client, two.address, 200) as ping:
            send_frames(one.netns, "eth0", storm)
            self.assertEqual(ping.wait(), (200, 200))
        seen, lost = (now - then for now, then in zip(counted(), before))
        self.assertEqual(seen + lost, len(storm))
        self.note(f"of {len(storm)} frames {seen} were dropped as multicast and {lost} by the task's own full queue")


class TestFromTrunk(Hostile):
    def test_each_is_dropped_for_its_reason_and_never_delivered(self):
        one, two = self.web1, self.web2

        def to(payload, vlan=one.vlan, mac=one.mac, ethertype=IPV4, tags=None):
            tags = ([(VLAN, vlan)] if vlan is not None else []) if tags is None else tags
            return ethernet(mac, ROUTER_MAC, ethertype, payload + MARK, tags)

        def ping(source=CLIENT, destination=one.address, **more):
            return ipv4(source, destination, 1, echo(MARK), **more)

        # Where it is counted: at the trunk if nobody's, else at the ENI whose VLAN it has.
        frames = [
            ("an unknown VLAN", "unknown_eni", None, to(ping(), vlan=999)),
            ("VLAN 4095", "unknown_eni", None, to(ping(), vlan=4095)),
            ("untagged", "unknown_eni", None, to(ping(), vlan=None)),
            ("a priority tag", "unknown_eni", None, to(ping(), tags=[(VLAN, 0x6000)])),
            ("untagged ARP to all", "unknown_eni", None,
             to(arp(1, ROUTER_MAC, "10.0.0.1", ZERO, one.address), vlan=None, mac=BROADCAST, ethertype=ARP)),
            ("two tags, the outer one right", "unexpected_vlan", one, to(ping(), tags=[(VLAN, one.vlan), (VLAN, two.vlan)])),
            ("two tags, the inner one right", "unexpected_vlan", None, to(ping(), tags=[(VLAN, 999), (VLAN, one.vlan)])),
            ("a second tag of 802.1ad", "unexpected_vlan", one, to(ping(), tags=[(VLAN, one.vlan), (QINQ, two.vlan)])),
            ("the other task's MAC", "wrong_mac", one, to(ping(), mac=two.mac)),
            ("nobody's MAC", "wrong_mac", one, to(ping(), mac="0a:00:00:00:00:99")),
            ("the other task's address", "dest_check", one, to(ping(destination=two.address))),
            ("nobody's address", "dest_check", one, to(ping(destination="10.0.0.200"))),
            ("the other task on this VLAN", "wrong_mac", one, to(ping(destination=two.address), mac=two.mac)),
            ("ARP for the other task", "dest_check", one,
             to(arp(1, ROUTER_MAC, "10.0.0.1", ZERO, two.address), mac=BROADCAST, ethertype=ARP)),
            ("broadcast", "multicast", one, to(ping(destination="255.255.255.255"), mac=BROADCAST)),
            ("multicast", "multicast", one, to(ping(destination="224.0.0.1"), mac="01:00:5e:00:00:01")),
            ("a martian source", "martian", one, to(ping(source="127.0.0.1"))),
            ("a total length above the frame", "malformed", one, to(ping(total=1400))),
            ("a source route", "ip_options", one, to(ping(options=b"\x83\x07\x04\x0a\x00\x00\x01\x00"))),
            ("LLDP", "ethertype", one, to(b"\x02\x07\x04", ethertype=0x88CC)),
            ("SYN+FIN to the open port", "tcp_flags", one,
             to(ipv4(CLIENT, one.address, 6, tcp_segment(1, 80, 3, CLIENT, one.address)))),
            ("a closed port", "security_group_ingress", one,
             to(ipv4(CLIENT, one.address, 6, tcp_segment(1, 81, 2, CLIENT, one.address, text=MARK)))),
            ("a router advertisement of the fabric for nobody's VLAN", "unknown_eni", None,
             to(icmp6("fe80::1", "ff02::1", 134, bytes(12)), vlan=998, mac="33:33:00:00:00:01", ethertype=IPV6)),
        ]
        with Witness(one.netns, "eth0") as at1, Witness(two.netns, "eth0") as at2:
            for what, reason, task, frame in frames:
                before = self.meters(None)[0]
                with self.subTest(what), self.expect_drops(task.eni if task else None, **{reason: TIMES}):
                    send_frames(self.lab.vpc, "fabric0", [frame] * TIMES)
                after = self.meters(None)[0]
                with self.subTest(what + ": the trunk's meter"):
                    self.assertEqual(after["rx_packets"] - before["rx_packets"], TIMES)
                    self.assertEqual(after["drops"].get(reason, 0) - before["drops"].get(reason, 0), 0 if task else TIMES)
            # The laboratory's driver (net_af_packet asks for PACKET_FANOUT_FLAG_DEFRAG) holds fragments back to put them
            # together: that none is delivered is all that can be seen here.
            send_frames(self.lab.vpc, "fabric0", [to(ping(flags=0x2000))] * TIMES)
            fair = to(ipv4(CLIENT, one.address, 1, echo(FAIR)))
            send_frames(self.lab.vpc, "fabric0", [fair])
            self.lab.wait_until(lambda: at1.with_text(FAIR), 3)
            time.sleep(0.2)
        self.assertEqual((at1.with_text(FAIR), at2.with_text(FAIR)), (1, 0))
        self.assertEqual((at1.with_text(MARK) - 1, at2.with_text(MARK)), (0, 0))  # the fair one ends with the mark
        self.assertEqual(self.lab.drops(two.eni), {})
        self.note(f"{len(frames)} kinds of frames, {TIMES} each")


class TestMischiefInTheContainer(Hostile):
    def ip(self, task, *words):
        done = self.lab.exec(task.netns, "ip", *words)
        self.assertEqual(done.returncode, 0, f"ip {' '.join(words)}: {done.stderr}")

    def watch_other(self):
        return Ping(self.lab, self.lab.client, self.web2.address)

    def assert_no_loss(self, ping):
        time.sleep(0.5)  # what comes just after counts as well
        sent, received = ping.finish()
        self.assertGreater(sent, 20)
        self.assertEqual(received, sent, "the other task lost packets")

    def detach_and_attach_again(self):
        one = self.web1
        self.call("task.detach", {"task": one.eni})
        self.assertIsNone(self.lab.interface(one.netns), "eth0 after the detach")
        left = self.lab.exec(one.netns, "ip", "-o", "link").stdout.strip().splitlines()
        self.assertEqual(len(left), 1, f"only lo may be left: {left}")
        self.attach(1)
        self.assert_ping(self.lab.client, one.address, 5)

    def test_another_mac(self):
        one = self.web1
        with self.watch_other() as other, Witness(self.lab.vpc, "fabric0") as trunk:
            self.ip(one, "link", "set", "eth0", "address", self.web2.mac)
            before = self.lab.drops(one.eni).get("spoof_mac", 0)
            self.assertFalse(self.lab.ping(one.netns, CLIENT))
            self.assertGreater(self.lab.drops(one.eni).get("spoof_mac", 0), before)
            time.sleep(0.3)
            self.assert_no_loss(other)
        stolen = bytes.fromhex(self.web2.mac.replace(":", "")) + b"\x81\x00" + struct.pack("!H", one.vlan)
        self.assertEqual(sum(frame[6:16] == stolen for frame in trunk.frames), 0)
        # An engine that starts anew puts the ENI's MAC back.
        self.detach_and_attach_again()

    def test_another_address(self):
        one = self.web1
        with self.watch_other() as other:
            self.ip(one, "addr", "flush", "dev", "eth0")
            self.ip(one, "addr", "add", "10.0.0.99/24", "dev", "eth0")
            self.ip(one, "route", "add", "default", "via", "10.0.0.1", "dev", "eth0")
            self.assertFalse(self.lab.ping(one.netns, CLIENT))
            self.assertGreater(self.lab.drops(one.eni).get("arp_spoof", 0), 0)  # it asks for the gateway as 10.0.0.99
            self.ip(one, "neigh", "replace", "10.0.0.1", "lladdr", ROUTER_MAC, "dev", "eth0")
            # (a late ARP retry may not come in between: the neighbour is permanent)
            with self.expect_drops(one.eni, spoof_ip=1):
                self.assertFalse(self.lab.ping(one.netns, CLIENT))
            self.assert_no_loss(other)
        self.detach_and_attach_again()

    def test_another_mtu(self):
        one = self.web1
        with self.watch_other() as other:
            self.ip(one, "link", "set", "eth0", "mtu", "1500")
            self.assert_ping(self.lab.client, one.address, 20)
            self.assert_no_loss(other)
        self.detach_and_attach_again()

    def test_eth0_is_deleted(self):
        one = self.web1
        fds = self.engine_fds()
        with self.watch_other() as other:
            self.ip(one, "link", "del", "eth0")
            self.assertFalse(self.lab.ping(self.lab.client, one.address))
            time.sleep(0.3)
            self.assertIsNone(self.lab.engine.poll())
            self.note(f"after the container deleted its eth0 the engine says {self.lab.task(one.eni)['state']}, healthy "
                      f"{self.lab.ctl('status')['healthy']}, link {self.call('task.show', {'task': one.eni}).get('link')}")
            self.detach_and_attach_again()
            self.assert_no_loss(other)
        self.assertEqual(self.engine_fds(), fds)

    def test_eth0_is_renamed(self):
        one = self.web1
        with self.watch_other() as other:
            self.ip(one, "link", "set", "eth0", "down")
            self.ip(one, "link", "set", "eth0", "name", "mine0")
            self.ip(one, "link", "set", "mine0", "up")
            self.ip(one, "route", "replace", "default", "via", "10.0.0.1", "dev", "mine0")
            self.assert_ping(one.netns, CLIENT, 5)  # still its own ENI
            frame = ethernet(ROUTER_MAC, self.web2.mac, IPV4, ipv4(one.address, CLIENT, 1, echo(MARK)))
            with self.expect_drops(one.eni, spoof_mac=TIMES):
                send_frames(one.netns, "mine0", [frame] * TIMES)
            self.detach_and_attach_again()
            self.assert_no_loss(other)

    def test_the_mark_is_rewritten(self):
        """The alias is the task's to change: the interface goes with the detach all the same, and a restarted engine knows it."""
        one = self.web1
        for alias in ("", "mine", "trunkline:eni-0000ffff"):
            with self.subTest(alias):
                self.ip(one, "link", "set", "eth0", "alias", alias)
                self.detach_and_attach_again()
                self.ip(one, "link", "set", "eth0", "alias", alias)
                self.lab.restart_engine()
                self.assert_state(one, "active")
                self.assert_ping(self.lab.client, one.address, 3)

    def test_another_interface_has_its_name(self):
        one = self.web1
        self.ip(one, "link", "set", "eth0", "down")
        self.ip(one, "link", "set", "eth0", "name", "mine0")
        self.ip(one, "link", "set", "mine0", "alias", "mine")
        self.ip(one, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        answer = self.call("task.detach", {"task": one.eni})
        self.assertIn("the name is taken: eth0 is a veth", " ".join(answer["warnings"]))
        links = self.lab.exec(one.netns, "ip", "-o", "link", "show").stdout
        self.assertIn("eth0", links)
        self.assertNotIn("mine0", links, "the engine's own is gone")
        self.assertEqual(self.lab.ctl("status")["endpoints"]["interfaces_left"], 1)
        self.refused("task.attach", one.facts(), "interface_exists", "/port/ifname")
        self.ip(one, "link", "del", "eth0")
        self.call("task.attach", one.facts())
        self.assert_ping(self.lab.client, one.address, 3)

    def test_a_failed_attachment_leaves_no_interface(self):
        """An engine that could not adopt the interface has no port for it: the detach looks for what an earlier one made."""
        one = self.web1
        self.lab.kill_engine(signal.SIGKILL)
        self.ip(one, "route", "del", "default")
        self.ip(one, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
        self.ip(one, "address", "add", "192.0.2.1/24", "dev", "other0")
        self.ip(one, "link", "set", "other0", "up")
        self.ip(one, "route", "add", "default", "via", "192.0.2.2", "dev", "other0")
        self.lab.start_engine()
        self.assert_state(one, "failed")
        self.assertIsNotNone(self.lab.interface(one.netns))
        self.assertEqual(self.call("task.detach", {"task": one.eni})["warnings"], [])
        self.assertIsNone(self.lab.interface(one.netns))
        self.ip(one, "link", "del", "other0")
        self.call("task.attach", one.facts())
        self.assert_ping(self.lab.client, one.address, 3)

    def test_eth0_moves_to_another_namespace(self):
        one = self.web1
        self.lab.add_netns("elsewhere")
        for which in ("all", "default"):
            self.lab.run("ip", "netns", "exec", self.lab.netns("elsewhere"), "sysctl", "-qw",
                         f"net.ipv6.conf.{which}.disable_ipv6=1")
        with self.watch_other() as other:
            self.ip(one, "link", "set", "eth0", "netns", self.lab.netns("elsewhere"))
            frame = ethernet(ROUTER_MAC, self.web2.mac, IPV4, ipv4(one.address, CLIENT, 1, echo(MARK)))
            self.lab.exec(self.lab.netns("elsewhere"), "ip", "link", "set", "eth0", "up")
            with self.expect_drops(one.eni, spoof_mac=TIMES):
                send_frames(self.lab.netns("elsewhere"), "eth0", [frame] * TIMES)
            self.detach_and_attach_again()
            self.assert_no_loss(other)


if __name__ == "__main__":
    main()
