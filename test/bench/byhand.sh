#!/bin/bash
# The documented way by hand, with an operator who never stops to think:
# "Creating Highly Available Clusters with kubeadm", stacked etcd, over SSH.
# Arguments: an ssh_config file, then the first master and the others.
# A line "step NAME" tells when a step begins, "step end" that the last ended.
set -euo pipefail
config=$1 first=$2
shift 2

on() { ssh -n -F "$config" "$@"; }

echo "step init $first"
output=$(on "$first" sudo kubeadm init --upload-certs --config /root/kubeadm.yaml | tee /dev/stderr)

# "You can now join any number of control-plane nodes running the following
# command": it goes over three lines, the last of which has the certificate key.
join=$(grep -A2 -m1 'kubeadm join' <<<"$output" | tr -d '\\\n\t')
case $join in
*--token*--discovery-token-ca-cert-hash*--control-plane*--certificate-key*) ;;
*)
	echo "kubeadm init did not print the command for control planes: $join" >&2
	exit 1
	;;
esac

for host; do
	echo "step join $host"
	# The same preflight error that the configuration sets aside for init.
	on "$host" sudo "$join" --ignore-preflight-errors=SystemVerification
done
echo "step end"
