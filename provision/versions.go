package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/provision/versions"
)

// versionsBudget is for hosts that are connected; programs take their time to
// start on a busy one.
const versionsBudget = 10 * time.Second

// VersionsSchema is the version of the JSON form of Versions. It is raised when
// a field changes its meaning or goes; new fields do not raise it.
const VersionsSchema = 1

// VersionState says what the versions of a cluster ask for.
type VersionState string

const (
	VersionsNone    VersionState = "none"    // there is no control plane on the hosts
	VersionsCurrent VersionState = "current" // all is as it is offered
	VersionsDue     VersionState = "due"     // what is offered may follow what is there
	VersionsMixed   VersionState = "mixed"   // an upgrade to what is offered broke off
	VersionsRefused VersionState = "refused" // what is offered may not follow what is there
	VersionsUnknown VersionState = "unknown" // not all that matters was seen
)

// Versions is what is on every host beside what is offered to them.
type Versions struct {
	Schema   int               `json:"schema"`
	Cluster  string            `json:"cluster"`
	Took     units.Seconds     `json:"tookSeconds"` // connecting included
	State    VersionState      `json:"state"`
	Summary  string            `json:"summary"`            // a sentence
	Next     string            `json:"next,omitempty"`     // the verb that goes on from here: "upgrade", "apply"
	Problems []release.Problem `json:"problems,omitempty"` // why it is refused
	Offer    VersionOffer      `json:"offer"`
	Hosts    []HostVersions    `json:"hosts"`

	down []error
}

// VersionOffer is what the hosts would be brought to.
type VersionOffer struct {
	Kubernetes string `json:"kubernetes"` // of the inventory, and of its bundle
	Bundle     bool   `json:"bundle"`     // a bundle brings it; else only the version of Kubernetes is known
	versions.Set
	Err string `json:"error,omitempty"` // why the bundle cannot be read
}

// HostVersions is what one host has.
type HostVersions struct {
	Name     string         `json:"name"`
	Role     inventory.Role `json:"role"`
	Balances bool           `json:"balances,omitempty"` // it is to run haproxy and keepalived
	SSH      string         `json:"ssh"`                // "ok", or why nothing is known
	versions.Set
	Node string `json:"node,omitempty"` // the kubelet that runs, as its Node says
}

// Err is an *UnreachableError unless every host was asked.
func (v Versions) Err() error {
	if err := phase.Join(v.down...); err != nil {
		return &UnreachableError{err}
	}
	return nil
}

// TakeVersions asks all hosts at once and changes nothing. What does not
// answer is part of the answer: it never fails.
func TakeVersions(ctx context.Context, s *Site) Versions {
	began := s.round()
	v := Versions{Schema: VersionsSchema, Cluster: s.Cluster.Metadata.Name, Offer: s.versionOffer(), Hosts: make([]HostVersions, len(s.Cluster.Spec.Hosts))}
	asked, cancel := context.WithDeadline(ctx, began.Add(versionsBudget))
	defer cancel()
	down := make([]error, len(v.Hosts))
	ready := make(chan *kube.Client, len(v.Hosts))
	var wg, apis sync.WaitGroup
	for i, ih := range s.Cluster.Spec.Hosts {
		h := &v.Hosts[i]
		*h = HostVersions{Name: ih.Name, Role: ih.Role, Balances: s.Cluster.Balances(ih), SSH: ok}
		wg.Go(func() {
			if down[i] = s.hostVersions(asked, ih, h); down[i] != nil {
				h.SSH = verdictOf(down[i])
			}
		})
		if ih.Role == inventory.RoleControlPlane {
			apis.Go(func() { s.apiStatus(asked, ih, ready) })
		}
	}
	wg.Go(func() {
		apis.Wait()
		close(ready)
	})
	nodes := nodeVersions(asked, ready)
	wg.Wait()
	for i := range v.Hosts {
		v.Hosts[i].Node = nodes[v.Hosts[i].Name]
	}
	v.down = onceForEachBastion(down)
	v.Conclude()
	v.Took = units.Seconds(time.Since(began).Round(time.Millisecond))
	return v
}

// versionOffer is what the inventory, or its bundle, would bring.
func (s *Site) versionOffer() VersionOffer {
	o := VersionOffer{Kubernetes: s.Cluster.Spec.Kubernetes.Version}
	b, err := OpenBundle(s)
	switch {
	case err != nil:
		o.Err = err.Error()
	case b != nil:
		o.Bundle, o.Set = true, versions.Offered(b.Manifest())
		b.Close()
	}
	return o
}

func (s *Site) hostVersions(ctx context.Context, ih inventory.Host, into *HostVersions) error {
	h, err := s.host(ih.Name)
	if err != nil {
		return err
	}
	var programs []string
	if ih.Role != inventory.RoleLoadBalancer {
		programs = append(programs, versions.OfNodes...)
	}
	if into.Balances {
		programs = append(programs, versions.OfBalancers...)
	}
	into.Set, err = versions.Ask(ctx, h, programs)
	return onHost(ih.Name, err)
}

