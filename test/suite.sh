#!/usr/bin/env bash
# Runs go test on what needs the lab. A log is read from its end, and there
# stands what the hosts had to say: so what went wrong first is said once more.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -tags e2e -count=1 -p 1 -v "$@" 2>&1 | tee "$log" && exit
echo "== what went wrong first, once more"
grep -m 1 -B 50 -E '^ +main_test.go:[0-9]+: status now:|^panic:|^--- FAIL' "$log" | cut -c 1-600
exit 1
