#!/usr/bin/env bash
# Runs go test on what needs the lab. A log is read from its end, and there
# stands what the hosts had to say: so what went wrong is said once more, the
# first lines of each innermost test that failed.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -tags e2e -count=1 -p 1 -v "$@" 2>&1 | tee "$log" && exit
echo "== what went wrong, once more"
sed -n 's/^ *--- FAIL: \([^ ]*\).*/\1/p' "$log" | sort -u | while read -r name; do
	grep -qE "^ *--- FAIL: ${name//\//\\/}/" "$log" || # an inner one says why
		awk -v name="$name" '/^=== RUN/ { on = $3 == name } on && n++ < 40' "$log" | cut -c 1-600
done
grep -m 1 -A 40 '^panic:' "$log" | cut -c 1-600
exit 1
