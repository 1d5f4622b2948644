package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// drillAll is `ha-install drill` of the named scenarios; none are all.
func drillAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, run *phase.Runner, names ...string) (drill.Report, error) {
	ctx = w.Begin(ctx, nil)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	scenarios, err := drill.Select(names)
	if err != nil {
		return drill.Report{}, err
	}
	return Drill(ctx, site, DrillOptions{Scenarios: scenarios, Thresholds: drill.Defaults()}, run)
}

// marks says what a drill has left that it must not, "" for nothing.
func marks(w *sim.World, c *inventory.Cluster) string {
	var left []string
	for _, ih := range c.Spec.Hosts {
		if w.Host(ih.Name).Struck() {
			left = append(left, ih.Name+" is struck")
		}
	}
	for _, name := range slices.Concat(w.API.Names("namespaces"), w.API.Names("configmaps"), w.API.Names("deployments"), w.API.Names("pods")) {
		if strings.Contains(name, drillNamespace) {
			left = append(left, name)
		}
	}
	return strings.Join(append(left, w.Broken()...), "; ")
}

// TestDrillEndsBeforeItsNamespace, which Kubernetes does not end as long as an aggregated
// API service does not answer; the next drill has one of its own.
func TestDrillEndsBeforeItsNamespace(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		react := w.API.React
		w.API.React = func(verb, resource, namespace, name string) {
			react(verb, resource, namespace, name)
			for _, name := range w.API.Names("namespaces") {
				if verb != "POST" || resource != "namespaces" || !strings.Contains(name, drillNamespace) {
					continue
				}
				name = strings.TrimPrefix(name, "/")
				o := w.API.Get("namespaces", "", name)
				o["metadata"].(kubeapi.Object)["finalizers"] = []string{"kubernetes"}
				w.API.Set("namespaces", "", name, o)
			}
		}
		for range 2 {
			told := false
			run := &phase.Runner{Events: func(e phase.Event) {
				told = told || e.Kind == phase.Notice && strings.Contains(e.Message, drillNamespace) && strings.Contains(e.Message, "is going away")
			}}
			if r, err := drillAll(t.Context(), w, c, dirs[0], run, drill.Names()[0]); err != nil || r.Verdict != drill.Pass || !told {
				t.Errorf("%v: %s, told %t", err, r.Verdict, told)
			}
		}
	})
}

func TestDrillPlaysEveryScenario(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		r, err := drillAll(t.Context(), w, c, dirs[0], &phase.Runner{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(r.Scenarios), len(drill.Names()); got != want || r.Verdict != drill.Pass {
			t.Errorf("%d scenarios of %d, verdict %s", got, want, r.Verdict)
		}
		for _, s := range r.Scenarios {
			if s.Verdict != drill.Pass || s.Lost() != 0 || len(s.Clients) != 2 {
				t.Errorf("%s: %s %q", s.Scenario, s.Verdict, s.Reasons)
			}
			for _, cl := range s.Clients {
				if !cl.Verified || cl.Writes < 2*steadyWrites || cl.Reads == 0 || len(cl.Timeline) < 60 {
					t.Errorf("%s, %s: %d writes, %d reads, %d buckets, verified %t", s.Scenario, cl.Kind, cl.Writes, cl.Reads, len(cl.Timeline), cl.Verified)
				}
			}
			wantTakeovers(t, s)
			if l := s.Workload; l == nil || l.Requests < 100 || l.Failed != 0 || l.Scheduled == nil || l.Replaced == nil {
				t.Errorf("%s: pods: %+v", s.Scenario, l)
			}
		}
		if left := marks(w, c); left != "" {
			t.Error(left)
		}
	})
}

