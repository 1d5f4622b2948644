//go:build e2e

package e2e

import (
	"maps"
	"strings"
	"testing"
)

// lastingFootprint is what two clusters made of the same inventory have in
// common: files with their modes, owners and contents, units, and the
// processes of the control plane. Left out are contents that every cluster has
// of its own (keys, certificates, kubeconfigs), the records of steps, what was
// moved aside, and the mode of a directory that containerd makes after a reset.
// The part of a file that an upload left would show.
const lastingFootprint = `set -u
cd /
find etc/kubernetes etc/haproxy etc/keepalived etc/containerd etc/cni etc/systemd/system etc/sysctl.d etc/modules-load.d etc/crictl.yaml \
	usr/local/bin opt/cni var/lib/ha-install var/lib/etcd var/lib/kubelet/config.yaml var/lib/kubelet/kubeadm-flags.env \
	-xdev \( -path 'var/lib/ha-install/*/*' -o -path 'var/lib/etcd/member/*' -o -name '*.ha-install-[0-9]*' \) -prune -o -printf '%p %y %m %u %l\n' 2>/dev/null |
	sed 's|^etc/cni/net.d d [0-9]* |etc/cni/net.d d - |' | sort
find etc/kubernetes/manifests etc/haproxy etc/keepalived etc/containerd etc/cni etc/systemd/system etc/sysctl.d etc/modules-load.d etc/crictl.yaml \
	usr/local/bin opt/cni var/lib/kubelet/config.yaml var/lib/kubelet/kubeadm-flags.env \
	-xdev -type f ! -path '*.ha-install-[0-9]*' ! -name '*.crt' ! -name '*.pem' 2>/dev/null | sort | xargs -r sha256sum
systemctl list-unit-files --no-legend --no-pager | awk '{print "unit", $1, $2}' | sort
systemctl list-units --type=service --state=running,failed,activating --no-legend --no-pager --plain |
	awk '$1 !~ /^(user@|session|systemd-)/ {print $3, $4, $1}' | sort
for p in /proc/[0-9]*; do read -r name <$p/comm && case $name in
	kubelet|etcd|kube-apiserver|kube-controller*|kube-scheduler|kube-proxy|flanneld|haproxy|keepalived) echo "process $name";; esac
done 2>/dev/null | sort | uniq -c
exit 0
`

// lasting is that footprint of every host, and under "cluster" what the API
// has: nodes with their roles and taints, and the names of all that kubeadm,
// the network and the installer make.
func lasting(t *testing.T) map[string]string {
	t.Helper()
	awaitProbePodsGone(t) // what ends by itself is not to last
	all := maps.Clone(onEach(t, baseHosts, lastingFootprint))
	all["cluster"] = strings.Join([]string{
		kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.labels} {.spec.taints}{"\n"}{end}`),
		kubectl(t, "get", "namespaces,clusterroles,clusterrolebindings", "-o", "name"),
		kubectl(t, "get", "daemonsets,deployments,services,configmaps,serviceaccounts,roles,rolebindings", "--all-namespaces", "-o",
			`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}`),
		kubectl(t, "get", "secrets", "--all-namespaces", "-o", `jsonpath={range .items[*]}{.type} {.metadata.namespace}{"\n"}{end}`),
	}, "\n")
	return all
}
