package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// RenewOptions say which certificates are renewed.
type RenewOptions struct {
	Within time.Duration // those that expire within it
	All    bool          // every one
}

// renewal is one run of `ha-install certs renew`.
//
// Where certificates have expired, etcd cannot be asked: its gate cannot be what
// the first step waits for. What is done then stands on this: making a
// certificate anew changes files and stops no process, and etcd reads its
// certificate and key anew for each handshake. So the files of all masters come
// first, all at once; they can only give etcd its members back, whatever holds of
// quorum now. Then quorum is looked for. Where there is none after all, no vote can
// be lost, and the members are started anew, one after the other. From there on
// everything is as in a planned restart: one master at a time under the gate,
// those first that serve nobody.
type renewal struct {
	*apply
	RenewOptions
	hosts map[string]hostRenewal // by host, as it was in the beginning
	order []inventory.Host       // masters: those whose API server is not ready first, the leader of etcd last

	mu   sync.Mutex
	made map[string]bool // "certificates" or "kubelet" and the host: what this run has made anew
}

// hostRenewal is what a host needs.
type hostRenewal struct {
	renew   []certs.Certificate // by kubeadm, on a master
	kubelet bool                // its kubelet's client certificate
	expired bool                // one of a master's own has
	serial  string              // of the first that is renewed
	serves  bool                // a master's API server is ready
}

