package preflight

import (
	"path"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// filesShown bounds the list in a finding; the count says how many there are.
const filesShown = 8

// decideForeignFiles refuses hosts with another cluster's files: kubeadm join
// uses a leftover admin.conf and then skips discovery and the CA pin, and etcd
// starts from what is in its directory.
func decideForeignFiles(s subject) []verdict {
	var files []string
	for _, f := range s.facts.Files {
		if !harmless(f) {
			files = append(files, f)
		}
	}
	otherCA := s.facts.CA != "" && s.opt.CAFingerprint != "" && s.facts.CA != s.opt.CAFingerprint
	switch {
	case len(files) == 0 && s.facts.CA == "":
		if s.facts.Journal != "" && s.facts.Journal != s.cluster.Metadata.Name {
			return fail("/var/lib/ha-install/cluster.json says that the host belongs to the cluster "+s.facts.Journal,
				"a bare host, or one of "+s.cluster.Metadata.Name, "take it out of that cluster first (ha-install reset with its inventory)")
		}
		return ok("none")
	case s.ours():
		return ok("%s of this cluster", count(len(files), "file"))
	}
	what := "files of another cluster: "
	switch {
	case s.facts.Journal != "" && s.facts.Journal != s.cluster.Metadata.Name:
		what = "files of the cluster " + s.facts.Journal + ": "
	case otherCA:
		what = "files of a cluster with another CA (" + s.facts.CA[:12] + "): "
	}
	fix := "if the host is a member of that cluster, take it out there first; then, on the host, kubeadm reset and move the files away"
	if s.is(inventory.RoleLoadBalancer) && s.facts.Journal == "" {
		return warn(what+listed(files, filesShown), "a balancer without a control plane", fix)
	}
	return fail(what+listed(files, filesShown), "a bare host, or one of this cluster", fix)
}

// harmless is what packages ship, and what we moved aside ourselves.
func harmless(file string) bool {
	return strings.HasPrefix(path.Base(file), ".") || strings.Contains(file, ".ha-install-")
}

// foreign reports whether the host holds another cluster's files.
func (s subject) foreign() bool {
	v := decideForeignFiles(s)
	return len(v) > 0 && v[0].Severity == Error
}

func decideRuntime(s subject) []verdict {
	var others []string
	for _, socket := range s.facts.Runtimes {
		if strings.Contains(socket, "crio") || strings.Contains(socket, "cri-dockerd") {
			others = append(others, socket)
		}
	}
	if len(others) > 0 {
		return warn("listening: "+strings.Join(others, ", "), "containerd alone",
			"stop and disable it: two runtimes fight over /etc/cni/net.d and the pods' cgroups")
	}
	return ok("no other runtime")
}
