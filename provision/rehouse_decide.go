package provision

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/release"
	"github.com/ha-install/ha-install/templates"
)

// onto says whether a restore makes the cluster anew on bare hosts, and not on
// the masters that it has: by what all masters of the inventory are seen to be,
// or by the note of an earlier run that has begun with it.
func onto(c *inventory.Cluster, seen map[string]masterSeen) (bool, error) {
	if err := givenUp(c, seen); err != nil {
		return false, err
	}
	var bare, masters []string
	for _, ih := range c.ControlPlanes() {
		m := seen[ih.Name]
		switch {
		case m.rehouses():
			return true, nil
		case m.unused(c.Metadata.Name):
			bare = append(bare, ih.Name)
		default:
			masters = append(masters, ih.Name)
		}
	}
	if len(bare) == 0 || len(masters) == 0 {
		return len(masters) == 0, nil
	}
	return false, &ConflictError{
		What: fmt.Sprintf("%s is no master of cluster %s, %s is", strings.Join(bare, ", "), c.Metadata.Name, strings.Join(masters, ", ")),
		Why:  "a restore takes the masters of the cluster back, all of them, or makes the cluster anew where all masters are bare: of both at once nobody could say which data count",
		Run: "with " + strings.Join(masters, ", ") + ": ha-install recover, which does without the others, and ha-install apply, by which bare masters join; " +
			"on bare hosts alone: an inventory without " + strings.Join(masters, ", ") + ", which have to be off and stay off",
	}
}

// rehouses says that a restore onto bare hosts has begun on a master, and is not done.
func (m masterSeen) rehouses() bool { return m.note != nil && m.note.Onto && !m.note.Done }

// outlives says that a master is of a cluster beside which the restore that has
// begun on other was given up: it is part of one that was made otherwise, or bears
// the note of a later try.
func (m masterSeen) outlives(other masterSeen) bool {
	switch {
	case m.note != nil && m.note.Token == other.note.Token:
		return false
	case m.rehouses():
		return m.note.Began.After(other.note.Began)
	}
	return m.marker.Established || m.note != nil && m.note.Done
}

// givenUp refuses masters that bear the note of a restore onto bare hosts which
// was given up for another cluster, beside masters of that one: whoever went on
// with it would write over the notes of a cluster that may be whole and in use. Of
// seen only markers and notes are looked at.
func givenUp(c *inventory.Cluster, seen map[string]masterSeen) error {
	var left, by []string
	var first *restoreNote
	for _, ih := range c.ControlPlanes() {
		for _, other := range c.ControlPlanes() {
			if seen[ih.Name].rehouses() && seen[other.Name].outlives(seen[ih.Name]) {
				left, by = append(left, ih.Name), append(by, other.Name)
				first = cmp.Or(first, seen[ih.Name].note)
			}
		}
	}
	if len(left) == 0 {
		return nil
	}
	left, by = slices.Compact(left), slices.Compact(slices.Sorted(slices.Values(by)))
	on := strings.Join(left, ", ")
	return &ConflictError{
		What: "a restore was begun on " + on + " and given up: what is there is no part of the cluster of " + strings.Join(by, ", "),
		Why:  fmt.Sprintf("%s began it at %s with %s; %s there says so. Nothing goes on with it, or it would undo that cluster", first.By, first.Began.UTC().Format(time.DateTime+"Z"), first.From, restoreFile),
		Run: "take " + on + " out of the inventory, then the same command again. To have it as a master later: install it anew, or run ha-install reset with an inventory that has " + on +
			" and no other host, and loadBalancer.mode masters (data and keys are moved aside there); then put it back, and ha-install apply",
	}
}

// unused says that a host holds nothing of any cluster; that it was claimed for
// this one by name is nothing yet.
func (m masterSeen) unused(cluster string) bool {
	return (m.marker.Cluster == "" || m.marker.Cluster == cluster) && m.marker.CASHA256 == "" && m.bare()
}

// backedUp is what a backup says of its cluster beside its data.
type backedUp struct {
	settings []byte            // kubeadm's ClusterConfiguration
	nodes    map[string]string // their UIDs, by name
	kubelets []string          // the addresses of all Nodes
}

const (
	registryNodes  = "/registry/minions/"
	registryConfig = "/registry/configmaps/kube-system/" + configMap
)

