package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/sim"
)

// slowDial connects each host after its time; one without never.
func slowDial(w *sim.World, after map[string]time.Duration) Dial {
	return func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, dir string) (host.Host, error) {
		took, ever := after[ih.Name]
		if !ever {
			took = time.Hour
		}
		select {
		case <-time.After(took):
			return w.Dial(ctx, c, ih, dir)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", ih.Name, ctx.Err())
		}
	}
}

func TestNoHostKeepsTheAnswerOfOthersBack(t *testing.T) {
	const ms = time.Millisecond
	all := func(d time.Duration, but map[string]time.Duration) map[string]time.Duration {
		after := map[string]time.Duration{}
		for _, name := range []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3", "w-1"} {
			after[name] = d
		}
		for name, d := range but {
			if after[name] = d; d < 0 {
				delete(after, name)
			}
		}
		return after
	}
	for _, row := range []struct {
		name   string
		after  map[string]time.Duration
		waited time.Duration // for cp-2
		up     bool
	}{
		{"all at once: nothing is waited for", all(50*ms, nil), 50 * ms, true},
		{"one never: patience is short when the others came at once", all(50*ms, map[string]time.Duration{"cp-2": -1}), leastPatience, false},
		{"two never", all(50*ms, map[string]time.Duration{"cp-2": -1, "cp-1": -1}), leastPatience, false},
		{"one is slow, within the patience", all(50*ms, map[string]time.Duration{"cp-2": 1200 * ms}), 1200 * ms, true},
		{"all are slow: the last one has three times as long", all(600*ms, map[string]time.Duration{"cp-2": 1700 * ms}), 1700 * ms, true},
		{"all are slow, one never", all(600*ms, map[string]time.Duration{"cp-2": -1}), 1800 * ms, false},
		{"most never: there is nobody to compare with", map[string]time.Duration{"lb-1": 50 * ms}, mostPatience, false},
		{"nobody ever", nil, mostPatience, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testCluster(t)
				w := newWorld(t, c)
				ctx, cancel := context.WithCancel(t.Context())
				began := time.Now()
				s := ConnectSoon(ctx, c, "", slowDial(w, row.after))
				if took := time.Since(began); took != 0 {
					t.Errorf("beginning took %s", took)
				}
				s.round() // as a status does, which counts its time from there
				h, err := s.host("cp-2")
				if took := time.Since(began); took != row.waited || (h != nil) != row.up || (err == nil) != row.up {
					t.Errorf("waited %s, want %s; %v, %v", took, row.waited, h, err)
				}
				var unreachable *host.UnreachableError
				if !row.up && (!errors.As(err, &unreachable) || !strings.Contains(err.Error(), "no SSH connection within ")) {
					t.Errorf("error %v", err)
				}
				began = time.Now()
				if _, again := s.host("cp-2"); time.Since(began) != 0 || (again == nil) != row.up {
					t.Errorf("asked again: waited %s, %v", time.Since(began), again)
				}
				cancel()
				synctest.Wait()
				s.Close()
			})
		})
	}
}

func TestHostsThatComeBackAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCluster(t)
		w := newWorld(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		var back atomic.Bool
		var dials atomic.Int32
		s := ConnectSoon(ctx, c, "", func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, dir string) (host.Host, error) {
			dials.Add(1)
			if ih.Name == "cp-2" && !back.Load() {
				return nil, errors.New("cp-2: no route to host")
			}
			return w.Dial(ctx, c, ih, dir)
		})
		if _, err := s.host("cp-2"); err == nil || !strings.Contains(err.Error(), "no route") {
			t.Errorf("error %v", err)
		}
		s.Redial(ctx)
		synctest.Wait()
		if n := dials.Load(); n != 7 {
			t.Errorf("%d dials, want 7: hosts that are connected are left alone", n)
		}
		back.Store(true)
		s.Redial(ctx)
		synctest.Wait()
		h, err := s.host("cp-2")
		if err != nil {
			t.Fatal(err)
		}
		var refused *host.ReadOnlyError
		if _, err := h.Run(ctx, host.Command{Argv: []string{"rm", "-rf", "/"}}); !errors.As(err, &refused) {
			t.Errorf("a host that came back can be changed: %v", err)
		}
		cancel()
		s.Close()
	})
}
