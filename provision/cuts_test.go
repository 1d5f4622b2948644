package provision

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/sim"
)

var (
	everywhereFlag = flag.Bool("everywhere", false, "kill the installer at every point of every workflow, not at a sample of them, and try -cuts other faults of each kind")
	cutsFlag       = flag.Int("cuts", 4, "with -everywhere, faults tried of each kind and workflow; 0 tries all")
	seedFlag       = flag.Uint64("seed", 1, "what samples are drawn with")
	callsFlag      = flag.String("calls", "", "only kills after, and faults of, calls of which the name has this in it: 'lease end'")
)

// everywhere says whether all points are tried, and how many other faults of each
// kind. HA_INSTALL_EVERYWHERE=N stands for -everywhere -cuts N: go test remembers
// what runs without flags of ours came to, as long as the variables that a test
// has read (a test, and not what is before it) stay the same.
func everywhere() (bool, int) {
	if n, err := strconv.Atoi(os.Getenv("HA_INSTALL_EVERYWHERE")); err == nil {
		return true, n
	}
	return *everywhereFlag, *cutsFlag
}

// fewPoints is how many points of a workflow are tried without -everywhere.
const fewPoints = 10

// tries is how many faults of each kind are tried.
func tries() int {
	if all, cuts := everywhere(); all {
		return cuts
	}
	return 1
}

// bubble runs f where the clock is false: hosts take the time of real ones,
// and no test waits for them.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) // a bubble begins in 2000, before our certificates do
		f(t)
	})
}

// runBudget is more than any run takes by the hosts' clocks.
const runBudget = 2 * time.Hour

// workflow is one thing that the program does, to be stopped anywhere.
type workflow struct {
	name  string
	c     *inventory.Cluster
	start *sim.State
	// run is the program. again is not the first try: it has other CA files to give.
	run func(ctx context.Context, w *sim.World, again bool, cut *sim.Cut) error
	// wrong says what is not as it has to be when all is done, "" for nothing.
	wrong func(w *sim.World) string
	// then has to work after it; asked after a kill.
	then func(ctx context.Context, w *sim.World) error
	// about narrows the points and faults to the calls that it is about; nil: all.
	about func(sim.Call) bool
}

// world is where the workflow begins.
func (f workflow) world(t *testing.T, s *sim.State) *sim.World {
	w := s.World(t, f.c)
	w.Slow = true
	return w
}

// point is a world that a killed installer leaves.
type point struct {
	story string
	state *sim.State
	later time.Duration // until somebody runs it again
}

// muchLater is when whatever a run has set to end by itself is over.
const muchLater = 15 * time.Minute

// undisturbed runs the workflow once and returns what it called, what it left,
// and every world in between.
func (f workflow) undisturbed(t *testing.T) (trace []sim.Call, want string, points []point) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		w := f.world(t, f.start)
		points = append(points, point{story: "before anything is done", state: w.Keep()})
		w.Watch(func(m sim.Moment) {
			if f.about == nil || f.about(m.Call) {
				points = append(points, point{story: m.String(), state: m.Keep()})
			}
		})
		if err := f.run(t.Context(), w, false, nil); err != nil {
			t.Fatal(err)
		}
		trace, want = slices.DeleteFunc(w.Trace(), func(c sim.Call) bool { return f.about != nil && !f.about(c) }), f.seen(w)
		if bad := f.bad(w); bad != "" {
			t.Fatalf("an undisturbed run: %s", bad)
		}
	})
	return trace, want, points
}

// seen is what two worlds are compared by.
func (f workflow) seen(w *sim.World) string { return ofAnyRun(w.Snapshot(sameKind)) }

func (f workflow) bad(w *sim.World) string {
	bad := append(w.Broken(), w.Lost()...)
	if f.wrong != nil {
		if text := f.wrong(w); text != "" {
			bad = append(bad, text)
		}
	}
	return strings.Join(bad, "; ")
}

// converges runs the workflow again and says what is wrong, "" for nothing.
func (f workflow) converges(ctx context.Context, w *sim.World, want string) string {
	if err := f.run(ctx, w, true, nil); err != nil {
		return "the second run: " + err.Error()
	}
	if got := f.seen(w); got != want {
		return "the end differs from an undisturbed run's (-want +got):\n" + cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
	}
	return f.bad(w)
}

func (f workflow) after(ctx context.Context, w *sim.World, bad string) string {
	if bad != "" || f.then == nil {
		return bad
	}
	if err := f.then(ctx, w); err != nil {
		return err.Error()
	}
	return ""
}

// killed goes on from what the installer left when it was killed.
func (f workflow) killed(t *testing.T, p point, want string) {
	bubble(t, func(t *testing.T) {
		time.Sleep(p.later)
		ctx, cancel := context.WithTimeout(t.Context(), runBudget)
		defer cancel()
		w := f.world(t, p.state)
		if bad := f.after(ctx, w, f.converges(ctx, w, want)); bad != "" {
			t.Errorf("%s, run again after %s: %s", p.story, p.later, bad)
		}
	})
}

