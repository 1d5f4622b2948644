package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// remover is what the cordon of a removal is noted as.
const remover = "remove"

// ready proves, before anything is changed, that the cluster can do without the
// host, and shows the numbers of quorum before and after.
func (r *removal) ready() phase.Phase {
	p := phase.Phase{Name: "ready", GateTimeout: restartGate}
	if r.member.ID == 0 {
		p.Gate = []phase.Check{r.kept.quorumWith(etcd.Want{What: "before any change", Learners: etcd.AnyLearners})}
		return p
	}
	p.Gate = []phase.Check{{Name: "the other masters to do without " + r.Host, Run: func(ctx context.Context) error {
		op := r.operation()
		v, err := r.allowed(ctx, op, etcd.PreGateBudget)
		if err != nil {
			return phase.Final(err)
		}
		return phase.Final(spareAfter(v, etcd.Project(v, op), r.Force))
	}}}
	if r.Cluster.Balances(r.going) {
		for _, ih := range r.kept.Cluster.Balancers() { // one of them takes the VIP
			p.Gate = append(p.Gate, r.kept.unitActive(ih, "keepalived"))
		}
	}
	for _, ih := range r.kept.Cluster.ControlPlanes() {
		if len(r.kept.Cluster.Balancers()) > 0 {
			p.Gate = append(p.Gate, r.kept.served(ih))
		}
	}
	return p
}

// operation is the removal of the host's member. One that does not answer is
// removed as a live one too: its host is in our hands, and cannot come back.
func (r *removal) operation() etcd.Operation {
	op := etcd.Operation{Kind: etcd.OpRemoveLive, Host: r.Host, ID: r.member.ID, PeerURL: peerURL(r.going), Force: r.Force}
	if r.member.Role == etcd.Learner {
		op.Kind = etcd.OpRemoveLearner
	}
	return op
}

// spareAfter refuses, unless forced, a removal that leaves a cluster which can
// lose no master any more.
func spareAfter(v etcd.Verdict, d etcd.Decision, force bool) error {
	if d.Before.CanLose <= 0 || d.After.CanLose > 0 || force {
		return nil
	}
	d.Overrulable = true
	return &etcd.QuorumError{What: d.Op.String(), Verdict: v, Decision: &d,
		Reason: fmt.Sprintf("the cluster can lose %d now, and none afterwards", d.Before.CanLose),
		Run:    "join another master first: put it into the inventory and run ha-install apply; or, where this host joins again at once, give --force"}
}

// snapshot takes a backup while the member is still one.
func (r *removal) snapshot() phase.Phase {
	return phase.Phase{
		Name: "backup",
		Done: func(context.Context) (bool, error) { return r.member.ID == 0, nil },
		Do: func(ctx context.Context) error {
			_, err := r.backupTo(ctx, r.Backup)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) { return explainBackup(r.Backup), nil },
	}
}

// drain moves the host's pods elsewhere, as their disruption budgets allow. A
// host whose kubelet is stopped cannot end any; its pods go with its Node.
func (r *removal) drain() phase.Phase {
	return phase.Phase{
		Name: "drain", Host: r.Host,
		Done: func(ctx context.Context) (bool, error) {
			if !r.node {
				return true, nil
			}
			h, err := r.host(r.Host)
			if err != nil {
				return false, err
			}
			up, err := active(ctx, h, "kubelet")
			return !up, err
		},
		Do: func(ctx context.Context) error {
			client, err := r.kept.anyAPI(ctx)
			if err != nil {
				return err
			}
			if err := client.Cordon(ctx, r.Host, remover); err != nil {
				return err
			}
			return client.Drain(ctx, r.Host, kube.DrainOptions{Timeout: r.DrainTimeout, Force: r.DeleteUnmanaged, Say: sayIn(ctx)})
		},
		Undo: func(ctx context.Context) error {
			client, err := r.kept.anyAPI(ctx)
			if err != nil {
				return err
			}
			_, err = client.Uncordon(ctx, r.Host, remover)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "Node " + r.Host, Text: "takes no new pods; its pods are asked to leave, as their disruption budgets allow; what they keep in emptyDir volumes goes with them"}}, nil
		},
	}
}

