// Package provision holds the workflows. Each is one function that returns a
// list of phases and reads like a table of contents; what a phase does lies in
// the files beside it.
package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// Site is the inventory and the connections to its hosts.
type Site struct {
	Cluster *inventory.Cluster
	BaseDir string // what relative paths in the inventory are relative to
	// Operation is what other operators and the journal are told of this run.
	Operation Operation
	// Operator dials from the machine that runs the program; nil: a status does
	// not ask the endpoint from here.
	Operator kube.Dialer

	programSum  string // of this program, once it was read; mu guards it
	programSize int64

	hosts   map[string]host.Host
	down    map[string]error // hosts that no connection could be made to
	members *etcd.Members
	lock    *lock // of the operation that runs; nil for one that only looks
	// readOnly: nothing may be changed, not even for a moment.
	readOnly bool

	mu     sync.Mutex
	apis   map[string]*kube.Client // by host name
	called map[string]string       // masters by their own host names, as far as they were asked

	// What ConnectSoon needs; mu guards all maps of its Site.
	dial     Dial
	began    time.Time
	pending  map[string]chan struct{} // hosts that are waited for; closed when that ends
	dialling map[string]bool
	closed   bool
}

func newSite(c *inventory.Cluster, baseDir string) *Site {
	return &Site{
		Cluster: c, BaseDir: baseDir,
		hosts: map[string]host.Host{}, down: map[string]error{}, apis: map[string]*kube.Client{}, called: map[string]string{}, dialling: map[string]bool{},
	}
}

// Dial makes the connection to one host of the inventory.
type Dial func(ctx context.Context, c *inventory.Cluster, h inventory.Host, baseDir string) (host.Host, error)

// SSH is the Dial that the program uses.
func SSH(ctx context.Context, c *inventory.Cluster, h inventory.Host, baseDir string) (host.Host, error) {
	config, err := host.ConfigFor(c, h, baseDir)
	if err != nil {
		return nil, err
	}
	return host.Dial(ctx, config)
}

// Connect connects to all hosts at once. Hosts that do not answer are
// remembered, not an error: what is needed is for the workflow to say (see
// Site.RequireAll). The caller closes the Site.
func Connect(ctx context.Context, c *inventory.Cluster, baseDir string, dial Dial) *Site {
	s := newSite(c, baseDir)
	var wg sync.WaitGroup
	for _, h := range c.Spec.Hosts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			conn, err := dial(ctx, c, h, baseDir)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.down[h.Name] = err
				return
			}
			s.hosts[h.Name] = conn
		}()
	}
	wg.Wait()
	s.members = s.newMembers()
	return s
}

// Close ends all connections.
func (s *Site) Close() error {
	err := s.members.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, h := range s.hosts {
		err = errors.Join(err, h.Close())
	}
	return err
}

// ReadOnly makes every host, etcd and the API refuse to be changed, for
// workflows that only look.
func (s *Site) ReadOnly() {
	for name, h := range s.hosts {
		s.hosts[name] = host.ReadOnly(h)
	}
	s.members.ReadOnly()
	s.readOnly = true
}

// view is a site on the same connections that refuses every change. Closing
// it closes only what is its own.
func (s *Site) view() (view *Site, closeView func()) {
	v := newSite(s.Cluster, s.BaseDir)
	v.Operator = s.Operator
	s.mu.Lock()
	v.hosts, v.down = maps.Clone(s.hosts), maps.Clone(s.down)
	s.mu.Unlock()
	v.members = v.newMembers()
	v.ReadOnly()
	return v, func() { _ = v.members.Close() } // always says "context canceled"
}

// UnreachableError names every host that could not be connected to.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string { return e.Err.Error() }
func (e *UnreachableError) Unwrap() error { return e.Err }

// RequireAll is an *UnreachableError unless every host is connected.
func (s *Site) RequireAll() error {
	var all []error
	for _, h := range s.Cluster.Spec.Hosts {
		all = append(all, s.down[h.Name])
	}
	if err := phase.Join(onceForEachBastion(all)...); err != nil {
		return &UnreachableError{err}
	}
	return nil
}

