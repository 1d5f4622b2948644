//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// killPoint is where a run is killed: at the end of a phase, or some time
// after its beginning.
type killPoint struct {
	phase, host string
	inside      bool
	after       time.Duration // inside: since the phase began
}

func (p killPoint) String() string {
	name := p.phase
	if p.host != "" {
		name = p.host + ": " + p.phase
	}
	if p.inside {
		return fmt.Sprintf("%s after it began %s", p.after.Round(time.Millisecond), name)
	}
	return "at the end of " + name
}

// hit says whether a line of events is the point; for one inside a phase it
// waits for the moment.
func (p killPoint) hit(line string) bool {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Phase != p.phase || e.Host != p.host {
		return false
	}
	if p.inside && e.Kind == "started" {
		time.Sleep(p.after)
		return true
	}
	return !p.inside && ended(e)
}

func ended(e event) bool { return e.Kind == "finished" || e.Kind == "skipped" }

// span is one phase of an undisturbed run.
type span struct {
	phase, host  string
	began, ended time.Duration // since the run began
}

func (s span) took() time.Duration { return s.ended - s.began }

// spansOf lists the phases of a run in the order in which they ended.
func spansOf(t *testing.T, r result) []span {
	t.Helper()
	began := map[[2]string]time.Duration{}
	var spans []span
	for n, e := range r.events(t) {
		key := [2]string{e.Phase, e.Host}
		if e.Kind == "started" {
			began[key] = r.at[n]
		} else if ended(e) {
			spans = append(spans, span{e.Phase, e.Host, began[key], r.at[n]})
		}
	}
	return spans
}

// killPoints derives from an undisturbed run where the runs of a chain are to
// be killed, in order: at every boundary between phases (of a phase that runs
// on many hosts at once, when one host has ended and others have not, or as
// the last one ends).
func killPoints(spans []span, random *rand.Rand) []killPoint {
	var points []killPoint
	for len(spans) > 0 {
		n := 1
		for n < len(spans) && spans[n].phase == spans[0].phase && spans[n].began < spans[0].ended {
			n++
		}
		one := spans[random.IntN(n)]
		points = append(points, killPoint{phase: one.phase, host: one.host})
		spans = spans[n:]
	}
	return points
}

// killsInside picks moments inside phases, each phase as likely as it is long,
// and puts them before the end of the same phase.
func killsInside(points []killPoint, spans []span, random *rand.Rand, count int) []killPoint {
	var whole time.Duration
	for _, s := range spans {
		whole += s.took()
	}
	for range count {
		at := time.Duration(random.Int64N(int64(whole)))
		i := 0
		for ; at >= spans[i].took(); i++ {
			at -= spans[i].took()
		}
		p := killPoint{phase: spans[i].phase, host: spans[i].host, inside: true, after: at}
		where := slices.IndexFunc(points, func(q killPoint) bool { return q.phase == p.phase && q.host == p.host })
		if where < 0 { // another host stands for the phase
			where = slices.IndexFunc(points, func(q killPoint) bool { return q.phase == p.phase })
		}
		points = slices.Insert(points, where, p)
	}
	return points
}

// everyNth keeps one of each n points that follow each other, always the same one
// of them, which is left to chance.
func everyNth(points []killPoint, n int, random *rand.Rand) []killPoint {
	var kept []killPoint
	for i := random.IntN(n); i < len(points); i += n {
		kept = append(kept, points[i])
	}
	return kept
}

// seeded is the source of what a test leaves to chance; its seed is logged,
// and HA_INSTALL_E2E_SEED brings a run back.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HA_INSTALL_E2E_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("HA_INSTALL_E2E_SEED: %v", err)
		}
	}
	t.Logf("HA_INSTALL_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// mostKills bounds a chain of kills that gets nowhere.
const mostKills = 80

// killedAtEveryEnd runs the program again and again, and kills each run at the end
// of a phase, on a host, at which none was killed before: every run gets one step
// further than the one before, until one comes through, which is returned. Fewer
// kills than least fail the test.
func killedAtEveryEnd(t *testing.T, least int, args ...string) (last result) {
	t.Helper()
	seen, began := map[[2]string]bool{}, time.Now()
	for killed := 0; ; killed++ {
		var at event
		last = haWatched(t, func(line string) bool {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Kind != "finished" || e.Phase == "" || seen[[2]string{e.Phase, e.Host}] {
				return false
			}
			at = e
			return true
		}, args...)
		if last.code == 0 {
			t.Logf("%s came through in %s after %d kills, all in %s", args[0], last.took.Round(100*time.Millisecond), killed, time.Since(began).Round(time.Second))
			if killed < least {
				t.Errorf("only %d runs were killed, want %d or more", killed, least)
			}
			return last
		}
		if last.code != -1 || killed == mostKills {
			t.Fatalf("after %d kills: the run was not killed, it ended with exit %d\n%s", killed, last.code, last.tail())
		}
		seen[[2]string{at.Phase, at.Host}] = true
		t.Logf("kill %2d at the end of %s %s, after %s", killed+1, at.Host, at.Phase, last.took.Round(100*time.Millisecond))
	}
}
