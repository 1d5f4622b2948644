# The head of a step's main process; the command itself is appended to it.
dir=${0%/*}
echo "$(boot) $(date +%s)" >"$dir/began.part" &&
	mv -f "$dir/began.part" "$dir/began" && sync "$dir/began" "$dir" || exit 125
exec >>"$dir/output" 2>&1 </dev/null
cd /
