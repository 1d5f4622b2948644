package provision

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/fidelity"
	"github.com/ha-install/ha-install/test/golden"
	"github.com/ha-install/ha-install/test/sim"
)

// sceneOn is a scene on one of the world's hosts.
func sceneOn(t *testing.T, w *sim.World, c *inventory.Cluster, name string) *fidelity.Scene {
	t.Helper()
	dial := func(name string) host.Host {
		ih, _ := c.HostByName(name)
		h, err := w.Dial(t.Context(), c, ih, "")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	return &fidelity.Scene{T: t, Cluster: c, Dial: dial, Host: dial(name), Pause: time.Sleep}
}

// teachClaims teaches hosts the steps that claims are played with.
func teachClaims(w *sim.World) {
	w.StepScript(fidelity.StepDone, func(*sim.Host, []string) []func() error { return nil })
	w.StepScript(fidelity.StepFails, func(*sim.Host, []string) []func() error {
		return []func() error{func() error {
			return &host.RunError{Code: 1, Stderr: "it broke"}
		}}
	})
	w.StepScript(fidelity.StepLong, func(*sim.Host, []string) []func() error {
		wait := func() error { return nil }
		return []func() error{wait, wait, wait, wait}
	})
	w.Script(fidelity.EtcdStand, func(h *sim.Host, _ []string) ([]byte, error) { return []byte(h.EtcdStand() + "\n"), nil })
	w.Script(fidelity.EndEtcd, func(h *sim.Host, _ []string) ([]byte, error) {
		h.EndAPI()
		h.EndEtcd()
		return nil, nil
	})
	w.Script(fidelity.MakeBridge, func(h *sim.Host, _ []string) ([]byte, error) { h.Bridge = "made"; return nil, nil })
	w.Script(fidelity.SeeBridge, func(h *sim.Host, _ []string) ([]byte, error) {
		if h.Bridge == "" {
			return []byte("gone\n"), nil
		}
		return []byte("there\n"), nil
	})
	w.Script(fidelity.PutBack, func(h *sim.Host, args []string) ([]byte, error) { h.Rename(args[0], etcdMember); return nil, nil })
}

func TestBareHostsAreAsTheRealOnesAre(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		teachClaims(w)
		w.Begin(context.Background(), nil)
		fidelity.Check(t.Context(), sceneOn(t, w, c, "w-1"), slices.Concat(fidelity.Bare(), fidelity.Facts()))
	})
}

func TestClustersAreAsTheRealOnesAre(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		golden.Check(t, "fidelity/applied.golden", lines(fidelity.Simulated(w, c)))
		teachClaims(w)
		w.Begin(t.Context(), nil)
		fidelity.Check(t.Context(), sceneOn(t, w, c, "cp-1"), fidelity.Master())
		fidelity.Check(t.Context(), sceneOn(t, w, c, "lb-1"), fidelity.Balancer())
	})
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow, w.MayEnd = true, true
		running(t, w, c, dirs[0])
		if err := reset(t.Context(), w, c, nil); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "fidelity/reset.golden", lines(fidelity.Simulated(w, c).Hosts()))
		teachClaims(w)
		w.Begin(t.Context(), nil)
		fidelity.Check(t.Context(), sceneOn(t, w, c, "cp-1"), fidelity.Reset())
	})
}

func lines(s fidelity.State) []byte { return []byte(strings.Join(s, "\n") + "\n") }

// byState are calls whose effects are compared as a whole: by the state that an
// apply and a reset leave, which e2e compares with real hosts.
var byState = []string{
	"act",     // of steps: kubeadm's phases and our scripts
	"sh ...",  // leftovers; the questions of a status, whose answers e2e's status reads; a drill's failures, which its e2e looks for on hosts
	"end of ", // steps
}

var attempt = regexp.MustCompile(`-[0-9]+$`)

