package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// DrillOptions say what a drill plays.
type DrillOptions struct {
	Scenarios  []drill.Scenario
	Thresholds drill.Thresholds
	// PowerOff and PowerOn take the power of a host away and give it back, by
	// the operator's own means; both or none. Without them a master that is off
	// is one without services and without a network.
	PowerOff, PowerOn func(ctx context.Context, host string) error
}

// drillGate is how long a cluster may take to be whole after a failure: a
// kubelet that lost all its containers waits between its tries.
const drillGate = 6 * time.Minute

// Drill makes one failure after the other on the running cluster, measures what
// clients see of it, repairs it, and proves the cluster whole before the next.
// What was measured is returned with an error, too. It needs every host.
func Drill(ctx context.Context, s *Site, o DrillOptions, run *phase.Runner) (drill.Report, error) {
	d := &drilling{Site: s, options: o, report: drill.Report{
		Schema: drill.Schema, Cluster: s.Cluster.Metadata.Name, Began: time.Now().UTC(), Thresholds: o.Thresholds,
	}}
	err := s.RequireAll()
	if err == nil {
		err = s.operate(ctx, "drill", run, func(ctx context.Context) error { return d.run(ctx, run) })
	}
	d.report.Ended = time.Now().UTC()
	if err != nil {
		d.report.Error = err.Error()
	}
	d.report.Conclude()
	return d.report, err
}

// drilling is one run of a drill.
type drilling struct {
	*Site
	options DrillOptions
	report  drill.Report
	names   map[etcd.MemberID]string // hosts, by their members
	image   string                   // what pods run that are watched; "" for none
	// namespace holds all that the drill makes in the cluster; "" before it makes any.
	namespace string
}

func (d *drilling) run(ctx context.Context, run *phase.Runner) (err error) {
	if err := d.finishSteps(ctx, run); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.tidy(ctx, run)) }()
	return run.Run(ctx, []phase.Stage{
		phase.One(d.ready()),
		phase.One(d.ground()),
		phase.InTurn(d.options.Scenarios, d.scenario),
	})
}

// ready wants the cluster whole before anything is done to it.
func (d *drilling) ready() phase.Phase {
	return phase.Phase{Name: "ready", Gate: []phase.Check{d.quorum("drill"), d.whole()}}
}

// whole wants a status without problems.
func (d *drilling) whole() phase.Check {
	return phase.Check{Name: "a cluster without problems", Run: func(ctx context.Context) error {
		st := TakeStatus(ctx, d.Site)
		if st.State == etcd.Pass {
			return nil
		}
		problems := st.Problems
		if len(problems) == 0 {
			problems = st.Quorum.Reasons
		}
		return &NotWholeError{State: st.State, Problems: problems}
	}}
}

// NotWholeError means that something else is wrong with the cluster already, or
// still: nothing more is made to fail.
type NotWholeError struct {
	State    etcd.State
	Problems []string // a sentence each
}

func (e *NotWholeError) Error() string {
	return fmt.Sprintf("%s: %s", e.State, strings.Join(e.Problems, "; "))
}

// scenario is one failure from its proof that it can be afforded to the proof
// that it is over.
func (d *drilling) scenario(sc drill.Scenario) phase.Phase {
	return phase.Phase{
		Name:        "drill-" + sc.Name,
		Needs:       []phase.Check{d.quorum("drill " + sc.Name)},
		Do:          func(ctx context.Context) error { return d.play(ctx, sc) },
		Gate:        []phase.Check{d.whole(), d.quorum("after drill " + sc.Name)},
		GateTimeout: drillGate,
	}
}

// facts are who leads what now.
func (d *drilling) facts(ctx context.Context) (drill.Facts, error) {
	f := drill.Facts{Leaders: map[string]string{}}
	for _, ih := range d.Cluster.ControlPlanes() {
		f.Masters = append(f.Masters, ih.Name)
	}
	v, err := d.members.Gate(ctx, etcd.Want{What: "drill", AllHealthy: true}, etcd.PreGateBudget)
	if err != nil {
		return f, err
	}
	f.Leaders[drill.Etcd] = v.LeaderName
	d.names = map[etcd.MemberID]string{}
	for _, m := range v.Members {
		d.names[m.ID] = m.Name
	}
	client, err := d.anyAPI(ctx)
	if err != nil {
		return f, err
	}
	for _, component := range []string{drill.Scheduler, drill.ControllerManager} {
		holder, err := client.LeaseHolder(ctx, component)
		if err != nil {
			return f, err
		}
		f.Leaders[component], _ = d.masterCalled(ctx, holder)
	}
	for _, ih := range d.Cluster.Balancers() {
		h, err := d.host(ih.Name)
		if err != nil {
			return f, err
		}
		f.Balancers = append(f.Balancers, ih.Name)
		if vip := d.Cluster.Spec.LoadBalancer.VIP; vip != "" {
			if _, err := interfaceOf(ctx, h, vip); err == nil {
				f.VIPHolder = ih.Name
			}
		}
	}
	return f, nil
}

// place is what an injection has to know of its host.
func (d *drilling) place(victim inventory.Host) drill.Place {
	p := drill.Place{VIP: d.Cluster.Spec.LoadBalancer.VIP, SSHPort: cmp.Or(d.Cluster.EffectiveSSH(victim).Port, 22)}
	for _, ih := range d.Cluster.Spec.Hosts {
		if ih.Name == victim.Name {
			continue
		}
		p.Others = append(p.Others, ih.IP().String())
		if ih.Role == inventory.RoleControlPlane {
			p.Masters = append(p.Masters, ih.IP().String())
		}
	}
	return p
}
