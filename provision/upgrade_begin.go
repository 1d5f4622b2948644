package provision

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
)

// nodeSeen is what runs on a node before an upgrade, or half way through one.
type nodeSeen struct {
	manifests map[string]string // of a master: the image tag by component
	kubelet   string            // as its Node says
	cordoned  string            // by whom, when by us; see kube.Cordon
	out       error             // of a master: why its control plane does not run
	broken    bool              // an exchange began and did not come to its end
}

// begin reads what runs where, and decides in which order the masters go.
func (u *upgrade) begin(ctx context.Context) error {
	facts, err := u.survey(ctx)
	if err != nil {
		return err
	}
	u.facts = facts
	if u.beginning, err = decideBeginning(u.Cluster, facts); err != nil {
		return err
	}
	if err := upgradable(u.Cluster, facts); err != nil {
		return err
	}
	if u.nodes, err = u.seeNodes(ctx); err != nil {
		return err
	}
	if err := u.mayStep(); err != nil {
		return err
	}
	leader := ""
	if m := u.members.Look(ctx, etcd.Options{ReadOnly: true}); m.State.HasQuorum() {
		for _, member := range m.Members {
			if member.Leader {
				leader = member.Host
			}
		}
	}
	u.order = upgradeOrder(u.Cluster, u.nodes, leader)
	balancers, err := u.holderLast(ctx)
	u.balancers = notNodes(balancers)
	return err
}

// upgradable refuses hosts that are no whole cluster of the inventory: they
// have to be made one first.
func upgradable(c *inventory.Cluster, facts map[string]hostFacts) error {
	if err := fewMasters(c); err != nil {
		return err
	}
	var bare []string
	for _, h := range c.Nodes() {
		if f := facts[h.Name]; h.Role == inventory.RoleControlPlane && !f.marker.Established || !f.node {
			bare = append(bare, h.Name)
		}
	}
	if len(bare) == 0 {
		return nil
	}
	return &ConflictError{
		What: fmt.Sprintf("%s belong to no running cluster yet", strings.Join(bare, ", ")),
		Why:  "an upgrade changes what runs; it makes no cluster and joins no host",
		Run:  "ha-install apply with the version that the cluster has now, then ha-install upgrade",
	}
}

// mayStep refuses what no cluster is taken through: back, past a minor, a
// kubelet too far behind, etcd across a line that its members may not cross yet.
func (u *upgrade) mayStep() error {
	to, err := release.Parse(u.Cluster.Spec.Kubernetes.Version)
	if err != nil {
		return err
	}
	var apis []release.Version
	kubelets, members := map[string]release.Version{}, map[string]string{}
	for _, ih := range u.Cluster.Nodes() {
		seen := u.nodes[ih.Name]
		is, err := release.Parse(seen.kubelet)
		if err != nil {
			return onHost(ih.Name, err)
		}
		// A master whose kubelet is new beside old manifests is one that an upgrade
		// broke off at: its kubelet asks its own API server, which comes next.
		if seen.manifests == nil || is != to {
			kubelets[ih.Name] = is
		}
		for component, tag := range seen.manifests {
			if component == "etcd" {
				members[ih.Name] = tag
				continue
			}
			v, err := release.Parse(tag)
			if err != nil {
				return onHost(ih.Name, err)
			}
			apis = append(apis, v)
		}
	}
	problems := release.Skew(apis, kubelets, to)
	if tag := u.imageTag("etcd"); tag != "" {
		problems = append(problems, release.EtcdCrossing(members, tag)...)
	}
	var all []error
	for _, p := range problems {
		all = append(all, &ConflictError{What: p.What, Why: p.Why, Run: p.Run})
	}
	return phase.Join(all...)
}

// imageTag is the tag of the bundle's image of that name; "" when there is none.
func (u *upgrade) imageTag(of string) string {
	if u.bundle == nil {
		return ""
	}
	for _, item := range u.bundle.For(inventory.RoleControlPlane) {
		for _, image := range item.Images {
			if name, tag, ok := strings.Cut(path.Base(image), ":"); ok && name == of {
				return tag
			}
		}
	}
	return ""
}

// seeNodes asks the masters' disks and the API what runs.
func (u *upgrade) seeNodes(ctx context.Context) (map[string]nodeSeen, error) {
	client, err := u.anyAPI(ctx)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	registered := map[string]corev1.Node{}
	for _, n := range list.Items {
		registered[n.Name] = n
	}
	var mu sync.Mutex
	seen := map[string]nodeSeen{}
	err = u.onAll(ctx, u.Cluster.Nodes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		n, there := registered[ih.Name]
		if !there {
			return fmt.Errorf("it is no Node of the cluster; ha-install apply joins it")
		}
		s := nodeSeen{kubelet: n.Status.NodeInfo.KubeletVersion, cordoned: n.Annotations[kube.CordonedBy], broken: u.facts[ih.Name].exchanging}
		if ih.Role == inventory.RoleControlPlane {
			tags, err := manifestTags(ctx, h)
			if err != nil {
				return err
			}
			s.manifests, s.out = tags, u.columnRuns(ih).Run(ctx)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[ih.Name] = s
		return nil
	})
	return seen, err
}

// manifestTags are the image tags of a master's static pods; a component whose
// manifest is not there, or is none, as a full disk leaves it, is not in it.
func manifestTags(ctx context.Context, h host.Reader) (map[string]string, error) {
	var paths []string
	for _, component := range kube.Components {
		paths = append(paths, kube.ManifestDir+"/"+component+".yaml")
	}
	there, err := h.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for i, component := range kube.Components {
		if _, ok := there[paths[i]]; !ok {
			continue
		}
		manifest, err := h.ReadFile(ctx, paths[i])
		if err != nil {
			return nil, err
		}
		if tag, err := imageVersion(paths[i], manifest); err == nil {
			tags[component] = tag
		}
	}
	return tags, nil
}

// arrived says that a node's manifests and kubelet are of the version. etcd has
// versions of its own, and its manifest is written together with the others.
func (n nodeSeen) arrived(to string) bool {
	for component, tag := range n.manifests {
		if component != "etcd" && tag != to {
			return false
		}
	}
	return !n.broken && n.kubelet == to && (n.manifests == nil || len(n.manifests) == len(kube.Components))
}

// begun says that an earlier run has changed the node, and did not come to its end.
func (n nodeSeen) begun(to string) bool {
	return n.cordoned != "" || n.changed(to)
}

// changed says that an earlier run has begun to exchange what runs there: whatever is
// wrong with the node now may come of it. One that was cordoned, and no more, owes its
// faults to nobody's upgrade.
func (n nodeSeen) changed(to string) bool {
	if n.arrived(to) {
		return n.out != nil
	}
	if n.broken || n.manifests != nil && len(n.manifests) < len(kube.Components) || n.kubelet == to {
		return true
	}
	for component, tag := range n.manifests {
		if component != "etcd" && tag == to {
			return true
		}
	}
	return false
}

// upgradeOrder puts the masters with which an earlier run did not come to an
// end first: nobody else may go while one is out. Then those that follow, and
// last the one that leads etcd, so that leadership moves once.
func upgradeOrder(c *inventory.Cluster, nodes map[string]nodeSeen, leader string) []inventory.Host {
	rank := func(h inventory.Host) int {
		switch {
		case nodes[h.Name].begun(c.Spec.Kubernetes.Version):
			return 0
		case h.Name == leader:
			return 2
		}
		return 1
	}
	masters := c.ControlPlanes()
	slices.SortStableFunc(masters, func(a, b inventory.Host) int { return rank(a) - rank(b) })
	return masters
}