// retireBalancer ends the balancer of a master that balances: the VIP goes to
// the others, who forget this one after it.
func (r *removal) retireBalancer() phase.Phase {
	return phase.Phase{
		Name: "retire", Host: r.Host,
		Done: func(ctx context.Context) (bool, error) {
			h, err := r.host(r.Host)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, templates.KeepalivedPath)
			return len(seen) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(r.Host)
			if err != nil {
				return err
			}
			return endBalancer(ctx, h)
		},
		Gate: []phase.Check{r.kept.oneHolder()},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeClean, Name: r.Host, Text: "its balancer: keepalived gives the VIP up and is disabled, as HAProxy is; their files are moved aside"}}, nil
		},
	}
}

// goodbyeScript tells the API server that it ends, so that its clients go to
// the others while it can still answer them; the kubelet starts another one,
// which no balancer knows any more. $1 is an argument that tells it from others.
const goodbyeScript = `set -eu
` + endFunctions + `old=$(processes kube-apiserver "$1")
[ -n "$old" ] || exit 0
kill -s TERM $old 2>/dev/null || exit 0
for _ in $(seq 150); do
	left=
	for p in $old; do
		[ -d "/proc/$p" ] && left=$p
	done
	[ -n "$left" ] || exit 0
	sleep 0.2
done
`

const stepGoodbye = "apiserver-goodbye"

// removeMember takes the member off etcd's list, by its ID, while it still
// runs: stopped before, it would be a vote that is missing.
func (r *removal) removeMember() phase.Phase {
	return phase.Phase{
		Name: "remove-member", Host: r.Host,
		Done: func(context.Context) (bool, error) { return r.member.ID == 0, nil },
		Do: func(ctx context.Context) error {
			if err := r.handOn(ctx, r.going); err != nil {
				return err
			}
			h, err := r.host(r.Host)
			if err != nil {
				return err
			}
			if err := kube.RunStep(ctx, h, stepGoodbye, sayIn(ctx), "sh", "-c", goodbyeScript, "sh", "--advertise-address="+r.going.IP().String()); err != nil {
				return err
			}
			if _, err := r.allowed(ctx, r.operation(), etcd.PreGateBudget); err != nil {
				return err
			}
			_, err = r.members.Do(ctx, r.operation(), etcd.Want{Watch: sayMissing(ctx)}, etcd.PreGateBudget)
			return err
		},
		Gate:        []phase.Check{r.kept.quorumWithin("without " + r.Host)},
		GateTimeout: restartGate,
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			d := etcd.Project(r.members.Look(ctx, etcd.Options{ReadOnly: true}), r.operation())
			return []phase.Change{{Kind: changeMembership, Name: r.Host, Text: "member " + r.member.ID.String() + " is removed by its ID, before anything on the host is stopped", Figures: figures(d.Before, d.After)}}, nil
		},
	}
}

// clean takes everything of the cluster off the host. What may hold keys or
// data is moved aside.
func (r *removal) clean() phase.Phase {
	p := r.resetNode(r.going)
	p.Name = "clean"
	p.Done = func(context.Context) (bool, error) { return !r.ours, nil }
	p.Explain = func(context.Context) ([]phase.Change, error) {
		return []phase.Change{{Kind: changeClean, Name: r.Host, Text: "kubelet and containers are stopped; /etc/kubernetes and etcd's data are moved aside, never deleted"}}, nil
	}
	return p
}

// deleteNode takes the Node out of the API, when nothing is left on the host
// that would register it again.
func (r *removal) deleteNode() phase.Phase {
	return deleteNode(r.kept, r.Host, func() bool { return r.node })
}

// deleteNode is the phase that takes a host's Node out of the API, asked
// through the masters of a.
func deleteNode(a *apply, name string, there func() bool) phase.Phase {
	return phase.Phase{
		Name: "delete-node", Host: name,
		Done: func(context.Context) (bool, error) { return !there(), nil },
		Do: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			return client.DeleteNode(ctx, name)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "Node " + name, Text: "is deleted"}}, nil
		},
	}
}

// forgetNames takes the host's names out of what kubeadm remembers of the
// cluster; certificates that are made from now on do not have them.
func (r *removal) forgetNames() phase.Phase {
	return forgetNames(r.kept, r.Cluster)
}

