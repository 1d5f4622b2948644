package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

const verifyGate = 5 * time.Minute

// verify proves the finished cluster: votes, data, columns, leaders, backends,
// nodes. It changes nothing.
func (a *apply) verify() phase.Phase {
	gate := []phase.Check{a.allVotes()}
	for _, ih := range a.Cluster.ControlPlanes() {
		gate = append(gate, a.columnReady(ih))
	}
	gate = append(gate, a.leaders(), a.allBackends())
	for _, ih := range a.Cluster.Nodes() {
		gate = append(gate, a.nodeReady(ih))
	}
	return phase.Phase{Name: "verify", Gate: gate, GateTimeout: verifyGate}
}

// allVotes wants as many voters as the inventory has masters, no learner, one
// cluster ID and equal hashes of the data.
func (a *apply) allVotes() phase.Check {
	return a.quorumWith(etcd.Want{What: "verify", Voters: len(a.Cluster.ControlPlanes()), AllHealthy: true, Hash: true})
}

// leaders wants a leader of each component, among the masters.
func (a *apply) leaders() phase.Check { return a.led(kube.LeaseStale) }

// led is leaders, of which each has said so within that time, or says so while
// we look, whatever the clock of this machine says: one that has died holds its
// lease on.
func (a *apply) led(within time.Duration) phase.Check {
	renewed := map[string]time.Time{} // when they were first looked at
	return phase.Check{Name: "controller-manager and scheduler to have leaders", Run: func(ctx context.Context) error {
		client, err := a.anyAPI(ctx)
		if err != nil {
			return err
		}
		leaders, err := client.Elected(ctx)
		if err != nil {
			return err
		}
		for _, l := range leaders {
			if _, ok := a.masterCalled(ctx, l.Node); !ok {
				return fmt.Errorf("%s is led by %s, which is no master of the inventory, nor the host name of one", l.Component, l.Node)
			}
			first, looked := renewed[l.Component]
			if !looked {
				renewed[l.Component] = l.Renewed
			}
			if age := l.Age.Duration(); age > within && (!looked || l.Renewed.Equal(first)) {
				return fmt.Errorf("%s: last leader %s has not renewed for %s, by the clock of this machine", l.Component, l.Node, age.Round(time.Second))
			}
		}
		clear(renewed) // the next one to ask looks anew
		return nil
	}}
}

// allBackends wants every master to see every master at the endpoint.
func (a *apply) allBackends() phase.Check {
	return phase.Check{Name: "all masters at the endpoint", Run: func(ctx context.Context) error {
		return a.onAll(ctx, a.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, _ host.Host) error {
			return a.backends(ctx, ih)
		})
	}}
}

// dataPath runs a pod on every node and has each reach every other by pod IP,
// Service and DNS name. It is done once for a set of nodes and a network: what
// it proved is noted in the cluster, so that a second apply changes nothing.
func (a *apply) dataPath() phase.Phase {
	return phase.Phase{
		Name: "data-path",
		Done: func(ctx context.Context) (bool, error) {
			if a.probeImage() == "" {
				phase.Tell(ctx, "the data path between pods was not checked: no image with purpose \"probe\" is in the bundle")
				return true, nil
			}
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			if waits, err := a.awaitsNetwork(ctx, client); waits || err != nil {
				return waits, err
			}
			key, err := a.dataPathKey(ctx, client)
			if err != nil {
				return false, err
			}
			noted, err := client.Noted(ctx, kube.NoteDataPath)
			return noted == key, err
		},
		Do: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			key, err := a.dataPathKey(ctx, client)
			if err != nil {
				return err
			}
			if err := client.ProbeDataPath(ctx, a.probeImage(), a.Cluster.Spec.Network.DNSDomain, sayIn(ctx), tellIn(ctx)); err != nil {
				return err
			}
			return client.Note(ctx, kube.NoteDataPath, key)
		},
		// Every new Node has to be proved.
		After:   []string{"init", "join"},
		Explain: func(context.Context) ([]phase.Change, error) { return explainDataPath(), nil },
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			switch {
			case a.probeImage() == "":
				return phase.AlreadyDone, nil, nil
			case a.Cluster.Spec.Network.CNI.Plugin == inventory.CNINone: // whether the user's network will be there
				return phase.NotKnown, explainDataPath(), nil
			}
			return phase.ToChange, explainDataPath(), nil
		},
	}
}

// awaitsNetwork says that there is no data path yet because the pod network is
// the user's to set up, and tells what is left to do.
func (a *apply) awaitsNetwork(ctx context.Context, client *kube.Client) (bool, error) {
	if a.Cluster.Spec.Network.CNI.Plugin != inventory.CNINone {
		return false, nil
	}
	nodes, err := client.NodesWithoutNetwork(ctx)
	if len(nodes) == 0 || err != nil {
		return false, err
	}
	phase.Tell(ctx, fmt.Sprintf(`not ready for want of a pod network: %s
left to do, as spec.network.cni.plugin is none:
  1. install a pod network for %s: ha-install kubeconfig writes the kubeconfig for kubectl
  2. run the same apply again: it proves that pods on all nodes reach each other`, strings.Join(nodes, ", "), a.Cluster.Spec.Network.PodCIDR))
	return true, nil
}

func (a *apply) probeImage() string {
	if a.bundle == nil {
		return ""
	}
	image, _ := a.bundle.Probe()
	return image
}

// dataPathKey changes whenever the data path has to be proved anew.
func (a *apply) dataPathKey(ctx context.Context, client *kube.Client) (string, error) {
	nodes, err := client.NodeUIDs(ctx)
	if err != nil {
		return "", err
	}
	manifests, err := a.networkManifests()
	if err != nil {
		return "", err
	}
	network := a.Cluster.Spec.Network
	// A map prints in the order of its keys.
	text := fmt.Sprint(strings.Join(nodes, ","), network.PodCIDR, network.ServiceCIDR, network.CNI.Plugin)
	for _, m := range manifests {
		text += fmt.Sprint(m.Object)
	}
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:]), nil
}
