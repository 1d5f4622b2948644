package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
	"github.com/ha-install/ha-install/templates"
)

// ready proves, before anything is changed, that the cluster is one that can be
// upgraded: whole, or with no other master out than one that an earlier run of
// the upgrade has begun to exchange.
func (u *upgrade) ready() phase.Phase {
	gate := []phase.Check{u.fixedSettings(), u.configAgrees(), u.componentsAgree(), u.nothingRemoved(), u.nobodyLost(), u.budgetsAllow()}
	if u.nodes[u.order[0].Name].changed(u.Cluster.Spec.Kubernetes.Version) {
		gate = append(gate, u.othersCarry(u.order[0]))
	} else {
		gate = append(gate, u.quorumWith(etcd.Want{What: "before any change", Voters: len(u.order), AllHealthy: true, Hash: true}), u.othersCarry(u.order[0]), u.columnRuns(u.order[0]), u.leaders())
	}
	return phase.Phase{Name: "ready", Gate: gate, GateTimeout: restartGate}
}

// nothingRemoved refuses a version that does not serve what clients still ask
// for. Each API server counts for itself, since it started.
func (u *upgrade) nothingRemoved() phase.Check {
	return phase.Check{Name: "clients to ask for no API that goes away", Run: func(ctx context.Context) error {
		to, err := release.Parse(u.Cluster.Spec.Kubernetes.Version)
		if err != nil {
			return phase.Final(err)
		}
		gone, later := map[string]bool{}, map[string]bool{}
		for _, ih := range u.Cluster.ControlPlanes() {
			if u.nodes[ih.Name].out != nil {
				continue
			}
			client, err := u.api(ctx, ih)
			if err != nil {
				return err
			}
			used, err := client.DeprecatedUse(ctx)
			if err != nil {
				return err
			}
			for _, d := range used {
				if d.Gone(to.Major, to.Minor) {
					gone[d.String()] = true
				} else {
					later[d.String()] = true
				}
			}
		}
		if len(later) > 0 {
			phase.Tell(ctx, "deprecated, and still there in "+to.String()+": clients ask for "+strings.Join(sortedKeys(later), ", "))
		}
		if len(gone) == 0 || u.AcceptRemoved {
			return nil
		}
		return phase.Final(&ConflictError{
			What: fmt.Sprintf("%s does not serve what clients have asked for since the API servers started: %s", to, strings.Join(sortedKeys(gone), ", ")),
			Why:  "they would fail as soon as the first master is upgraded; the audit log says who they are (annotation k8s.io/deprecated)",
			Run:  "bring them up to date; or ha-install upgrade --accept-removed-apis when they do not matter",
		})
	}}
}

// drained are the Nodes that will be.
func (u *upgrade) drained() []string {
	var names []string
	for _, ih := range u.Cluster.Nodes() {
		if u.minor(ih) {
			names = append(names, ih.Name)
		}
	}
	return names
}

// nobodyLost refuses, before anything is changed, where a Node that has to be
// drained runs pods that nobody would bring back.
func (u *upgrade) nobodyLost() phase.Check {
	return phase.Check{Name: "pods of Nodes that are drained to come back elsewhere", Run: func(ctx context.Context) error {
		drained := u.drained()
		if u.DeleteUnmanaged || len(drained) == 0 {
			return nil
		}
		client, err := u.anyAPI(ctx)
		if err != nil {
			return err
		}
		var refused []error
		for _, node := range drained {
			pods, err := client.Lost(ctx, node)
			if err != nil {
				return err
			}
			if len(pods) > 0 {
				refused = append(refused, &kube.DrainError{Node: node, Pods: pods})
			}
		}
		return phase.Final(phase.Join(refused...))
	}}
}

// budgetPatience is for budgets that allow nothing just now: a pod may be on its
// way up.
const budgetPatience = 30 * time.Second

// budgetsAllow refuses, before anything is changed, where a disruption budget
// would hold a Node up that has to be drained.
func (u *upgrade) budgetsAllow() phase.Check {
	return phase.Check{Name: "disruption budgets to let Nodes be drained", Run: func(ctx context.Context) error {
		drained := u.drained()
		if len(drained) == 0 {
			return nil
		}
		client, err := u.anyAPI(ctx)
		if err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, budgetPatience)
		defer cancel()
		var closed []kube.Budget
		err = phase.Wait(waiting, phase.Check{Name: "disruption budgets", Run: func(ctx context.Context) error {
			closed, err = client.Budgets(ctx, drained)
			switch {
			case err != nil:
				return err
			case slices.ContainsFunc(closed, func(b kube.Budget) bool { return b.Never }):
				return phase.Final(errBudget)
			case len(closed) > 0:
				return errBudget
			}
			return nil
		}})
		if len(closed) > 0 {
			return phase.Final(heldBy(closed))
		}
		return err
	}}
}

