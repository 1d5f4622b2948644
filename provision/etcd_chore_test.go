package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// choreAll does a chore; what it said is returned.
func choreAll(ctx context.Context, w *sim.World, c *inventory.Cluster, what Chore, cut *sim.Cut) (phase.Tally, string, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, "", w.Dial)
	defer site.Close()
	var said strings.Builder
	run := phase.Runner{Events: func(e phase.Event) {
		if e.Kind == phase.Notice {
			fmt.Fprintln(&said, e.Message)
		}
	}}
	err := what.Run(ctx, site, nil, &run)
	return run.Tally(), said.String(), err
}

// caring is a chore as a workflow; wrong says what it has not done.
func caring(name string, c *inventory.Cluster, start *sim.State, what Chore, wrong func(w *sim.World) string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, _, err := choreAll(ctx, w, c, what, cut)
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

const mega = 1 << 20

// bloated is a finished cluster whose databases are mostly free room.
func bloated(w *sim.World) { w.Bloat(100*mega, 20*mega, 20*mega, 0) }

// full is a finished cluster that takes no write: two members have said so.
func full(w *sim.World) { w.Bloat(33*mega, 33*mega, 5*mega, 32*mega, "cp-1", "cp-3") }

// largest says which database is larger than it should be.
func largest(w *sim.World, most int64) string {
	for name, size := range w.Databases() {
		if size > most {
			return fmt.Sprintf("the database of %s has %d bytes", name, size)
		}
	}
	return ""
}

func withoutAlarms(w *sim.World) string {
	if n := w.Alarms(); n > 0 {
		return fmt.Sprintf("%d alarms are left", n)
	}
	return largest(w, 5*mega)
}

func TestDefragmentStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], bloated)
	caring("etcd defragment", c, start, Defragment(false), func(w *sim.World) string { return largest(w, 20*mega) }).everywhere(t)
}

func TestDisarmStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], full)
	caring("etcd alarms disarm", c, start, DisarmAlarms(), withoutAlarms).everywhere(t)
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

func TestDefragmentTellsSizesAndLeavesWhatIsNotWorthIt(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	plain := finished(t, testCluster(t), testCluster(t), dirs[0])
	for name, row := range map[string]struct {
		bloat   func(*sim.World)
		all     bool
		changed int
		said    []string
	}{
		"much is free":                           {bloated, false, 6, []string{"cp-1: the database had 105 MB, it has 21 MB", "cp-2: the database had", "cp-3: the database had"}},
		"next to nothing":                        {func(*sim.World) {}, false, 0, []string{"cp-1: the database has 1.0 MB, of which 524 kB are free: left as it is (--all does it anyway)"}},
		"all are asked for":                      {func(*sim.World) {}, true, 6, []string{"cp-3: the database had 1.0 MB, it has 524 kB"}},
		"much, but few of all":                   {func(w *sim.World) { w.Bloat(1000*mega, 900*mega, 900*mega, 0) }, false, 0, []string{"left as it is"}},
		"a tenth, and it is nearly at its quota": {func(w *sim.World) { w.Bloat(95*mega, 84*mega, 84*mega, 100*mega) }, false, 6, nil},
		"nearly at its quota":                    {func(w *sim.World) { w.Bloat(99*mega, 20*mega, 20*mega, 100*mega) }, false, 6, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := plain.World(t, c)
				row.bloat(w)
				tally, said, err := choreAll(t.Context(), w, c, Defragment(row.all), nil)
				if err != nil || tally.Changed != row.changed {
					t.Errorf("changed %d, error %v", tally.Changed, err)
				}
				for _, want := range row.said {
					if !strings.Contains(said, want) {
						t.Errorf("%q is not in:\n%s", want, said)
					}
				}
				if bad := append(w.Broken(), w.Drained()...); len(bad) > 0 {
					t.Errorf("%q", bad)
				}
			})
		})
	}
}

