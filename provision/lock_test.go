package provision

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// operator runs apply in a world where others may run at the same time.
func operator(ctx context.Context, w *sim.World, c *inventory.Cluster, dir, name string, say func(phase.Event)) error {
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	site.Operation = Operation{Command: "ha-install apply prod.yaml", Operator: name}
	return Apply(ctx, site, &phase.Runner{Events: say})
}

// TestTwoOperatorsBeginAtOnce on bare hosts, each with a CA set of its own to
// give: one makes the cluster, the other is told by whom it is held.
func TestTwoOperatorsBeginAtOnce(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	ctx := w.Begin(context.Background(), nil)
	var errs [2]error
	var both sync.WaitGroup
	for i, name := range []string{"anna@one", "bert@two"} {
		both.Go(func() { errs[i] = operator(ctx, w, c, dirs[i], name, nil) })
	}
	both.Wait()
	winner := 0
	if errs[0] != nil {
		winner = 1
	}
	var locked *LockedError
	if errs[winner] != nil || !errors.As(errs[1-winner], &locked) {
		t.Fatalf("errors %v and %v", errs[0], errs[1])
	}
	if want := []string{"anna@one", "bert@two"}[winner]; !strings.Contains(locked.Error(), want) || locked.Holder.Operator != want || locked.Host != "cp-1" {
		t.Errorf("the refusal is %q", locked)
	}
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	for _, ih := range c.ControlPlanes() {
		if fingerprintOn(w.Host(ih.Name)) != sets[winner].Fingerprint() {
			t.Errorf("%s does not have the winner's CA set", ih.Name)
		}
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// TestAFrozenOperatorWakesUpAfterAnotherTookOver in the middle of a join: it
// must do nothing more, on no host, to no member and to no object of the API.
func TestAFrozenOperatorWakesUpAfterAnotherTookOver(t *testing.T) {
	for _, at := range []string{"claim", "init", "join", "network"} {
		t.Run("frozen in "+at, func(t *testing.T) {
			t.Parallel()
			c, dirs := testCluster(t), baseDirs(t)
			w := newWorld(t, c)
			ctx := w.Begin(context.Background(), nil)
			asleep, wake := make(chan struct{}), make(chan struct{})
			var once sync.Once
			first := make(chan error)
			go func() {
				first <- operator(ctx, w, c, dirs[0], "anna@one", func(e phase.Event) {
					if e.Phase == at && e.Kind == phase.Started {
						once.Do(func() { close(asleep); <-wake })
					}
				})
			}()
			<-asleep
			w.Freeze()
			if err := operator(ctx, w, withoutCA(c), dirs[1], "bert@two", nil); err != nil {
				t.Fatalf("the second: %v", err)
			}
			before, votes := w.Snapshot(nil), strings.Join(w.Votes(), ",")
			close(wake)
			w.Wake()
			err := <-first
			var fenced *host.FencedError
			if !errors.As(err, &fenced) || fenced.By.Operator != "bert@two" {
				t.Errorf("the first, which was frozen: %v", err)
			}
			if after := w.Snapshot(nil); after != before || strings.Join(w.Votes(), ",") != votes {
				t.Error("the one that was frozen has changed something")
			}
			if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
				t.Errorf("%q", bad)
			}
		})
	}
}

func TestALockIsOursWhileAMajorityOfMastersSaysSo(t *testing.T) {
	for _, row := range []struct {
		name  string
		fresh []bool // by master
		want  bool
	}{
		{"one of one", []bool{true}, true},
		{"none of one", []bool{false}, false},
		{"one of two is no majority", []bool{true, false}, false},
		{"two of three, the third reboots", []bool{true, false, true}, true},
		{"one of three", []bool{false, false, true}, false},
		{"two of four is no majority", []bool{true, true, false, false}, false},
		{"three of five", []bool{true, true, false, false, true}, true},
	} {
		l := &lock{journal: newJournal(), held: map[string]host.Lock{}}
		for i, fresh := range row.fresh {
			name := string(rune('a' + i))
			l.masters = append(l.masters, name)
			l.held[name] = heldLock{fresh: fresh}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := l.confirm(ctx)
		cancel()
		if (err == nil) != row.want {
			t.Errorf("%s: %v", row.name, err)
		}
		if err != nil && !errors.Is(err, host.ErrConnectionLost) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// heldLock is a lock with a given epoch and freshness.
type heldLock struct {
	host.Lock
	fresh bool
	epoch string
}

func (h heldLock) Fresh() bool   { return h.fresh }
func (h heldLock) Epoch() string { return h.epoch }

func TestEpochsNeverGoBackwards(t *testing.T) {
	for _, row := range []struct {
		name string
		on   []string
		want int
	}{
		{"bare hosts", []string{"0", "0"}, 1},
		{"all have the last one", []string{"7.x", "7.x"}, 8},
		{"one was away", []string{"7.x", "9.y", "8.z"}, 10},
		{"one was set up anew", []string{"0", "9.y"}, 10},
		{"one is damaged", []string{"", "3.y"}, 4},
	} {
		l := &lock{held: map[string]host.Lock{}}
		for i, e := range row.on {
			l.held[string(rune('a'+i))] = heldLock{epoch: e}
		}
		if got := l.nextEpoch(); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}
