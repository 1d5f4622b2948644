//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	allHosts   = slices.Concat(baseHosts, moreHosts)
	allMasters = []string{"cp-1", "cp-2", "cp-3", "cp-4", "cp-5"}
)

// reset takes the cluster off all hosts: refused without its name, and with it
// nothing of the cluster runs and what may be dear is moved aside.
func reset(t *testing.T) {
	path := writeInventory(t, allHosts, nil)
	awaitProbePodsGone(t)
	before := onEach(t, allHosts, clusterFootprint)
	ha(t, "reset", "--confirm", "production", path).want(t, 64, "production", clusterName, "nothing was changed")
	ha(t, "reset", path).want(t, 64, "--confirm")
	wantSame(t, "a refused reset", before, onEach(t, allHosts, clusterFootprint))

	const containerd = "systemctl show --property MainPID --value containerd.service"
	running := onEach(t, allHosts, containerd)
	r := ha(t, "reset", "--confirm", clusterName, path)
	r.want(t, 0)
	wantSame(t, "the process of containerd", running, onEach(t, allHosts, containerd))
	t.Logf("reset of nine hosts in %s", r.took.Round(100*time.Millisecond))
	const alive = `for p in /proc/[0-9]*; do read -r name <$p/comm && case $name in
		kubelet|etcd|kube-apiserver|kube-controller*|kube-scheduler|kube-proxy|flanneld|coredns|haproxy|keepalived) echo "$name";; esac; done 2>/dev/null
		ip -oneline address show | grep -o -e ' 198.51.100.10/[0-9]*' -e cni0 -e flannel.1
		ls -d /etc/kubernetes/manifests/*.yaml /etc/kubernetes/*.conf /var/lib/etcd/member /var/lib/ha-install/cluster.json 2>/dev/null
		ls /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist /etc/cni/net.d/*.json 2>/dev/null # what containerd takes for a network
		mount | grep /var/lib/kubelet
		exit 0`
	for host, left := range onEach(t, allHosts, alive) {
		if left != "" {
			t.Errorf("%s: left after reset:\n%s", host, left)
		}
	}
	for host, kept := range onEach(t, allMasters, `ls /etc/kubernetes.ha-install-*/pki/ca.key /var/lib/etcd.ha-install-*/member/snap/db /etc/cni/net.d/*.ha-install-*`) {
		if !strings.Contains(kept, "/pki/ca.key") || !strings.Contains(kept, "/member/snap/db") || !strings.Contains(kept, "/10-flannel.conflist.ha-install-") {
			t.Errorf("%s: moved aside is %q, want the CA's key, etcd's data and the network's configuration", host, kept)
		}
	}
}