func TestDisarmRefusesWhereNoRoomWasMade(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], func(w *sim.World) { w.Bloat(33*mega, 32*mega, 31*mega, 32*mega, "cp-2") })
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		var refused *etcd.QuorumError
		_, _, err := choreAll(t.Context(), w, c, DisarmAlarms(), nil)
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "still has 33 MB of a quota of 34 MB") || !strings.Contains(refused.Run, "delete") {
			t.Errorf("error %v", err)
		}
		if bad := append(w.Broken(), w.Drained()...); w.Alarms() != 1 || len(bad) > 0 {
			t.Errorf("%d alarms, %q", w.Alarms(), bad)
		}
		// Somebody has deleted what nobody needs: the same command goes on.
		w.Bloat(33*mega, 31*mega, 3*mega, 32*mega, "cp-2")
		tally, said, err := choreAll(t.Context(), w, c, DisarmAlarms(), nil)
		if err != nil || w.Alarms() != 0 || !strings.Contains(said, "cp-2: the database had 35 MB, it has 3.1 MB") {
			t.Errorf("changed %d, %d alarms, error %v\n%s", tally.Changed, w.Alarms(), err, said)
		}
	})
}

// TestDisarmGoesOnWhereItBrokeOff wants who had its turn to have no second one: each
// makes clients wait.
func TestDisarmGoesOnWhereItBrokeOff(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], full)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		last := w.Leader() // has its turn when all others have had theirs
		_, _, err := choreAll(t.Context(), w, c, DisarmAlarms(), &sim.Cut{Host: last, Name: "etcd defragment", Nth: 1, When: sim.Before, Fault: sim.Fails})
		if err == nil || w.Alarms() != 2 || len(w.Drained()) > 0 {
			t.Errorf("%d alarms, drained %q, error %v", w.Alarms(), w.Drained(), err)
		}
		_, _, err = choreAll(t.Context(), w, c, DisarmAlarms(), nil)
		if text := withoutAlarms(w); err != nil || text != "" || len(w.Broken()) > 0 {
			t.Errorf("%s, %q, error %v", text, w.Broken(), err)
		}
		turns := map[string]int{}
		for _, call := range w.Trace() {
			if call.Name == "etcd defragment" {
				turns[call.Host]++
			}
		}
		if want := map[string]int{last: 1}; !maps.Equal(turns, want) {
			t.Errorf("the second run had turns of %v, want %v", turns, want)
		}
	})
}

func TestAlarmsThatAreNotForThisVerb(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], full)
	for name, row := range map[string]struct {
		chore   Chore
		corrupt string
		want    []string
	}{
		"defragment under NOSPACE":      {Defragment(false), "", []string{"cp-1 (member", "a NOSPACE alarm", "ha-install etcd alarms disarm"}},
		"defragment all under NOSPACE":  {Defragment(true), "", []string{"ha-install etcd alarms disarm"}},
		"disarm where one has diverged": {DisarmAlarms(), "cp-2", []string{"cp-2 (member", "a CORRUPT alarm", "ha-install replace INVENTORY cp-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				if row.corrupt != "" {
					w.Corrupt(row.corrupt)
				}
				before := w.Databases()
				_, _, err := choreAll(t.Context(), w, c, row.chore, nil)
				for _, want := range row.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
				if bad := append(w.Broken(), w.Drained()...); !maps.Equal(w.Databases(), before) || w.Alarms() != 2 || len(bad) > 0 {
					t.Errorf("%v, %d alarms, %q", w.Databases(), w.Alarms(), bad)
				}
			})
		})
	}
}

func TestChoresRefuseWhereQuorumWouldBeLost(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], bloated)
	for name, what := range map[string]Chore{"defragment": Defragment(false), "move-leader": MoveLeader("cp-3")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				for _, host := range []string{"cp-2", "cp-3"} {
					w.Host(host).Mute = true
				}
				before := w.Databases()
				var quorum *etcd.QuorumError
				var whole *NotWholeError
				_, _, err := choreAll(t.Context(), w, c, what, nil)
				if !errors.As(err, &quorum) && !errors.As(err, &whole) {
					t.Errorf("error %v", err)
				}
				if now := w.Databases(); fmt.Sprint(now) != fmt.Sprint(before) || len(w.Broken()) > 0 || len(w.Drained()) > 0 {
					t.Errorf("%v, %q, %q", now, w.Broken(), w.Drained())
				}
			})
		})
	}
}