// forgetNames is the phase that takes those names out of kubeadm's ConfigMap
// that the inventory had before, and that of a does not have.
func forgetNames(a *apply, before *inventory.Cluster) phase.Phase {
	wanted := func(ctx context.Context) (*kube.Client, *corev1.ConfigMap, bool, error) {
		client, err := a.anyAPI(ctx)
		if err != nil {
			return nil, nil, false, err
		}
		cm, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, configMap, metav1.GetOptions{})
		if err != nil {
			return nil, nil, false, err
		}
		gone, err := namesGone(before, a.Cluster)
		if err != nil {
			return nil, nil, false, err
		}
		document, changed, err := withoutNames([]byte(cm.Data[configMapKey]), gone)
		if err != nil {
			return nil, nil, false, fmt.Errorf("ConfigMap %s: %w", configMap, err)
		}
		cm.Data[configMapKey] = string(document)
		return client, cm, changed, nil
	}
	return phase.Phase{
		Name: "kubeadm-config",
		Done: func(ctx context.Context) (bool, error) {
			_, _, changed, err := wanted(ctx)
			return !changed, err
		},
		Do: func(ctx context.Context) error {
			client, cm, _, err := wanted(ctx)
			if err != nil {
				return err
			}
			_, err = client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Update(ctx, cm, metav1.UpdateOptions{})
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "ConfigMap kube-system/" + configMap, Text: "apiServer.certSANs: without the names of the host"}}, nil
		},
	}
}

// namesGone are the certificates' names that one inventory gives and the other
// does not.
func namesGone(before, after *inventory.Cluster) ([]string, error) {
	var names [2][]string
	for i, c := range []*inventory.Cluster{before, after} {
		document, err := templates.ClusterConfiguration(c, true)
		if err != nil {
			return nil, err
		}
		var config struct {
			APIServer struct{ CertSANs []string }
		}
		if err := yaml.Unmarshal(document, &config); err != nil {
			return nil, err
		}
		names[i] = config.APIServer.CertSANs
	}
	return slices.DeleteFunc(names[0], func(name string) bool { return slices.Contains(names[1], name) }), nil
}

// withoutNames takes names out of a ClusterConfiguration's certSANs and leaves
// every other field, known to us or not, alone.
func withoutNames(document []byte, gone []string) ([]byte, bool, error) {
	var config map[string]any
	if err := yaml.Unmarshal(document, &config); err != nil {
		return nil, false, err
	}
	server, _ := config["apiServer"].(map[string]any)
	sans, _ := server["certSANs"].([]any)
	left := slices.DeleteFunc(slices.Clone(sans), func(san any) bool {
		name, ok := san.(string)
		return ok && slices.Contains(gone, name)
	})
	if len(left) == len(sans) {
		return document, false, nil
	}
	server["certSANs"] = left
	out, err := yaml.Marshal(config)
	return out, true, err
}

// letGo says on the host that it was taken out: it may join again, here or
// elsewhere, and an apply that still has it in its inventory says what it does.
// It is last, so that a removal that broke off is repeated as a whole.
func (r *removal) letGo() phase.Phase {
	return phase.Phase{
		Name: "release", Host: r.Host,
		Done: func(context.Context) (bool, error) { return !r.ours, nil },
		Do: func(ctx context.Context) error {
			h, err := r.host(r.Host)
			if err != nil {
				return err
			}
			if err := runAll(ctx, h, []string{"rm", "-rf", stateDir + "/kubeadm", stateDir + "/manifests", restoreFile, restoreDir}); err != nil {
				return err
			}
			note, err := json.Marshal(marker{Removed: fmt.Sprintf("from cluster %s, %s by %s", r.Cluster.Metadata.Name, time.Now().UTC().Format(time.RFC3339), r.Operation.Operator)})
			if err != nil {
				return err
			}
			if _, err = h.Upload(ctx, host.File{Path: markerFile, Mode: 0o644, Content: note}); err != nil {
				return err
			}
			phase.Tell(ctx, stillListed(r.Host))
			return nil
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: markerFile, Text: "says that the host was taken out"}}, nil
		},
	}
}

// stillListed is what the operator has to know of the inventory afterwards.
func stillListed(name string) string {
	return name + " is out of the cluster, and still in the inventory: delete its lines there; with them the next ha-install apply joins it again"
}
