# Follows a step to its end: $1 its directory, $2 its unit, $3 the byte of its
# output to begin with (from 1). The output goes to standard output; what is
# known at the end to standard error, in a line "ha-install-step BEGAN / RESULT",
# where RESULT is "lost BOOT-ID" when the step runs no more and left none.
dir=$1
unit=$2

show() { systemctl show -p "$1" --value -- "$unit"; }

running() {
	case $(show ActiveState) in
	active | activating | deactivating | reloading) return 0 ;;
	esac
	return 1
}

pid=0
while [ ! -e "$dir/result" ] && running; do
	pid=$(show MainPID)
	[ "${pid:-0}" = 0 ] || break
	sleep 0.1
done
if [ ! -e "$dir/result" ] && [ "${pid:-0}" != 0 ]; then
	tail -c "+$3" -f -s 0.1 --pid="$pid" -- "$dir/output" || exit 1
else
	tail -c "+$3" -- "$dir/output" || exit 1
fi
while [ ! -e "$dir/result" ]; do
	if ! running && [ ! -e "$dir/result" ]; then
		echo "ha-install-step $(cat "$dir/began" 2>/dev/null) / lost $(boot)" >&2
		exit 0
	fi
	sleep 0.1
done
echo "ha-install-step $(cat "$dir/began" 2>/dev/null) / $(cat "$dir/result")" >&2
