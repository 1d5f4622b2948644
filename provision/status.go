package provision

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/units"
)

// StatusBudget bounds a whole status, dead hosts included: connecting takes at
// most connectBudget of it, the rest is asked of all hosts at once.
const (
	StatusBudget   = 5 * time.Second
	ConnectBudget  = 2 * time.Second
	questionBudget = 2500 * time.Millisecond
)

// Status is where the cluster stands, as seen from every host at once.
type Status struct {
	Cluster   string        `json:"cluster"`
	At        time.Time     `json:"at"`
	Took      units.Seconds `json:"tookSeconds"`
	State     etcd.State    `json:"state"` // of everything: quorum that is PASS with problems beside it is DEGRADED
	Quorum    etcd.Verdict  `json:"quorum"`
	Endpoint  Endpoint      `json:"endpoint"`
	Hosts     []HostStatus  `json:"hosts"`
	Leaders   []LeaderName  `json:"leaders,omitempty"`
	LeaderErr string        `json:"leaderError,omitempty"`
}

// LeaderName says which node leads a component.
type LeaderName struct {
	Component string `json:"component"`
	Node      string `json:"node"`
}

// Endpoint is what answers where clients connect to.
type Endpoint struct {
	Address  string   `json:"address"`
	Backends []string `json:"backends,omitempty"` // masters that answered there
	Via      string   `json:"via,omitempty"`      // the host it was asked from
	Err      string   `json:"error,omitempty"`
}

// HostStatus is one host. Empty strings were not asked; "ok" is good.
type HostStatus struct {
	Name      string            `json:"name"`
	Role      inventory.Role    `json:"role"`
	SSH       string            `json:"ssh"`
	APIServer string            `json:"apiserver,omitempty"`
	Kubelet   string            `json:"kubelet,omitempty"`
	Node      string            `json:"node,omitempty"`    // "Ready", or why not
	Version   string            `json:"version,omitempty"` // of the kubelet
	Pods      map[string]string `json:"pods,omitempty"`    // static pods by component
	Units     map[string]string `json:"units,omitempty"`   // haproxy, keepalived
	HoldsVIP  bool              `json:"holdsVIP,omitempty"`
	Expires   *Expiry           `json:"firstExpiry,omitempty"`
}

// Expiry is the certificate of a host that runs out first.
type Expiry struct {
	File     string    `json:"file"`
	NotAfter time.Time `json:"notAfter"`
}

const ok = "ok"

// certificateWarning is how long before its end a certificate is a problem.
const certificateWarning = 30 * 24 * time.Hour

// TakeStatus looks at everything at once and changes nothing. What does not
// answer is part of the answer: it never fails.
func TakeStatus(ctx context.Context, s *Site) Status {
	began := time.Now()
	st := Status{Cluster: s.Cluster.Metadata.Name, At: began.UTC(), Hosts: make([]HostStatus, len(s.Cluster.Spec.Hosts))}
	var wg sync.WaitGroup
	looking, enough := context.WithTimeout(ctx, StatusBudget-ConnectBudget)
	defer enough()
	wg.Go(func() { st.Quorum = s.members.Judge(looking, etcd.Options{ReadOnly: true}) })
	asked, cancel := context.WithTimeout(ctx, questionBudget)
	defer cancel()
	wg.Go(func() { st.Endpoint = s.askEndpoint(asked) })
	for i, ih := range s.Cluster.Spec.Hosts {
		wg.Go(func() { st.Hosts[i] = s.hostStatus(asked, ih) })
	}
	wg.Go(func() { s.askLeaders(asked, &st) })
	wg.Wait()
	s.addNodes(looking, &st)
	if st.State = st.Quorum.State; st.State == etcd.Pass && len(st.Problems()) > 0 {
		st.State = etcd.Degraded
	}
	st.Took = units.Seconds(time.Since(began).Round(time.Millisecond))
	return st
}

func (s *Site) askLeaders(ctx context.Context, st *Status) {
	client, err := s.anyAPI(ctx)
	if err != nil {
		st.LeaderErr = err.Error()
		return
	}
	leaders, err := client.Leaders(ctx)
	if err != nil {
		st.LeaderErr = err.Error()
	}
	for _, l := range leaders {
		st.Leaders = append(st.Leaders, LeaderName{l.Component, l.Node})
	}
}

// askEndpoint asks from the first host that can be asked from.
func (s *Site) askEndpoint(ctx context.Context) Endpoint {
	e := Endpoint{Address: s.endpoint()}
	for _, ih := range s.connected(s.Cluster.ControlPlanes()) {
		h, err := s.host(ih.Name)
		if err != nil {
			continue
		}
		e.Via = ih.Name
		e.Backends, err = s.backendsSeen(ctx, h, 4*len(s.Cluster.ControlPlanes()))
		if e.Err = ""; err == nil {
			return e
		}
		e.Err = err.Error()
	}
	if e.Via == "" {
		e.Err = "no master to ask from"
	}
	return e
}