// onceForEachBastion says what is wrong with a bastion once for all the hosts
// behind it.
func onceForEachBastion(all []error) []error {
	var out []error
	said := map[string]*host.BastionError{}
	for _, err := range all {
		var bastion *host.BastionError
		if !errors.As(err, &bastion) {
			out = append(out, err)
			continue
		}
		text := bastion.Err.Error()
		if first := said[text]; first != nil {
			first.Host += ", " + bastion.Host
			continue
		}
		said[text] = &host.BastionError{Host: bastion.Host, Err: bastion.Err}
		out = append(out, said[text])
	}
	return out
}

// Down are the hosts that could not be connected to, by name.
func (s *Site) Down() map[string]error { return s.down }

// host returns the connection to a host of the inventory.
func (s *Site) host(name string) (host.Host, error) {
	s.mu.Lock()
	waiting := s.pending[name]
	s.mu.Unlock()
	if waiting != nil {
		<-waiting // settle bounds it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.hosts[name]; ok {
		return h, nil
	}
	if err := s.down[name]; err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s: not in the inventory", name)
}

// connected returns the hosts that are connected, in the inventory's order.
func (s *Site) connected(hosts []inventory.Host) []inventory.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	var up []inventory.Host
	for _, h := range hosts {
		if s.hosts[h.Name] != nil {
			up = append(up, h)
		}
	}
	return up
}

// onAll runs f on the given hosts at once and returns every error, in the
// order of the hosts' names.
func (s *Site) onAll(ctx context.Context, hosts []inventory.Host, f func(context.Context, inventory.Host, host.Host) error) error {
	failed := map[string]error{}
	var mu sync.Mutex
	var group errgroup.Group
	for _, ih := range hosts {
		group.Go(func() error {
			h, err := s.host(ih.Name)
			if err == nil {
				err = f(ctx, ih, h)
			}
			if err != nil {
				mu.Lock()
				failed[ih.Name] = err
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait() // errors are gathered above, each with its host
	var all []error
	for _, name := range sortedKeys(failed) {
		all = append(all, onHost(name, failed[name]))
	}
	return phase.Join(all...)
}

// onHost puts the host's name before an error that does not begin with it.
func onHost(name string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), name+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// apiPort is where every API server listens on its own host.
const apiPort = "6443"

// api returns a client for the API server on the given host, with the
// administrator's credentials that lie there.
func (s *Site) api(ctx context.Context, ih inventory.Host) (*kube.Client, error) {
	s.mu.Lock()
	cached := s.apis[ih.Name]
	s.mu.Unlock()
	if cached != nil {
		return cached, nil
	}
	h, err := s.host(ih.Name)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := h.ReadFile(ctx, kube.AdminConf)
	if err != nil {
		return nil, onHost(ih.Name, err)
	}
	client, err := kube.NewClient(h, net.JoinHostPort(ih.IP().String(), apiPort), kubeconfig, s.mayAct)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ih.Name, err)
	}
	s.mu.Lock()
	s.apis[ih.Name] = client
	s.mu.Unlock()
	return client, nil
}

// anyAPI returns a client for the first API server that is ready.
func (s *Site) anyAPI(ctx context.Context) (*kube.Client, error) {
	var seen []error
	for _, ih := range s.connected(s.Cluster.ControlPlanes()) {
		client, err := s.api(ctx, ih)
		if err == nil {
			err = client.Readyz(ctx)
		}
		if err == nil {
			return client, nil
		}
		seen = append(seen, err)
	}
	if len(seen) == 0 {
		return nil, errors.New("no control plane host is reachable")
	}
	return nil, fmt.Errorf("no API server is ready: %w", phase.Join(seen...))
}

// endpoint is the address that clients use for the API, "host:port".
func (s *Site) endpoint() string {
	return net.JoinHostPort(s.Cluster.Spec.Endpoint.Host, strconv.Itoa(s.Cluster.Spec.Endpoint.Port))
}
