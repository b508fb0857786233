#!/bin/bash
# Installs what building and testing need: Debian packages, npm packages, crates.
# Quick when nothing is missing; says what it does, and what to do when it cannot.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What builds: clang llvm libbpf-dev libelf-dev zlib1g-dev bpftool (BPF), libseccomp-dev (filters),
# protobuf-compiler (the contract), gcc libc6-dev make pkg-config (linking, the static shim).
# What runs: runc nftables iproute2 util-linux procps. What checks: clang-format shellcheck.
# What tests start in sandboxes: git curl openssl python3 tmux ca-certificates. What unpacks kernels: xz-utils zstd.
# libcap2-bin (setcap, capsh) is for the escape run.
packages=(
  clang llvm libbpf-dev libelf-dev zlib1g-dev bpftool libseccomp-dev protobuf-compiler
  gcc libc6-dev make pkg-config
  runc nftables iproute2 util-linux procps
  clang-format shellcheck
  git curl openssl python3 tmux ca-certificates xz-utils zstd libcap2-bin
)

say() { printf '==> deps: %s\n' "$*"; }
fail() {
  printf 'deps: %s\n' "$1" >&2
  printf 'deps: remedy: %s\n' "$2" >&2
  exit 1
}

# The Node of node_modules is replaced by `npm ci`, so npm must not run on it.
system_path() {
  local part out=
  local IFS=:
  for part in $PATH; do
    [[ $part == "$PWD/node_modules/.bin" ]] || out+=${out:+:}$part
  done
  printf '%s' "$out"
}
PATH=$(system_path)
# rustup puts cargo where a non-login shell does not look.
[[ -d ${CARGO_HOME:-${HOME:-/root}/.cargo}/bin ]] && PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
export PATH

missing_packages() {
  local installed
  # Fails when any of them is unknown, and still prints the others.
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
  local package
  for package in "${packages[@]}"; do
    grep -qx "$package installed" <<<"$installed" || printf '%s\n' "$package"
  done
}

# What no package list here brings: said before minutes go into installing the rest.
prerequisites() {
  { command -v node && command -v npm; } >/dev/null ||
    fail "Node.js with npm was not found; it fetches everything else, the pinned Node 24 too" \
      "install Node.js 18 or newer (apt-get install nodejs npm)"
  command -v cargo >/dev/null ||
    fail "cargo was not found, and the loader is written in Rust" \
      "install Rust 1.95 or newer with rustup (https://rustup.rs), or put its bin folder in PATH"
}

debian_packages() {
  command -v dpkg-query >/dev/null ||
    fail "this is not a Debian system (no dpkg-query), and only Debian 12 is supported" \
      "run on Debian 12 (bookworm), or install by hand: ${packages[*]}"
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  [[ $(id -u) == 0 ]] ||
    fail "${#missing[@]} Debian packages are missing (${missing[*]}) and only root may install them" \
      "sudo apt-get install ${missing[*]}"
  say "reading the Debian package lists"
  apt-get -qq update ||
    say "some package lists could not be read; trying with what is there"
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 \
    -o Dpkg::Use-Pty=0 install "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}" \
      "see apt's message above; the Debian package registry must be reachable, and main be in the sources"
}

npm_packages() {
  local stamp=node_modules/.clawsec-installed now
  now="$(sha256sum package-lock.json; uname -m)"
  [[ -f $stamp && $(<"$stamp") == "$now" ]] && node_modules/.bin/node --version >/dev/null 2>&1 && return 0
  say "installing npm packages (npm ci)"
  # Install scripts of packages do not run: one would compile SQLite, which comes ready made, and to do so
  # fetch headers from a host that is no package registry. The one that matters is called by name: it installs
  # the Node binary for this processor, from the same registry.
  # npm's own waits between attempts add up to minutes where there is no network at all.
  local options=(--no-audit --no-fund --loglevel=error --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=8000)
  npm ci --ignore-scripts "${options[@]}" ||
    fail "npm ci did not succeed" "see npm's message above; the npm registry must be reachable"
  npm rebuild "${options[@]}" node ||
    fail "the binary of Node 24 could not be installed" "see npm's message above; the npm registry must be reachable"
  case $(node_modules/.bin/node --version) in
    v2[4-9].* | v[3-9][0-9].*) ;;
    *) fail "node_modules/.bin/node is $(node_modules/.bin/node --version), not 24 or newer" "rm -rf node_modules; make deps" ;;
  esac
  printf '%s' "$now" >"$stamp"
}

crates() {
  local stamp=bpf/target/.clawsec-fetched now
  now="$(sha256sum bpf/Cargo.lock; printf '%s' "${CARGO_HOME:-}")"
  [[ -f $stamp && $(<"$stamp") == "$now" ]] && return 0
  local version
  version=$(cd bpf && rustc --version | cut -d' ' -f2)
  [[ $(printf '1.95.0\n%s\n' "${version%%-*}" | sort -V | head -1) == 1.95.0 ]] ||
    fail "Rust $version is too old; 1.95 or newer is needed" "rustup update stable"
  say "fetching crates"
  (cd bpf && cargo fetch --locked --quiet --target "$(rustc -vV | sed -n 's/^host: //p')") ||
    fail "the crates could not be fetched" \
      "see cargo's message above; crates.io must be reachable and bpf/Cargo.lock belong to bpf/Cargo.toml"
  mkdir -p bpf/target
  printf '%s' "$now" >"$stamp"
}

# The virtual machines of test/vm. Without one its tests are skipped, so its absence is no failure.
virtual_machines() {
  test/vm/install.sh >/dev/null ||
    say "the virtual machine with AppArmor could not be fetched; its tests will be skipped"
  test/vm/install-qemu.sh >/dev/null ||
    say "the virtual machines with BPF-LSM could not be fetched; their tests will be skipped"
}

prerequisites
debian_packages
npm_packages
crates
virtual_machines