var errBudget = errors.New("a disruption budget allows no eviction")

// heldBy names the budgets, and the pods that they would keep on their Nodes.
func heldBy(closed []kube.Budget) error {
	var why []string
	for _, b := range closed {
		line := fmt.Sprintf("%s/%s: %d of %d pods healthy, %d have to be", b.Namespace, b.Name, b.Healthy, b.Expected, b.Desired)
		if b.Never {
			line += "; as it is written it never allows an eviction"
		}
		why = append(why, line+": "+strings.Join(b.Pods, ", "))
	}
	return &ConflictError{
		What: "PodDisruptionBudgets would keep Nodes from being drained",
		Why:  strings.Join(why, "\n     "),
		Run:  "give what they guard more replicas, or let them allow one pod less, then run the same command again",
	}
}

// fixedSettings refuses what no running cluster can change.
func (u *upgrade) fixedSettings() phase.Check {
	return phase.Check{Name: "the cluster's settings", Run: func(ctx context.Context) error {
		running, _, err := u.configs(ctx)
		if err != nil {
			return err
		}
		wanted, err := templates.ClusterConfiguration(u.Cluster, true)
		if err != nil {
			return phase.Final(err)
		}
		return phase.Final(sameSettings([]byte(running.document), wanted))
	}}
}

// configAgrees refuses to overwrite an operator's edit of kubeadm-config
// unasked. What the inventory has more is only told.
func (u *upgrade) configAgrees() phase.Check {
	return phase.Check{Name: "kubeadm-config to agree with the inventory", Run: func(ctx context.Context) error {
		running, wanted, err := u.configs(ctx)
		if err != nil {
			return err
		}
		d := diff(running.comparable, wanted)
		switch {
		case d == "":
		case takesAway(d) && !u.AcceptConfig:
			return phase.Final(&ConflictError{
				What: "kubeadm-config in the cluster holds what the inventory does not",
				Why:  "the upgrade would take it away:\n" + d,
				Run:  "put what is to stay into spec.kubeadm.clusterConfiguration; or ha-install upgrade --accept-config, and the inventory wins",
			})
		default:
			phase.Tell(ctx, "kubeadm-config will be what the inventory says:\n"+d)
		}
		return nil
	}}
}

// componentsAgree refuses to take back unasked what an operator has changed in the
// ConfigMaps that hold the settings of kubelets and of kube-proxy. They are
// looked at when they are about to be written.
func (u *upgrade) componentsAgree() phase.Check {
	maps := []struct {
		name, key, group string
		written          func(context.Context) (bool, error)
	}{
		{"kubelet-config", "kubelet", templates.KubeletGroup, u.config().Done},
		{"kube-proxy", "config.conf", templates.KubeProxyGroup, u.addon(kube.KubeProxy).Done},
	}
	return phase.Check{Name: "settings of kubelets and kube-proxy to agree with the inventory", Run: func(ctx context.Context) error {
		client, err := u.anyAPI(ctx)
		if err != nil {
			return err
		}
		var edits []string
		for _, m := range maps {
			if written, err := m.written(ctx); written || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			cm, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, m.name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			of, err := templates.Edits(u.Cluster, m.group, []byte(cm.Data[m.key]))
			if err != nil {
				return phase.Final(err)
			}
			for _, edit := range of {
				edits = append(edits, m.name+": "+edit)
			}
		}
		switch {
		case len(edits) == 0:
			return nil
		case u.AcceptConfig:
			phase.Tell(ctx, "settings in the cluster's ConfigMaps will be what the inventory says:\n"+strings.Join(edits, "\n"))
			return nil
		}
		return phase.Final(&ConflictError{
			What: "ConfigMaps in the cluster hold what the inventory does not",
			Why:  "the upgrade would take it back:\n     " + strings.Join(edits, "\n     "),
			Run:  "put what is to stay into spec.kubeadm.kubeletConfiguration or kubeProxyConfiguration; or ha-install upgrade --accept-config, and the inventory wins",
		})
	}}
}

// takesAway says whether a unified diff has lines that are only in the old.
func takesAway(diff string) bool {
	return slices.ContainsFunc(strings.Split(diff, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "---")
	})
}
