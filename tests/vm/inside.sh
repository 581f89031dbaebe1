#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The guest's first process in its real root: what systemd and udev would have done for the engine, then the command that
# vm.py wants to be run. Its words go to the second serial line, which is vm.py's; the kernel's go to the first.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root TERM=$TERM
. /run/vm.conf

finish() { # EXIT_CODE: the one line without which vm.py calls the run a failure
  sync
  printf '\ntrunkline-vm: exit %d\n' "$1" >/dev/ttyS1
  sleep 0.3  # the serial line is slower than the power switch
  busybox poweroff -f
}
die() { echo "trunkline-vm: $*" >/dev/ttyS1; finish 3; }

mount -t proc proc /proc && mount -t sysfs sys /sys || die 'no /proc, /sys'
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /dev/hugepages /run/netns /lib/modules
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
# A clone may lie below /tmp: what is there must stay visible, so /tmp is the layer of memory as it is.
ln -sfn /proc/self/fd /dev/fd; ln -sfn fd/0 /dev/stdin; ln -sfn fd/1 /dev/stdout; ln -sfn fd/2 /dev/stderr

mount --bind "$KERNEL/lib/modules" /lib/modules || die 'no kernel modules'
# The kernel calls it for what it lacks: qdiscs, protocols. kmod's own, where there is one, wants an index that nobody made.
ln -s "$(command -v busybox)" /run/modprobe && echo /run/modprobe >/proc/sys/kernel/modprobe
busybox modprobe -a $MODULES || die "modprobe -a $MODULES"

# What udev does: Debian's rules give vhost-net to the group kvm and leave /dev/net/tun to everybody.
chgrp kvm /dev/vhost-net && chmod 660 /dev/vhost-net && chmod 666 /dev/net/tun || die 'no vhost-net, tun'
echo "$HUGEPAGES" >/proc/sys/vm/nr_hugepages
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$HUGEPAGES" ] || die "only $(cat /proc/sys/vm/nr_hugepages) of $HUGEPAGES hugepages"
mount -t hugetlbfs none /dev/hugepages || die 'no hugetlbfs'
mount -t 9p -o trans=virtio,version=9p2000.L out /mnt || die 'no folder of results'
ip link set lo up
hostname trunkline-vm
cd "$REPOSITORY" || die "no $REPOSITORY"

code=0
if [ -n "$INTERACTIVE" ]; then
  stty -F /dev/ttyS1 sane rows "$ROWS" cols "$COLUMNS_WIDE"
  cat "$REPOSITORY/tests/vm/welcome" >/dev/ttyS1
  # A session of its own with this terminal as its own: Ctrl-C and job control.
  setsid --ctty --wait bash -i </dev/ttyS1 >/dev/ttyS1 2>&1
else
  stty -F /dev/ttyS1 raw -echo
  eval "$COMMAND" </dev/null >/dev/ttyS1 2>&1
  code=$?
fi
finish $code
