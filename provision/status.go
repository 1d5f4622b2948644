package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/units"
)

// A status answers within StatusBudget of the begin of connecting, whatever is
// dead or hangs. What is asked of hosts and API servers ends before that, so
// that their silence is a part of the answer.
const (
	StatusBudget   = 4500 * time.Millisecond
	lookBudget     = 4200 * time.Millisecond // etcd's members
	questionBudget = 3500 * time.Millisecond
)

// StatusSchema is the version of the JSON form of a Status. It is raised when
// a field changes its meaning or goes; new fields do not raise it.
const StatusSchema = 1

// Status is where the cluster stands, as seen from every host at once.
type Status struct {
	Schema     int             `json:"schema"`
	Cluster    string          `json:"cluster"`
	At         time.Time       `json:"at"`
	Took       units.Seconds   `json:"tookSeconds"` // connecting included
	State      etcd.State      `json:"state"`       // of everything: quorum that is PASS with problems beside it is DEGRADED
	Quorum     etcd.Verdict    `json:"quorum"`
	Operations []etcd.Decision `json:"operations"` // what would become of each operation on members now
	Endpoint   Endpoint        `json:"endpoint"`
	Hosts      []HostStatus    `json:"hosts"`
	// Running are the operations that hold hosts now; more than one only while
	// they contend.
	Running   []Running    `json:"running,omitempty"`
	Leaders   []LeaderName `json:"leaders,omitempty"`
	LeaderErr string       `json:"leaderError,omitempty"`
	// Problems make the State DEGRADED at least; Warnings do not. A sentence each.
	Problems []string `json:"problems"`
	Warnings []string `json:"warnings"`
	// Thresholds are those that were crossed, the quorum's own included.
	Thresholds []etcd.Crossing `json:"thresholds"`
	// Backups are those that the masters make by themselves; nil where none has the
	// timer.
	Backups *ScheduledBackups `json:"scheduledBackups,omitempty"`
	// Changes are since the round before, when there was one.
	Changes []Change `json:"changes,omitempty"`

	wanted time.Duration // between scheduled backups, as the inventory has it; 0 for none
}

// Running is an operation under way, as the hosts tell it.
type Running struct {
	host.Holder
	Hosts []string      `json:"hosts"`
	Age   units.Seconds `json:"ageSeconds"` // since the first of them was taken, by its own clock
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
	Via      string   `json:"via,omitempty"`      // the first host from which it was reached
	Err      string   `json:"error,omitempty"`    // why no host reached it
	// From is the endpoint as each control plane host sees it: a balancer that
	// cannot send a backend its own connection shows here.
	From []Vantage `json:"from,omitempty"`
	// Operator is the endpoint as the machine that asks sees it, which need not
	// be able to.
	Operator *Vantage `json:"operator,omitempty"`
}

// Vantage is the endpoint as one machine sees it.
type Vantage struct {
	Host     string   `json:"host"`
	Backends []string `json:"backends,omitempty"`
	Err      string   `json:"error,omitempty"`
}

// HostStatus is one host. Empty strings were not asked; "ok" is good.
type HostStatus struct {
	Name              string            `json:"name"`
	Role              inventory.Role    `json:"role"`
	Balances          bool              `json:"balances,omitempty"` // it is to run haproxy and keepalived
	SSH               string            `json:"ssh"`
	APIServer         string            `json:"apiserver,omitempty"`
	ControllerManager string            `json:"controllerManager,omitempty"`
	Scheduler         string            `json:"scheduler,omitempty"`
	Kubelet           string            `json:"kubelet,omitempty"`
	Node              string            `json:"node,omitempty"`    // "Ready", or why not
	Version           string            `json:"version,omitempty"` // of the kubelet
	Pods              map[string]string `json:"pods,omitempty"`    // static pods by component
	Units             map[string]string `json:"units,omitempty"`   // haproxy, keepalived
	HoldsVIP          bool              `json:"holdsVIP,omitempty"`
	// Backend is what the HAProxy of a balancer makes of the API servers; nil,
	// and BackendErr says why, when it was not heard.
	Backend    *haproxy.View `json:"backend,omitempty"`
	BackendErr string        `json:"backendError,omitempty"`

	BootID string        `json:"bootID,omitempty"`
	Uptime units.Seconds `json:"uptimeSeconds,omitempty"`
	// Clock is nil when the host's was not seen.
	Clock        *Clock   `json:"clock,omitempty"`
	Disks        []Disk   `json:"disks,omitempty"`
	Certificates []Expiry `json:"certificates,omitempty"` // soonest first
	Expires      *Expiry  `json:"firstExpiry,omitempty"`
	// Schedule is what a master knows of scheduled backups; nil where it makes none.
	Schedule *ScheduleStatus `json:"schedule,omitempty"`

	held *host.BusyError
}

