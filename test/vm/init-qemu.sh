# shellcheck shell=dash
# PID 1 of a machine under QEMU, after the initrd's first steps, run by busybox. Makes the root file system and
# goes on with run.sh in it. Any failure ends PID 1, so the kernel panics.
set -eu
# The cache folder and the kernel's version.
cache='' version=''
# shellcheck source=/dev/null
. /control/settings
b=/busybox

# The host's root is read-only; what is written goes to memory.
$b mount -t tmpfs tmpfs /root
$b mkdir /root/upper /root/work /root/new
$b mount -t overlay overlay -o lowerdir=/host,upperdir=/root/upper,workdir=/root/work /root/new
cd /root/new
# The host's /run holds sockets of services that do not run here. On tmpfs, stat has the kernel's own numbers of
# device and inode; on overlayfs it has not.
$b mount -t tmpfs tmpfs run
$b mount -t tmpfs tmpfs tmp
$b mount -t proc proc proc
$b mount -t sysfs sysfs sys
$b mount -t devtmpfs devtmpfs dev
$b mkdir -p dev/shm dev/pts run/control
$b mount -t tmpfs tmpfs dev/shm
$b mount -t devpts devpts dev/pts
$b mount -t securityfs securityfs sys/kernel/security
$b mount -t tracefs tracefs sys/kernel/tracing
$b mount -t bpf bpf sys/fs/bpf
$b mount -t cgroup2 cgroup2 sys/fs/cgroup
$b mount --move /control run/control
for module in "/host$cache/$version/modules"/*.ko; do
    $b insmod "$module"
done
$b ip link set lo up
$b ln -s /proc/self/fd dev/fd
$b ln -s fd/0 dev/stdin
$b ln -s fd/1 dev/stdout
$b ln -s fd/2 dev/stderr
# switch_root and not chroot: AppArmor names a file from the root of its mount namespace.
exec $b switch_root /root/new "$cache/busybox" sh /run/control/run.sh "$cache/busybox" \
    /run/control/stdout /run/control/stderr
