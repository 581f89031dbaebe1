# SPDX-License-Identifier: BSD-3-Clause
"""The two links between a device and its generator, as DPDK devargs for both ends.

memif: the device is the server, and copies each frame out of and into the shared memory.
memif-zc: the device is the client and its buffers are the shared memory, so that the generator does the copying, as a
network card does by DMA. Such a client starts only when its server is there, so there the generator is started first.
Both ends of one memif cannot be in one process, and a device that sends on more queues than the generator receives on
loses packets without a word: see Device.tx_queues.
virtio: the device has virtio-user ports (server), as towards a kernel with vhost; the generator is the vhost-user side.
A virtio-user server waits for its peer before it goes on, so there the generator must be started first.
Both want --single-file-segments, or the memory does not fit into one vhost-user message.
"""
import pathlib

SIDES = ("trunk", "task")
KINDS = ("memif", "memif-zc", "virtio")


class Links:
    def __init__(self, kind, directory, ring=10):
        """`ring`: log2 of its slots."""
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind of link: {', '.join(KINDS)}")
        self.kind, self.directory, self.ring = kind, pathlib.Path(directory), ring
        self.directory.mkdir(parents=True, exist_ok=True)

    def device(self, side):
        number, socket = SIDES.index(side), self.directory / f"{side}.sock"
        if self.kind == "memif":
            return f"net_memif{number},role=server,id=0,rsize={self.ring},socket-abstract=no,socket={socket}"
        if self.kind == "memif-zc":
            return f"net_memif{number},role=client,zero-copy=yes,id=0,rsize={self.ring},socket-abstract=no,socket={socket}"
        return f"net_virtio_user{number},path={socket},server=1,queue_size={1 << self.ring}"

    def generator(self, side):
        number, socket = SIDES.index(side), self.directory / f"{side}.sock"
        if self.kind == "memif":
            return f"net_memif{number},role=client,id=0,rsize={self.ring},socket-abstract=no,socket={socket}"
        if self.kind == "memif-zc":
            return f"net_memif{number},role=server,id=0,rsize={self.ring},socket-abstract=no,socket={socket}"
        return f"net_vhost{number},iface={socket},client=1"

    @property
    def generator_first(self):
        return self.kind in ("memif-zc", "virtio")

    def ready_to_connect(self):
        return all((self.directory / f"{side}.sock").exists() for side in SIDES)
