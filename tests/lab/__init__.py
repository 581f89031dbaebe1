# SPDX-License-Identifier: BSD-3-Clause
"""The laboratory: an instance with its trunk, the VPC behind it, and tasks, made of network namespaces.

    with Lab("build") as lab:
        lab.add_netns("web1")
        lab.start_engine()
        ...

lab.py is the laboratory, netns.py what happens inside a namespace, servers.py the real programs that talk, dpdk_task.py a task
that is a DPDK program.
"""
from .dpdk_task import DpdkTask
from .lab import CtlError, Lab, LabError, missing_requirements
from .netns import in_netns, ipv4_echo_frame, send_frames
from .servers import Download, Dropbear, HttpLoop, Nginx

__all__ = ["CtlError", "Download", "DpdkTask", "Dropbear", "HttpLoop", "Lab", "LabError", "Nginx", "in_netns", "ipv4_echo_frame",
           "missing_requirements", "send_frames"]
