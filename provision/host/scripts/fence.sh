# Runs a command if the host's epoch is still the caller's: $1 "work" or "fed",
# $2 the epoch, then the command. What works holds a shared lock to its end, so
# that a new holder waits for it. What is fed by its operator could wait for a
# frozen one for ever: a new holder ends it (see hold.sh). Ends with 46 and a
# line "ha-install-fenced" with who took over when the epoch is another.
d=${0%/*}
how=$1
mine=$2
shift 2
exec 8>>"$d/work"
flock -s -w 60 8 || exit 1
read -r now <"$d/epoch"
if [ "$now" != "$mine" ]; then
	echo "ha-install-fenced $(cat "$d/by")" >&2
	exit 46
fi
if [ "$how" = fed ]; then
	exec 7>>"$d/fed"
	flock -s 7 || exit 1
	exec 8>&-
fi
exec "$@"
