#!/bin/sh
# Fails unless the program needs no library: the shim runs in root file systems that may have none.
set -eu
program=$1
[ -x "$program" ] || { echo "check-static: $program does not exist or is not executable" >&2; exit 1; }
if readelf --program-headers --wide "$program" | grep -q ' INTERP '; then
  echo "check-static: $program asks for a dynamic loader, so it cannot start in an empty root file system" >&2
  exit 1
fi
if readelf --dynamic --wide "$program" | grep -q '(NEEDED)'; then
  echo "check-static: $program needs shared libraries:" >&2
  readelf --dynamic --wide "$program" | grep '(NEEDED)' >&2
  exit 1
fi
