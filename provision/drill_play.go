package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

const (
	// leastDown is how long a failure lasts: long enough for whoever is slow to
	// notice it, and to notice it again.
	leastDown = 15 * time.Second
	// mostDown is how long somebody who takes over is waited for.
	mostDown = 60 * time.Second
	// repairBudget bounds a repair, which an interrupt does not reach.
	repairBudget = 90 * time.Second
	// powerBudget is for a host that boots.
	powerBudget = 10 * time.Minute
)

// play makes one failure, watches, and repairs it. Whatever happens, it does
// not return before the repair was made or found impossible.
func (d *drilling) play(ctx context.Context, sc drill.Scenario) error {
	r := drill.Result{Scenario: sc.Name, Fails: sc.Fails, Mitigates: sc.Mitigates}
	facts, err := d.facts(ctx)
	if err != nil {
		return err
	}
	target := sc.Choose(facts)
	if target.LeftOut != "" {
		r.Verdict, r.Reasons = drill.LeftOut, []string{target.LeftOut}
		d.add(ctx, r)
		return nil
	}
	victim, _ := d.Cluster.HostByName(target.Host)
	r.Host, r.Why = target.Host, target.Why
	if target.Votes {
		op := etcd.Operation{Kind: etcd.OpRestart, Host: victim.Name, PeerURL: peerURL(victim)}
		if _, err := d.allowed(ctx, op, etcd.PreGateBudget); err != nil {
			return err
		}
	}
	config, via, err := d.endpointConfig(ctx, victim.Name)
	if err != nil {
		return err
	}
	phase.Say(ctx, fmt.Sprintf("%s: %s; %s; clients reach the endpoint from %s", victim.Name, sc.Fails, target.Why, via))
	load, err := d.startWorkload(ctx, victim)
	if err != nil {
		return fmt.Errorf("before anything was done: %w", err)
	}
	c, err := d.startClients(ctx, config)
	if err != nil {
		return err
	}
	defer c.abandon()
	if err := c.await(ctx); err != nil {
		return fmt.Errorf("before anything was done: %w", err)
	}
	return d.measure(ctx, strike{sc, victim, target, c, load}, r)
}

// strike is one failure, and who watches it.
type strike struct {
	scenario drill.Scenario
	victim   inventory.Host
	target   drill.Target
	clients  clients
	load     *workload // nil when no pods are watched
}

// measure is play from the failure on.
func (d *drilling) measure(ctx context.Context, s strike, r drill.Result) error {
	r.Failed = time.Now().UTC()
	failed := time.Now()
	repair, err := d.strike(ctx, s.scenario, s.victim)
	if err != nil {
		return err
	}
	phase.Say(ctx, s.victim.Name+" has failed; watching what becomes of it")
	r.Takeovers, err = d.watch(ctx, s, failed)
	r.Down = units.Seconds(time.Since(failed))
	repaired := time.Now()
	if err = errors.Join(err, repair(ctx)); err != nil {
		return err
	}
	repairs := time.Now()
	waiting, cancel := context.WithTimeout(ctx, drillGate)
	defer cancel()
	err = phase.Wait(waiting, d.whole())
	r.Recovered = units.Seconds(time.Since(repairs))
	reports, reading := s.clients.reports(ctx)
	for _, report := range reports {
		r.Clients = append(r.Clients, seenBy(report, failed))
	}
	r.Moved = moved(reports, failed, repaired)
	if s.load != nil {
		var ending error
		r.Workload, ending = s.load.end(ctx)
		reading = errors.Join(reading, ending)
	}
	d.add(ctx, r)
	return errors.Join(err, reading)
}

// add judges a result and shows it.
func (d *drilling) add(ctx context.Context, r drill.Result) {
	r = d.options.Thresholds.Judge(r)
	d.report.Scenarios = append(d.report.Scenarios, r)
	text := fmt.Sprintf("%s: %s", r.Scenario, r.Verdict)
	if len(r.Reasons) > 0 {
		text += ": " + strings.Join(r.Reasons, "; ")
	}
	phase.TellData(ctx, text, phase.Data{"drill": r})
}

// lostInjectionError is an injection that had ended before we ended it.
type lostInjectionError struct{ host string }

func (e *lostInjectionError) Error() string {
	return e.host + ": the failure had ended before it was repaired: the connection to the host was lost, or somebody else repaired it; nothing was measured"
}

