# Facts of one host, as key=value lines; a repeated key is a list. Reads only.
# Asks nothing beyond a POSIX sh and coreutils; what else is there is used.
# $1 etcd's data directory, $2 a DNS name to resolve ("" for none), $3... TCP ports.
LC_ALL=C
export LC_ALL
emit() { printf '%s=%s\n' "$1" "$2"; }
lines() { while IFS= read -r line || [ -n "$line" ]; do emit "$1" "$line"; done; }
# Not "read": the shell reads byte by byte, and a sysctl file ends after the first.
first() { [ -r "$2" ] && emit "$1" "$(head -n 1 "$2" 2>/dev/null)"; }
have() { command -v "$1" >/dev/null 2>&1; }
nearest() {
	at=$1
	while [ -n "$at" ] && [ ! -d "$at" ]; do
		case $at in */*) at=${at%/*} ;; *) at= ;; esac
	done
	printf '%s' "${at:-/}"
}

# The second stamp is the last line: the two bracket what the host took itself.
emit clock_begin "$(date +%s.%N)"
etcd=$1 name=$2
shift 2

emit kernel "$(uname -s)"
emit machine "$(uname -m)"
emit hostname "$(uname -n)"
emit cores "$(nproc 2>/dev/null)"
[ -r /etc/os-release ] && lines os </etc/os-release
[ -r /proc/meminfo ] && while read -r key value unit; do
	[ "$key" = MemTotal: ] && emit memory_kb "$value" && break
done </proc/meminfo
[ -d /run/systemd/system ] && emit systemd 1
first container /run/systemd/container
first boot_id /proc/sys/kernel/random/boot_id
first machine_id /etc/machine-id
first product_uuid /sys/class/dmi/id/product_uuid
[ -r /proc/swaps ] && lines swap </proc/swaps
first selinux /sys/fs/selinux/enforce
emit cgroup_fs "$(stat -f -c %T /sys/fs/cgroup 2>/dev/null)"
first cgroup_controllers /sys/fs/cgroup/cgroup.controllers

# A command that the product runs on hosts, or that kubeadm insists on.
for tool in sh tar sha256sum stat env systemd-run systemctl dpkg mount losetup cp ip perl; do
	have "$tool" && emit tool "$tool"
done

# test -w of root is false only where the mount itself is read-only.
for path in / /etc /var/lib /usr/local/bin; do
	at=$(nearest "$path")
	[ -w "$at" ] || emit readonly "$path"
done
for key in net/ipv4/ip_forward net/netfilter/nf_conntrack_max; do
	file=/proc/sys/$key
	[ -e "$file" ] || continue
	first "sysctl_$key" "$file"
	[ -w "$file" ] && emit sysctl_writable "$key"
done

# A module is there when loaded, built in, or when modprobe would find it.
release=$(uname -r)
[ -r "/lib/modules/$release/modules.dep" ] && emit modules_known 1
for module in overlay br_netfilter vxlan; do
	if [ -d "/sys/module/$module" ]; then
		emit module "$module"
	elif have modprobe && modprobe -n -q "$module" 2>/dev/null; then
		emit module "$module"
	else
		for list in modules.builtin modules.dep; do
			[ -r "/lib/modules/$release/$list" ] || continue
			case $(cat "/lib/modules/$release/$list") in
			*/"$module".ko*) emit module "$module" && break ;;
			esac
		done
	fi
done
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] && emit module br_netfilter
[ -r /proc/filesystems ] && while read -r dev fs; do
	[ "$fs$dev" = overlay"nodev" ] && emit module overlay
done </proc/filesystems

# path, then what df says of the nearest directory that exists.
for path in / "$etcd" /var/lib/containerd /var/lib/kubelet /etc/kubernetes; do
	emit disk "$path $(df -k --output=size,avail,itotal,iavail,target "$(nearest "$path")" 2>/dev/null | tail -n 1)"
done