// readBackedUp reads it from the snapshot, which no etcd has to run for.
func readBackedUp(file string) (backedUp, error) {
	b := backedUp{nodes: map[string]string{}}
	values, err := backup.Records(file, func(key string) bool { return key == registryConfig || strings.HasPrefix(key, registryNodes) })
	if err != nil {
		return b, err
	}
	for key, value := range values {
		stored, _, err := scheme.Codecs.UniversalDeserializer().Decode(value, nil, nil)
		if err != nil {
			return b, fmt.Errorf("the backup's %s cannot be read: %w", key, err)
		}
		switch o := stored.(type) {
		case *corev1.Node:
			b.nodes[o.Name] = string(o.UID)
			for _, a := range o.Status.Addresses {
				if a.Type == corev1.NodeInternalIP {
					b.kubelets = append(b.kubelets, a.Address)
				}
			}
		case *corev1.ConfigMap:
			b.settings = []byte(o.Data[configMapKey])
		}
	}
	slices.Sort(b.kubelets)
	return b, nil
}

// networks are the settings that what is in a backup depends on wherever it is
// restored to; its endpoint may be another one.
var networks = fixed[1:]

// rehousable refuses what could not be brought to its end on bare hosts, before
// any of them is changed: all that is wrong in one error, a *ConflictError each.
// given is the CA set of the inventory, nil for none.
func rehousable(c *inventory.Cluster, m backup.Manifest, then backedUp, own, given *pki.CASet) error {
	wanted, err := templates.ClusterConfiguration(c, true)
	if err != nil {
		return err
	}
	var all []error
	refuse := func(what, why, run string) { all = append(all, &ConflictError{What: what, Why: why, Run: run}) }
	if given != nil && given.Fingerprint() != own.Fingerprint() {
		refuse("the CA set in "+c.Spec.PKI.Directory+" is not the one of the backup", fmt.Sprintf("the backup has %.12s, spec.pki.directory has %.12s: what is in the backup trusts its own", own.Fingerprint(), given.Fingerprint()),
			"take spec.pki.directory out of the inventory")
	}
	if len(then.settings) == 0 {
		refuse("the backup has no ConfigMap kube-system/"+configMap, "it is of no cluster that kubeadm has made, or of one that was not finished", "take another backup; ha-install backup list")
	} else if differ, err := differentSettings(then.settings, wanted, networks); err != nil {
		all = append(all, err)
	} else if len(differ) > 0 {
		refuse("the inventory has other networks than the cluster of the backup", strings.Join(differ, "\n     ")+"\n     every Service and Node in the backup has addresses of its own", "set these fields to what the cluster had")
	}
	is, err1 := release.Parse(c.Spec.Kubernetes.Version)
	was, err2 := release.Parse(m.KubernetesVersion)
	if m.KubernetesVersion != "" && (err1 != nil || err2 != nil || is.Major != was.Major || is.Minor < was.Minor || is.Minor > was.Minor+1) {
		refuse(fmt.Sprintf("the backup is of Kubernetes %s, the inventory wants %s", m.KubernetesVersion, c.Spec.Kubernetes.Version), "an API server reads what its own minor and the one before have stored",
			"set spec.kubernetes.version and the bundle to "+m.KubernetesVersion+"; an upgrade comes after")
	}
	return phase.Join(all...)
}

// bundledEtcdutl is the version of the bundle's etcdutl; "" when nobody says.
func bundledEtcdutl(b *bundle.Bundle) string {
	if b == nil {
		return ""
	}
	for _, item := range b.For(inventory.RoleControlPlane) {
		if item.Kind == bundle.KindBinary && path.Base(item.Dest) == "etcdutl" {
			return item.Version
		}
	}
	return ""
}

// formerly are the addresses of the backup's members that no host of the
// inventory has.
func formerly(c *inventory.Cluster, m backup.Manifest) []string {
	var all []string
	for _, member := range m.Members {
		if u, err := url.Parse(member.PeerURL); err == nil {
			all = append(all, u.Hostname())
		}
	}
	return elsewhereThan(c, all)
}

// elsewhereThan are those of the addresses that no host of the inventory has.
func elsewhereThan(c *inventory.Cluster, addresses []string) []string {
	now := map[string]bool{}
	for _, ih := range c.Spec.Hosts {
		now[ih.Address], now[ih.IP().String()] = true, true
	}
	return slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return now[a] })
}
