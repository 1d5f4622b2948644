package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// choreAll does a chore.
func choreAll(ctx context.Context, w *sim.World, c *inventory.Cluster, what Chore, cut *sim.Cut) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, "", w.Dial)
	defer site.Close()
	var run phase.Runner
	err := what.Run(ctx, site, nil, &run)
	return run.Tally(), err
}

// caring is a chore as a workflow; wrong says what it has not done.
func caring(name string, c *inventory.Cluster, start *sim.State, what Chore, wrong func(w *sim.World) string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := choreAll(ctx, w, c, what, cut)
			return err
		},
		wrong: func(w *sim.World) string {
			if text := unfinished(w, c); text != "" {
				return text
			}
			return wrong(w)
		},
		about: notTheLock,
	}
}

func TestMoveLeaderStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	to := ""
	bubble(t, func(t *testing.T) {
		if w := start.World(t, c); w.Leader() != "cp-3" {
			to = "cp-3"
		} else {
			to = "cp-2"
		}
	})
	f := caring("etcd move-leader", c, start, MoveLeader(to), func(w *sim.World) string {
		if now := w.Leader(); now != to {
			return now + " leads"
		}
		return ""
	})
	f.everywhere(t)
}

func TestMoveLeaderChoosesAndRefuses(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		before := w.Leader()
		if _, err := choreAll(t.Context(), w, c, MoveLeader(""), nil); err != nil || w.Leader() == before || w.Leader() == "" {
			t.Errorf("%s led, %s leads, error %v", before, w.Leader(), err)
		}
		now := w.Leader()
		if tally, err := choreAll(t.Context(), w, c, MoveLeader(now), nil); err != nil || tally.Changed != 0 {
			t.Errorf("to who leads already: changed %d, error %v", tally.Changed, err)
		}
		for host, want := range map[string]string{"w-1": "w-1 is no master of the inventory", "nobody": "nobody is no master"} {
			var conflict *ConflictError
			if _, err := choreAll(t.Context(), w, c, MoveLeader(host), nil); !errors.As(err, &conflict) || !strings.Contains(conflict.What, want) {
				t.Errorf("to %s: error %v", host, err)
			}
		}
	})
}

func TestMoveLeaderIsRefusedWithoutQuorum(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	for name, to := range map[string]string{"to one that is not there": "cp-3", "to any": "", "to the one that is left": "cp-1"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				for _, host := range []string{"cp-2", "cp-3"} {
					w.Host(host).Mute = true
				}
				var quorum *etcd.QuorumError
				var whole *NotWholeError
				if _, err := choreAll(t.Context(), w, c, MoveLeader(to), nil); !errors.As(err, &quorum) && !errors.As(err, &whole) {
					t.Errorf("error %v", err)
				}
				for _, call := range w.Trace() {
					if call.Name == "etcd move leader" {
						t.Errorf("%s was asked to move leadership", call.Host)
					}
				}
			})
		})
	}
}

func TestMoveLeaderIsPlanned(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		for to, want := range map[string]string{"": "move-leader", w.Leader(): ""} {
			plan, err := planBy(t.Context(), t, w, c, "", func(ctx context.Context, site *Site) (Plan, error) { return MoveLeader(to).Plan(ctx, site, nil) })
			if got := strings.Join(inState(plan, phase.ToChange), " "); err != nil || got != want {
				t.Errorf("to %q: %q, error %v", to, got, err)
			}
		}
	})
}

func TestMembersAreToldAlsoOfAHostThatIsAway(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Destroy("cp-2")
		site := Connect(t.Context(), c, "", w.Dial)
		defer site.Close()
		all := LookAtMembers(t.Context(), site)
		if all.State != etcd.Degraded || len(all.Members) != 3 || all.Leader == "" || all.Quorum.Healthy != 2 || len(all.Alarms) != 0 {
			t.Errorf("%+v", all)
		}
		for i, m := range all.Members {
			there := m.Host != "cp-2"
			if m.Host != fmt.Sprintf("cp-%d", i+1) || m.Role != etcd.Voter || m.Healthy != there || (m.DBSize > m.DBInUse && m.DBInUse > 0 && m.DBQuota > 0 && m.Version != "") != there || (m.Why == "") != there {
				t.Errorf("%+v", m)
			}
		}
	})
}

func TestRowsOfMembers(t *testing.T) {
	v := etcd.Verdict{State: etcd.Degraded, LeaderName: "a", Members: []etcd.Member{
		{ID: 1, Name: "a", Host: "a", RaftIndex: 100, AppliedIndex: 100, Version: "3.6.8"},
		{ID: 2, Name: "b", Host: "b", RaftIndex: 100, AppliedIndex: 93, Version: "3.6.8"},
		{ID: 3, Name: "c", Host: "c"},
		{ID: 4, Name: "gone", Ghost: true, RaftIndex: 90, AppliedIndex: 90, Version: "3.6.7"},
	}, Alarms: []etcd.Alarm{{Member: 2, Kind: "NOSPACE"}, {Member: 5, Kind: "CORRUPT"}}}
	all := membersOf(v)
	var got []string
	for _, m := range all.Members {
		got = append(got, fmt.Sprint(m.Name, "/", m.Host, " ", m.Behind, " ", m.Alarms))
	}
	if want := "a/a 0 [], b/b 7 [NOSPACE], c/c 0 [], gone/ 10 []"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %q", got, want)
	}
	if a := all.Alarms; len(a) != 2 || a[0].Host != "b" || !strings.Contains(a[0].Remedy, "defrag on each") || a[1].Host != "" || !strings.Contains(a[1].Remedy, "replace") {
		t.Errorf("%+v", a)
	}
}
