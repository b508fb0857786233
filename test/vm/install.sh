#!/bin/sh
# Unpacks what the virtual machine with AppArmor is made of into a cache outside the tree: Debian's
# user-mode-linux (a kernel with AppArmor that runs as a process), a static busybox for its first
# steps, and apparmor_parser with Debian's setting for it. Nothing is installed on the host. Prints the directory on the last
# line; quick when nothing is missing.
set -eu

name=vm
# shellcheck disable=SC2034 # read by fetch.sh
layout=2
# shellcheck source=test/vm/fetch.sh
. "$(dirname "$0")/fetch.sh"

stop_if_complete
make_temporary
fetch user-mode-linux busybox-static apparmor
mv "$tmp/unpacked/usr/bin/linux.uml" "$tmp/linux.uml"
mv "$tmp/unpacked/bin/busybox" "$tmp/busybox"
mv "$tmp/unpacked/sbin/apparmor_parser" "$tmp/apparmor_parser"
mv "$tmp/unpacked/usr/share/apparmor-features/features" "$tmp/features"
mv "$tmp"/unpacked/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko "$tmp/overlay.ko"
"$tmp/linux.uml" --version >/dev/null || fail "linux.uml does not run here" "see its message above"
finish
