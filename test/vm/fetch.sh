# shellcheck shell=sh
# What the installers of test/vm have in common: read by them with `.`, after they set `name`, the folder
# below the cache, and `layout`, to be raised when the set of files changes, so that an older one is made anew.

cache=${CLAWSEC_CACHE:-/var/cache/clawsec}
dir=$cache/${name:?}

say() { printf 'vm: %s\n' "$*" >&2; }
fail() {
    say "$1"
    say "remedy: $2"
    exit 1
}

# Ends with the folder's name when nothing is missing. Debian's packages that are used exist for x86 only,
# and that is no failure: the tests say why they are skipped elsewhere.
stop_if_complete() {
    if [ -f "$dir/.complete" ] && [ "$(head -n 1 "$dir/.complete")" = "layout ${layout:?}" ]; then
        printf '%s\n' "$dir"
        exit 0
    fi
    if [ "$(uname -m)" != x86_64 ]; then
        say "the virtual machines exist for x86_64 only, not for $(uname -m); the tests in test/vm will be skipped"
        exit 0
    fi
    command -v dpkg-deb >/dev/null || fail "dpkg-deb was not found" "run on Debian 12 (bookworm)"
}

# Sets tmp, with empty folders debs and unpacked.
make_temporary() {
    umask 022
    mkdir -p "$cache"
    # Beside the target, so that the rename is atomic and a run that was interrupted never looks like a
    # finished installation.
    tmp=$(mktemp -d "$cache/.$name.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 130' INT TERM HUP
    chmod 0755 "$tmp"
    mkdir "$tmp/debs" "$tmp/unpacked"
}

# The sandbox user of apt may not write to the cache folder; apt checks the hashes all the same.
fetch_once() { (cd "$tmp/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@" >&2); }

# Downloads packages and unpacks them, installing none.
fetch() {
    say "downloading $*"
    fetch_once "$@" || {
        say "reading the Debian package lists, then trying again"
        apt-get -qq update || say "some package lists could not be read; trying with what is there"
        fetch_once "$@" || fail "apt-get could not download: $*" \
            "see apt's message above; the Debian package registry must be reachable"
    }
    for deb in "$tmp"/debs/*.deb; do
        dpkg-deb -x "$deb" "$tmp/unpacked"
        basename "$deb" >>"$tmp/packages"
        rm "$deb"
    done
}

# Moves what was made to its place, and prints that.
finish() {
    {
        printf 'layout %s\n' "$layout"
        cat "$tmp/packages"
    } >"$tmp/.complete"
    rm -rf "$tmp/debs" "$tmp/unpacked" "$tmp/packages"
    # Two installers may race: the loser finds a complete directory in place and is happy.
    rm -rf "$dir"
    mv -T "$tmp" "$dir" 2>/dev/null || [ -f "$dir/.complete" ] || fail "could not move $tmp to $dir" "remove $dir"
    say "unpacked in $dir"
    printf '%s\n' "$dir"
}
