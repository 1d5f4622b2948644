# Renames $1 to $2 and prints "moved"; prints nothing when there is no $1.
# Run again after it was cut off, it finds the move done.
if [ -e "$1" ] || [ -L "$1" ]; then
	if [ -e "$2" ] || [ -L "$2" ]; then
		echo "$2 is there already" >&2
		exit 1
	fi
	mv -T -- "$1" "$2" && sync -- "$(dirname -- "$2")" && echo moved
elif [ -e "$2" ] || [ -L "$2" ]; then
	echo moved
fi