// strike makes the failure on its host. What it returns repairs it, and outlives
// an interrupt.
func (d *drilling) strike(ctx context.Context, sc drill.Scenario, victim inventory.Host) (repair func(context.Context) error, err error) {
	if sc.HostIsOff() && d.options.PowerOff != nil {
		return d.powerOff(ctx, victim)
	}
	h, err := d.host(victim.Name)
	if err != nil {
		return nil, err
	}
	if _, err := h.Run(ctx, host.Command{Argv: drill.StartCommand(host.LockDir, sc.Arguments(d.place(victim))...)}); err != nil {
		// It may have begun, and its answer was lost.
		return nil, errors.Join(fmt.Errorf("%s did not fail: %w", sc.Name, err), ignoreLost(d.end(ctx, h)))
	}
	return func(ctx context.Context) error { return d.end(ctx, h) }, nil
}

// end ends the injection on a host.
func (d *drilling) end(ctx context.Context, h host.Host) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), repairBudget)
	defer cancel()
	out, err := h.Run(ctx, host.Command{Argv: drill.EndCommand()})
	if err != nil {
		return fmt.Errorf("repairing: %w\n  the host repairs itself within %s", err, drill.MostTime)
	}
	if strings.TrimSpace(string(out)) != drill.Held {
		return &lostInjectionError{h.Name()}
	}
	return nil
}

func ignoreLost(err error) error {
	var lost *lostInjectionError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// powerOff takes the host's power by the operator's own command.
func (d *drilling) powerOff(ctx context.Context, victim inventory.Host) (func(context.Context) error, error) {
	on := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerBudget)
		defer cancel()
		return d.options.PowerOn(ctx, victim.Name)
	}
	if err := d.options.PowerOff(ctx, victim.Name); err != nil {
		return nil, errors.Join(err, on(ctx))
	}
	return on, nil
}

// watch waits until others lead what the victim has led and pods run again, or
// for mostDown. An
// error is ctx's alone.
func (d *drilling) watch(ctx context.Context, s strike, failed time.Time) ([]drill.Takeover, error) {
	watching, enough := context.WithTimeout(ctx, mostDown)
	defer enough()
	seen := make([]drill.Takeover, len(s.target.Leads))
	var all sync.WaitGroup
	if s.load != nil {
		all.Go(func() { s.load.suffer(watching, failed) })
	}
	for i, what := range s.target.Leads {
		seen[i] = drill.Takeover{What: what, From: s.victim.Name}
		all.Go(func() {
			if to := d.successor(watching, what, s.victim); to != "" {
				seen[i].To, seen[i].After = to, units.Seconds(time.Since(failed))
			}
		})
	}
	all.Go(func() {
		select {
		case <-watching.Done():
		case <-time.After(leastDown):
		}
	})
	all.Wait()
	return seen, ctx.Err()
}

const (
	etcdPoll  = 50 * time.Millisecond
	leasePoll = 250 * time.Millisecond
	// askBudget bounds one question; a host that is silent must not hide the
	// others' answers.
	askBudget = time.Second
)

// successor asks the masters that are left until one of them names another
// leader than the victim; "" when ctx ends before.
func (d *drilling) successor(ctx context.Context, what string, victim inventory.Host) string {
	named := make(chan string, len(d.Cluster.ControlPlanes()))
	asking, enough := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer enough()
	for _, ih := range d.Cluster.ControlPlanes() {
		if ih.Name == victim.Name {
			continue
		}
		all.Go(func() {
			for asking.Err() == nil {
				if to := d.leaderBy(asking, what, ih); to != "" && to != victim.Name {
					named <- to
					return
				}
				pause := etcdPoll
				if what != drill.Etcd {
					pause = leasePoll
				}
				select {
				case <-asking.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	select {
	case to := <-named:
		return to
	case <-ctx.Done():
		return ""
	}
}

// leaderBy is who leads, as one master has it; "" when it does not say.
func (d *drilling) leaderBy(ctx context.Context, what string, by inventory.Host) string {
	ctx, cancel := context.WithTimeout(ctx, askBudget)
	defer cancel()
	if what == drill.Etcd {
		st, err := d.members.Ask(ctx, by.Name)
		if err != nil {
			return ""
		}
		return d.names[st.Leader]
	}
	client, err := d.api(ctx, by)
	if err != nil {
		return ""
	}
	holder, err := client.LeaseHolder(ctx, what)
	if err != nil {
		return ""
	}
	holder, _ = d.masterCalled(ctx, holder)
	return holder
}
