# Puts uploaded files in place. Arguments, four a file: final path, SHA-256,
# mode, "secret" or "". All files are verified, given their mode and flushed
# before the first one is renamed. Ends with 45 when a sum differs.
part() { t=${1%/*}/.${1##*/}.ha-install-part; }

verify() {
	part "$1"
	sum=$(sha256sum <"$t") || exit 1
	sum=${sum%% *}
	if [ "$sum" != "$2" ]; then
		if [ "$4" = secret ]; then sum=another; fi
		echo "$1: it arrived with the sum $sum" >&2
		exit 45
	fi
	chmod -- "$3" "$t" || exit 1
}

harden() {
	part "$1"
	sync -- "$t" || exit 1
}

place() {
	part "$1"
	mv -fT -- "$t" "$1" || exit 1
}

flush() {
	if [ "${1%/*}" != "$last" ]; then
		last=${1%/*}
		sync -- "$last/" || exit 1
	fi
}

each() {
	what=$1
	shift
	while [ $# -gt 0 ]; do
		"$what" "$1" "$2" "$3" "$4"
		shift 4
	done
}

# the disk is busy with the one while the processor is with the other
(each harden "$@") &
each verify "$@"
wait $! || exit 1
last=-
each place "$@"
each flush "$@"
