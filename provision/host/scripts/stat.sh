# Describes the paths that are given: "<raw mode, hex> <size> <mtime> <path>"
# for each that is there, a line "--", then "<SHA-256>  <path>" for regular
# files; every record ends with NUL. A missing path is told on standard error.
stat -L --printf '%f %s %Y %n\0' -- "$@"
printf -- '--\0'
n=$#
for f in "$@"; do
	if [ -f "$f" ]; then set -- "$@" "$f"; fi
	if [ -L "$f" ] && [ ! -e "$f" ]; then stat --printf '%f %s %Y %n\0' -- "$f"; fi
done
shift "$n"
if [ $# -gt 0 ]; then sha256sum -z -- "$@"; fi
exit 0
