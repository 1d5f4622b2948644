// Package etcdtest runs real etcd members inside the test process, with TLS,
// on loopback ports, behind a network whose faults a test can switch.
package etcdtest

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/ha-install/ha-install/provision/etcd"
)

// Cluster is a set of members that share a CA and a network.
type Cluster struct {
	Net     *Network
	Members []*Member

	t     testing.TB
	pki   pki
	quota int64
	token string // etcd's own default when empty
}

// Member is one etcd, running or not.
type Member struct {
	Name      string
	PeerURL   string
	ClientURL string
	Metrics   string // base URL
	Dir       string

	c    *Cluster
	etcd *embed.Etcd
	init string // its initial cluster
	new  bool   // initial state
}

// Option changes how a cluster is made.
type Option func(*Cluster)

// WithQuota sets the backend quota in bytes.
func WithQuota(n int64) Option { return func(c *Cluster) { c.quota = n } }

// Start brings up a cluster of n voters cp-1..cp-n and waits until it has a leader.
func Start(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{Net: newNetwork(), t: t, pki: newPKI(t)}
	for _, o := range opts {
		o(c)
	}
	for i := range n {
		c.Add(fmt.Sprintf("cp-%d", i+1))
	}
	c.begin()
	return c
}

// begin starts all members as a new cluster.
func (c *Cluster) begin() {
	c.t.Helper()
	var initial []string
	for _, m := range c.Members {
		initial = append(initial, m.Name+"="+m.PeerURL)
	}
	started := make(chan error, len(c.Members))
	for _, m := range c.Members {
		m.init, m.new = strings.Join(initial, ","), true
		go func() { started <- m.start() }()
	}
	for range c.Members {
		if err := <-started; err != nil {
			c.t.Fatal(err)
		}
	}
}

// Anew stops all members and has them begin again as another cluster, with a token
// of its own and empty directories, as a restore does. It returns where each member's
// data of before are.
func (c *Cluster) Anew(token string) (before map[string]string) {
	c.t.Helper()
	before = map[string]string{}
	for _, m := range c.Members {
		m.Stop()
		before[m.Name], m.Dir = m.Dir, m.Dir+"-"+token
	}
	c.token = token
	c.begin()
	return before
}

// Add makes a host with ports and a directory, but starts nothing on it.
func (c *Cluster) Add(name string) *Member {
	c.t.Helper()
	m := &Member{
		Name: name, Dir: filepath.Join(c.t.TempDir(), name), c: c,
		PeerURL: "https://" + freePort(c.t), ClientURL: "https://" + freePort(c.t), Metrics: "http://" + freePort(c.t),
	}
	c.Members = append(c.Members, m)
	c.t.Cleanup(m.Stop)
	return m
}

// Member returns the member of that name.
func (c *Cluster) Member(name string) *Member {
	c.t.Helper()
	for _, m := range c.Members {
		if m.Name == name {
			return m
		}
	}
	c.t.Fatalf("no member %s", name)
	return nil
}

// Join starts a member that was listed before: initial-cluster-state existing.
func (m *Member) Join(list []etcd.Listed) error {
	var initial []string
	for _, l := range list {
		for _, o := range m.c.Members {
			if l.PeerURLs[0] == o.PeerURL {
				initial = append(initial, o.Name+"="+o.PeerURL)
			}
		}
	}
	m.init, m.new = strings.Join(initial, ","), false
	return m.start()
}

// StartAlone starts a new cluster of one on this host.
func (m *Member) StartAlone() error {
	m.init, m.new = m.Name+"="+m.PeerURL, true
	return m.start()
}

// Restart starts a stopped member again as it was.
func (m *Member) Restart() error { return m.start() }

// Stop ends the member abruptly enough: its ports refuse afterwards.
func (m *Member) Stop() {
	if m.etcd != nil {
		// A member that is killed takes its connections with it. In process it
		// does not, and panics when it is asked for its status half closed.
		m.c.Net.end(m, true)
		<-time.After(50 * time.Millisecond)
		m.etcd.Server.HardStop() // no leadership transfer: as a killed process
		m.etcd.Close()
		m.etcd = nil
	}
}

// ID is the member's ID.
func (m *Member) ID() etcd.MemberID { return etcd.MemberID(m.etcd.Server.MemberID()) }

func (m *Member) start() error {
	m.c.Net.end(m, false)
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.Name, m.Dir
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls(m.PeerURL), urls(m.PeerURL)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls(m.ClientURL), urls(m.ClientURL)
	cfg.InitialCluster, cfg.ClusterState = m.init, embed.ClusterStateFlagExisting
	if m.new {
		cfg.ClusterState = embed.ClusterStateFlagNew
	}
	if m.c.token != "" {
		cfg.InitialClusterToken = m.c.token
	}
	cfg.ListenMetricsUrls = urls(m.Metrics)
	m.c.pki.server(&cfg.ClientTLSInfo)
	m.c.pki.server(&cfg.PeerTLSInfo)
	cfg.QuotaBackendBytes = m.c.quota
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("%s: start etcd: %w", m.Name, err)
	}
	m.etcd = e
	if !m.new || strings.Contains(m.init, ",") {
		return nil // ready only when the others are
	}
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s: etcd is not ready", m.Name)
	}
}

// Targets are the members as the installer sees them.
func (c *Cluster) Targets() []etcd.Target {
	var ts []etcd.Target
	for _, m := range c.Members {
		ts = append(ts, c.Target(m))
	}
	return ts
}

// Target is one member as the installer sees it.
func (c *Cluster) Target(m *Member) etcd.Target {
	return etcd.Target{
		Name: m.Name, PeerURL: m.PeerURL, ClientURL: m.ClientURL, RemoteURL: m.ClientURL, MetricsURL: m.Metrics + "/metrics",
		Dial: c.Net.dialer(m.Name), TLS: c.pki.client,
	}
}

// Connect returns Members for all hosts, closed with the test.
func (c *Cluster) Connect() *etcd.Members {
	m := etcd.NewMembers(c.Targets(), nil)
	c.t.Cleanup(func() { m.Close() })
	return m
}

// Ready waits until a gate for all present voters passes.
func (c *Cluster) Ready(m *etcd.Members) etcd.Verdict {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	v, err := m.Gate(ctx, etcd.Want{AllHealthy: true, Learners: etcd.AnyLearners}, 30*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func urls(s string) []url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return []url.URL{*u}
}
