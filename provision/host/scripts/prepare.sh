# Makes ready for uploads to the paths that are given: missing directories are
# made, temporary files that a broken upload left are removed.
umask 022
for f in "$@"; do
	d=${f%/*}
	[ -d "$d/" ] || mkdir -p -- "$d/" || exit 1
	t=$d/.${f##*/}.ha-install-part
	[ ! -e "$t" ] || rm -f -- "$t" || exit 1
done