// Clock is a host's clock beside ours.
type Clock struct {
	Offset units.Seconds `json:"offsetSeconds"` // positive is ahead
	Within units.Seconds `json:"withinSeconds"` // what the round trip leaves open
}

const ok = "ok"

// TakeStatus looks at everything at once and changes nothing. What does not
// answer is part of the answer: it never fails. A host that is still being
// connected to is waited for, within limits, while the others are asked.
func TakeStatus(ctx context.Context, s *Site) Status {
	began := s.round()
	st := Status{Schema: StatusSchema, Cluster: s.Cluster.Metadata.Name, At: began.UTC(), Hosts: make([]HostStatus, len(s.Cluster.Spec.Hosts)), wanted: s.Cluster.Spec.Backup.Every()}
	looking, enough := context.WithDeadline(ctx, began.Add(lookBudget))
	defer enough()
	asked, cancel := context.WithDeadline(ctx, began.Add(questionBudget))
	defer cancel()
	var wg, apis sync.WaitGroup
	wg.Go(func() {
		st.Quorum = s.members.Judge(looking, etcd.Options{ReadOnly: true, Disk: true, Inputs: true})
	})
	ready := make(chan *kube.Client, len(st.Hosts))
	glances := newGlances(s.Cluster)
	for i, ih := range s.Cluster.Spec.Hosts {
		st.Hosts[i] = HostStatus{Name: ih.Name, Role: ih.Role, Balances: s.Cluster.Balances(ih), SSH: ok}
		wg.Go(func() { s.hostStatus(asked, ih, &st.Hosts[i], glances) })
		if ih.Role == inventory.RoleControlPlane {
			apis.Go(func() { st.Hosts[i].APIServer = s.apiStatus(asked, ih, ready) })
		}
	}
	wg.Go(func() {
		apis.Wait()
		close(ready)
	})
	var known apiAnswer
	wg.Go(func() { known = askAPI(asked, ready) })
	wg.Go(func() { st.Endpoint = s.askEndpoint(asked, glances) })
	wg.Wait()
	for i, l := range known.leaders {
		known.leaders[i].Node, _ = s.masterCalled(asked, l.Node)
	}
	known.fill(&st, s.Cluster.Spec.Network.CNI.Plugin)
	st.Running = runningOn(st.Hosts)
	st.Took = units.Seconds(time.Since(began).Round(time.Millisecond))
	st.Conclude()
	return st
}

// runningOn gathers the holders of hosts, each with all of its hosts.
func runningOn(hosts []HostStatus) []Running {
	var all []Running
	for _, h := range hosts {
		if h.held == nil {
			continue
		}
		i := slices.IndexFunc(all, func(r Running) bool { return r.Operation == h.held.Holder.Operation })
		if i < 0 {
			i, all = len(all), append(all, Running{Holder: h.held.Holder})
		}
		all[i].Hosts = append(all[i].Hosts, h.Name)
		all[i].Age = max(all[i].Age, units.Seconds(h.held.Age))
	}
	return all
}

// round is when a round began: the first one with the connecting.
func (s *Site) round() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := s.began
	s.began = time.Time{}
	if began.IsZero() {
		return time.Now()
	}
	return began
}

