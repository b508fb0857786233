#!/bin/sh
# Unpacks what the virtual machine of test/vm is made of into a cache outside the tree: Debian's
# user-mode-linux (a kernel with AppArmor that runs as a process), a static busybox for its first
# steps, and apparmor_parser. Nothing is installed on the host. Prints the directory on the last
# line; quick when nothing is missing.
set -eu

cache=${CLAWSEC_CACHE:-/var/cache/clawsec}
dir=$cache/vm
# Raise it when the set of files changes, so that an older cache is made anew.
layout=1

say() { printf 'vm: %s\n' "$*" >&2; }
fail() {
    say "$1"
    say "remedy: $2"
    exit 1
}

if [ -f "$dir/.complete" ] && [ "$(head -n 1 "$dir/.complete")" = "layout $layout" ]; then
    printf '%s\n' "$dir"
    exit 0
fi

# user-mode-linux exists for x86 only. No failure: the tests say why they are skipped there.
if [ "$(uname -m)" != x86_64 ]; then
    say "user-mode-linux exists for x86_64 only, not for $(uname -m); the tests in test/vm will be skipped"
    exit 0
fi
command -v dpkg-deb >/dev/null || fail "dpkg-deb was not found" "run on Debian 12 (bookworm)"

umask 022
mkdir -p "$cache"
# A temporary directory beside the target, so that the rename is atomic and a run that was
# interrupted never looks like a finished installation.
tmp=$(mktemp -d "$cache/.vm.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
chmod 0755 "$tmp"
mkdir "$tmp/debs" "$tmp/unpacked"

packages='user-mode-linux busybox-static apparmor'
say "downloading $packages (42 MB)"
# The sandbox user of apt may not write to the cache folder; apt checks the hashes all the same.
# shellcheck disable=SC2086 # three words
download() { (cd "$tmp/debs" && apt-get -qq -o APT::Sandbox::User=root download $packages >&2); }
download || {
    say "reading the Debian package lists, then trying again"
    apt-get -qq update || say "some package lists could not be read; trying with what is there"
    download || fail "apt-get could not download: $packages" \
        "see apt's message above; the Debian package registry must be reachable"
}
for deb in "$tmp"/debs/*.deb; do
    dpkg-deb -x "$deb" "$tmp/unpacked"
done

mv "$tmp/unpacked/usr/bin/linux.uml" "$tmp/linux.uml"
mv "$tmp/unpacked/bin/busybox" "$tmp/busybox"
mv "$tmp/unpacked/sbin/apparmor_parser" "$tmp/apparmor_parser"
mv "$tmp"/unpacked/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko "$tmp/overlay.ko"
"$tmp/linux.uml" --version >/dev/null || fail "linux.uml does not run here" "see its message above"
{
    printf 'layout %s\n' "$layout"
    (cd "$tmp/debs" && printf '%s\n' *.deb)
} >"$tmp/.complete"
rm -rf "$tmp/debs" "$tmp/unpacked"

# Two installers may race: the loser finds a complete directory in place and is happy.
rm -rf "$dir"
mv -T "$tmp" "$dir" 2>/dev/null || [ -f "$dir/.complete" ] || fail "could not move $tmp to $dir" "remove $dir"
say "unpacked in $dir"
printf '%s\n' "$dir"
