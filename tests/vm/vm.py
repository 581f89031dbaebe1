#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A guest with what this host's kernel lacks: Debian's stock kernel under QEMU, with this host's own files as its root.

    vm.py --build DIR [--timeout S] [--all]      boots, runs the tests of this folder there (suite.py), ends with 0 if all passed
    vm.py --build DIR [--timeout S] COMMAND...   boots, runs the command there, ends with its exit code
    vm.py --build DIR --shell                    boots, and is a terminal there

The guest is emulated (TCG), so it needs no KVM and is the same everywhere; it is about ten times slower than its host.
It has two processors, no network but the NICs of one segment (tests/vm/README.md) and DIR/vm/out as /mnt. The
kernel's words are in DIR/vm/console.log, those of the command in DIR/vm/output.log.

A guest that panics, hangs, or ends without the command's exit code is a failure (exit code 3), and the end of its console
is shown. Root is needed: the guest reads every file of the host, and the NICs are taps.
"""
import argparse
import ctypes
import lzma
import os
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
KERNEL = os.path.join(REPOSITORY, ".deps", "kernel")
MEMORY_MB, HUGEPAGES = 3072, 512
# To get to the root file system; the rest is loaded from there.
EARLY_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
MODULES = ("virtio_net", "vhost_net", "tun", "tap", "8021q", "veth", "af_packet", "vfio_iommu_type1", "vfio_pci", "uio_pci_generic")
# What emulation is slow at, left out. With erms the kernel and glibc copy and clear by "rep movsb", which is emulated octet by octet; smap
# and smep cost at each entry, la57 a level of each page walk.
CPU = "max,erms=off,la57=off,smap=off,smep=off,umip=off,pku=off"
# Nobody attacks this kernel, and nobody waits for a grace period longer than he must.
QUICK = "init_on_alloc=0 hardened_usercopy=off apparmor=0 audit=0 nowatchdog nokaslr rcupdate.rcu_expedited=1 random.trust_cpu=on cryptomgr.notests "
# What the kernel says when an engine or a driver did what it must not.
COMPLAINTS = ("use-after-free", "refcount_t:", "WARNING:", "BUG: unable", "BUG: kernel NULL", "Oops", "general protection fault", "list_add corruption",
              "list_del corruption")
FAILED = 3
PR_SET_PDEATHSIG, CLONE_NEWNET = 1, 0x40000000
# The segment: the guest's kernel drives the peer, an engine one of the others. Slot on the PCI bus, model and its words,
# pairs of queues. With iommu_platform a virtio device is behind the IOMMU, as those of hardware are.
VIRTIO = "disable-legacy=on,iommu_platform=on,host_mtu=9001"
NICS = ((0x10, "virtio-net-pci," + VIRTIO, 1), (0x11, f"virtio-net-pci,{VIRTIO},mq=on,vectors=10", 4), (0x12, "e1000e", 1),
        (0x13, "vmxnet3", 1))


class VmError(Exception):
    """The guest cannot be built or did not do its work; says what to do about it."""


# ---- the initramfs ----------------------------------------------------------------------------------------------------

def kernel_release():
    folder = os.path.join(KERNEL, "lib", "modules")
    releases = os.listdir(folder) if os.path.isdir(folder) else []
    if len(releases) != 1:
        raise VmError(f"there is no kernel in {KERNEL}; ./dev setup fetches it")
    return releases[0]


def module_files(names):
    """Paths of modules and of all they need, below lib/modules/RELEASE; what is needed comes first."""
    folder = os.path.join(KERNEL, "lib", "modules", kernel_release())
    needs = {}
    with open(os.path.join(folder, "modules.dep")) as file:
        for line in file:
            path, _, others = line.partition(":")
            needs[path] = others.split()
    by_name = {os.path.basename(path).split(".")[0].replace("-", "_"): path for path in needs}
    with open(os.path.join(folder, "modules.builtin")) as file:
        builtin = {os.path.basename(line.strip()).split(".")[0].replace("-", "_") for line in file}
    ordered = []
    for name in names:
        if name in builtin:
            continue
        if name not in by_name:
            raise VmError(f"the kernel has no module {name}")
        path = by_name[name]
        # modules.dep names them from the last to load to the first.
        ordered += [one for one in [*reversed(needs[path]), path] if one not in ordered]
    return folder, ordered


def unpacked_kernel(directory):
    """The kernel as an ELF file, which QEMU starts as it is (PVH): unpacking itself would cost it ten times what it costs here, once."""
    packed = os.path.join(KERNEL, "boot", "vmlinuz-" + kernel_release())
    path = os.path.join(directory, "vmlinux-" + kernel_release())
    if not os.path.exists(path):
        image = read(packed)
        # Documentation/x86/boot.rst: sectors of set-up code, then the offset and length of the payload behind them.
        start = (image[0x1f1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
        payload = image[start:start + struct.unpack_from("<I", image, 0x24c)[0]]
        if not payload.startswith(b"\xfd7zXZ"):
            return packed
        with open(path + ".new", "wb") as file:
            file.write(lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload))
        os.replace(path + ".new", path)
    return path


class Archive:
    """A cpio archive ("newc") as the kernel unpacks it."""

    def __init__(self):
        self.bytes, self.number = bytearray(), 0

    def add(self, name, content=b"", mode=0o100644):
        self.number += 1
        path = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        self.bytes += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        self.bytes += b"\0" * (-len(self.bytes) % 4) + content
        self.bytes += b"\0" * (-len(self.bytes) % 4)

    def finished(self):
        self.add("TRAILER!!!", mode=0)
        return bytes(self.bytes)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def initramfs(settings):
    busybox = shutil.which("busybox", path="/usr/bin:/bin")
    if busybox is None:
        raise VmError("there is no busybox; ./dev setup installs busybox-static")
    archive = Archive()
    for folder in ("bin", "modules"):
        archive.add(folder, mode=0o040755)
    archive.add("bin/busybox", read(busybox), 0o100755)
    archive.add("init", read(os.path.join(HERE, "init")), 0o100755)
    archive.add("vm.conf", "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()).encode())
    folder, files = module_files(EARLY_MODULES)
    for path in files:
        archive.add("modules/" + os.path.basename(path), read(os.path.join(folder, path)))
    archive.add("modules/order", "".join(os.path.basename(path) + "\n" for path in files).encode())
    return archive.finished()


# ---- the machine ------------------------------------------------------------------------------------------------------

def make_segment():
    """A bridge and a tap for each NIC, in a network namespace of this process and QEMU: they go when both have gone."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise VmError(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")
    # The host must say nothing on it: no router solicitation, no multicast report.
    for which in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6", "w") as file:
            file.write("1\n")

    def ip(*words):
        done = subprocess.run(["ip", *words], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise VmError(f"ip {shlex.join(words)}: {done.stderr.strip()}")

    ip("link", "add", "segment", "mtu", "9216", "type", "bridge", "mcast_snooping", "0")
    ip("link", "set", "segment", "up")
    for slot, _, queues in NICS:
        ip("tuntap", "add", f"nic{slot:x}", "mode", "tap", "vnet_hdr", *(["multi_queue"] if queues > 1 else []))
        ip("link", "set", f"nic{slot:x}", "mtu", "9216", "master", "segment", "up")


def nic_words():
    words = []
    for slot, model, queues in NICS:
        words += ["-netdev", f"tap,id=nic{slot:x},ifname=nic{slot:x},script=no,downscript=no" + (f",queues={queues}" if queues > 1 else ""),
                  "-device", f"{model},netdev=nic{slot:x},addr={slot:#x},mac=52:54:00:00:00:{slot:02x},romfile="]
    return words


def qemu_words(directory, shell):
    return ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2",
            "-m", str(MEMORY_MB), "-nodefaults", "-display", "none", "-device", "intel-iommu,aw-bits=48", "-no-reboot", "-no-user-config",
            "-kernel", unpacked_kernel(directory), "-initrd", os.path.join(directory, "initramfs"),
            "-append", "console=ttyS0 panic=-1 rdinit=/init loglevel=6 no_timer_check tsc=reliable mitigations=off intel_iommu=on iommu=pt " + QUICK +
            f"TERM={os.environ.get('TERM', 'dumb') if shell else 'dumb'}",
            "-serial", "file:" + os.path.join(directory, "console.log"),
            *(["-chardev", "stdio,id=words,mux=on,signal=off"] if shell else ["-chardev", "stdio,id=words,signal=off"]),
            "-serial", "chardev:words", "-monitor", "chardev:words" if shell else "none",
            "-fsdev", "local,id=root,path=/,security_model=passthrough,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            "-fsdev", f"local,id=out,path={os.path.join(directory, 'out')},security_model=none",
            "-device", "virtio-9p-pci,fsdev=out,mount_tag=out", *nic_words()]


