#!/bin/bash
# The documented way by hand, with an operator who never stops to think:
# "Upgrading kubeadm clusters", one control plane after the other, over SSH.
# Images are imported and the new binaries lie on the hosts before.
# Arguments: an ssh_config file, the version, where the binaries lie on the
# hosts, then the masters.
# A line "step NAME" tells when a step begins, "step end" that the last ended.
set -euo pipefail
config=$1 version=$2 binaries=$3 first=$4
shift 3

on() { ssh -n -F "$config" "$@"; }
kubectl() { on "$host" sudo kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"; }

# The same preflight error that the lab's inventory sets aside.
ignore=--ignore-preflight-errors=SystemVerification

for host; do
	echo "step $host"
	on "$host" sudo install -m 755 -t /usr/local/bin "$binaries/kubeadm"
	if [ "$host" = "$first" ]; then
		on "$host" sudo kubeadm upgrade apply "$version" --yes "$ignore"
	else
		on "$host" sudo kubeadm upgrade node "$ignore"
	fi
	kubectl drain "$host" --ignore-daemonsets
	on "$host" sudo install -m 755 -t /usr/local/bin "$binaries/kubelet" "$binaries/kubectl"
	on "$host" sudo systemctl daemon-reload
	on "$host" sudo systemctl restart kubelet
	kubectl uncordon "$host"
done
kubectl wait --for=condition=Ready nodes --all --timeout=5m
echo "step end"
