package fidelity

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// State is what a run leaves, a line for each file with its mode, for each
// unit, member of etcd and object of the API.
type State []string

// Listing is the script that lists a real host's files for Files, "MODE PATH"
// each.
const Listing = `find /etc/kubernetes* /etc/haproxy* /etc/keepalived* /etc/containerd /etc/crictl.yaml /etc/cni /etc/sysctl.d /etc/modules-load.d \
	/etc/systemd/system /var/lib/ha-install /var/lib/kubelet/config.yaml /var/lib/etcd* -xdev -type f -printf '%04m %p\n' 2>/dev/null
exit 0`

// Units are those that are compared, with ActiveState and UnitFileState.
var Units = []string{"containerd.service", "kubelet.service", "haproxy.service", "keepalived.service"}

// Kinds are the resources whose objects are compared.
var Kinds = []string{"namespaces", "nodes", "configmaps", "daemonsets", "serviceaccounts", "leases"}

// Hosts are the lines of hosts alone, without those of etcd and the API.
func (s State) Hosts() State {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool {
		return strings.HasPrefix(line, "member ") || strings.HasPrefix(line, "object ")
	})
}

// attempt is the number of a step: how often one was tried is no difference.
var attempt = regexp.MustCompile(`-[0-9]+$`)

var movedAside = regexp.MustCompile(`\.ha-install-[0-9TZ]+`)

// file is the name under which a file is compared; "" for one that is not.
// What etcd and the records of steps are made of is their own business, and a
// moved path is told by its old name.
func file(p string) string {
	if i := movedAside.FindStringIndex(p); i != nil {
		return p[:i[0]] + " moved aside"
	}
	for _, whole := range []string{"/var/lib/etcd/member", "/var/lib/ha-install/packages", "/var/lib/ha-install/lock", "/var/lib/ha-install/journal"} {
		if strings.HasPrefix(p, whole+"/") {
			return map[string]string{"/var/lib/etcd/member": whole}[whole]
		}
	}
	if strings.HasPrefix(p, "/var/lib/ha-install/steps/") {
		return attempt.ReplaceAllString(path.Dir(p), "")
	}
	for _, ours := range []string{
		"/etc/kubernetes/", "/etc/haproxy/", "/etc/keepalived/", "/etc/containerd/", "/etc/crictl.yaml", "/etc/cni/net.d/", "/etc/sysctl.d/90-ha-install", "/etc/modules-load.d/ha-install",
		"/etc/systemd/system/", "/var/lib/ha-install/", "/var/lib/kubelet/config.yaml",
	} {
		if strings.HasPrefix(p, ours) {
			return p
		}
	}
	return ""
}

// Files are the lines of a host's files, by path their mode as %04o.
func Files(name string, modes map[string]string) State {
	lines := map[string]bool{}
	for p, mode := range modes {
		switch as := file(p); as {
		case "":
		case p:
			lines[fmt.Sprintf("%s file %s %s", name, p, mode)] = true
		default:
			lines[fmt.Sprintf("%s files %s", name, as)] = true
		}
	}
	return slices.Sorted(maps.Keys(lines))
}

// Simulated is the state of a simulated world.
func Simulated(w *sim.World, c *inventory.Cluster) State {
	var all State
	for _, ih := range c.Spec.Hosts {
		h := w.Host(ih.Name)
		modes := map[string]string{}
		for p, f := range h.Files {
			modes[p] = fmt.Sprintf("%04o", f.Mode.Perm())
		}
		all = append(all, Files(ih.Name, modes)...)
		for _, name := range Units {
			if u := h.Units[name]; u != nil {
				all = append(all, Unit(ih.Name, name, u.Active, u.Enabled))
			}
		}
	}
	for _, m := range w.Votes() {
		all = append(all, "member "+m)
	}
	for _, kind := range Kinds {
		for _, name := range w.API.Names(kind) {
			namespace, object, _ := strings.Cut(name, "/")
			all = append(all, Object(kind, name, w.API.Get(kind, namespace, object)))
		}
	}
	slices.Sort(all)
	return all
}

// Unit is the line of a unit.
func Unit(host, name string, active, enabled bool) string {
	return fmt.Sprintf("%s unit %s active=%t enabled=%t", host, name, active, enabled)
}

// Object is the line of an object, with its roles if it is a node.
func Object(kind, name string, o kubeapi.Object) string {
	line := "object " + kind + " " + name
	meta, _ := o["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	if _, master := labels["node-role.kubernetes.io/control-plane"]; master {
		line += " control-plane"
	}
	return line
}

// Compare says what is in only one of the two. Simulated hosts leave out what
// no decision looks at: those lines of real ones are beyond it.
func (s State) Compare(real State) (missing, more []string) {
	for _, line := range s {
		if !slices.Contains(real, line) {
			missing = append(missing, line)
		}
	}
	for _, line := range real {
		if !slices.Contains(s, line) && !beyond.MatchString(line) {
			more = append(more, line)
		}
	}
	return missing, more
}

var beyond = regexp.MustCompile(strings.Join([]string{
	`/etc/kubernetes/super-admin\.conf `, // kubeadm init's, which the installer does not use
	`/etc/haproxy/errors/`,               // Debian's
	`/etc/keepalived/keepalived\.conf\.sample `,
	`/etc/systemd/system/lab-`, // the lab's own
	`^object `,                 // kubeadm's, flannel's and the controllers' own
}, "|"))
