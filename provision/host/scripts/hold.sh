# Holds the host for one operation, for as long as its operator is heard: $1 the
# directory of the lock, $2 that of the journals, $3 the seconds of silence
# after which it lets go, $4 those that it waits for the commands of an earlier
# operation, $5 the text of fence.sh. The kernel frees the lock when this ends,
# however it does. It is told, in lines:
#   take ID HOLDER   answers "held EPOCH", or "busy SECONDS HOLDER" and ends
#   raise EPOCH      answers "raised", or "working PID COMMAND; ..."
#   beat N           answers "beat N"
#   note N HOW TEXT  adds TEXT to the operation's journal, and answers "noted N",
#                    which stands for those before it, too; when HOW is "sync"
#                    they are on the disk then, as many as came together at once
umask 022
mkdir -p -- "${1%/*}" || exit 1
umask 077
dir=$1 journals=$2 silence=$3 patience=$4 fence=$5
mkdir -p -- "$dir" "$journals" || exit 1
exec 9>>"$dir/lock" || exit 1

# who reads the holder that is on record; it fails unless that one is alive.
who() {
	pid='' id='' began='' holder=''
	{ read -r pid id began && read -r holder; } 2>/dev/null <"$dir/holder"
	[ -n "$holder" ] && [ "/proc/$pid/fd/9" -ef "$dir/lock" ]
}

busy() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		if who; then break; fi # else it has just taken the lock, or just let go
		if flock -n 9; then return 1; fi
		sleep 0.1
	done
	if [ "$id" = "$1" ] && kill "$pid" && flock -w 5 9; then return 1; fi # a session of ours that was cut off
	now=$(date +%s)
	echo "busy $((now - ${began:-$now})) $holder"
}

take() {
	id='' began=''
	if ! flock -n 9 && busy "$1"; then exit 0; fi
	if [ "$id" != "$1" ] || [ -z "$began" ]; then began=$(date +%s); fi
	journal=$journals/$1.jsonl
	printf '%s\n' "$$ $1 $began" "$2" >"$dir/holder.part" && mv -f "$dir/holder.part" "$dir/holder" || exit 1
	trap 'rm -f "$dir/holder"' EXIT
	mine=$2
	now=''
	if [ -e "$dir/epoch" ]; then read -r now <"$dir/epoch"; fi
	echo "held ${now:-0}"
	ls -1 "$journals" | head -n -"$keep" | while read -r old; do rm -f -- "$journals/$old"; done
}
keep=50

# workers are the processes that have the file $2 open as $1, but for our own.
workers() {
	for fd in /proc/[0-9]*/fd/"$1"; do
		p=${fd#/proc/} p=${p%%/*}
		if [ "$p" != $$ ] && [ "$fd" -ef "$dir/$2" ]; then echo "$p"; fi
	done
}

working() {
	for p in $(workers "$1" "$2"); do
		echo "$p $(tr '\0\n' '  ' <"/proc/$p/cmdline" | cut -c 1-120)"
	done | tr '\n' ';'
}

raise() {
	exec 8>>"$dir/work" 7>>"$dir/fed" || exit 1
	if ! flock -w "$patience" 8 9>&-; then
		echo "working $(working 8 work)"
		return
	fi
	for p in $(workers 7 fed); do kill "$p"; done
	if ! flock -w 5 7; then
		echo "working $(working 7 fed)"
		return
	fi
	printf '%s\n' "$fence" >"$dir/fence.part" && printf '%s\n' "$mine" >"$dir/by.part" &&
		printf '%s\n' "$1" >"$dir/epoch.part" && sync "$dir/fence.part" "$dir/by.part" "$dir/epoch.part" &&
		mv -f "$dir/by.part" "$dir/by" && mv -f "$dir/fence.part" "$dir/fence" &&
		mv -f "$dir/epoch.part" "$dir/epoch" && sync "$dir" || exit 1
	exec 7>&- 8>&-
	echo raised
}

note() {
	printf '%s\n' "$3" >>"$journal" || return
	if [ "$2" = sync ]; then dirty=1; fi
	if [ "$dirty" = 1 ]; then
		if read -r -t 0; then return; fi # more is to come
		sync "$journal" || return
		dirty=0
	fi
	echo "noted $1"
}
dirty=0

while IFS= read -r -t "$silence" line; do
	case $line in
	'beat '*) echo "$line" ;;
	'note '*)
		line=${line#note } n=${line%% *} line=${line#* }
		note "$n" "${line%% *}" "${line#* }"
		;;
	'take '*)
		line=${line#take }
		take "${line%% *}" "${line#* }"
		;;
	'raise '*) raise "${line#raise }" ;;
	esac
done
