# Starts a step once: $1 its directory, $2 its unit, $3 the script that keeps
# its result; the script to run comes on standard input.
# Prints "new", "running" or "ended", or "lost BOOT-ID-BEFORE BOOT-ID-NOW".
umask 077
dir=$1
unit=$2
run=$(cat; echo .) || exit 1

running() {
	case $(systemctl show -p ActiveState --value -- "$unit") in
	active | activating | deactivating | reloading) return 0 ;;
	esac
	return 1
}

answer() {
	if [ -e "$dir/result" ]; then
		echo ended
	elif running; then
		echo running
	elif [ -e "$dir/result" ]; then # it ended while we looked
		echo ended
	elif [ -e "$dir/began" ]; then
		read -r before _ <"$dir/began"
		echo "lost $before $(boot)"
	else
		return 1 # never begun
	fi
}

mkdir -p -- "$dir" || exit 1
answer && exit 0
printf %s "${run%.}" >"$dir/run" && printf '%s\n' "$3" >"$dir/end" && : >>"$dir/output" &&
	sync "$dir/run" "$dir/end" "$dir/output" "$dir" || exit 1
if systemd-run --quiet --collect --unit="$unit" --description="ha-install ${dir##*/}" \
	--property="ExecStopPost=/bin/sh $dir/end" /bin/sh "$dir/run" >"$dir/start" 2>&1; then
	echo new
	exit 0
fi
answer && exit 0 # another was faster
cat "$dir/start" >&2
exit 1