// nodeVersions are the kubelets that run, by Node, as the first API server
// says that answers; empty when none does.
func nodeVersions(ctx context.Context, ready <-chan *kube.Client) map[string]string {
	for client := range ready {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		kubelets := map[string]string{}
		for _, n := range list.Items {
			kubelets[n.Name] = n.Status.NodeInfo.KubeletVersion
		}
		return kubelets
	}
	return nil
}

// Conclude says what the versions ask for, by the rules of package release. A
// control plane's pods and the kubelet, both the program and the one that runs,
// are what has to be of one version.
func (v *Versions) Conclude() {
	c := newCensus(v.Hosts)
	v.State, v.Summary, v.Next, v.Problems = VersionsUnknown, "", "", nil
	to, err := release.Parse(v.Offer.Kubernetes)
	if err != nil {
		c.unread = append(c.unread, "the inventory's version: "+err.Error())
	}
	brings := "the inventory wants " + v.Offer.Kubernetes
	if v.Offer.Bundle {
		brings = "the bundle brings " + v.Offer.Kubernetes
	}
	has := slices.SortedFunc(maps.Keys(c.on), release.Version.Compare)
	switch {
	case len(c.unread) > 0:
		v.Summary = strings.Join(c.unread, "; ")
	case len(c.apiServers) == 0 && len(c.unseen) > 0:
		v.Summary = "no control plane was seen; " + brings
	case len(c.apiServers) == 0:
		v.State, v.Next, v.Summary = VersionsNone, "apply", "there is no control plane on the hosts; "+brings
	case len(has) == 1 && has[0] == to && len(c.unseen) > 0:
		v.Summary = c.where(has) + "; " + brings
	case len(has) == 1 && has[0] == to:
		v.State, v.Summary = VersionsCurrent, fmt.Sprintf("%s, and %s: nothing to upgrade", c.where(has), brings)
	default:
		v.Summary = c.where(has) + "; " + brings
		v.Problems = release.Skew(c.apiServers, c.kubelets, to)
		switch {
		case len(v.Problems) > 0:
			v.State = VersionsRefused
			v.Summary += ", which is refused: " + v.Problems[0].What + ": " + v.Problems[0].Why
		case !slices.Contains(has, to):
			v.State, v.Next = VersionsDue, "upgrade"
		default:
			v.State, v.Next = VersionsMixed, "upgrade"
			v.Summary = fmt.Sprintf("%s: an upgrade to %s broke off", c.where(has), to)
		}
	}
	if len(c.unseen) > 0 {
		v.Summary += "; not seen: " + strings.Join(c.unseen, ", ")
	}
}

// census is who has which version of Kubernetes.
type census struct {
	on         map[release.Version][]string // hosts by version, in their order; one may have several
	apiServers []release.Version
	kubelets   map[string]release.Version // that run, or else would
	unread     []string                   // what does not say its version, a sentence each
	unseen     []string                   // nodes that were not asked
}

func newCensus(hosts []HostVersions) census {
	c := census{on: map[release.Version][]string{}, kubelets: map[string]release.Version{}}
	for _, h := range hosts {
		if h.Role == inventory.RoleLoadBalancer {
			continue
		}
		if h.SSH != ok {
			c.unseen = append(c.unseen, h.Name)
		}
		for _, name := range versions.Components {
			if name == "etcd" { // has versions of its own
				continue
			}
			if at, there := c.count(h.Name, name, h.Pods[name]); there && name == "kube-apiserver" {
				c.apiServers = append(c.apiServers, at)
			}
		}
		for _, text := range []string{h.Programs["kubelet"], h.Node} { // the one that runs counts
			if at, there := c.count(h.Name, "kubelet", text); there {
				c.kubelets[h.Name] = at
			}
		}
	}
	return c
}

// count enters a version of a host; there is none when the text is empty.
func (c *census) count(host, what, text string) (release.Version, bool) {
	if text == "" {
		return release.Version{}, false
	}
	at, err := release.Parse(text)
	if err != nil {
		c.unread = append(c.unread, fmt.Sprintf("%s: %s: %s", host, what, err))
		return at, false
	}
	if !slices.Contains(c.on[at], host) {
		c.on[at] = append(c.on[at], host)
	}
	return at, true
}

// where reads "v1.35.4 on cp-2, cp-3; v1.36.3 on cp-1".
func (c census) where(has []release.Version) string {
	parts := make([]string, 0, len(has))
	for _, at := range has {
		parts = append(parts, fmt.Sprintf("%s on %s", at, strings.Join(c.on[at], ", ")))
	}
	return strings.Join(parts, "; ")
}
