//go:build e2e

package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/provision/probe"
)

// gapLimit is the longest time without an acknowledged write that losing a
// host may cost.
const gapLimit = 30 * time.Second

// probes are a writer with new connections and one with a long-lived client.
type probes []*probe.Probe

func startProbes(t *testing.T, kubeconfig string, change ...func(*probe.Config)) probes {
	t.Helper()
	endpoint, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var ps probes
	for _, kind := range []probe.Kind{probe.NewConnection, probe.LongLived} {
		config := probe.Config{REST: endpoint, Rate: 20, Kind: kind}
		for _, f := range change {
			f(&config)
		}
		p, err := probe.Start(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	ps.await(t, 20, 30*time.Second)
	return ps
}

// await waits until both have written so many times more.
func (ps probes) await(t *testing.T, writes int, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, p := range ps {
		if err := p.AwaitWrites(ctx, writes); err != nil {
			t.Error(err)
		}
	}
}

// stop reads back what was written, judges it and takes it away, of both at once:
// the API removes 150 objects a second.
func (ps probes) stop(t *testing.T, what string) []probe.Report {
	t.Helper()
	reports := ps.readBack(t, what)
	for _, report := range reports {
		if report.LongestGap > gapLimit {
			t.Errorf("%s: no write came through for %s, want %s at most", what, report.LongestGap, gapLimit)
		}
	}
	return reports
}

// readBack is stop for an outage that was meant: however long it took, nothing
// that was acknowledged is lost. Long parts leave tens of thousands of objects, of
// which the API takes away a hundred a second.
func (ps probes) readBack(t *testing.T, what string) []probe.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	reports, errs := make([]probe.Report, len(ps)), make([]error, len(ps))
	var both sync.WaitGroup
	for i, p := range ps {
		both.Go(func() { reports[i], errs[i] = p.Stop(ctx) })
	}
	both.Wait()
	for i, report := range reports {
		t.Logf("%s: %s", what, report)
		if errs[i] != nil {
			t.Error(errs[i])
		}
		if len(report.Lost)+len(report.Backwards) > 0 || !report.Verified {
			t.Errorf("%s: acknowledged writes lost: %v, out of order: %v, read back: %v", what, report.Lost, report.Backwards, report.Verified)
		}
	}
	return reports
}

// powerOffMasters pulls the plug of etcd's leader, and in e2e-long of each
// master in turn, while both probes write, and puts it back.
func powerOffMasters(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	kubeconfig := kubeconfigOf(t, path)
	ids := memberIDs(t, masters)
	victims := masters
	if s, _ := statusOf(t, path); !*long {
		victims = []string{s.Quorum.Leader}
	}
	for _, host := range victims {
		t.Run(host, func(t *testing.T) {
			s, _ := statusOf(t, path)
			what := "power off " + host
			if s.Quorum.Leader == host {
				what += ", etcd's leader"
			}
			ps := startProbes(t, kubeconfig)
			power(t, host, false)
			ps.await(t, 100, time.Minute)
			power(t, host, true)
			back := awaitFaultless(t, path, 4*time.Minute)
			ps.stop(t, what)
			t.Logf("%s: 3 of 3 again %s after its boot", what, back.Round(time.Second))
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// powerOffBalancer pulls the plug of the balancer that holds the VIP.
func powerOffBalancer(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	holder := vipHolder(t, path)
	ps := startProbes(t, kubeconfigOf(t, path))
	power(t, holder, false)
	ps.await(t, 100, time.Minute)
	if now := vipHolder(t, path); now == holder || now == "" {
		t.Errorf("the VIP is held by %q after %s was powered off", now, holder)
	}
	power(t, holder, true)
	awaitFaultless(t, path, time.Minute)
	ps.await(t, 40, time.Minute)
	ps.stop(t, "power off "+holder+", which held the VIP")
}

func vipHolder(t *testing.T, path string) string {
	t.Helper()
	s, _ := statusOf(t, path)
	return vipHolderIn(s)
}

func vipHolderIn(s status) string {
	for _, h := range s.Hosts {
		if h.HoldsVIP {
			return h.Name
		}
	}
	return ""
}

// heal takes back whatever a test that went wrong has left.
func heal(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := inject.Heal(ctx); err != nil {
		t.Error(err)
	}
}
