package provision

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// TestBalancerOnMastersStoppedAnywhere is the whole apply where the masters
// balance, two masters more, and the reset of it.
func TestBalancerOnMastersStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := onMasters(testCluster(t)), baseDirs(t)
	five := fiveMasters(c)
	bare := applying("apply on bare hosts, the balancer on the masters", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs)
	bare.about = ofTheBalancer
	bare.wrong = func(w *sim.World) string { return unfinished(w, c) + unbalanced(w, c) }
	t.Run("apply", bare.everywhere)
	grown := applying("apply from 3 to 5 masters that balance", five, finished(t, c, five, dirs[0]), dirs)
	grown.about = ofTheBalancer
	grown.wrong = func(w *sim.World) string { return unfinished(w, five) + unbalanced(w, five) }
	t.Run("grow", grown.everywhere)
	gone := resetting("reset of masters that balance", c, finished(t, c, c, dirs[0]), dirs)
	gone.about = func(call sim.Call) bool {
		return ofTheBalancer(call) || strings.HasPrefix(call.Name, "move aside /etc/")
	}
	t.Run("reset", gone.everywhere)
}

// switches are the two ways to let other hosts balance: a cluster before and
// after, at a port that both can have.
func switches(t *testing.T) map[string]struct{ from, to *inventory.Cluster } {
	t.Helper()
	dedicated, masters := testCluster(t), testCluster(t)
	masters.Spec.LoadBalancer.Mode = inventory.BalancerMasters
	for _, c := range []*inventory.Cluster{dedicated, masters} {
		c.Spec.Endpoint.Port = inventory.DefaultMastersPort
	}
	return map[string]struct{ from, to *inventory.Cluster }{
		"to the masters":        {dedicated, masters},
		"to hosts of their own": {masters, dedicated},
	}
}

// TestSwitchOfBalancersStoppedAnywhere hands the VIP over from hosts of their
// own to the masters, and back: the simulator wants it held all the time, by
// hosts that know of each other.
func TestSwitchOfBalancersStoppedAnywhere(t *testing.T) {
	t.Parallel()
	dirs := baseDirs(t)
	for name, row := range switches(t) {
		f := applying("switch of the balancers "+name, row.to, finished(t, row.from, row.to, dirs[0]), dirs)
		f.about = ofTheBalancer
		f.wrong = func(w *sim.World) string {
			return unfinished(w, row.to) + unbalanced(w, row.to) + stillBalancing(w, row.to)
		}
		t.Run(name, f.everywhere)
	}
}

// stillBalancing says what is left of balancers on hosts that balance no more.
func stillBalancing(w *sim.World, c *inventory.Cluster) string {
	var wrong []string
	for _, ih := range c.Spec.Hosts {
		if c.Balances(ih) {
			continue
		}
		h := w.Host(ih.Name)
		for _, unit := range []string{"haproxy.service", "keepalived.service"} {
			if u := h.Units[unit]; u != nil && (u.Active || u.Enabled) {
				wrong = append(wrong, ih.Name+" still has "+unit)
			}
		}
		if _, there := h.Files[templates.KeepalivedPath]; there {
			wrong = append(wrong, ih.Name+" still has "+templates.KeepalivedPath)
		}
	}
	return strings.Join(wrong, "; ")
}

// onMasters is c with the balancer on the masters, and no other host for it.
func onMasters(c *inventory.Cluster) *inventory.Cluster {
	on := *c
	on.Spec.LoadBalancer.Mode, on.Spec.Endpoint.Port = inventory.BalancerMasters, inventory.DefaultMastersPort
	on.Spec.Hosts = slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool { return h.Role == inventory.RoleLoadBalancer })
	return &on
}

// ofTheBalancer are the calls that set a balancer up, or end it.
func ofTheBalancer(c sim.Call) bool {
	for _, of := range []string{"haproxy", "keepalived", "owed/balancer", "dpkg"} {
		if strings.Contains(c.Name, of) {
			return true
		}
	}
	return false
}

// unbalanced says in what the balancers do not know of all masters and of each
// other, or do not run with what lies on their disks.
func unbalanced(w *sim.World, c *inventory.Cluster) string {
	var wrong []string
	holders := 0
	for _, ih := range c.Balancers() {
		h := w.Host(ih.Name)
		for _, master := range c.ControlPlanes() {
			if server := "server " + master.Name + " " + master.InternalAddress + ":6443\n"; !strings.Contains(string(h.Files[templates.HAProxyConfigPath].Content), server) {
				wrong = append(wrong, ih.Name+" has no backend "+master.Name)
			}
		}
		for _, peer := range c.Balancers() {
			listed := strings.Contains(string(h.Files[templates.KeepalivedPath].Content), "\n        "+peer.InternalAddress+" min_ttl 255")
			if listed != (peer.Name != ih.Name) {
				wrong = append(wrong, fmt.Sprintf("%s has %s as a peer: %t", ih.Name, peer.Name, listed))
			}
		}
		for _, unit := range []string{"haproxy.service", "keepalived.service"} {
			if u := h.Units[unit]; u == nil || !u.Active || !u.Enabled {
				wrong = append(wrong, ih.Name+": "+unit+" is not there for good")
			}
		}
		if h.HoldsVIP() {
			holders++
		}
	}
	if holders != 1 {
		wrong = append(wrong, fmt.Sprintf("%d hosts hold the VIP", holders))
	}
	return strings.Join(wrong, "; ")
}

// TestHardeningStoppedAnywhere restarts the etcd of two masters of a running
// cluster, each behind the back of the balancers.
func TestHardeningStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := madeBy(t, c, func(t *testing.T, w *sim.World) {
		running(t, w, c, dirs[0])
		soften(w, "cp-1")
		soften(w, "cp-3")
	})
	f := applying("apply that restarts two members", c, start, dirs)
	f.about = func(c sim.Call) bool {
		return c.Writes && notTheLock(c) && (strings.Contains(c.Name, "haproxy") || strings.Contains(c.Name, "manifest") || strings.HasPrefix(c.Name, "etcd move"))
	}
	f.everywhere(t)
}

// soften gives the etcd of a master the flag that a first master has.
func soften(w *sim.World, name string) {
	f := w.Host(name).Files[etcdManifest]
	w.Host(name).Put(etcdManifest, f.Mode, strings.ReplaceAll(string(f.Content), stateFlag+stateExists, stateFlag+"new"))
}

// TestPlanOfASwitchOfBalancers compares what a switch was to do with what it did:
// the hosts that shall balance have no HAProxy yet that could be asked.
func TestPlanOfASwitchOfBalancers(t *testing.T) {
	t.Parallel()
	dirs := baseDirs(t)
	for name, row := range switches(t) {
		t.Run(name, func(t *testing.T) {
			start := finished(t, row.from, row.to, dirs[0])
			bubble(t, func(t *testing.T) {
				w := start.World(t, row.to)
				if plan := comparePlan(t.Context(), t, name, w, row.to, dirs[0]); plan.Nothing() {
					t.Error("the plan says that there is nothing to do")
				}
			})
		})
	}
}
