//go:build e2e

package e2e

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/drill"
)

// The endpoint where the masters balance: their API servers have 6443 themselves.
const mastersPort = "8443"

// balancing is the lab's inventory of the given hosts in one of the modes, at a
// port that both can have.
func balancing(t *testing.T, mode string, hosts ...string) string {
	t.Helper()
	return writeInventory(t, hosts, func(d document) {
		d.spec()["endpoint"] = map[string]any{"host": theLab.VIP, "port": 8443}
		d.spec()["loadBalancer"] = map[string]any{"mode": mode}
	})
}

// balancerOnMasters makes a cluster whose masters balance, of bare hosts, pulls
// the plug of the one that holds the VIP, lets a fourth master join, hands the
// VIP over to hosts of their own and back, and takes it all down.
func balancerOnMasters(t *testing.T) {
	bareWithSpare(t)
	path := writeInventory(t, slices.Concat(masters, []string{"w-1"}), func(d document) {
		d.spec()["endpoint"] = map[string]any{"host": theLab.VIP}
		d.spec()["loadBalancer"] = map[string]any{"mode": "masters"}
	})
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("bare hosts to a verified cluster that balances itself: %s, %d steps", r.took.Round(100*time.Millisecond), r.changed(t))
	t.Run("whole", func(t *testing.T) { wantBalanced(t, path, masters, masters) })
	t.Run("power off the master with the VIP", func(t *testing.T) { powerOffHolder(t, path) })
	t.Run("drill", func(t *testing.T) { drillsOnMasters(t, path) })
	four := append(slices.Clone(masters), "cp-4")
	path = balancing(t, "masters", append(slices.Clone(four), "w-1")...)
	t.Run("a fourth master", func(t *testing.T) {
		r := ha(t, "apply", path)
		r.want(t, 0)
		t.Logf("a fourth master that balances in %s", r.took.Round(100*time.Millisecond))
		wantBalanced(t, path, four, four)
	})
	both := append(slices.Clone(baseHosts), "cp-4")
	t.Run("to hosts of their own", func(t *testing.T) {
		handOver(t, balancing(t, "dedicated", both...), []string{"lb-1", "lb-2"}, four)
	})
	path = balancing(t, "masters", both...)
	t.Run("back to the masters", func(t *testing.T) { handOver(t, path, four, four) })
	t.Run("reset", func(t *testing.T) { resetOnMasters(t, path, both) })
}

// drillsOnMasters plays what is otherwise where the masters balance: a whole
// master takes its balancer with it, and the VIP's holder is a master.
func drillsOnMasters(t *testing.T, path string) {
	report := played(t, ha(t, "drill", "--confirm", clusterName, "-o", "json", "--scenario", "master,balancer", path))
	if len(report.Scenarios) != 2 {
		t.Errorf("%d scenarios were played", len(report.Scenarios))
	}
	for _, s := range report.Scenarios {
		t.Logf("%s on %s: longest write gap %s", s.Scenario, s.Host, s.WriteGap())
		if s.Verdict != drill.Pass || s.Lost() != 0 || s.Moved == 0 {
			t.Errorf("%s: %s, %d acknowledged writes lost, moved %s: %q", s.Scenario, s.Verdict, s.Lost(), s.Moved, s.Reasons)
		}
	}
}

// handOver has apply let other hosts balance, under both probes.
func handOver(t *testing.T, path string, balancers, masters []string) {
	ps := startProbes(t, kubeconfigOf(t, path))
	plan := ha(t, "plan", path)
	plan.want(t, 2)
	for _, text := range []string{"introduce", "retire", "forget"} {
		if !strings.Contains(plan.stdout, text) {
			t.Errorf("the plan does not show %q:\n%s", text, plan.tail())
		}
	}
	r := ha(t, "apply", path)
	ps.await(t, 60, time.Minute)
	ps.stop(t, "the VIP handed over to "+strings.Join(balancers, ", "))
	r.want(t, 0)
	t.Logf("handed over in %s", r.took.Round(100*time.Millisecond))
	wantBalanced(t, path, balancers, masters)
}

