# Makes one failure: $1 its kind, then what that needs.
set -eu
dir=/run/ha-install-drill
chain=HA-INSTALL-DRILL
kind=$1
shift

# cut drops what this host and others send each other: $1 the port of sshd,
# which stays open, then the others' addresses.
cut() {
	ssh=$1
	shift
	iptables -w 5 -N $chain
	for side in --dport --sport; do iptables -w 5 -A $chain -p tcp $side "$ssh" -j RETURN; done
	for other; do
		iptables -w 5 -A $chain -s "$other" -j DROP
		iptables -w 5 -A $chain -d "$other" -j DROP
	done
	for hook in INPUT OUTPUT FORWARD; do iptables -w 5 -I $hook 1 -j $chain; done
}

# freeze keeps the kubelet from starting again what is killed.
freeze() { systemctl kill --signal=STOP kubelet.service; }

# balancer ends HAProxy and keepalived as a host does that loses its power: they
# say nothing to anybody any more. $1 is the virtual IP, or "-".
balancer() {
	for unit in keepalived haproxy; do
		systemctl is-active --quiet "$unit.service" || continue
		echo "$unit.service" >>"$dir/units"
		systemctl kill --signal=STOP "$unit.service"
	done
	[ -e "$dir/units" ] || return 0
	if [ "$1" != - ]; then
		ip -oneline address show to "$1" | while read -r _ link _ address _; do ip address delete "$address" dev "$link"; done
	fi
	while read -r unit; do systemctl kill --signal=KILL "$unit"; done <"$dir/units"
	while read -r unit; do systemctl stop --no-block "$unit"; done <"$dir/units"
}

case $kind in
component) # $1: what its process is called; of the host's own network, as no other pod's is
	freeze
	hit=
	for p in /proc/[0-9]*; do
		if [ "$(cat "$p/comm" 2>/dev/null)" = "$1" ] && [ "$p/ns/net" -ef /proc/1/ns/net ]; then
			kill -KILL "${p#/proc/}"
			hit=1
		fi
	done
	if [ -z "$hit" ]; then
		echo "no process is called $1" >&2
		exit 1
	fi
	;;
partition) # the port of sshd, and the other masters
	cut "$@"
	;;
master) # the virtual IP or "-", the port of sshd, and all other hosts
	vip=$1
	shift
	cut "$@"
	freeze
	balancer "$vip"
	for p in /proc/[0-9]*; do
		if grep -q kubepods "$p/cgroup" 2>/dev/null; then kill -KILL "${p#/proc/}" 2>/dev/null || true; fi
	done
	;;
balancer) # the virtual IP or "-"
	balancer "$1"
	[ -e "$dir/units" ]
	;;
*)
	exit 2
	;;
esac
