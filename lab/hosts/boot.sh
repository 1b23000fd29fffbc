#!/bin/sh
# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# boot.sh IMAGE STATE_DIR HOSTNAME WITHHELD <files.tar
#
# Becomes PID 1 of a host. Its caller has made the namespaces (mount, uts, ipc, pid, cgroup; the network's is a named one).
# The tar on stdin is unpacked onto the host's disk. What is mounted here is seen by nobody outside, and ends with the host.
set -eu
image=$1 state=$2 hostname=$3 withheld=$4
root=$state/root

# /proc is still the machine's, so this is the pid by which the machine knows this process.
read -r pid _ </proc/self/stat

# volatile: no fsync reaches the disk (dpkg would spend its time there). Such a work folder serves for one mount only.
rm -rf "$state/work"
mkdir -p "$state/upper" "$state/work" "$root"
mount -t overlay overlay -o "lowerdir=$image,upperdir=$state/upper,workdir=$state/work,volatile" "$root"
tar --extract --directory "$root" --numeric-owner --keep-directory-symlink --no-overwrite-dir
exec </dev/null

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
while read -r name major minor; do mknod -m 666 "$root/dev/$name" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
net/tun 10 200
END
ln -s /proc/self/fd "$root/dev/fd"
for fd in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${fd%:*}" "$root/dev/${fd#*:}"; done

# Settings of the kernel as a whole stay the machine's own. Those below net are the network namespace's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o bind,remount,ro "$root/proc/sys"
mount --bind "$state/boot_id" "$root/proc/sys/kernel/random/boot_id"
for name in sysrq-trigger kcore; do
  if [ -e "$root/proc/$name" ]; then mount --bind "$root/dev/null" "$root/proc/$name"; fi
done

hostname "$hostname"
echo "$pid" >"$state/pid"
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
# WITHHELD: the clock and the modules are the machine's too. Nothing on a host has the capability to touch them.
# shellcheck disable=SC2016  # the host's own shell expands it
exec chroot . /bin/sh -c 'umount -l /.old && rmdir /.old && exec env -i container=evernat-lab \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  setpriv --bounding-set="$1" /sbin/init' sh "$withheld"
