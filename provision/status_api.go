package provision

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
)

// apiAnswer is what the API knows of the cluster.
type apiAnswer struct {
	nodes     []corev1.Node
	pods      map[string]map[string]string
	leaders   []kube.Leader
	leaderErr error
}

// askAPI asks the first ready API server, and the next one when that fails.
func askAPI(ctx context.Context, ready <-chan *kube.Client) apiAnswer {
	last := errors.New("no API server is ready")
	for client := range ready {
		a, err := askOne(ctx, client)
		if err == nil {
			return a
		}
		last = err
	}
	return apiAnswer{leaderErr: last}
}

func askOne(ctx context.Context, client *kube.Client) (apiAnswer, error) {
	var a apiAnswer
	var nodesErr, podsErr error
	var wg sync.WaitGroup
	wg.Go(func() { a.leaders, a.leaderErr = client.Leaders(ctx) })
	wg.Go(func() { a.pods, podsErr = client.StaticPods(ctx) })
	wg.Go(func() {
		var list *corev1.NodeList
		if list, nodesErr = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); nodesErr == nil {
			a.nodes = list.Items
		}
	})
	wg.Wait()
	return a, errors.Join(nodesErr, podsErr)
}

func (a apiAnswer) fill(st *Status, plugin inventory.CNIPlugin) {
	if a.leaderErr != nil {
		st.LeaderErr = verdictOf(a.leaderErr)
	}
	for _, l := range a.leaders {
		st.Leaders = append(st.Leaders, LeaderName{l.Component, l.Node})
	}
	for i := range st.Hosts {
		h := &st.Hosts[i]
		for _, n := range a.nodes {
			if n.Name == h.Name {
				h.Node, h.Version = kube.NodeState(&n), n.Status.NodeInfo.KubeletVersion
				if plugin == inventory.CNINone && kube.LacksNetwork(&n) {
					h.Node = "not ready: it lacks a pod network, which is yours to install: spec.network.cni.plugin is none"
				}
				h.Pods = maps.Clone(a.pods[n.Name])
			}
		}
	}
}

// glances are what the masters say of themselves, as far as they did.
type glances struct {
	mu      sync.Mutex
	masters sync.WaitGroup
	wanted  map[string]bool
	seen    map[string]*glance
}

func newGlances(c *inventory.Cluster) *glances {
	g := &glances{wanted: map[string]bool{}, seen: map[string]*glance{}}
	for _, ih := range c.ControlPlanes() {
		g.wanted[ih.Name] = true
		g.masters.Add(1)
	}
	return g
}

// put files a host's glance, nil when there is none; once for each host.
func (g *glances) put(name string, seen *glance) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wanted[name] {
		g.seen[name] = seen
		g.masters.Done()
	}
}

const (
	oneHandshake   = 1200 * time.Millisecond
	operatorBudget = 1500 * time.Millisecond
)

// askEndpoint asks the endpoint from every control plane host at once, and
// from here.
func (s *Site) askEndpoint(ctx context.Context, g *glances) Endpoint {
	g.masters.Wait()
	e := Endpoint{Address: s.endpoint()}
	asker, err := newAsker(s.Cluster, e.Address, g.seen)
	if err != nil {
		e.Err = err.Error()
		return e
	}
	masters := s.Cluster.ControlPlanes()
	seen := make([]*Vantage, len(masters))
	var wg sync.WaitGroup
	for i, ih := range masters {
		h, err := s.host(ih.Name)
		if err != nil || g.seen[ih.Name] == nil {
			continue
		}
		wg.Go(func() { seen[i] = asker.from(ctx, ih.Name, h) })
	}
	if s.Operator != nil {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, operatorBudget)
			defer cancel()
			e.Operator = asker.from(ctx, "operator", s.Operator)
		})
	}
	wg.Wait()
	e.gather(seen)
	return e
}

// gather makes the whole of what each vantage saw.
func (e *Endpoint) gather(seen []*Vantage) {
	all := map[string]bool{}
	for _, v := range seen {
		if v == nil {
			continue
		}
		e.From = append(e.From, *v)
		for _, name := range v.Backends {
			all[name] = true
		}
		if len(v.Backends) > 0 && e.Via == "" {
			e.Via = v.Host
		}
	}
	if e.Backends = sortedKeys(all); len(e.Backends) > 0 {
		return
	}
	e.Err = "no master to ask from"
	if len(e.From) > 0 {
		e.Via, e.Err = e.From[0].Host, e.From[0].Err
	}
}

// asker knows the masters' serving certificates.
type asker struct {
	address string
	ca      *x509.CertPool
	byPrint map[string]string // masters by the fingerprint of what they serve
	unseen  int               // masters whose certificate is not known
}

func newAsker(c *inventory.Cluster, address string, seen map[string]*glance) (*asker, error) {
	a := &asker{address: address, byPrint: map[string]string{}}
	for _, ih := range c.ControlPlanes() {
		g := seen[ih.Name]
		if g == nil {
			a.unseen++
			continue
		}
		if ca := g.pem[path.Join(kube.PKIDir, "ca.crt")]; a.ca == nil && len(ca) > 0 {
			a.ca = x509.NewCertPool()
			a.ca.AppendCertsFromPEM(ca)
		}
		print, err := g.servedBy()
		if err != nil {
			a.unseen++
			continue
		}
		a.byPrint[print] = ih.Name
	}
	if a.ca == nil {
		return nil, errors.New("no master has the cluster's CA")
	}
	return a, nil
}

// from makes connection after connection until every master has answered.
func (a *asker) from(ctx context.Context, name string, d kube.Dialer) *Vantage {
	v := &Vantage{Host: name}
	answered := map[string]bool{}
	failures, masters := 0, len(a.byPrint)+a.unseen
	for i := range 4 * masters {
		// Several that ask in step would meet the same backend of a round robin
		// again and again.
		if i >= masters && !stagger(ctx) {
			break
		}
		one, cancel := context.WithTimeout(ctx, oneHandshake)
		print, err := serving(one, d, a.address, a.ca)
		cancel()
		if err != nil {
			// One that fails may be a backend that the balancer is about to drop.
			v.Err = endpointError(err)
			if failures++; failures > 1 || ctx.Err() != nil {
				break
			}
			continue
		}
		backend, known := a.byPrint[print]
		if !known && a.unseen == 0 {
			v.Err = fmt.Sprintf("a backend that is no master of the inventory answers there: certificate %s", print)
			break
		}
		if known {
			answered[backend] = true
		}
		if len(answered) == len(a.byPrint) {
			v.Err = ""
			break
		}
	}
	v.Backends = sortedKeys(answered)
	return v
}

// stagger pauses for a random moment; false when ctx ended first.
func stagger(ctx context.Context) bool { return pause(ctx, rand.N(30*time.Millisecond)) }

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func endpointError(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