// hostStatus asks one host everything that needs no API server.
func (s *Site) hostStatus(ctx context.Context, ih inventory.Host, st *HostStatus, glances *glances) {
	h, err := s.host(ih.Name)
	if err != nil {
		st.SSH = err.Error()
		glances.put(ih.Name, nil)
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		g, err := look(ctx, h, ih.Role)
		if err != nil {
			glances.put(ih.Name, nil)
			if silent(err) {
				st.SSH = "connected, but a command was not answered: " + err.Error()
			}
			return
		}
		glances.put(ih.Name, &g)
		st.BootID, st.Uptime = g.bootID, units.Seconds(g.uptime)
		st.Clock = &Clock{Offset: units.Seconds(g.offset), Within: units.Seconds(g.offsetWithin)}
		st.Disks, st.Certificates = g.disks, g.certificates
		if len(g.certificates) > 0 {
			st.Expires = &g.certificates[0]
		}
	})
	wg.Go(func() { st.held, _ = h.Holder(ctx) }) // who does not answer is told by the others
	if st.Balances {
		wg.Go(func() { s.balancerStatus(ctx, h, st) })
	}
	switch ih.Role {
	case inventory.RoleLoadBalancer:
	case inventory.RoleControlPlane:
		wg.Go(func() { st.ControllerManager = verdictOf(kube.ControllerManagerHealthz(ctx, h)) })
		wg.Go(func() { st.Scheduler = verdictOf(kube.SchedulerHealthz(ctx, h)) })
		wg.Go(func() { st.Schedule, _ = askSchedule(ctx, h) }) // a warning at most; who is silent is told by the others
		fallthrough
	default:
		wg.Go(func() { st.Kubelet = verdictOf(kube.KubeletHealthz(ctx, h)) })
	}
	wg.Wait()
}

// silent says that a host did not answer, as opposed to answering no.
func silent(err error) bool {
	var unreachable *host.UnreachableError
	return errors.As(err, &unreachable) || errors.Is(err, host.ErrConnectionLost) || errors.Is(err, context.DeadlineExceeded)
}

func verdictOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if err != nil {
		return err.Error()
	}
	return ok
}

func (s *Site) balancerStatus(ctx context.Context, h host.Reader, st *HostStatus) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	st.Units = map[string]string{}
	for _, unit := range []string{"haproxy", "keepalived"} {
		wg.Go(func() {
			up, err := active(ctx, h, unit)
			state := verdictOf(err)
			if err == nil && !up {
				state = "not active"
			}
			mu.Lock()
			defer mu.Unlock()
			st.Units[unit] = state
		})
	}
	wg.Go(func() {
		v, err := apiServers.Look(ctx, h)
		if err != nil {
			st.BackendErr = verdictOf(err)
			return
		}
		st.Backend = &v
	})
	if vip := s.Cluster.Spec.LoadBalancer.VIP; vip != "" {
		wg.Go(func() {
			_, err := interfaceOf(ctx, h, vip)
			st.HoldsVIP = err == nil
		})
	}
	wg.Wait()
}

// apiStatus asks a master's own API server, and hands on the client of one
// that is ready.
func (s *Site) apiStatus(ctx context.Context, ih inventory.Host, ready chan<- *kube.Client) string {
	if _, err := s.host(ih.Name); err != nil {
		return "" // said already
	}
	client, err := s.api(ctx, ih)
	if err == nil {
		err = client.Readyz(ctx)
	}
	if err == nil {
		ready <- client
	}
	return verdictOf(err)
}

// sureOffset is by how much a clock is off at least.
func (c Clock) sureOffset() time.Duration {
	return max(time.Duration(c.Offset), -time.Duration(c.Offset)) - time.Duration(c.Within)
}

// String reads "+0.120 s".
func (c Clock) String() string { return fmt.Sprintf("%+.3f s", time.Duration(c.Offset).Seconds()) }
