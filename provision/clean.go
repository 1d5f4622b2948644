package provision

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// leftovers removes what kubeadm reset leaves of the pod network: interfaces,
// leases and the rules that kube-proxy and flannel made. Rules of others stay.
const leftovers = `set -u
for link in cni0 flannel.1 flannel-v6.1 kube-ipvs0; do ip link delete "$link" 2>/dev/null; done
rm -rf /var/lib/cni /run/flannel
for t in iptables ip6tables; do
	command -v "$t-save" >/dev/null || continue
	"$t-save" | grep -v -e KUBE- -e FLANNEL -e CNI- | "$t-restore" 2>/dev/null
done
exit 0
`

// cleanNode takes Kubernetes off a host. What may hold data or keys is moved
// aside, never deleted. etcd membership is not its business: whoever calls it
// has removed the member before, under a gate.
func cleanNode(ctx context.Context, h host.Host) error {
	if err := endUnits(ctx, h, []string{"systemctl", "stop"}, "kubelet.service"); err != nil {
		return err
	}
	if err := keep(ctx, h, "/etc/kubernetes"); err != nil {
		return err
	}
	// kubeadm's own removal of the member exits 0 when it failed (fact 11).
	if err := kube.RunStep(ctx, h, "kubeadm-reset", nil, "sh", "-c", resetScript, "sh",
		"reset", "--force", "--skip-phases", "preflight,remove-etcd-member"); err != nil {
		return err
	}
	if err := keep(ctx, h, kube.EtcdDir); err != nil {
		// A disk of its own is mounted there: what it holds is moved within it.
		if within := keep(ctx, h, etcdMember); within != nil {
			return errors.Join(err, within)
		}
	}
	return runAll(ctx, h, []string{"sh", "-c", leftovers})
}

// resetScript is kubeadm where there is one: a run that broke off early has
// left none.
const resetScript = `command -v kubeadm >/dev/null || exit 0
exec kubeadm "$@"
`

// endUnits stops or disables those of the units that systemd knows; of others
// it makes an error, and a run that broke off early has not brought all.
func endUnits(ctx context.Context, h host.Host, command []string, units ...string) error {
	for _, unit := range units {
		state, err := h.Query(ctx, "systemctl", "show", "--property", "LoadState", "--value", unit)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(state)) == "not-found" {
			continue
		}
		if err := runAll(ctx, h, append(slices.Clone(command), unit)); err != nil {
			return err
		}
	}
	return nil
}

// keep moves a path aside and says where it went: it may hold keys and data.
func keep(ctx context.Context, h host.Host, path string) error {
	kept, err := h.MoveAside(ctx, path)
	if err == nil && kept != "" {
		phase.Tell(ctx, h.Name()+": "+path+" is kept as "+kept)
	}
	return err
}

// entriesScript lists what a directory holds, one path a line, but not what was
// moved aside in it; of one that is not there, nothing.
const entriesScript = `for entry in "$1"/* "$1"/.[!.]*; do
	case $entry in *.ha-install-*) continue;; esac
	[ ! -e "$entry" ] || printf '%s\n' "$entry"
done
`

// keepEntries moves aside what a directory holds, each within it, and leaves
// the directory, for one that is watched: containerd 2.4 ends with a fatal
// error when its CNI directory is removed or renamed (seen: down for 2 s, and
// for good under a unit of the host's own that does not restart it).
func keepEntries(ctx context.Context, h host.Host, directory string) error {
	out, err := h.Query(ctx, "sh", "-c", entriesScript, "sh", directory)
	if err != nil {
		return err
	}
	for entry := range strings.Lines(string(out)) {
		if err := keep(ctx, h, strings.TrimSuffix(entry, "\n")); err != nil {
			return err
		}
	}
	return nil
}
