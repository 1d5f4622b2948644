package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/test/sim"
)

// scaleOut adds two masters and a worker to three masters.
func scaleOut(t *testing.T) workflow {
	t.Helper()
	three, dirs := testCluster(t), baseDirs(t)
	five := fiveMasters(three)
	return applying("apply from 3 to 5 masters", five, finished(t, three, five, dirs[0]), dirs)
}

// struckAt tries the faults at every call that is asked for, and wants each to
// have been reached.
func (f workflow) struckAt(t *testing.T, cuts func(trace []sim.Call) []sim.Cut) {
	t.Helper()
	trace, want, _ := f.undisturbed(t)
	all := cuts(trace)
	if len(all) == 0 {
		t.Fatal("no call to cut")
	}
	for _, cut := range sample(all, fewUnless(len(all))) {
		t.Run(cut.String(), func(t *testing.T) {
			if !f.cutAt(t, cut, want) {
				t.Errorf("the run did not come to the call")
			}
		})
	}
	t.Logf("%s: %d faults", f.name, len(all))
}

// fewUnless is all of n with -everywhere, else a few.
func fewUnless(n int) int {
	if all, _ := everywhere(); all {
		return n
	}
	return min(n, 4)
}

// changesOfMembers are the faults before and after each change of members.
func changesOfMembers(trace []sim.Call, victims []string, faults ...sim.Fault) []sim.Cut {
	var cuts []sim.Cut
	promoted := false
	for _, c := range trace {
		if !c.Writes || !strings.HasPrefix(c.Name, "etcd ") || promoted {
			continue // the second join is as the first
		}
		promoted = c.Name == "etcd promote"
		for _, fault := range faults {
			for _, when := range []sim.When{sim.Before, sim.After} {
				for _, victim := range victims {
					cuts = append(cuts, sim.Cut{Host: c.Host, Name: c.Name, Nth: c.Nth, When: when, Fault: fault, Victim: victim})
				}
			}
		}
	}
	return cuts
}

// TestFault7LeaderCutOffAroundEachChangeOfMembers: nothing is done to the
// minority, and the run goes on when there is a stable term again.
func TestFault7LeaderCutOffAroundEachChangeOfMembers(t *testing.T) {
	t.Parallel()
	scaleOut(t).struckAt(t, func(trace []sim.Call) []sim.Cut {
		return changesOfMembers(trace, []string{"", "cp-2"}, sim.Isolates)
	})
}

// TestFault21LeaderDiesInEachChangeOfMembers, its request done or not: the
// list decides.
func TestFault21LeaderDiesInEachChangeOfMembers(t *testing.T) {
	t.Parallel()
	f := scaleOut(t)
	f.struckAt(t, func(trace []sim.Call) []sim.Cut {
		return changesOfMembers(trace, []string{""}, sim.EtcdDies, sim.Reboots)
	})
}

// TestFault21LeaderDiesInTheRemovalOfALearner that a broken join has left.
func TestFault21LeaderDiesInTheRemovalOfALearner(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	var begun *sim.State
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		w.Watch(func(m sim.Moment) {
			if m.Name == "etcd add https://198.51.100.23:2380" {
				begun = m.Keep()
			}
		})
		running(t, w, c, dirs[0])
	})
	applying("apply after a join that added a learner", c, begun, dirs).struckAt(t, func(trace []sim.Call) []sim.Cut {
		return slices.DeleteFunc(changesOfMembers(trace, []string{""}, sim.EtcdDies, sim.Reboots), func(c sim.Cut) bool { return c.Name != "etcd remove" })
	})
}

// TestFault8HostRebootsInItsJoin at every act of the join, and before and
// after it gets its vote: the join is finished or taken back.
func TestFault8HostRebootsInItsJoin(t *testing.T) {
	t.Parallel()
	f := scaleOut(t)
	f.struckAt(t, func(trace []sim.Call) []sim.Cut {
		cuts := changesOfMembers(trace, []string{"cp-4"}, sim.Reboots)
		for _, c := range trace {
			if c.Host == "cp-4" && strings.Contains(c.Name, " of column-") {
				cuts = append(cuts, sim.Cut{Host: c.Host, Name: c.Name, Nth: c.Nth, When: sim.After, Fault: sim.Reboots})
			}
		}
		return cuts
	})
}