// TestEveryFakeIsCompared goes through all calls that apply, scaling out, an upgrade,
// a drill, a care for etcd, a backup, restores, removals, a replacement and reset make, and wants a claim, or the comparison of states, for each of them.
func TestEveryFakeIsCompared(t *testing.T) {
	t.Parallel()
	three, dirs := dressed(t), baseDirs(t)
	five := fiveMasters(three)
	copied := copiedEvery(t, withoutCA(five), "6h")
	calls := map[string]bool{}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, five)
		w.Slow, w.MayEnd = true, true
		note := func() {
			for _, c := range w.Trace() {
				calls[attempt.ReplaceAllString(c.Name, "")] = true
			}
		}
		running(t, w, three, dirs[0])
		note()
		running(t, w, five, dirs[0])
		note()
		if _, err := drillAll(t.Context(), w, five, dirs[0], &phase.Runner{}, "etcd"); err != nil {
			t.Fatal(err)
		}
		note()
		full(w)
		if _, _, err := choreAll(t.Context(), w, withoutCA(five), DisarmAlarms(), nil); err != nil {
			t.Fatal(err)
		}
		note()
		for _, what := range []Chore{ScheduleBackups(), UnscheduleBackups()} {
			if _, _, err := choreAll(t.Context(), w, copied, what, nil); err != nil {
				t.Fatal(err)
			}
			note()
		}
		if _, err := backUp(t.Context(), w, five, BackupOptions{Directory: t.TempDir()}, nil, nil); err != nil {
			t.Fatal(err)
		}
		note()
		made, err := backUp(t.Context(), w, five, BackupOptions{Directory: t.TempDir()}, nil, nil)
		if err == nil {
			_, err = restoreAll(t.Context(), w, five, dirs[0], RestoreOptions{From: made.Path}, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		note()
		for _, gone := range []string{"cp-5", "w-2"} {
			if _, err := removeHost(t.Context(), w, withoutCA(five), RemoveOptions{Host: gone}, nil); err != nil {
				t.Fatal(err)
			}
			note()
		}
		if err := reset(t.Context(), w, five, nil); err != nil {
			t.Fatal(err)
		}
		note()
	})
	bubble(t, func(t *testing.T) {
		w := newWorld(t, three)
		w.Slow = true
		running(t, w, ofOlder(three), dirs[0])
		if _, err := upgradeAll(t.Context(), w, withoutCA(three), dirs[0], nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range w.Trace() {
			calls[attempt.ReplaceAllString(c.Name, "")] = true
		}
	})
	four := andOneMore(three)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, four)
		w.Slow = true
		running(t, w, three, dirs[0])
		w.Destroy("cp-3")
		if _, err := replaceHost(t.Context(), w, withoutCA(four), dirs[0], "cp-3", "cp-4", nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range w.Trace() {
			calls[attempt.ReplaceAllString(c.Name, "")] = true
		}
	})
	lost, c := loseAll(t, three, dirs[0]), elsewhere(t)
	other := lost.onto(t, c)
	bubble(t, func(t *testing.T) {
		w := other.World(t, c)
		w.Slow = true
		if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range w.Trace() {
			calls[attempt.ReplaceAllString(c.Name, "")] = true
		}
	})
	claims := slices.Concat(fidelity.Bare(), fidelity.Facts(), fidelity.Master(), fidelity.Balancer(), fidelity.Reset())
	compared := 0
	for name := range calls {
		if fidelity.Covered(claims, name) || slices.ContainsFunc(byState, func(form string) bool { return strings.HasPrefix(name, form) }) {
			compared++
			continue
		}
		t.Errorf("nothing compares what simulated hosts do on %q with real ones: it needs a claim in test/fidelity", name)
	}
	t.Logf("%d claims for %d different calls", len(claims), compared)
}

// TestAStepMakesAllItsActs whatever becomes of who waits for it: no script goes on
// without one of its commands. The real host's part is a claim: a step goes on
// without its installer.
func TestAStepMakesAllItsActs(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	for _, when := range []sim.When{sim.Before, sim.After} {
		for act := range 3 {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c)
				w.Slow = true
				var made []int
				w.StepScript("three acts", func(*sim.Host, []string) []func() error {
					var acts []func() error
					for i := range 3 {
						acts = append(acts, func() error { made = append(made, i); return nil })
					}
					return acts
				})
				cut := sim.Cut{Host: "cp-1", Name: fmt.Sprintf("act %d of three-1", act+1), Nth: 1, When: when, Fault: sim.Fails}
				ctx := w.Begin(t.Context(), &cut)
				h := sceneOn(t, w, c, "cp-1").Host
				three := host.Step{ID: "three-1", Argv: []string{"sh", "-c", "three acts", "sh"}}
				if _, err := h.Step(ctx, three); !errors.Is(err, host.ErrConnectionLost) {
					t.Errorf("%s: %v", cut, err)
				}
				r, err := h.Step(ctx, three)
				if err != nil || !r.Attached || !slices.Equal(made, []int{0, 1, 2}) {
					t.Errorf("%s: acts %v, attached %t, error %v", cut, made, r.Attached, err)
				}
			})
		}
	}
}
