package kube

// ProcessFunction is for scripts: "processes NAME ARGUMENT" prints the IDs of
// programs. Processes are told by name (its first 15 letters) and by an argument,
// which has this host's address in it: a workload may run another etcd here.
const ProcessFunction = `processes() {
	for p in /proc/[0-9]*; do
		if { read -r name <"$p/comm"; } 2>/dev/null && [ "$name" = "$1" ] && tr '\0' '\n' <"$p/cmdline" | grep -qxF -e "$2"; then
			echo "${p#/proc/}"
		fi
	done
}
`

// HoldsFunction is for scripts: "holds ID" says whether an etcd, told by its
// process ID, has those data open that lie in their place. One whose data were
// moved or deleted goes on with them, where they are now.
const HoldsFunction = `holds() {
	for f in "/proc/$1/fd"/*; do
		if [ "$f" -ef /var/lib/etcd/member/snap/db ]; then return 0; fi
	done
	return 1
}
`
