#!/bin/sh
# Installs the pinned OpenClaw and the Node it needs into a cache outside the
# tree. Prints the directory on the last line; quick when nothing is missing.
#
# The cache is world-readable and owned by root: the sandboxed gateway runs as
# another uid and must be able to read its own program but never to change it.
set -eu

openclaw_version=2026.9.6
node_version=24

cache=${CLAWSEC_CACHE:-/var/cache/clawsec}
dir=$cache/openclaw-$openclaw_version
# The exact Node is whatever 24.x the registry served at install time; OpenClaw
# needs at least 24.16, which the check below runs into if it is older.
node=$dir/node_modules/node/bin/node
cli=$dir/node_modules/openclaw/openclaw.mjs

say() { printf 'openclaw: %s\n' "$*" >&2; }

if [ -x "$node" ] && [ -f "$cli" ] && [ -f "$dir/.complete" ]; then
    say "already installed ($(cat "$dir/.complete"))"
    printf '%s\n' "$dir"
    exit 0
fi

command -v npm >/dev/null || { say "npm is needed to install OpenClaw and was not found in PATH"; exit 1; }

umask 022
mkdir -p "$cache"
# A temporary directory beside the target, so that the rename is atomic and a
# run that was interrupted never looks like a finished installation.
tmp=$(mktemp -d "$cache/.openclaw.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
chmod 0755 "$tmp"

printf '{"private":true}\n' > "$tmp/package.json"

# npm is quiet, and each stage gets a line of its own so that a slow machine
# does not look stuck.
say "1/3 installing node@$node_version"
(cd "$tmp" && npm install --no-audit --no-fund --loglevel=error --foreground-scripts \
    "node@$node_version" >&2)

# npm itself must run on the new Node: on an older one it silently leaves out
# every optional package that asks for a newer engine, and those are OpenClaw's
# prebuilt native parts.
PATH=$tmp/node_modules/node/bin:$PATH
export PATH
say "2/3 installing openclaw@$openclaw_version (about a minute, 650 MB)"
(cd "$tmp" && npm install --no-audit --no-fund --loglevel=error --ignore-scripts \
    "openclaw@$openclaw_version" >&2)
# OpenClaw finishes its own installation at its first start, and refuses to start
# where it may not write into its package: that would be every sandboxed start.
# HOME is the temporary directory because the step may leave a cache behind.
HOME=$tmp "$tmp/node_modules/node/bin/node" --input-type=module -e '
  const { completePendingPackageLifecycle } =
    await import(process.argv[1] + "/dist/infra/package-lifecycle.js");
  await completePendingPackageLifecycle({ packageRoot: process.argv[1] });
' "$tmp/node_modules/openclaw" >&2

say "3/3 checking"
# shellcheck disable=SC2016 # the ${...} below is JavaScript's
"$tmp/node_modules/node/bin/node" -e '
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 24 || (major === 24 && minor < 16)) {
    console.error(`openclaw: needs Node 24.16 or newer, got ${process.versions.node}`);
    process.exit(1);
  }'
found=$("$tmp/node_modules/node/bin/node" -p \
    'require(process.argv[1]).version' "$tmp/node_modules/openclaw/package.json")
if [ "$found" != "$openclaw_version" ]; then
    say "expected OpenClaw $openclaw_version but npm installed $found"
    exit 1
fi
if [ -e "$tmp/node_modules/openclaw/.openclaw-lifecycle-pending" ]; then
    say "OpenClaw's own installation step did not finish"
    exit 1
fi
chmod -R a+rX,go-w "$tmp"
printf 'openclaw %s, node %s\n' "$found" \
    "$("$tmp/node_modules/node/bin/node" -p process.versions.node)" > "$tmp/.complete"

# Two installers may race: the loser finds the directory in place and is happy.
if ! mv -T "$tmp" "$dir" 2>/dev/null; then
    if [ -f "$dir/.complete" ]; then
        say "another installer was faster"
    else
        rm -rf "$dir"
        mv -T "$tmp" "$dir"
    fi
fi
trap - EXIT
rm -rf "$tmp"
say "installed in $dir"
printf '%s\n' "$dir"
