# Prints "SECONDS HOLDER" when somebody alive holds the host; $1 is the
# directory of the lock. It does not touch the lock itself: who takes it at this
# moment must not find it taken.
{ read -r pid id began && read -r holder; } 2>/dev/null <"$1/holder" || exit 0
if [ "$(stat -L -c %d:%i "/proc/$pid/fd/9" 2>/dev/null)" = "$(stat -c %d:%i "$1/lock")" ]; then
	echo "$(($(date +%s) - began)) $holder"
fi
