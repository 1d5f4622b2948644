# Run by systemd when the step's main process has ended, however it did: keeps the result.
dir=${0%/*}
echo "$SERVICE_RESULT ${EXIT_CODE:--} ${EXIT_STATUS:--} $(date +%s)" >"$dir/result.part" &&
	sync "$dir/output" "$dir/result.part" && mv -f "$dir/result.part" "$dir/result" && sync "$dir"
