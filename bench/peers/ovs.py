# SPDX-License-Identifier: BSD-3-Clause
"""OVS-DPDK (Debian's openvswitch-switch-dpdk) with the same policy as a stateful OpenFlow pipeline: ct, commit for what a
rule allows, +est for the rest. It has a database, a run directory and a log of its own here; a system's own OVS is not
touched.

Its checksums: ct looks at the TCP checksum of each packet of a port that does not say it has, and neither memif nor
virtio-user do. Large packets cost OVS that.
"""
import re

from lib.processes import BenchError, Program, run, wait_until

from . import policy
from .device import Counters, Device

VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Ovs(Device):
    name = "ovs-dpdk"
    stateful = True
    tx_queues = 2  # one for each thread that may send: the PMD's and the main thread's
    hugepages_mb = 1024

    def start(self):
        place = self.directory
        self.environment = {"OVS_RUNDIR": str(place), "OVS_LOGDIR": str(place), "OVS_DBDIR": str(place)}
        self.database = f"unix:{place}/db.sock"
        self.socket_mb = 512
        run(["ovsdb-tool", "create", place / "conf.db", SCHEMA])
        self.server = Program(["ovsdb-server", f"--remote=p{self.database}", f"--unixctl={place}/ovsdb.ctl", place / "conf.db"],
                              place / "ovsdb.log", cpu=self.settings.main_cpu, environment=self.environment)
        wait_until((place / "db.sock").exists, 10, "the database's socket", self.server)
        self._vsctl("--no-wait", "init")
        self._vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
                    f"other_config:dpdk-lcore-mask={1 << self.settings.main_cpu:#x}", f"other_config:pmd-cpu-mask={1 << self.settings.cpu:#x}",
                    # Without a limit it would also take what the next generator needs.
                    f"other_config:dpdk-socket-mem={self.socket_mb}", f"other_config:dpdk-socket-limit={self.hugepages_mb}",
                    "other_config:dpdk-extra=--no-pci --single-file-segments --in-memory")
        # All its threads but the PMD's stay with the generator, where they are not measured.
        self.program = Program([VSWITCHD, self.database, f"--unixctl={place}/vswitchd.ctl", f"--log-file={place}/vswitchd.log"],
                               place / "vswitchd.out", cpu=self.settings.main_cpu, nice=self.settings.nice, environment=self.environment)
        wait_until((place / "vswitchd.ctl").exists, 30, "ovs-vswitchd's control socket", self.program)
        self._vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure",
                    *sum((["--", "add-port", "br0", side, "--", "set", "Interface", side, "type=dpdk", f"ofport_request={number}",
                           f"options:dpdk-devargs={self.links.device(side)}", f"options:n_rxq_desc={1 << self.links.ring}",
                           f"options:n_txq_desc={1 << self.links.ring}"] for number, side in ((1, "trunk"), (2, "task"))), []))
        for side in ("trunk", "task"):
            trouble = self._vsctl("get", "Interface", side, "error").strip()
            if trouble not in ("[]", '""'):
                raise BenchError(f"OVS cannot open its port {side}: {trouble}; see {place}/vswitchd.log")
        wait_until(self.links.ready_to_connect, 10, "OVS's ports", self.program)
        flows = place / "flows.txt"
        flows.write_text("\n".join(policy.openflow(self.settings.rules)) + "\n")
        run(["ovs-ofctl", "add-flows", f"unix:{place}/br0.mgmt", flows], self.environment)
        self._appctl("dpctl/ct-set-maxconns", max(3000000, self.settings.connections))
        # What has said goodbye leaves as soon as the engine's does.
        self._vsctl("--", "--id=@datapath", "create", "Datapath", "datapath_version=0", "--", "set", "Open_vSwitch", ".", "datapaths:netdev=@datapath")
        self._vsctl("add-zone-tp", "netdev", "zone=1", "tcp_fin_wait=1", "tcp_time_wait=1", "tcp_close_wait=1", "tcp_last_ack=1",
                    "tcp_close=1")

    def _vsctl(self, *words):
        return run(["ovs-vsctl", f"--db={self.database}", "--timeout=30", *words], self.environment)

    def _appctl(self, *words):
        return run(["ovs-appctl", "-t", self.directory / "vswitchd.ctl", *words], self.environment)

    def counters(self):
        said = self._appctl("dpif-netdev/pmd-stats-show")
        of_pmd = said[said.index("pmd thread"):]  # the main thread's follow under a heading of their own
        of_pmd = re.split(r"\n(?=main thread|pmd thread)", of_pmd)[0]
        return Counters(int(re.search(r"packets received: (\d+)", of_pmd)[1]),
                        float(re.search(r"processing cycles: (\d+)", of_pmd)[1]))

    def describe(self):
        return (f"{' '.join(self.program.words)}; other_config: dpdk-socket-mem={self.socket_mb}, pmd-cpu-mask={1 << self.settings.cpu:#x}; "
                f"ports type=dpdk {self.links.device('trunk')} {self.links.device('task')}; "
                f"{len(policy.openflow(self.settings.rules))} flows (bench/peers/policy.py), {self.settings.rules} rules a direction")

    def end(self):
        super().end()
        if getattr(self, "server", None) is not None:
            self.server.end()