// Renew renews the certificates that expire, and proves that the processes use
// the new ones. It needs every host, but neither the API nor quorum. It goes on
// where an earlier run broke off; where nothing is due, and every process uses
// what lies in its files, it changes nothing.
func Renew(ctx context.Context, s *Site, o RenewOptions, agreed *Plan, run *phase.Runner) error {
	r, err := newRenewal(s, o)
	if err != nil {
		return err
	}
	return s.operate(ctx, "certs renew", run, func(ctx context.Context) error {
		if err := r.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := r.begin(ctx); err != nil {
			return err
		}
		if agreed != nil {
			now, err := planRenew(ctx, s, o, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		return run.Run(ctx, r.stages())
	})
}

// PlanRenew says what Renew would do, as MakePlan does of Apply.
func PlanRenew(ctx context.Context, s *Site, o RenewOptions, tell func(string)) (Plan, error) {
	return planRenew(ctx, s, o, phase.Planner{Tell: tell})
}

func planRenew(ctx context.Context, s *Site, o RenewOptions, planner phase.Planner) (Plan, error) {
	view, done := s.view()
	defer done()
	r, err := newRenewal(view, o)
	if err != nil {
		return Plan{}, err
	}
	if err := r.begin(ctx); err != nil {
		return Plan{}, err
	}
	return r.plan(ctx, planner, r.stages())
}

// newRenewal needs no bundle: nothing is sent but certificates.
func newRenewal(s *Site, o RenewOptions) (*renewal, error) {
	if err := s.RequireAll(); err != nil {
		return nil, err
	}
	if n := len(s.Cluster.ControlPlanes()); n < hardenFrom {
		return nil, &ConflictError{
			What: fmt.Sprintf("a renewal without an outage needs three masters or more, the cluster has %d", n),
			Why:  "while one master is restarted the others have to hold quorum and answer",
			Run:  "add masters to the inventory and run ha-install apply first; or `kubeadm certs renew all` on the master, and restart its static pods",
		}
	}
	return &renewal{apply: &apply{Site: s}, RenewOptions: o, made: map[string]bool{}}, nil
}

// begin reads what is due where, and decides in which order the masters go.
func (r *renewal) begin(ctx context.Context) error {
	if err := r.findFirst(ctx); err != nil {
		return err
	}
	for _, ih := range r.Cluster.ControlPlanes() {
		if !r.facts[ih.Name].marker.Established {
			return &ConflictError{
				What: ih.Name + " belongs to no running cluster yet",
				Why:  "there is nothing to renew on it",
				Run:  "ha-install apply, which makes its certificates",
			}
		}
	}
	var mu sync.Mutex
	r.hosts = map[string]hostRenewal{}
	err := r.onAll(ctx, r.Cluster.Nodes(), func(ctx context.Context, ih inventory.Host, _ host.Host) error {
		all, _, err := r.hostCertificates(ctx, ih, r.Within)
		if err != nil {
			return err
		}
		n := r.needs(all)
		n.serves = ih.Role == inventory.RoleControlPlane && r.apiReady(ih).Run(ctx) == nil
		mu.Lock()
		defer mu.Unlock()
		r.hosts[ih.Name] = n
		return nil
	})
	if err != nil {
		return err
	}
	r.order = r.renewOrder(r.leads(ctx))
	return nil
}

// needs says what is to be done about the certificates of a host.
func (r *renewal) needs(all []certs.Certificate) (n hostRenewal) {
	for _, c := range all {
		due := r.All || c.State != certs.Good
		switch {
		case c.Renewal != "":
			n.expired = n.expired || c.State == certs.Expired
			if due {
				n.renew = append(n.renew, c)
			}
		case c.File == certs.KubeletClient:
			n.kubelet = n.kubelet || due
		}
	}
	if len(n.renew) > 0 {
		n.serial = n.renew[0].Serial
	}
	return n
}

// leads is the master whose etcd leads, as far as it can be seen.
func (r *renewal) leads(ctx context.Context) string {
	for _, m := range r.members.Look(ctx, etcd.Options{ReadOnly: true}).Members {
		if m.Leader {
			return m.Host
		}
	}
	return ""
}

func (r *renewal) renewOrder(leader string) []inventory.Host {
	rank := func(h inventory.Host) int {
		switch {
		case !r.hosts[h.Name].serves:
			return 0
		case h.Name == leader:
			return 2
		}
		return 1
	}
	masters := r.Cluster.ControlPlanes()
	slices.SortStableFunc(masters, func(a, b inventory.Host) int { return rank(a) - rank(b) })
	return masters
}

// those are the hosts, of some, of which f holds.
func (r *renewal) those(hosts []inventory.Host, f func(hostRenewal) bool) []inventory.Host {
	return slices.DeleteFunc(slices.Clone(hosts), func(ih inventory.Host) bool { return !f(r.hosts[ih.Name]) })
}

func (r *renewal) stages() []phase.Stage {
	masters := r.Cluster.ControlPlanes()
	expired := r.those(masters, func(n hostRenewal) bool { return n.expired })
	stages := []phase.Stage{
		phase.One(r.makeSecrets()),
		phase.AtOnce(r.those(masters, func(n hostRenewal) bool { return len(n.renew) > 0 }), r.keepFiles),
		phase.AtOnce(expired, r.certificates),
		phase.AtOnce(r.those(r.Cluster.Nodes(), func(n hostRenewal) bool { return n.kubelet }), r.kubelet),
	}
	if len(expired) > 0 {
		stages = append(stages, phase.One(r.revive()))
	}
	stages = append(stages, phase.One(r.readmitting(r.those(masters, func(n hostRenewal) bool { return n.serves }))))
	for _, ih := range r.order {
		stages = append(stages, phase.Stage{Phases: []phase.Phase{r.master(ih), r.readmit(ih)}})
	}
	return append(stages, phase.One(r.verify()))
}

// fresh is what is still to be done about a host; "" for nothing. A certificate
// that was asked for whatever its dates counts until this run has made it.
func (r *renewal) fresh(ctx context.Context, ih inventory.Host) (names []string, stale string, err error) {
	all, _, err := r.hostCertificates(ctx, ih, r.Within)
	if err != nil {
		return nil, "", err
	}
	for _, c := range all {
		if c.Renewal == "" {
			continue
		}
		if c.State != certs.Good || r.All && !r.isMade("certificates", ih) {
			names = append(names, c.Renewal)
		}
		switch {
		case c.Restart != "":
			stale = c.File + ": " + c.Restart
		case stale == "" && c.Served != nil && !c.Served.Same:
			stale = fmt.Sprintf("%s: nothing shows it on %s: %s", c.File, c.Served.Address, c.Served.Err)
		}
	}
	return names, stale, nil
}

func (r *renewal) isMade(what string, ih inventory.Host) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made[what+" "+ih.Name]
}

func (r *renewal) nowMade(what string, ih inventory.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made[what+" "+ih.Name] = true
}

// reread has what we are connected with be read anew from a host: it was renewed.
func (s *Site) reread(ih inventory.Host) {
	s.members.Forget(ih.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.apis, ih.Name)
}

// explainRenewed names the certificates that are renewed.
func explainRenewed(n hostRenewal) (changes []phase.Change) {
	for _, c := range n.renew {
		text := "renewed; it expires " + c.NotAfter.Format(time.RFC3339)
		if c.State == certs.Expired {
			text = strings.Replace(text, "expires", "has expired", 1)
		}
		changes = append(changes, phase.Change{Kind: changeCertificate, Name: c.File, Text: text, Withheld: withheldSecret})
	}
	return changes
}
