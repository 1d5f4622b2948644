# Begins an injection: $1 its unit, $2 the seconds after which it ends by itself,
# $3 the directory of the host's lock, $4 and $5 the texts of inject.sh and
# undo.sh, then what inject.sh is told. It is one transient unit, which ends,
# and by ending undoes it, when it is stopped, when its time is up, when the
# host shuts down, and when the process that holds the host for the operator is
# gone. All that it keeps lies in memory: a host that loses its power has
# forgotten it.
set -eu
umask 077
dir=/run/ha-install-drill
unit=$1 limit=$2 lock=$3 inject=$4 undo=$5
shift 5
if [ -e "$dir" ]; then
	echo "an earlier injection is not undone: $dir is there" >&2
	exit 1
fi
case $1 in
master | partition)
	if ! command -v iptables >/dev/null; then
		echo "iptables is not installed: a host cannot be cut off without it" >&2
		exit 1
	fi
	;;
esac
read -r holder _ <"$lock/holder"
mkdir "$dir"
printf '%s\n' "$inject" >"$dir/inject"
printf '%s\n' "$undo" >"$dir/undo"
systemd-run --quiet --collect --unit="$unit" --description="ha-install drill" \
	--property="ExecStartPre=/bin/sh $dir/inject $*" --property=TimeoutStartSec=20 \
	--property="ExecStopPost=/bin/sh $dir/undo" --property=TimeoutStopSec=60 \
	--property=RuntimeMaxSec="$limit" \
	tail -s 0.2 --pid="$holder" -f /dev/null && exit
journalctl --quiet --no-pager --output=cat --lines=5 --unit="$unit" >&2
exit 1
