package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// figures are the arithmetic of quorum before and after a change.
func figures(before, after etcd.Numbers) []phase.Figure {
	return []phase.Figure{
		{Name: "voters", Before: before.Voters, After: after.Voters},
		{Name: "quorum", Before: quorumOf(before), After: quorumOf(after)},
		{Name: "healthy", Before: before.Healthy, After: after.Healthy},
		{Name: "can lose", Before: max(before.CanLose, 0), After: max(after.CanLose, 0)},
	}
}

// quorumOf is 0 while there is no cluster.
func quorumOf(n etcd.Numbers) int {
	if n.Voters == 0 {
		return 0
	}
	return n.Quorum
}

func etcdHost(ih inventory.Host) etcd.Host { return etcd.Host{Name: ih.Name, PeerURL: peerURL(ih)} }

// grow projects one more join on top of those planned so far. seen is what
// etcd shows now; nil where it does not run yet.
func (a *apply) grow(ih inventory.Host, seen *etcd.Verdict) phase.Change {
	a.fmu.Lock()
	defer a.fmu.Unlock()
	if a.forecast.etcd == nil {
		if seen == nil {
			seen = &etcd.Verdict{}
		}
		a.forecast.etcd = seen
	}
	before := *a.forecast.etcd
	after := etcd.Grown(before, etcdHost(ih))
	a.forecast.etcd = &after
	return phase.Change{Kind: changeMembership, Name: ih.Name, New: true, Text: "added as a learner, promoted to voter when it has caught up", Figures: figures(before.Numbers, after.Numbers)}
}

// plannedEtcd is etcd after the joins planned so far; nil before the first.
func (a *apply) plannedEtcd() *etcd.Verdict {
	a.fmu.Lock()
	defer a.fmu.Unlock()
	return a.forecast.etcd
}

func (a *apply) explainInit(ctx context.Context) ([]phase.Change, error) {
	ih := a.first
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	missing, err := notThere(ctx, h, prepared)
	if err != nil {
		return nil, err
	}
	documents, err := templates.InitDocuments(a.Cluster, ih, templates.Init{})
	if err != nil {
		return nil, err
	}
	explained, err := a.explainFiles(ctx, h, []host.File{{Path: kube.InitConfig, Mode: 0o600, Content: documents}})
	if err != nil {
		return nil, err
	}
	explained = append(explained, certificateNames(missing)...)
	text := "etcd, the API server and the other static pods are made on " + ih.Name
	if a.exists {
		text = "an init that broke off is taken up"
	}
	member := a.grow(ih, nil)
	member.Text = "the first voter"
	if a.exists { // it may vote already: what etcd says is not asked before it is whole
		member.Figures = nil
	}
	return append(explained, phase.Change{Kind: changeRun, Name: "kubeadm init", Text: text}, member, phase.Change{Kind: changeStart, Name: "kubelet"}), nil
}

func (a *apply) explainPrepare(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	missing, err := notThere(ctx, h, prepared)
	return certificateNames(missing), err
}

func (a *apply) explainJoin(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	found, err := a.examineJoiner(ctx, ih)
	if err != nil {
		return nil, err
	}
	clean := phase.Change{Kind: changeClean, Name: ih.Name, Text: "what an earlier join left; keys and etcd's data are moved aside"}
	var explained []phase.Change
	switch found.action() {
	case joinRefuse:
		return nil, found.refusal(ih.Name)
	case joinTakeBack:
		if found.member != nil {
			explained = append(explained, phase.Change{Kind: changeMembership, Name: ih.Name, Text: "learner " + found.member.ID.String() + " of an earlier join is removed"})
		}
		explained = append(explained, clean)
	case joinFinish:
		return []phase.Change{{Kind: changeRun, Name: "kubeadm", Text: "it votes already; its Node is marked as control plane"}}, nil
	case joinFresh:
		op := etcd.Operation{Kind: etcd.OpAddLearner, Host: ih.Name, PeerURL: peerURL(ih), HostEmpty: true}
		v := found.verdict
		if planned := a.plannedEtcd(); planned != nil { // a learner that is in the way now has its own join before
			v = *planned
		}
		if d := etcd.Project(v, op); !d.Allowed && d.Definite {
			return nil, &etcd.QuorumError{What: op.String(), Reason: d.Reason, Run: d.Run, Verdict: v, Decision: &d}
		}
	}
	member := a.grow(ih, &found.verdict)
	if found.action() == joinPromote {
		member.New, member.Text = false, "learner "+found.member.ID.String()+" of an earlier join is promoted when it has caught up"
	}
	return append(explained, member, columnStarts(ih)), nil
}

// columnStarts is what a new master runs.
func columnStarts(ih inventory.Host) phase.Change {
	return phase.Change{Kind: changeStart, Name: "kubelet", Text: "with etcd, the API server and the other static pods of " + ih.Name}
}