// wantTakeovers wants others than the victim in its place, where it led.
func wantTakeovers(t *testing.T, s drill.Result) {
	t.Helper()
	least := map[string]string{"etcd": drill.Etcd, "master": drill.Etcd, "partition": drill.Etcd, "scheduler": drill.Scheduler, "controller-manager": drill.ControllerManager}[s.Scenario]
	found := least == ""
	for _, o := range s.Takeovers {
		found = found || o.What == least
		if o.To == "" || o.To == s.Host || o.From != s.Host || o.After <= 0 {
			t.Errorf("%s: %+v", s.Scenario, o)
		}
	}
	if !found {
		t.Errorf("%s: nobody took %s over: %+v", s.Scenario, least, s.Takeovers)
	}
}

// TestDrillKilledAnywhere kills the installer after every change that it makes
// on hosts: the host's own unit has to end what was injected, and the next
// drill has to find a whole cluster.
func TestDrillKilledAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	for _, name := range []string{"etcd", "master", "partition", "balancer"} {
		t.Run(name, func(t *testing.T) {
			var points []point
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				w.Watch(func(m sim.Moment) {
					if strings.HasPrefix(m.Name, "sh ") && notTheLock(m.Call) {
						points = append(points, point{story: m.String(), state: m.Keep()})
					}
				})
				if _, err := drillAll(t.Context(), w, c, dirs[0], &phase.Runner{}, name); err != nil {
					t.Fatal(err)
				}
			})
			struck := 0
			for _, p := range points {
				bubble(t, func(t *testing.T) {
					w := p.state.World(t, c)
					w.Slow = true
					before := marks(w, c)
					if strings.Contains(before, "is struck") {
						struck++
					}
					w.Begin(t.Context(), nil)
					time.Sleep(2 * time.Second)
					if after := marks(w, c); strings.Contains(after, "is struck") {
						t.Errorf("%s: %s", p.story, after)
					}
					r, err := drillAll(t.Context(), w, c, dirs[0], &phase.Runner{}, "apiserver")
					if err != nil || r.Verdict != drill.Pass {
						t.Errorf("%s: the next drill: %s, %v, %+v", p.story, r.Verdict, err, r.Scenarios)
					}
					if left := marks(w, c); left != "" {
						t.Errorf("%s: %s", p.story, left)
					}
				})
			}
			if struck == 0 {
				t.Errorf("of %d points none was with an injection", len(points))
			}
		})
	}
}

func TestDrillIsRefusedWhereNothingCanBeLost(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		w.Host("cp-3").Mute = true // its etcd does not run
		var struck []string
		w.Watch(func(m sim.Moment) {
			if strings.HasPrefix(m.Name, "sh ") {
				struck = append(struck, m.Name)
			}
		})
		r, err := drillAll(t.Context(), w, c, dirs[0], &phase.Runner{})
		if err == nil || r.Verdict != drill.Fail || len(r.Scenarios) != 0 || len(struck) > 0 {
			t.Errorf("verdict %s, error %v, %d scenarios, %q", r.Verdict, err, len(r.Scenarios), struck)
		}
		if !strings.Contains(fmt.Sprint(err), "cp-3") {
			t.Errorf("it does not say what is wrong: %v", err)
		}
	})
}

func TestDrillEndsAtASafePoint(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	rows := []struct {
		name string
		hard bool // the second interrupt, too
	}{{"stopped", false}, {"interrupted", true}}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop := make(chan struct{})
				seen := false
				w.Watch(func(m sim.Moment) {
					if strings.HasPrefix(m.Name, "sh ") && !seen {
						seen = true
						close(stop)
						if row.hard {
							time.AfterFunc(3*time.Second, cancel)
						}
					}
				})
				r, err := drillAll(ctx, w, c, dirs[0], &phase.Runner{Stop: func() <-chan struct{} { return stop }}, "etcd", "scheduler")
				if err == nil || !seen || len(r.Scenarios) > 1 {
					t.Errorf("error %v, %d scenarios", err, len(r.Scenarios))
				}
				if left := marks(w, c); left != "" {
					t.Error(left)
				}
			})
		})
	}
}
