package provision

import (
	"fmt"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
	"github.com/ha-install/ha-install/provision/units"
)

// restorable refuses what could not be brought to its end, before anything
// stops: all that is wrong in one error, a *ConflictError for each.
func restorable(c *inventory.Cluster, source restoreSource, seen map[string]masterSeen, token string) error {
	var all []error
	refuse := func(what, why, run string) { all = append(all, &ConflictError{What: what, Why: why, Run: run}) }
	for _, ih := range c.ControlPlanes() {
		m := seen[ih.Name]
		switch {
		case m.marker.Cluster != c.Metadata.Name || m.marker.CASHA256 == "":
			refuse(fmt.Sprintf("%s is no master of cluster %s", ih.Name, c.Metadata.Name), "it bears no marker of the cluster: a restore makes etcd anew, it installs no master",
				"ha-install status, which shows where the cluster is; a bare master joins by ha-install apply once the others are restored (ha-install recover does without it)")
			continue
		case source.m.CASHA256 != "" && m.marker.CASHA256 != source.m.CASHA256:
			refuse(fmt.Sprintf("the backup is not of the cluster that %s belongs to", ih.Name), fmt.Sprintf("its CA set is %.12s, the host's is %.12s", source.m.CASHA256, m.marker.CASHA256),
				"ha-install backup list, and take one of this cluster")
		case m.lacks != "":
			refuse(fmt.Sprintf("%s is not whole: it has no %s", ih.Name, m.lacks), "etcd and the API server could not be started there after they were stopped elsewhere",
				"bring the file back from another master or from the backup's keys, or take the host out with ha-install recover")
		}
		for component, tag := range m.tags {
			if component != "etcd" && tag != c.Spec.Kubernetes.Version {
				refuse(fmt.Sprintf("%s runs %s %s, the inventory wants %s", ih.Name, component, tag, c.Spec.Kubernetes.Version), "a restore writes manifests of the inventory's version",
					"set spec.kubernetes.version to what runs; an upgrade comes after, or before")
				break
			}
		}
		all = append(all, fits(ih.Name, source, m)...)
		all = append(all, room(ih.Name, source, m, token)...)
	}
	return phase.Join(all...)
}

// fits compares the versions of what is in the backup with what reads it.
func fits(name string, source restoreSource, m masterSeen) []error {
	var all []error
	refuse := func(what, why, run string) { all = append(all, &ConflictError{What: what, Why: why, Run: run}) }
	tool, err := release.ParseEtcd(m.etcdutl)
	if err != nil {
		refuse(name+" has no etcdutl", "it makes the new member's data of the snapshot; the bundle brings it, hosts with software of their own may lack it",
			"install etcd's etcdutl, of the release that the cluster runs, in the host's PATH")
		return all
	}
	if tag := m.tags["etcd"]; tag != "" {
		// A mirror may have tags of its own: those say nothing.
		if runs, err := release.ParseEtcd(tag); err == nil && (runs.Major != tool.Major || runs.Minor != tool.Minor) {
			refuse(fmt.Sprintf("%s has etcdutl %s and runs etcd %s", name, m.etcdutl, tag), "what one minor of etcd writes another one need not read",
				"install the etcdutl of the etcd that runs")
		}
	}
	then, err := release.ParseEtcd(source.m.EtcdVersion)
	if err != nil || then.Major != tool.Major || tool.Minor < then.Minor || tool.Minor > then.Minor+1 {
		refuse(fmt.Sprintf("the backup is of etcd %s, %s has %s", source.m.EtcdVersion, name, m.etcdutl), "etcd reads data of its own minor and of the one before",
			"take a backup that is nearer, or install the release that the backup is of")
	}
	if tag := m.tags["kube-apiserver"]; tag != "" && source.m.KubernetesVersion != "" {
		is, err1 := release.Parse(tag)
		was, err2 := release.Parse(source.m.KubernetesVersion)
		if err1 != nil || err2 != nil || is.Major != was.Major || is.Minor < was.Minor || is.Minor > was.Minor+1 {
			refuse(fmt.Sprintf("the backup is of Kubernetes %s, %s runs %s", source.m.KubernetesVersion, name, tag), "an API server reads what its own minor and the one before have stored",
				"take a backup that is nearer, or install the release that the backup is of")
		}
	}
	return all
}

// Beside the snapshot and its unpacked copy: etcd writes its log 64 MB at a time.
const restoreSlack = 192 << 20

// room wants the disk to hold what is not there yet.
func room(name string, source restoreSource, m masterSeen, token string) []error {
	if m.token == token || m.unpacked == token {
		return nil
	}
	if need := 2*source.size + restoreSlack; m.etcdFree < need || m.stateFree < source.size+restoreSlack {
		return []error{&ConflictError{
			What: name + " has no room for the snapshot",
			Why:  fmt.Sprintf("%s are free where etcd's data lie and %s under %s, %s are needed: the data of now are kept", units.Bytes(m.etcdFree), units.Bytes(m.stateFree), stateDir, units.Bytes(need)),
			Run:  "make room on " + name + "; what earlier restores kept is in " + etcdMember + ".ha-install-*",
		}}
	}
	return nil
}