func TestMoveLeaderChoosesAndRefuses(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		before := w.Leader()
		if _, _, err := choreAll(t.Context(), w, c, MoveLeader(""), nil); err != nil || w.Leader() == before || w.Leader() == "" {
			t.Errorf("%s led, %s leads, error %v", before, w.Leader(), err)
		}
		now := w.Leader()
		if tally, _, err := choreAll(t.Context(), w, c, MoveLeader(now), nil); err != nil || tally.Changed != 0 {
			t.Errorf("to who leads already: changed %d, error %v", tally.Changed, err)
		}
		for host, want := range map[string]string{"w-1": "w-1 is no master of the inventory", "nobody": "nobody is no master"} {
			var conflict *ConflictError
			if _, _, err := choreAll(t.Context(), w, c, MoveLeader(host), nil); !errors.As(err, &conflict) || !strings.Contains(conflict.What, want) {
				t.Errorf("to %s: error %v", host, err)
			}
		}
	})
}

func TestChoresArePlanned(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	plain := finished(t, testCluster(t), testCluster(t), dirs[0])
	for name, row := range map[string]struct {
		chore Chore
		bloat func(*sim.World)
		want  []string // all that would change
	}{
		"defragment":                {Defragment(false), bloated, []string{"cp-1: defragment", "cp-1: readmit", "cp-2: defragment", "cp-2: readmit", "cp-3: defragment", "cp-3: readmit"}},
		"nothing to defragment":     {Defragment(false), func(*sim.World) {}, nil},
		"disarm":                    {DisarmAlarms(), full, []string{"compact", "cp-1: defragment", "cp-1: readmit", "cp-2: defragment", "cp-2: readmit", "cp-3: defragment", "cp-3: readmit", "disarm"}},
		"no alarm to be taken back": {DisarmAlarms(), bloated, nil},
		"move-leader":               {MoveLeader(""), bloated, []string{"move-leader"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := plain.World(t, c)
				row.bloat(w)
				plan, err := planBy(t.Context(), t, w, c, "", func(ctx context.Context, site *Site) (Plan, error) { return row.chore.Plan(ctx, site, nil) })
				if err != nil {
					t.Fatal(err)
				}
				if got := inState(plan, phase.ToChange); !slices.Equal(got, row.want) {
					t.Errorf("%q, want %q", got, row.want)
				}
			})
		})
	}
}

func TestMembersAreToldWithTheirDatabasesAndAlarms(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], func(w *sim.World) { w.Bloat(33*mega, 20*mega, 20*mega, 32*mega, "cp-3") })
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		site := Connect(t.Context(), c, "", w.Dial)
		defer site.Close()
		all := LookAtMembers(t.Context(), site)
		if all.State != etcd.Degraded || len(all.Members) != 3 || len(all.Alarms) != 1 || all.Alarms[0].Host != "cp-3" || !strings.Contains(all.Alarms[0].Remedy, "etcd alarms disarm") {
			t.Errorf("%+v", all)
		}
		for i, m := range all.Members {
			if m.Host != fmt.Sprintf("cp-%d", i+1) || m.DBSize != 33*mega || m.DBInUse != 20*mega || m.DBQuota != 32*mega || m.Behind != 0 || (len(m.Alarms) == 1) != (m.Host == "cp-3") {
				t.Errorf("%+v", m)
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
				if _, _, err := choreAll(t.Context(), w, c, MoveLeader(to), nil); !errors.As(err, &quorum) && !errors.As(err, &whole) {
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
	if a := all.Alarms; len(a) != 2 || a[0].Host != "b" || !strings.Contains(a[0].Remedy, "etcd alarms disarm") || a[1].Host != "" || !strings.Contains(a[1].Remedy, "replace") {
		t.Errorf("%+v", a)
	}
}
