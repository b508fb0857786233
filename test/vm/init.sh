# shellcheck shell=dash
# PID 1 of the virtual machine, run by busybox: init.sh CACHE CONTROL (folders of the host).
# Makes the root file system, runs CONTROL/command, writes its exit code to CONTROL/exit-code and
# powers off. Any failure ends PID 1, so the kernel panics, and no exit code means that the machine
# failed: it is never written early.
set -eu
cache=$1 control=$2
b=$cache/busybox

$b mount -t proc proc /proc
$b insmod "$cache/overlay.ko"
# The host's root is mounted read-only (hostfs); what is written goes to memory.
$b mount -t tmpfs tmpfs /mnt
$b mkdir /mnt/upper /mnt/work /mnt/root
$b mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
# The host's /run holds sockets of services that do not run here.
$b mount -t tmpfs tmpfs run
$b mount -t proc proc proc
$b mount -t sysfs sysfs sys
$b mount -t devtmpfs devtmpfs dev
$b mkdir -p dev/shm dev/pts run/control run/old
$b mount -t tmpfs tmpfs dev/shm
$b mount -t devpts devpts dev/pts
$b mount -t securityfs securityfs sys/kernel/security
$b mount -t cgroup2 cgroup2 sys/fs/cgroup
$b mount -t hostfs control run/control -o "$control"
# pivot_root and not chroot: AppArmor names a file from the root of its mount namespace.
$b pivot_root . run/old
cd /
$b umount -l /run/old
$b rmdir /run/old
$b ip link set lo up
$b ln -s /proc/self/fd /dev/fd

# Serial lines carry the output, raw, or the terminal would turn \n into \r\n. The command itself
# gets pipes: a terminal would change how programs behave.
$b stty raw -echo </dev/ttyS0
$b stty raw -echo </dev/ttyS1
$b mkfifo /run/stdout /run/stderr
$b cat /run/stdout >/dev/ttyS0 &
$b cat /run/stderr >/dev/ttyS1 &
# On the console, for whoever finds the machine hanging.
echo "init: the command begins"
# The host's shell, since busybox's may put its own commands before the host's; and as a job, since
# otherwise a shell writes "Killed" among the output of a command that a signal ended.
/bin/sh /run/control/command </dev/null >/run/stdout 2>/run/stderr &
code=0
wait $! || code=$?
echo "init: the command ended with $code, and its output may not have yet"
wait
echo "init: all output was taken, and is being sent"
# Changing a terminal waits until all its output is gone.
$b stty raw </dev/ttyS0
$b stty raw </dev/ttyS1
echo "$code" >/run/control/exit-code
echo "init: powering off"
$b sync
$b poweroff -f
