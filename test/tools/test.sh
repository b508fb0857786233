#!/bin/bash
# `make test`: whatever happens, the last line of the output is "N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

work=test/.work
mkdir -p "$work" 2>/dev/null
rm -f "$work/summary" 2>/dev/null

# What fails before the runner can count is one failure.
stop() {
  printf 'test: %s\n' "$1" >&2
  printf '0 passed, 1 failed, 0 skipped\n' | tee "$work/summary" 2>/dev/null
  exit 1
}

[[ $(id -u) == 0 ]] || stop "the tests make cgroups, network namespaces and sandboxes, which needs root; run: sudo make test"
test/tools/deps.sh || stop "step deps failed"
PATH=$PWD/node_modules/.bin:$PATH exec node test/tools/run-tests.ts
