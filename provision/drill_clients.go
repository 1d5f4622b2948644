package provision

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/provision/units"
)

// drillNamespace is what a drill's namespace is for, and how its name begins.
const drillNamespace = "ha-install-drill"

// leftBehind is how long what a drill has made may take to go before that is told.
const leftBehind = 30 * time.Second

// namespaceBudget is for a namespace controller that has just got a new leader.
const namespaceBudget = 2 * time.Minute

// ground makes the drill's namespace, empty.
func (d *drilling) ground() phase.Phase {
	return phase.Phase{Name: "namespace", Do: func(ctx context.Context) error {
		d.image = d.probeImage(ctx)
		ctx, cancel := context.WithTimeout(ctx, namespaceBudget)
		defer cancel()
		client, err := d.anyAPI(ctx)
		if err != nil {
			return err
		}
		d.namespace, err = client.PassingNamespace(ctx, drillNamespace)
		return err
	}}
}

// tidy takes away what a drill has made in the cluster, on a context that
// outlives an interrupt.
func (d *drilling) tidy(ctx context.Context, run *phase.Runner) error {
	if d.namespace == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), namespaceBudget)
	defer cancel()
	own := phase.Runner{Events: run.Events} // that nobody has told to stop
	return own.Run(ctx, []phase.Stage{phase.One(phase.Phase{Name: "tidy", Do: func(ctx context.Context) error {
		client, err := d.anyAPI(ctx)
		if err != nil {
			return fmt.Errorf("removing what the drill has made: %w\n  run: kubectl delete namespace %s", err, d.namespace)
		}
		return client.LeaveNamespace(ctx, d.namespace, leftBehind, tellIn(ctx))
	}})})
}

// endpointConfig is the endpoint with the administrator's credentials, and the
// way there: from the operator's machine where it reaches the endpoint, else
// through a host that is not the victim. via names the way.
func (d *drilling) endpointConfig(ctx context.Context, victim string) (config *rest.Config, via string, err error) {
	kubeconfig, err := Kubeconfig(ctx, d.Site)
	if err != nil {
		return nil, "", err
	}
	if config, err = clientcmd.NewDefaultClientConfig(*kubeconfig, nil).ClientConfig(); err != nil {
		return nil, "", err
	}
	ca, err := d.clusterCA(ctx)
	if err != nil {
		return nil, "", err
	}
	var seen []error
	for _, way := range d.ways(victim) {
		if _, err := serving(ctx, way.dialer, d.endpoint(), ca); err != nil {
			seen = append(seen, fmt.Errorf("from %s: %w", way.name, err))
			continue
		}
		config.Dial = way.dialer.DialContext
		return config, way.name, nil
	}
	return nil, "", fmt.Errorf("the endpoint %s cannot be reached: %w", d.endpoint(), phase.Join(seen...))
}

// way is a place from which the endpoint may be reached.
type way struct {
	name   string
	dialer kube.Dialer
}

// ways are the operator's machine, then workers, masters and balancers.
func (d *drilling) ways(victim string) []way {
	var all []way
	if d.Operator != nil {
		all = append(all, way{"this machine", d.Operator})
	}
	hosts := slices.Clone(d.Cluster.Spec.Hosts)
	last := map[inventory.Role]int{inventory.RoleControlPlane: 1, inventory.RoleLoadBalancer: 2}
	slices.SortStableFunc(hosts, func(a, b inventory.Host) int { return cmp.Compare(last[a.Role], last[b.Role]) })
	for _, ih := range hosts {
		if ih.Name == victim {
			continue
		}
		if h, err := d.host(ih.Name); err == nil {
			all = append(all, way{ih.Name, h})
		}
	}
	return all
}

// clients write and read through the endpoint: one with new connections, one
// with a long-lived one.
type clients []*probe.Probe

func (d *drilling) startClients(ctx context.Context, config *rest.Config) (clients, error) {
	var all clients
	for _, kind := range []probe.Kind{probe.NewConnection, probe.LongLived} {
		p, err := probe.Start(ctx, probe.Config{REST: config, Kind: kind, Namespace: d.namespace, Reads: true})
		if err != nil {
			all.abandon()
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// steadyWrites are how many writes in a row prove that a client works.
const (
	steadyWrites = 40
	steadyBudget = time.Minute
)

// await waits until every client has written so many times more.
func (c clients) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, steadyBudget)
	defer cancel()
	errs := make([]error, len(c))
	var all sync.WaitGroup
	for i, p := range c {
		all.Go(func() { errs[i] = p.AwaitWrites(ctx, steadyWrites) })
	}
	all.Wait()
	return phase.Join(errs...)
}

// abandon ends clients whose reports nobody wants.
func (c clients) abandon() {
	for _, p := range c {
		p.Abandon()
	}
}

// reports ends the clients and returns what each has seen.
func (c clients) reports(ctx context.Context) ([]probe.Report, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), namespaceBudget)
	defer cancel()
	reports, errs := make([]probe.Report, len(c)), make([]error, len(c))
	var all sync.WaitGroup
	for i, p := range c {
		all.Go(func() { reports[i], errs[i] = p.Stop(ctx) })
	}
	all.Wait()
	return reports, phase.Join(errs...)
}

// seenBy is a client's report in the form of the drill's.
func seenBy(r probe.Report, failed time.Time) drill.Client {
	c := drill.Client{
		Kind: string(r.Kind), Writes: r.Attempts, FailedWrites: len(r.Failures),
		WriteGap: units.Seconds(r.LongestGap), WriteGapAt: units.Seconds(r.LongestGapAt.Sub(failed)),
		Reads: r.Reads.Attempts, FailedReads: r.Reads.Failures, ReadOutage: units.Seconds(r.Reads.LongestOutage),
		Lost: len(r.Lost), Stale: r.Reads.Stale, Backwards: len(r.Backwards), Verified: r.Verified,
		Timeline: buckets(r.Samples, failed),
	}
	if len(r.Failures) > 0 {
		c.FirstErr = r.Failures[0].Error()
	} else if r.Reads.First != nil {
		c.FirstErr = r.Reads.First.Error()
	}
	return c
}

// buckets sums requests up for a chart, in the order of time.
func buckets(samples []probe.Sample, failed time.Time) []drill.Bucket {
	byTime := map[time.Duration]*drill.Bucket{}
	for _, s := range samples {
		at := s.At.Sub(failed)
		slot := at.Truncate(drill.BucketWidth)
		if at < 0 && slot != at {
			slot -= drill.BucketWidth
		}
		b := byTime[slot]
		if b == nil {
			b = &drill.Bucket{At: units.Seconds(slot)}
			byTime[slot] = b
		}
		b.Requests++
		if s.Failed {
			b.Failed++
		}
		b.Slowest = max(b.Slowest, units.Seconds(s.Took))
	}
	all := make([]drill.Bucket, 0, len(byTime))
	for _, b := range byTime {
		all = append(all, *b)
	}
	slices.SortFunc(all, func(a, b drill.Bucket) int { return cmp.Compare(a.At, b.At) })
	return all
}

// moved is when the last of the requests had failed that were sent between the
// failure and the repair; 0 when none did.
func moved(reports []probe.Report, failed, repaired time.Time) units.Seconds {
	var last time.Duration
	for _, r := range reports {
		for _, s := range r.Samples {
			if s.Failed && s.At.Before(repaired) {
				last = max(last, s.At.Add(s.Took).Sub(failed))
			}
		}
	}
	return units.Seconds(last)
}