def complains(lines, console):
    """Whether the kernel did, of what is never the machine's slowness alone: a stall or a lockup of an emulated processor is. It is shown."""
    for at, line in enumerate(lines):
        if any(word in line for word in COMPLAINTS):
            print(f"--- the guest's kernel complained ({console}):\n" + "".join(lines[max(0, at - 2):at + 30]), flush=True)
            return True
    return False


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(words, directory, seconds):
    """The guest's output as it comes; returns the exit code that the command had there."""
    machine = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               preexec_fn=die_with_parent)
    deadline = time.monotonic() + seconds
    rest, code = b"", None
    try:
        with open(os.path.join(directory, "output.log"), "wb") as log:
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([machine.stdout], [], [], left)[0]:
                    raise VmError(f"the guest was not done within {seconds} s")
                piece = os.read(machine.stdout.fileno(), 65536)
                if not piece:
                    break
                log.write(piece)
                log.flush()
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    text = line.decode(errors="replace").rstrip("\r")
                    if text.startswith("trunkline-vm: exit "):
                        code = int(text.split()[2])
                    else:
                        print(text, flush=True)
        if code is None:
            raise VmError(f"the guest ended without a result (QEMU: {machine.wait(timeout=10)})")
        return code
    finally:
        if machine.poll() is None:
            machine.kill()
        machine.wait(timeout=10)
        machine.stdout.close()