// TestFault2ConnectionDropsInTheJoin: the step goes on, its result is read,
// and nothing of it is done twice. The first run succeeds.
func TestFault2ConnectionDropsInTheJoin(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	for _, act := range []string{"act 1 of column-start-1", "act 2 of column-start-1", "act 3 of column-start-1", "act 1 of column-finish-1"} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, c)
			w.Slow = true
			cut := sim.Cut{Host: "cp-2", Name: act, Nth: 1, When: sim.After, Fault: sim.Loses}
			if _, err := applyAll(t.Context(), w, c, dirs[0], &cut, nil); err != nil || !w.Struck() {
				t.Errorf("%s: struck %t, %v", cut, w.Struck(), err)
			}
			for p := range w.Host("cp-2").Files {
				if strings.Contains(p, "column-start-2") || strings.Contains(p, "column-finish-2") {
					t.Errorf("%s: %s: a step was run twice", cut, p)
				}
			}
			if bad := append(w.Broken(), unfinished(w, c)); strings.Join(bad, "") != "" {
				t.Errorf("%s: %q", cut, bad)
			}
		})
	}
}

// TestFault9GhostVoter is refused with the member's ID and what to run.
func TestFault9GhostVoter(t *testing.T) {
	t.Parallel()
	f := scaleOut(t)
	bubble(t, func(t *testing.T) {
		w := f.world(t, f.start)
		w.AddGhost("198.51.100.99")
		before := w.Votes()
		began := time.Now()
		err := f.run(t.Context(), w, true, nil)
		if err == nil || !strings.Contains(err.Error(), "ghost voter") || !strings.Contains(err.Error(), "dead000000000001") || !strings.Contains(err.Error(), "member remove") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %s to say so", took)
		}
		if votes := w.Votes(); !slices.Equal(votes, before) || len(w.Broken()) > 0 {
			t.Errorf("members %q, %q", votes, w.Broken())
		}
	})
}

// TestFault22 is a learner that never catches up, and a kubelet that never
// starts it: the learner is removed, the host cleaned, earlier voters kept; and
// when the host is mended, the same command finishes.
func TestFault22PromoteTimesOut(t *testing.T) {
	t.Parallel()
	neverJoins(t, func(h *sim.Host, broken bool) { h.Behind = broken })
}

func TestFault22KubeletNeverStarts(t *testing.T) {
	t.Parallel()
	neverJoins(t, func(h *sim.Host, broken bool) { h.Mute = broken })
}

func neverJoins(t *testing.T, set func(h *sim.Host, broken bool)) {
	t.Helper()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		h := w.Host("cp-3")
		set(h, true)
		began := time.Now()
		_, err := applyAll(t.Context(), w, c, dirs[0], nil, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "cp-3: join: ") {
			t.Errorf("error %v", err)
		}
		t.Logf("given up after %s: %v", time.Since(began).Round(time.Second), err)
		if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-2 voter"}) {
			t.Errorf("members %q", votes)
		}
		for p := range h.Files {
			if strings.HasPrefix(p, kube.EtcdDir+"/") || strings.HasPrefix(p, kube.ManifestDir) {
				t.Errorf("the host still has %s", p)
			}
		}
		if fingerprintOn(h) == "" {
			t.Errorf("the host has no CA set any more")
		}
		if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
			t.Errorf("%q", bad)
		}
		set(h, false)
		if _, err := applyAll(t.Context(), w, withoutCA(c), dirs[1], nil, nil); err != nil {
			t.Errorf("mended: %v", err)
		}
		if bad := unfinished(w, c); bad != "" {
			t.Error(bad)
		}
	})
}

