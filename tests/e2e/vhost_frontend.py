# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user frontend that says what it likes: the messages, the memory and the rings of a task, one that means well or one that means harm.

Rings are virtio's split ones, of QUEUE descriptors; ring 0 is what the task receives into, ring 1 what it sends from. The memory is one
memfd, at guest address 0: the rings' parts at the places below, frames that it sends from FRAMES on, and room for those that it gets from ROOM on.
"""
import array
import mmap
import os
import socket
import struct

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 11, 12, 13
SET_LOG_BASE, SET_LOG_FD = 6, 7
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE = 15, 16, 18
POSTCOPY_ADVISE, POSTCOPY_LISTEN, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 28, 29, 31, 32
PROTOCOL_FEATURES, VERSION_1, MERGEABLE, LOG_ALL = 1 << 30, 1 << 32, 1 << 15, 1 << 26
NEXT, WRITE, INDIRECT = 1, 2, 4
CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_UFO, HOST_TSO4, HOST_TSO6, HOST_UFO = (1 << bit for bit in (0, 1, 7, 8, 10, 11, 12, 14))
QUEUE, SIZE, FRAMES = 256, 4 << 20, 1 << 20
SLOT = 1 << 16  # of a frame that is sent, or room for one: half of what is behind FRAMES for each
SLOTS = 16
ROOM = FRAMES + SLOTS * SLOT
VNET_BYTES = 12  # struct virtio_net_hdr_v1
BASE = 0x7000_0000_0000  # what the task says its own address of the memory is


class Frontend:
    """One connection to the engine, made by whoever of them connects."""

    def __init__(self, connection):
        self.socket = connection
        self.socket.settimeout(5)
        self.files = []
        self.memfd = os.memfd_create("task")
        os.ftruncate(self.memfd, SIZE)
        self.memory = mmap.mmap(self.memfd, SIZE)

    def close(self):
        self.socket.close()
        self.memory.close()
        for each in (self.memfd, *self.files):
            os.close(each)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- messages --

    def send(self, request, payload=b"", fds=(), size=None, flags=1):
        head = struct.pack("<III", request, flags, len(payload) if size is None else size)
        self.socket.sendmsg([head + payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def ask(self, request, payload=b""):
        self.send(request, payload)
        head = self.socket.recv(12, socket.MSG_WAITALL)
        return self.socket.recv(struct.unpack("<III", head)[2], socket.MSG_WAITALL)

    def is_thrown_out(self):
        """Whether the engine ends the connection within the time limit."""
        try:
            while self.socket.recv(4096):
                pass
            return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def features(self, wanted=PROTOCOL_FEATURES | VERSION_1 | MERGEABLE):
        self.send(SET_OWNER)
        self.offered, = struct.unpack("<Q", self.ask(GET_FEATURES))
        self.send(SET_FEATURES, struct.pack("<Q", wanted & self.offered))
        self.ask(GET_PROTOCOL_FEATURES)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", 0))

    def memory_table(self, size=SIZE, offset=0, regions=1, fds=1, guest=0, stride=None):
        one = [struct.pack("<QQQQ", guest + number * (stride or size), size, BASE + number * (stride or size), offset) for number in range(regions)]
        self.send(SET_MEM_TABLE, struct.pack("<II", regions, 0) + b"".join(one[:8]), [self.memfd] * fds)

    @staticmethod
    def place(ring):
        """Where its descriptors, what is available and what was used are."""
        at = ring * 0x10000
        return at, at + 0x4000, at + 0x8000

    def rings(self, number=QUEUE, base=BASE):
        for ring in (0, 1):
            self.send(SET_VRING_NUM, struct.pack("<II", ring, number))
            self.send(SET_VRING_BASE, struct.pack("<II", ring, 0))
            descriptors, available, used = (base + place for place in self.place(ring))
            self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", ring, 0, descriptors, used, available, 0))
            for request in (SET_VRING_KICK, SET_VRING_CALL):
                self.files.append(os.eventfd(0))
                self.send(request, struct.pack("<Q", ring), [self.files[-1]])
            self.send(SET_VRING_ENABLE, struct.pack("<II", ring, 1))
        self.sent = 0

    def shake_hands(self, *wanted):
        """All that a task does that means well."""
        self.features(*wanted)
        self.memory_table()
        self.rings()
        self.ask(GET_FEATURES)  # answered when all before has been read

    # -- rings --

    def describe(self, ring, index, address, length, flags=0, following=0):
        struct.pack_into("<QIHH", self.memory, self.place(ring)[0] + 16 * index, address, length, flags, following)

    def offer(self, ring, index, available):
        """Puts a chain's first descriptor at the next place and tells the index, which may be any."""
        at = self.place(ring)[1]
        struct.pack_into("<H", self.memory, at + 4 + 2 * ((available - 1) % QUEUE), index)
        # In one store: struct.pack_into() writes zeros first, which is an index that went back.
        with memoryview(self.memory) as memory, memory.cast("H") as words:
            words[(at + 2) // 2] = available & 0xffff

    def used(self, ring):
        return struct.unpack_from("<H", self.memory, self.place(ring)[2] + 2)[0]

    def transmit(self, frame, header=bytes(VNET_BYTES)):
        """Sends one frame as it should be done."""
        place, length = FRAMES + SLOT * (self.sent % SLOTS), VNET_BYTES + len(frame)
        self.memory[place:place + length] = header.ljust(VNET_BYTES, b"\0") + frame
        self.describe(1, self.sent % QUEUE, place, length)
        self.sent += 1
        self.offer(1, (self.sent - 1) % QUEUE, self.sent)


    def make_room(self):
        """For SLOTS frames of any size, once."""
        for index in range(SLOTS):
            self.describe(0, index, ROOM + SLOT * index, SLOT, WRITE)
            self.offer(0, index, index + 1)

    def received(self):
        """(the header's members, the frame) of each so far: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers."""
        frames = []
        for number in range(self.used(0)):
            index, length = struct.unpack_from("<II", self.memory, self.place(0)[2] + 4 + 8 * number)
            place = ROOM + SLOT * index
            frames.append((struct.unpack_from("<BBHHHHH", self.memory, place), self.memory[place + VNET_BYTES:place + length]))
        return frames


def accept(path, seconds=10):
    """A frontend that listened on the path until the engine came."""
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1)
        listening.settimeout(seconds)
        return Frontend(listening.accept()[0])


def connect(path):
    """A frontend of an engine that listens."""
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return Frontend(made)
