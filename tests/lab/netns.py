# SPDX-License-Identifier: BSD-3-Clause
"""What this process does inside a network namespace: sockets and frames, without a program of its own for it."""
import ctypes
import ipaddress
import os
import queue
import socket
import struct
import threading
import time

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter_netns(name):
    """Moves the calling thread into the namespace, for as long as the thread lives. Never call it on the main one."""
    with open(f"/run/netns/{name}") as netns:
        if _libc.setns(netns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")


def in_netns(name, work, timeout=30):
    """The result of work(), done by a thread that has entered the namespace. A socket it returns stays there."""
    results = queue.Queue()

    def run():
        try:
            enter_netns(name)
            results.put((work(), None))
        except BaseException as error:  # handed to the caller
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = results.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"nothing came of it in {name} within {timeout} s") from None
    if error is not None:
        raise error
    return value


def tcp_connect(name, address, port, timeout):
    """A connected socket. Below one second only one SYN is sent: Linux repeats it after that."""
    def connect():
        return socket.create_connection((address, port), timeout=timeout)

    return in_netns(name, connect, timeout + 10)


def tcp_probe(name, address, port, timeout=0.8):
    """How a port looks from a namespace: "open" (accepted), "refused" (RST came back), "silence" (nothing did)."""
    try:
        tcp_connect(name, address, port, timeout).close()
        return "open"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"


def read_banner(name, address, port, timeout=5):
    """The first line that a server says on its own, as SSH does."""
    with tcp_connect(name, address, port, timeout) as connection:
        connection.settimeout(timeout)
        text = b""
        while b"\n" not in text and len(text) < 256:
            piece = connection.recv(256)
            if not piece:
                break
            text += piece
        return text.split(b"\n")[0].decode(errors="replace").strip()


def send_frames(name, ifname, frames):
    """Writes Ethernet frames as they are; this is what a hostile task with CAP_NET_RAW can do."""
    def send():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((ifname, 0))
            for frame in frames:
                raw.send(frame)

    in_netns(name, send)


def _checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4_echo_frame(to_mac, from_mac, source, destination, vlan=None, number=1):
    """An Ethernet frame with an ICMP echo request; `vlan` puts an 802.1Q tag on it."""
    def mac(text):
        return bytes.fromhex(text.replace(":", ""))

    message = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number) + b"trunkline"
    message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(message), number, 0, 64, 1, 0,
                       ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed)
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return mac(to_mac) + mac(from_mac) + tag + b"\x08\x00" + head + message


def wait_until(predicate, seconds, pause=0.05):
    """The first true value of predicate(), or its last value when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value or time.monotonic() >= deadline:
            return value
        time.sleep(pause)