def shell(words):
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        return subprocess.call(words, preexec_fn=die_with_parent)
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, metavar="DIR", help="where ./dev build put the programs")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="for the guest, boot included; on two idle cores it needs a third")
    parser.add_argument("--all", action="store_true", help="without a command: the tests too that do not fit into three minutes")
    parser.add_argument("--shell", action="store_true", help="a terminal in the guest")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    if os.geteuid() != 0:
        raise VmError("not root: the guest reads the host's files; run it with sudo")
    if shutil.which("qemu-system-x86_64") is None:
        raise VmError("there is no qemu-system-x86_64; ./dev setup installs it")
    directory = os.path.join(os.path.abspath(options.build), "vm")
    os.makedirs(os.path.join(directory, "out"), exist_ok=True)
    suite = [os.path.join(HERE, "suite.py"), "--build", os.path.abspath(options.build), *(["--all"] if options.all else [])]
    columns, rows = shutil.get_terminal_size((130, 40))
    settings = {"REPOSITORY": REPOSITORY, "KERNEL": os.path.realpath(KERNEL), "MODULES": " ".join(MODULES), "HUGEPAGES": HUGEPAGES,
                "INTERACTIVE": "yes" if options.shell else "", "ROWS": rows, "COLUMNS_WIDE": columns,
                "COMMAND": shlex.join(options.command or suite)}
    with open(os.path.join(directory, "initramfs"), "wb") as file:
        file.write(initramfs(settings))
    make_segment()
    words = qemu_words(directory, options.shell)
    if options.shell:
        return shell(words)
    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    console = os.path.join(directory, "console.log")
    try:
        code = run(words, directory, options.timeout)
        with open(console, errors="replace") as file:
            said = file.readlines()
        return code or (FAILED if complains(said, console) else 0)
    except VmError:
        print("--- the end of the guest's console", file=sys.stderr)
        with open(console, errors="replace") as file:
            sys.stderr.writelines(file.readlines()[-40:])
        raise


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmError as error:
        print(f"\nvm: {error}", file=sys.stderr)
        sys.exit(FAILED)