// cutAt runs the workflow into a fault, waits until all hosts are back, and
// runs it again.
func (f workflow) cutAt(t *testing.T, cut sim.Cut, want string) (struck bool) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), runBudget)
		defer cancel()
		w := f.world(t, f.start)
		err := f.run(ctx, w, false, &cut)
		struck = w.Struck()
		if err == nil {
			if bad := f.bad(w); bad != "" {
				t.Errorf("%s: the first run said that all is done: %s", cut, bad)
			}
		}
		w.Back()
		if bad := f.converges(ctx, w, want); bad != "" {
			t.Errorf("%s: %s\n(the first run: %v)", cut, bad, err)
		}
	})
	return struck
}

// faultsOf are the faults that a trace allows, by kind. Reads are polled, and
// only their first and last call can be told again.
func faultsOf(trace []sim.Call) map[sim.Fault][]sim.Cut {
	all := map[sim.Fault][]sim.Cut{}
	add := func(c sim.Call, when sim.When, faults ...sim.Fault) {
		for _, fault := range faults {
			all[fault] = append(all[fault], sim.Cut{Host: c.Host, Name: c.Name, Nth: c.Nth, When: when, Fault: fault})
		}
	}
	for i, c := range trace {
		if !c.Writes {
			later := slices.ContainsFunc(trace[i+1:], func(o sim.Call) bool { return o.Host == c.Host && o.Name == c.Name })
			if c.Nth == 1 || !later {
				add(c, sim.Before, sim.Fails, sim.Loses, sim.Reboots)
			}
			continue
		}
		add(c, sim.Before, sim.Fails, sim.Breaks)
		add(c, sim.After, sim.Fails, sim.Loses, sim.Reboots)
		if strings.HasPrefix(c.Name, "act ") {
			add(c, sim.After, sim.Slays)
		}
		if c.Parts > 1 {
			add(c, sim.Half, sim.Fails, sim.Reboots)
		}
		if strings.HasPrefix(c.Name, "etcd ") {
			add(c, sim.Before, sim.EtcdDies, sim.Isolates, sim.Reboots)
			add(c, sim.After, sim.EtcdDies, sim.Isolates)
		}
	}
	return all
}

// sample draws n of the cuts, 0 for all.
func sample(cuts []sim.Cut, n int) []sim.Cut {
	if n == 0 || len(cuts) <= n {
		return cuts
	}
	random, drawn := rand.New(rand.NewPCG(*seedFlag, uint64(len(cuts)))), slices.Clone(cuts)
	random.Shuffle(len(drawn), func(i, j int) { drawn[i], drawn[j] = drawn[j], drawn[i] })
	return drawn[:n]
}

// shards is how many cut runs go on at once.
const shards = 3

// everywhere stops the workflow at every point at which a kill -9 can leave
// another world, to be run again at once or, every other time, much later; and at a
// sample of its calls in every other way. Without the flag of the same name it is
// content with a few.
func (f workflow) everywhere(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small, and there are thousands
	if about := f.about; *callsFlag != "" {
		f.about = func(c sim.Call) bool { return strings.Contains(c.Name, *callsFlag) && (about == nil || about(c)) }
	}
	trace, want, points := f.undisturbed(t)
	var runs []func(*testing.T)
	kills := len(points)
	if all, _ := everywhere(); !all {
		kills = min(kills, fewPoints)
	}
	for i := range kills { // evenly
		p := points[i*len(points)/kills]
		if i%2 > 0 {
			p.later = muchLater
		}
		runs = append(runs, func(t *testing.T) { f.killed(t, p, want) })
	}
	var mu sync.Mutex
	struck := map[sim.Fault]int{}
	faults, told := faultsOf(trace), fmt.Sprintf("%s: killed at %d of %d points", f.name, kills, len(points))
	for _, fault := range []sim.Fault{sim.Fails, sim.Loses, sim.Reboots, sim.EtcdDies, sim.Isolates, sim.Breaks, sim.Slays} {
		for _, cut := range sample(faults[fault], tries()) {
			runs = append(runs, func(t *testing.T) {
				hit := f.cutAt(t, cut, want)
				mu.Lock()
				defer mu.Unlock()
				if hit {
					struck[fault]++
				}
			})
		}
	}
	t.Run("all", func(t *testing.T) {
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for i := shard; i < len(runs); i += shards {
					t.Run(fmt.Sprint(i), runs[i])
				}
			})
		}
	})
	for fault := sim.Fails; fault <= sim.Slays; fault++ {
		if n := len(faults[fault]); n > 0 {
			told += fmt.Sprintf("; %s: %d of %d", fault, struck[fault], n)
		}
	}
	t.Log(told)
}

// walk kills run after run, each at any point of it, until one is let through.
func (f workflow) walk(t *testing.T, random *rand.Rand, kills int) {
	t.Helper()
	_, want, _ := f.undisturbed(t)
	state, story := f.start, []string{}
	for i := range kills {
		bubble(t, func(t *testing.T) {
			w := f.world(t, state)
			seen, told := 0, ""
			w.Watch(func(m sim.Moment) {
				if seen++; random.IntN(seen) == 0 {
					state, told = m.Keep(), m.String()
				}
			})
			if err := f.run(t.Context(), w, i > 0, nil); err != nil {
				t.Errorf("after %q: %v", story, err)
			}
			story = append(story, told)
		})
	}
	f.killed(t, point{story: strings.Join(story, ", then "), state: state}, want)
}
