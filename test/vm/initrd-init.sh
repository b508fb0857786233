#!/busybox sh
# shellcheck shell=dash
# The first program of a machine under QEMU: loads what it takes to see the host's files, and goes on with the
# script in the control folder. Any failure ends PID 1, so the kernel panics and the machine ends.
set -eu
b=/busybox
for module in /modules/*.ko; do
    $b insmod "$module"
done
share='trans=virtio,version=9p2000.L,msize=512000'
$b mount -t 9p -o "$share,cache=loose,ro" host /host
# What is written to the control folder is on the host at once.
$b mount -t 9p -o "$share,cache=none" control /control
exec $b sh /control/init-qemu.sh
