package kube

// EndPodNetwork is the command that takes away what flannel has made on a host for
// a Node that is gone. A bridge keeps the network that it was made with: pods of the
// next Node would have addresses that belong to another host. It is for a host on
// which no kubelet runs.
func EndPodNetwork() []string {
	return []string{"sh", "-c", `set -eu
for link in cni0 flannel.1 flannel-v6.1; do
	if [ -e "/sys/class/net/$link" ]; then ip link delete "$link"; fi
done
rm -f /run/flannel/subnet.env
`, "ha-install-pod-network"}
}