func addressOf(t *testing.T, name string) string {
	t.Helper()
	h, err := theLab.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h.Address
}

// bareWithSpare makes the lab's own hosts bare, and a spare master.
func bareWithSpare(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, "cp-4"); err != nil {
		t.Fatal(err)
	}
	recreate(t, append(slices.Clone(baseHosts), "cp-4")...)
}

// wantBalanced wants a whole cluster at its endpoint, one balancer that holds
// the VIP, a backend and a peer of each on all, and nothing left to do.
func wantBalanced(t *testing.T, path string, balancers, masters []string) {
	t.Helper()
	awaitFaultless(t, path, 2*time.Minute)
	wantMembers(t, masters)
	wantNodes(t, path, append(slices.Clone(masters), "w-1"))
	wantBackendsAt(t, net.JoinHostPort(theLab.VIP, mastersPort), masters)
	holder := ""
	for host, shown := range onEach(t, append(slices.Clone(baseHosts), masters...), "ip -oneline address show to "+theLab.VIP) {
		if shown == "" {
			continue
		}
		if holder != "" || !slices.Contains(balancers, host) {
			t.Errorf("the VIP is held by %s and %s, want one of %v", holder, host, balancers)
		}
		holder = host
	}
	if now := vipHolder(t, path); now != holder {
		t.Errorf("status says that %q holds the VIP, the hosts say %q", now, holder)
	}
	for host, config := range onEach(t, balancers, "cat /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf") {
		for _, master := range masters {
			if !strings.Contains(config, "server "+master+" "+addressOf(t, master)+":6443\n") {
				t.Errorf("%s does not send anybody to %s", host, master)
			}
		}
		for _, other := range append(slices.Clone(baseHosts), masters...) {
			peer, want := strings.Contains(config, "\n        "+addressOf(t, other)+" min_ttl 255"), slices.Contains(balancers, other) && host != other
			if peer != want {
				t.Errorf("%s has %s as a peer: %t, want %t", host, other, peer, want)
			}
		}
	}
	text := ha(t, "status", path).stdout
	for _, host := range balancers {
		if !strings.Contains(text, "\n"+host+"      ok   ok       ok ") {
			t.Errorf("status does not show %s as a balancer that is well:\n%s", host, text)
		}
	}
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("one more apply changed %d steps", n)
	}
}

// powerOffHolder takes with one plug the VIP, a balancer, an API server and a vote.
func powerOffHolder(t *testing.T, path string) {
	s, _ := statusOf(t, path)
	holder := vipHolderIn(s)
	what := "power off " + holder + ", which holds the VIP"
	if s.Quorum.Leader == holder {
		what += " and leads etcd"
	}
	ps := startProbes(t, kubeconfigOf(t, path))
	power(t, holder, false)
	ps.await(t, 100, time.Minute)
	if now := vipHolder(t, path); now == holder || now == "" {
		t.Errorf("the VIP is held by %q after %s was powered off", now, holder)
	}
	power(t, holder, true)
	awaitFaultless(t, path, 4*time.Minute)
	ps.stop(t, what)
}

// resetOnMasters takes the cluster down and wants no host to balance any more.
func resetOnMasters(t *testing.T, path string, hosts []string) {
	ha(t, "reset", "--confirm", clusterName, path).want(t, 0)
	const left = `ls /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf 2>/dev/null
		systemctl is-active haproxy keepalived | grep -vx inactive
		systemctl is-enabled haproxy keepalived | grep -vx disabled
		ip -oneline address show | grep -o ' 198.51.100.10/[0-9]*'
		exit 0`
	for host, left := range onEach(t, hosts, left) {
		if left != "" {
			t.Errorf("%s: left after reset:\n%s", host, left)
		}
	}
}
