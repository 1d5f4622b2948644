package inventory

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Minors of Kubernetes 1.x: the oldest that is supported, and the newest that
// this release was tested with.
const (
	oldestMinor = 33
	testedMinor = 36
)

// validator reports what is wrong with a decoded Cluster.
type validator struct {
	*source
	c *Cluster
}

func validate(s *source, c *Cluster) {
	v := &validator{source: s, c: c}
	v.metadata()
	v.kubernetes()
	v.hosts()
	v.counts()
	v.endpoint()
	v.loadBalancer()
	v.ssh("spec.ssh", c.Spec.SSH, true)
	v.network()
	v.inside()
	v.software()
	v.preflight()
	v.copies()
	v.backup()
	v.raw()
}

// err reports an error at path, once; none about what could not be decoded.
func (v *validator) err(path, message, hint string) {
	if v.spoilt(path) {
		return
	}
	v.told[path] = true
	v.issues = append(v.issues, v.issue(path, message, hint))
}

func (v *validator) warn(path, message, hint string) {
	issue := v.issue(path, message, hint)
	issue.Warning = true
	v.issues = append(v.issues, issue)
}

// required reports a missing value, and says whether there is one to look at.
func (v *validator) required(path, value, hint string) bool {
	if value == "" {
		v.err(path, "missing", hint)
	}
	return value != "" && !v.spoilt(path)
}

// oneOf reports a value that is not among those wanted.
func oneOf[T ~string](v *validator, path string, value T, want ...T) {
	if slices.Contains(want, value) {
		return
	}
	names := make([]string, len(want))
	for i, w := range want {
		names[i] = string(w)
	}
	hint := "want one of " + strings.Join(names, ", ")
	if near := nearest(string(value), names); near != "" {
		hint = "did you mean " + near + "?"
	}
	v.err(path, quote(string(value))+" is not known", hint)
}

// line names where a path was written, for a message about another one.
func (v *validator) line(path string) string {
	return fmt.Sprintf("%s (line %d)", path, v.locate(path).line)
}

func (v *validator) metadata() {
	name := v.c.Metadata.Name
	if v.required("metadata.name", name, "name the cluster; commands that destroy ask for it") {
		v.label("metadata.name", name)
	}
}

// label reports what is no DNS label.
func (v *validator) label(path, name string) {
	if len(validation.IsDNS1123Label(name)) > 0 {
		v.err(path, quote(name)+" is not a DNS label",
			"want at most 63 of a-z, 0-9 and \"-\", beginning and ending with a letter or digit")
	}
}

var release = regexp.MustCompile(`^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$`)

func (v *validator) kubernetes() {
	const path = "spec.kubernetes.version"
	version := v.c.Spec.Kubernetes.Version
	if !v.required(path, version, fmt.Sprintf("want a release such as v1.%d.3", testedMinor)) {
		return
	}
	parts := release.FindStringSubmatch(version)
	if parts == nil {
		hint := fmt.Sprintf("want a release with all three numbers, such as v1.%d.3", testedMinor)
		if release.MatchString("v" + version) {
			hint = "write v" + version
		}
		v.err(path, quote(version)+" is not a release of Kubernetes", hint)
		return
	}
	major, _ := strconv.Atoi(parts[1]) // too large becomes MaxInt: not 1 either
	minor, _ := strconv.Atoi(parts[2])
	switch {
	case major != 1:
		v.err(path, version+" is not a release of Kubernetes", "releases begin with v1.")
	case minor < oldestMinor:
		v.err(path, version+" is too old", fmt.Sprintf("want v1.%d.0 or later", oldestMinor))
	case minor > testedMinor:
		v.warn(path, fmt.Sprintf("%s is newer than what this program was tested with (v1.%d)", version, testedMinor),
			"look for a newer ha-install")
	}
}

// counts looks at how many hosts there are of each role.
func (v *validator) counts() {
	for i := range v.c.Spec.Hosts {
		if v.spoilt(fmt.Sprintf("spec.hosts[%d].role", i)) {
			return
		}
	}
	if v.spoilt("spec.hosts") {
		return
	}
	const path = "spec.hosts"
	switch n := len(v.c.ControlPlanes()); {
	case n == 0:
		v.err(path, "no control plane host", "give three hosts the role control-plane")
	case n == 1:
		v.warn(path, "ONE control plane host: for trying out only, nothing survives its loss", "want 3, 5 or 7")
	case n == 2:
		v.warn(path, "TWO control plane hosts: for trying out only, worse than one: the loss of either stops the cluster",
			"want 3, 5 or 7")
	case n > 7:
		v.err(path, fmt.Sprintf("%d control plane hosts: every write waits for %d of them", n, n/2+1),
			"etcd supports at most 7; want 3, 5 or 7")
	case n%2 == 0:
		v.warn(path, fmt.Sprintf("%d control plane hosts: can lose %d, no more than %d could, and each write waits for one more",
			n, n-(n/2+1), n-1), "want 3, 5 or 7")
	}
	v.balancerCount(len(v.c.withRole(RoleLoadBalancer)))
}

func (v *validator) balancerCount(n int) {
	const mode = "spec.loadBalancer.mode"
	switch v.c.Spec.LoadBalancer.Mode {
	case BalancerDedicated:
		if n == 0 {
			v.err(mode, "no host has the role load-balancer",
				"add two with role load-balancer, or set mode: masters to have the control plane hosts balance, or mode: external when the balancer is your own")
		}
		if n == 1 {
			v.warn(mode, "one load-balancer host: the balancer itself is then a single point of failure",
				"want two with role load-balancer")
		}
	case BalancerMasters, BalancerExternal:
		for i, h := range v.c.Spec.Hosts {
			if h.Role != RoleLoadBalancer {
				continue
			}
			at, what := fmt.Sprintf("spec.hosts[%d].role", i), "a load-balancer host, but "+v.line(mode)+" is "+string(v.c.Spec.LoadBalancer.Mode)
			if v.c.Spec.LoadBalancer.Mode == BalancerExternal {
				v.err(at, what, "remove the host, or set mode: dedicated")
			} else {
				v.warn(at, what+": it does not balance any more, and what did is taken off it", "remove the host after the next apply")
			}
		}
	}
}

// usable says why ip cannot be the address of a machine for others; "" when it can.
func usable(ip netip.Addr) string {
	switch {
	case ip.Zone() != "":
		return "has a zone"
	case ip.Is4In6():
		return "is an IPv4 address in IPv6 form"
	case ip.IsUnspecified():
		return "is the unspecified address"
	case ip.IsLoopback():
		return "is a loopback address"
	case ip.IsMulticast():
		return "is a multicast address"
	case ip.IsLinkLocalUnicast():
		return "is a link-local address"
	}
	return ""
}