// TestFault33PushOfTheCACutHalfWay after each of its files: what is there is
// whole, and the next run puts the rest.
func TestFault33PushOfTheCACutHalfWay(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := preparing("apply up to kubeadm init", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs)
	f.about = func(c sim.Call) bool { return strings.HasPrefix(c.Name, "upload "+kube.PKIDir) }
	_, want, points := f.undisturbed(t)
	if len(points) < 3*8 {
		t.Fatalf("only %d points", len(points))
	}
	whole := map[string]bool{}
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range sets[0].Files() {
		whole[string(file.Content)] = true
	}
	for i := range fewUnless(len(points)) {
		p := points[i*len(points)/fewUnless(len(points))]
		bubble(t, func(t *testing.T) {
			w := f.world(t, p.state)
			for _, ih := range c.ControlPlanes() {
				for _, name := range pki.Names {
					if file, ok := w.Host(ih.Name).Files[kube.PKIDir+"/"+name]; ok && !whole[string(file.Content)] {
						t.Errorf("%s: %s: %s is a part of a file", p.story, ih.Name, name)
					}
				}
			}
		})
		f.killed(t, p, want)
	}
}

// TestFault35DiskTurnsReadOnly at any write: the run stops, soon, and says
// which host it was; when the disk is mended, the next one finishes.
func TestFault35DiskTurnsReadOnly(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := applying("apply on bare hosts", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs)
	trace, _, _ := f.undisturbed(t)
	var cuts []sim.Cut
	for _, c := range trace {
		if c.Writes && c.Name != "lock" && c.Name != "raise" && !strings.HasPrefix(c.Name, "etcd ") && !strings.Contains(c.Name, "/api") {
			cuts = append(cuts, sim.Cut{Host: c.Host, Name: c.Name, Nth: c.Nth, Fault: sim.Breaks})
		}
	}
	for _, cut := range sample(cuts, 4*tries()) {
		bubble(t, func(t *testing.T) {
			w := f.world(t, f.start)
			calls, began := 0, time.Time{}
			w.Watch(func(m sim.Moment) {
				if w.Host(cut.Host).ReadOnly && m.Host == cut.Host {
					t.Errorf("%s: %s wrote all the same", cut, m.Name)
				}
			})
			began = time.Now()
			err := f.run(t.Context(), w, false, &cut)
			if err == nil || !w.Struck() || !strings.Contains(err.Error(), cut.Host) {
				t.Errorf("%s: struck %t, error %v", cut, w.Struck(), err)
			}
			for _, c := range w.Trace() {
				if c.Host == cut.Host && c.Name == cut.Name {
					calls++
				}
			}
			if took := time.Since(began); calls > cut.Nth+1 || took > 10*time.Minute {
				t.Errorf("%s: tried %d times, for %s", cut, calls, took)
			}
		})
	}
	t.Logf("%d of %d writes tried", min(len(cuts), 4*tries()), len(cuts))
}

// TestResetAfterAKilledApply takes back what an apply has begun, wherever it
// was killed; then apply makes a cluster.
func TestResetAfterAKilledApply(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	_, _, points := applying("apply on bare hosts", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs).undisturbed(t)
	every := max(1, len(points)/(5*tries()))
	tried := 0
	for i := every / 2; i < len(points); i += every {
		tried++
		bubble(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), runBudget)
			defer cancel()
			f := resetting("reset", c, points[i].state, dirs)
			w := f.world(t, points[i].state)
			if err := f.run(ctx, w, false, nil); err != nil {
				t.Errorf("%s: reset: %v", points[i].story, err)
			}
			if bad := strings.Join(append(w.Lost(), stillThere(w, c)...), "; "); bad != "" {
				t.Errorf("%s: after reset: %s", points[i].story, bad)
			}
			if err := f.then(ctx, w); err != nil {
				t.Errorf("%s: %v", points[i].story, err)
			}
		})
	}
	t.Logf("reset after apply: killed at %d of %d points", tried, len(points))
}

// stillThere is what a reset must not leave.
func stillThere(w *sim.World, c *inventory.Cluster) []string {
	var bad []string
	for _, ih := range c.Spec.Hosts {
		h := w.Host(ih.Name)
		for p := range h.Files {
			for _, gone := range []string{kube.ManifestDir, kube.PKIDir, kube.EtcdDir + "/", "/var/lib/kubelet/", markerFile} {
				if strings.HasPrefix(p, gone) && !strings.Contains(p, ".ha-install-") {
					bad = append(bad, fmt.Sprintf("%s still has %s", ih.Name, p))
				}
			}
		}
	}
	return bad
}