// foreseeJoin knows what a join does before there is a cluster, on a host
// that has nothing of etcd.
func (a *apply) foreseeJoin(ih inventory.Host) (phase.State, []phase.Change, error) {
	if a.facts[ih.Name].etcd {
		return phase.NotKnown, nil, nil
	}
	return phase.ToChange, []phase.Change{a.grow(ih, nil), columnStarts(ih)}, nil
}

func explainExisting() []phase.Change {
	return []phase.Change{{Kind: changeObject, Name: "ConfigMap kube-system/" + configMap, Text: "etcd.local.extraArgs: initial-cluster-state=" + stateExists}}
}

// hardenChange is the restart of one member under the gate.
func (a *apply) hardenChange(ih inventory.Host, v etcd.Verdict, diff phase.Change) []phase.Change {
	d := etcd.Project(v, etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)})
	changes := []phase.Change{diff}
	if names := a.balancerNames(); a.established && names != "" {
		changes = append(changes, phase.Change{Kind: changeRun, Name: "HAProxy of " + names, Text: "sends nobody new to " + ih.Name + " until it is ready again"})
	}
	goodbye := "together with its etcd"
	if a.established {
		goodbye = "it sends its clients to the others before it ends"
	}
	return append(changes,
		phase.Change{Kind: changeRestart, Name: "kube-apiserver", Text: goodbye},
		phase.Change{Kind: changeRestart, Name: "etcd", Text: "one member; the others hold quorum meanwhile", Figures: figures(d.Before, d.After)})
}

func (a *apply) explainHarden(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	manifest, err := h.ReadFile(ctx, etcdManifest)
	if err != nil {
		return nil, err
	}
	changed, _, err := existingManifest(manifest)
	if err != nil {
		return nil, err
	}
	planned := a.plannedEtcd()
	if planned == nil {
		v := a.members.Look(ctx, etcd.Options{})
		planned = &v
	}
	return a.hardenChange(ih, *planned, a.explainFile(host.File{Path: etcdManifest, Mode: 0o600, Content: changed}, manifest, true)), nil
}

// foreseeHarden: kubeadm init gives the first master's etcd another flag, the
// joins give the right one.
func (a *apply) foreseeHarden(ih inventory.Host) (phase.State, []phase.Change, error) {
	if a.established || ih.Name != a.first.Name {
		return phase.AlreadyDone, nil, nil
	}
	v := etcd.Verdict{}
	if planned := a.plannedEtcd(); planned != nil {
		v = *planned
	}
	v.State = etcd.Pass // it is proven before
	return phase.ToChange, a.hardenChange(ih, v, phase.Change{Kind: changeFile, Name: etcdManifest, Text: stateFlag + stateExists}), nil
}

func (a *apply) explainNetwork(ctx context.Context) ([]phase.Change, error) {
	client, objects, err := a.networkObjects(ctx)
	if err != nil {
		return nil, err
	}
	differ, err := client.Differing(ctx, objects)
	return explainObjects(differ), err
}

func (a *apply) foreseeNetwork() (phase.State, []phase.Change, error) {
	objects, err := a.networkManifests()
	if err != nil || len(objects) == 0 {
		return phase.AlreadyDone, nil, err
	}
	var names []string
	for _, o := range objects {
		names = append(names, kube.ObjectName(o))
	}
	return phase.ToChange, explainObjects(names), nil
}

func explainObjects(names []string) []phase.Change {
	var explained []phase.Change
	for _, name := range names {
		explained = append(explained, phase.Change{Kind: changeObject, Name: name, Text: "applied"})
	}
	return explained
}

func explainLabels(ih inventory.Host) []phase.Change {
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(ih.Labels)) {
		texts = append(texts, "label "+key+"="+ih.Labels[key])
	}
	for _, t := range ih.Taints {
		texts = append(texts, fmt.Sprintf("taint %s=%s:%s", t.Key, t.Value, t.Effect))
	}
	return []phase.Change{{Kind: changeObject, Name: "Node " + ih.Name, Text: strings.Join(texts, ", ")}}
}

func (a *apply) explainJoinWorker(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	seen, err := h.Stat(ctx, kube.KubeletConf, kube.BootstrapKubeletConf)
	if err != nil {
		return nil, err
	}
	var explained []phase.Change
	if len(seen) > 0 {
		explained = append(explained, phase.Change{Kind: changeClean, Name: ih.Name, Text: "what an earlier join left; keys are moved aside"})
	}
	return append(explained, phase.Change{Kind: changeRun, Name: "kubeadm join", Text: "with a token that is deleted afterwards"}, phase.Change{Kind: changeStart, Name: "kubelet"}), nil
}

func explainTokens() []phase.Change {
	return []phase.Change{{Kind: changeObject, Name: "bootstrap tokens", Text: "those of ended joins are deleted"}}
}

func explainDataPath() []phase.Change {
	return []phase.Change{
		{Kind: changeRun, Name: "a pod on every Node", Text: "each reaches all others by pod IP, Service and DNS; they are deleted afterwards"},
		{Kind: changeObject, Name: "ConfigMap kube-system/ha-install", Text: "notes what was proved"},
	}
}