if have ip; then
	ip -o addr show 2>/dev/null | lines addr
else
	[ -r /proc/net/fib_trie ] && lines fib </proc/net/fib_trie
	[ -r /proc/net/route ] && lines route </proc/net/route
	[ -r /proc/net/if_inet6 ] && lines inet6 </proc/net/if_inet6
fi
for file in /sys/class/net/*/address; do
	link=${file%/address}
	[ -r "$file" ] && IFS= read -r mac <"$file" && emit mac "${link##*/} $mac"
done 2>/dev/null

# Listening sockets on the ports asked for, and who holds them.
inodes=
for port in "$@"; do
	hex=$(printf '%04X' "$port")
	for table in /proc/net/tcp /proc/net/tcp6; do
		[ -r "$table" ] || continue
		hits=$(if have grep; then grep -E ":$hex [0-9A-F]+:0000 0A " "$table"; else cat "$table"; fi)
		while read -r _ local _ state _ _ _ _ _ inode _; do
			[ "${local##*:}" = "$hex" ] && [ "$state" = 0A ] || continue
			emit listen "$port ${local%:*} $inode"
			inodes="$inodes $inode"
		done <<-END
			$hits
		END
	done
done
if [ -n "$inodes" ]; then
	ls -l /proc/[0-9]*/fd 2>/dev/null | while IFS= read -r line; do
		case $line in
		/proc/*) pid=${line#/proc/} pid=${pid%%/*} ;;
		*'socket:['*)
			inode=${line##*'socket:['} inode=${inode%%]*}
			case "$inodes " in
			*" $inode "*) IFS= read -r comm <"/proc/$pid/comm" && emit socket "$inode $pid $comm" ;;
			esac
			;;
		esac
	done 2>/dev/null
fi

# Traces of a cluster: this one's or another's.
for path in /etc/kubernetes/admin.conf /etc/kubernetes/super-admin.conf /etc/kubernetes/kubelet.conf \
	/etc/kubernetes/bootstrap-kubelet.conf /etc/kubernetes/controller-manager.conf /etc/kubernetes/scheduler.conf \
	"$etcd/member" /var/lib/kubelet/config.yaml /var/lib/rancher/k3s/server /var/lib/rancher/k3s/agent \
	/var/lib/rancher/rke2 /var/lib/k0s /var/snap/microk8s/current; do
	[ -e "$path" ] && emit file "$path"
done
for path in /etc/kubernetes/manifests/* /etc/kubernetes/pki/* /etc/kubernetes/pki/etcd/* /var/lib/kubelet/pki/*; do
	[ -f "$path" ] && emit file "$path"
done
[ -r /etc/kubernetes/pki/ca.crt ] && emit ca "$(head -c 65536 /etc/kubernetes/pki/ca.crt | base64 -w 0)"
[ -r /var/lib/ha-install/cluster.json ] && emit journal "$(head -c 65536 /var/lib/ha-install/cluster.json | base64 -w 0)"

# Other runtimes by their sockets; firewalls by systemd, which says nothing when it does not run.
for socket in /run/containerd/containerd.sock /run/docker.sock /run/crio/crio.sock /run/cri-dockerd.sock; do
	[ -S "$socket" ] && emit runtime "$socket"
done
if [ -d /run/systemd/system ] && have systemctl; then
	for unit in firewalld ufw; do
		[ "$(systemctl is-active "$unit.service" 2>/dev/null)" = active ] && emit firewall "$unit"
	done
fi
[ -r /etc/ufw/ufw.conf ] && lines ufw </etc/ufw/ufw.conf

# sudo resolves the host's own name on every command.
if have getent; then
	timeout 2 getent ahosts "$(uname -n)" >/dev/null 2>&1 || emit nameless 1
fi
if [ -n "$name" ] && have getent; then
	timeout 3 getent ahosts "$name" 2>/dev/null | lines resolved
	emit resolved_asked 1
fi
emit clock_end "$(date +%s.%N)"
