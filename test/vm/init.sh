# shellcheck shell=dash
# PID 1 of the virtual machine, run by busybox: init.sh CACHE CONTROL (folders of the host).
# Makes the root file system and goes on with run.sh. Any failure ends PID 1, so the kernel panics.
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

# Serial lines carry the output, raw, or the terminal would turn \n into \r\n.
$b stty raw -echo </dev/ttyS0
$b stty raw -echo </dev/ttyS1
exec $b sh /run/control/run.sh "$b" /dev/ttyS0 /dev/ttyS1