func (s *Site) hostStatus(ctx context.Context, ih inventory.Host) HostStatus {
	st := HostStatus{Name: ih.Name, Role: ih.Role, SSH: ok}
	h, err := s.host(ih.Name)
	if err != nil {
		st.SSH = err.Error()
		return st
	}
	if ih.Role == inventory.RoleLoadBalancer {
		s.balancerStatus(ctx, h, &st)
		return st
	}
	var wg sync.WaitGroup
	wg.Go(func() { st.Kubelet = verdictOf(kube.KubeletHealthz(ctx, h)) })
	wg.Go(func() { st.Expires = firstExpiry(ctx, h, ih.Role) })
	if ih.Role == inventory.RoleControlPlane {
		wg.Go(func() {
			client, err := s.api(ctx, ih)
			if err == nil {
				err = client.Readyz(ctx)
			}
			st.APIServer = verdictOf(err)
		})
	}
	wg.Wait()
	return st
}

func verdictOf(err error) string {
	if err != nil {
		return err.Error()
	}
	return ok
}

func (s *Site) balancerStatus(ctx context.Context, h host.Reader, st *HostStatus) {
	st.Units = map[string]string{}
	for _, unit := range []string{"haproxy", "keepalived"} {
		switch up, err := active(ctx, h, unit); {
		case err != nil:
			st.Units[unit] = err.Error()
		case up:
			st.Units[unit] = ok
		default:
			st.Units[unit] = "not active"
		}
	}
	if vip := s.Cluster.Spec.LoadBalancer.VIP; vip != "" {
		_, err := interfaceOf(ctx, h, vip)
		st.HoldsVIP = err == nil
	}
}

// expiryFiles are the certificates that a cluster dies of when they run out.
var expiryFiles = []string{
	"/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/apiserver.crt", "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
	"/etc/kubernetes/pki/apiserver-etcd-client.crt", "/etc/kubernetes/pki/front-proxy-client.crt", "/etc/kubernetes/pki/etcd/ca.crt",
	"/etc/kubernetes/pki/etcd/server.crt", "/etc/kubernetes/pki/etcd/peer.crt", "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
	"/etc/kubernetes/admin.conf", "/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	"/var/lib/kubelet/pki/kubelet-client-current.pem",
}

func firstExpiry(ctx context.Context, h host.Reader, role inventory.Role) *Expiry {
	files := expiryFiles
	if role == inventory.RoleWorker {
		files = expiryFiles[len(expiryFiles)-1:]
	}
	contents := map[string][]byte{}
	for _, name := range files {
		if data, err := h.ReadFile(ctx, name); err == nil {
			contents[name] = data
		}
	}
	// A file that cannot be read shows in the checks that use it.
	certificates, _ := pki.Expiry(contents)
	var first *Expiry
	for _, c := range certificates {
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = &Expiry{File: path.Base(c.File), NotAfter: c.NotAfter}
		}
	}
	return first
}

// addNodes fills in what the API knows of the hosts, when it answers at all.
func (s *Site) addNodes(ctx context.Context, st *Status) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := s.anyAPI(ctx)
	if err != nil {
		return
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	pods, err := client.StaticPods(ctx)
	if err != nil {
		return
	}
	for i := range st.Hosts {
		h := &st.Hosts[i]
		for _, n := range nodes.Items {
			if n.Name == h.Name {
				h.Node, h.Version = kube.NodeState(&n), n.Status.NodeInfo.KubeletVersion
				if s.Cluster.Spec.Network.CNI.Plugin == inventory.CNINone && kube.LacksNetwork(&n) {
					h.Node = "not ready: it lacks a pod network, which is yours to install: spec.network.cni.plugin is none"
				}
				h.Pods = maps.Clone(pods[n.Name])
			}
		}
	}
}

// Problems are all that is not as it should be, one sentence each.
func (st Status) Problems() []string {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, h := range st.Hosts {
		if h.SSH != ok {
			add("%s", h.SSH)
			continue
		}
		if h.APIServer != "" && h.APIServer != ok {
			add("%s: apiserver: %s", h.Name, h.APIServer)
		}
		if h.Kubelet != "" && h.Kubelet != ok {
			add("%s: kubelet: %s", h.Name, h.Kubelet)
		}
		if h.Node != "" && h.Node != "Ready" {
			add("%s: node: %s", h.Name, h.Node)
		}
		for _, component := range sortedKeys(h.Pods) {
			if state := h.Pods[component]; state != "ready" {
				add("%s: %s: %s", h.Name, component, state)
			}
		}
		for _, unit := range sortedKeys(h.Units) {
			if h.Units[unit] != ok {
				add("%s: %s: %s", h.Name, unit, h.Units[unit])
			}
		}
	}
	for _, m := range st.Quorum.Members {
		if m.Ghost {
			add("etcd member %s (%s) is on no host of the inventory", m.ID, m.Name)
		}
	}
	masters := 0
	for _, h := range st.Hosts {
		if h.Role == inventory.RoleControlPlane {
			masters++
		}
		if h.Expires != nil && time.Until(h.Expires.NotAfter) < certificateWarning {
			add("%s: certificate %s runs out at %s", h.Name, h.Expires.File, h.Expires.NotAfter.UTC().Format(time.DateTime))
		}
	}
	if n := len(st.Endpoint.Backends); st.Endpoint.Err == "" && n < masters {
		add("endpoint %s: %d of %d masters answer there: %s", st.Endpoint.Address, n, masters, strings.Join(st.Endpoint.Backends, ", "))
	}
	if st.Endpoint.Err != "" {
		add("endpoint %s: %s", st.Endpoint.Address, st.Endpoint.Err)
	}
	if st.LeaderErr != "" {
		add("leaders: %s", st.LeaderErr)
	}
	return bad
}
