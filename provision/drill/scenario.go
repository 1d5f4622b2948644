// Package drill knows what can fail in a cluster, where it matters most, how it
// is made to fail on a host, and what to think of the outcome. It touches
// nothing itself.
package drill

import (
	"fmt"
	"slices"
	"strings"
)

// Scenario is one failure.
type Scenario struct {
	Name string
	// Fails says what fails, Mitigates what keeps that from being an outage.
	Fails, Mitigates string
	// kind and process are what the injection needs to know.
	kind, process string
	// leads is what the host leads that is hit; "" for the balancer.
	leads string
}

// What leads, by the names of leases where there is one.
const (
	Etcd              = "etcd"
	Scheduler         = "kube-scheduler"
	ControllerManager = "kube-controller-manager"
)

// Kinds of injections.
const (
	kindComponent = "component"
	kindMaster    = "master"
	kindPartition = "partition"
	kindBalancer  = "balancer"
)

var scenarios = []Scenario{
	{Name: "apiserver", kind: kindComponent, process: "kube-apiserver", leads: Etcd,
		Fails:     "the API server beside etcd's leader is killed and stays away",
		Mitigates: "the balancers' health checks and their redispatch send clients to the other API servers"},
	{Name: "etcd", kind: kindComponent, process: "etcd", leads: Etcd,
		Fails:     "etcd's leader is killed and stays away",
		Mitigates: "the other voters are a quorum and elect a leader; the API server without its etcd leaves the balancers"},
	{Name: "scheduler", kind: kindComponent, process: "kube-scheduler", leads: Scheduler,
		Fails:     "the scheduler that leads is killed and stays away",
		Mitigates: "another scheduler takes the lease when it has run out; pods that run are not touched"},
	// The kernel keeps 15 bytes of a process's name.
	{Name: "controller-manager", kind: kindComponent, process: "kube-controller", leads: ControllerManager,
		Fails:     "the controller-manager that leads is killed and stays away",
		Mitigates: "another controller-manager takes the lease when it has run out; pods that run are not touched"},
	{Name: "master", kind: kindMaster, leads: Etcd,
		Fails:     "the whole master that leads etcd is off",
		Mitigates: "quorum of the other voters, health checks of the balancers, leases of scheduler and controller-manager"},
	{Name: "partition", kind: kindPartition, leads: Etcd,
		Fails:     "the master that leads etcd is cut off from the other masters",
		Mitigates: "the majority elects a leader; the API server without quorum is not ready and leaves the balancers"},
	{Name: "balancer", kind: kindBalancer,
		Fails:     "the balancer that holds the virtual IP is off",
		Mitigates: "keepalived on another balancer takes the virtual IP"},
}

// Names are all scenarios, in the order in which they are played.
func Names() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.Name)
	}
	return names
}

// Select returns the named scenarios in the order in which they are played;
// none named are all.
func Select(names []string) ([]Scenario, error) {
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s Scenario) bool {
		return len(names) > 0 && !slices.Contains(names, s.Name)
	}), nil
}

// Facts are what the choice of a victim rests on.
type Facts struct {
	Masters   []string
	Leaders   map[string]string // what leads (Etcd, ...) -> host
	VIPHolder string            // the balancer that has the virtual IP; "" for none
	Balancers []string          // hosts that run HAProxy and keepalived of ours
}

// Target is where a scenario strikes.
type Target struct {
	Host string
	Why  string // the host was chosen
	// LeftOut is why there is nothing to strike at; the rest is empty then.
	LeftOut string
	// Votes says that the host's vote in etcd is lost meanwhile, or may be.
	Votes bool
	// Leads are what the host leads of all that the scenario takes away: others
	// have to take it over.
	Leads []string
}

// leastMasters is how many it takes to lose one and keep quorum.
const leastMasters = 3

// Choose finds the host where the scenario matters most.
func (s Scenario) Choose(f Facts) Target {
	if s.kind == kindBalancer {
		return s.chooseBalancer(f)
	}
	if len(f.Masters) < leastMasters {
		return Target{LeftOut: fmt.Sprintf("%d masters cannot lose one", len(f.Masters))}
	}
	host := f.Leaders[s.leads]
	if !slices.Contains(f.Masters, host) {
		return Target{LeftOut: "no master of the inventory leads " + s.leads}
	}
	t := Target{Host: host, Why: "it leads " + s.leads, Votes: s.takesEtcd()}
	for _, what := range s.takes() {
		if f.Leaders[what] == host {
			t.Leads = append(t.Leads, what)
		}
	}
	return t
}

func (s Scenario) chooseBalancer(f Facts) Target {
	switch {
	case len(f.Balancers) == 0:
		return Target{LeftOut: "no balancer of ours is in the inventory"}
	case len(f.Balancers) == 1:
		return Target{LeftOut: "there is one balancer only, and nobody to take over"}
	case f.VIPHolder == "":
		return Target{LeftOut: "no balancer holds the virtual IP"}
	}
	return Target{Host: f.VIPHolder, Why: "it holds the virtual IP"}
}

// takes is what the victim leads no more, if it did.
func (s Scenario) takes() []string {
	switch {
	case s.kind == kindMaster || s.kind == kindPartition:
		return []string{Etcd, Scheduler, ControllerManager}
	case s.process == "etcd":
		return []string{Etcd}
	case s.process == "kube-scheduler", s.process == "kube-controller":
		return []string{s.leads}
	}
	return nil
}

func (s Scenario) takesEtcd() bool { return slices.Contains(s.takes(), Etcd) }

// HostIsOff says that the scenario can be played by taking the power away.
func (s Scenario) HostIsOff() bool { return s.kind == kindMaster }

// Place is what the injection has to know of a host.
type Place struct {
	VIP     string   // "" without one
	SSHPort int      // that stays open
	Masters []string // addresses of the other masters
	Others  []string // addresses of all other hosts of the cluster
}

// Arguments are what StartCommand is told of the scenario at a place.
func (s Scenario) Arguments(p Place) []string {
	vip := p.VIP
	if vip == "" {
		vip = "-"
	}
	port := fmt.Sprint(p.SSHPort)
	switch s.kind {
	case kindComponent:
		return []string{s.kind, s.process}
	case kindPartition:
		return append([]string{s.kind, port}, p.Masters...)
	case kindMaster:
		return append([]string{s.kind, vip, port}, p.Others...)
	default:
		return []string{s.kind, vip}
	}
}
