package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

func TestTheWayThatLosesLeast(t *testing.T) {
	with := func(name string) recoverSeen { return recoverSeen{name: name, data: true, answers: true, revision: 7} }
	gone := func(name string) recoverSeen { return recoverSeen{name: name} }
	away := func(name string) recoverSeen { return recoverSeen{name: name, away: true} }
	of := func(cluster etcd.MemberID, m recoverSeen) recoverSeen { m.cluster = cluster; return m }
	for _, test := range []struct {
		says   string
		f      recoverFacts
		wished RecoverWay
		want   RecoverWay
		refuse string // why; "" for not
	}{
		{says: "all is well", f: recoverFacts{quorum: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, want: WayNone},
		{says: "two are away", f: recoverFacts{masters: []recoverSeen{with("a"), away("b"), away("c")}}, want: WaySurvivor},
		{says: "two have lost their data, a backup is there", f: recoverFacts{backup: "x", masters: []recoverSeen{with("a"), gone("b"), gone("c")}}, want: WaySurvivor},
		{says: "two have their data and do not run", f: recoverFacts{masters: []recoverSeen{{name: "a", data: true}, {name: "b", data: true}, away("c")}}, want: WayBringBack},
		{says: "the same, and the operator wants the survivor", f: recoverFacts{masters: []recoverSeen{{name: "a", data: true}, {name: "b", data: true}, away("c")}}, wished: WaySurvivor, want: WaySurvivor},
		{says: "all data are lost", f: recoverFacts{backup: "x", masters: []recoverSeen{gone("a"), gone("b"), gone("c")}}, want: WayBackup},
		{says: "all data are lost, and there is no backup", f: recoverFacts{masters: []recoverSeen{gone("a"), gone("b"), away("c")}}, refuse: "power c on"},
		{says: "the survivor misses its keys", f: recoverFacts{masters: []recoverSeen{{name: "a", data: true, lacks: "/etc/kubernetes/pki/ca.key"}, away("b"), away("c")}}, refuse: "bring that file back"},
		{says: "a backup is wished for that is not there", f: recoverFacts{masters: []recoverSeen{with("a"), away("b"), away("c")}}, wished: WayBackup, refuse: "--way backup"},
		{says: "one is not enough to bring back", f: recoverFacts{masters: []recoverSeen{with("a"), away("b"), away("c")}}, wished: WayBringBack, refuse: "2 of 3 are a quorum"},
		{says: "a recovery is half done", f: recoverFacts{halfDone: true, masters: []recoverSeen{with("a"), away("b"), away("c")}}, want: WayFinish},
		{says: "old members came back, and are a majority", f: recoverFacts{quorum: true, masters: []recoverSeen{with("a"), {name: "b", data: true, returned: true}, {name: "c", data: true, returned: true}}}, want: WayClean},
		{says: "the survivor had fallen behind the backup", f: recoverFacts{backup: "x", backupRevision: 9, backupCluster: 3, masters: []recoverSeen{of(3, with("a")), away("b"), away("c")}}, want: WayBackup},
		{says: "the backup is of another history", f: recoverFacts{backup: "x", backupRevision: 9, backupCluster: 4, masters: []recoverSeen{of(3, with("a")), away("b"), away("c")}}, want: WaySurvivor},
		{says: "the survivor is ahead of the backup", f: recoverFacts{backup: "x", backupRevision: 6, backupCluster: 3, masters: []recoverSeen{of(3, with("a")), away("b"), away("c")}}, want: WaySurvivor},
		{says: "the survivor misses its keys, and there is a backup that is older", f: recoverFacts{backup: "x", masters: []recoverSeen{{name: "a", data: true, lacks: "/etc/kubernetes/pki/ca.key"}, away("b"), away("c")}}, refuse: "--way backup, which loses"},
		{says: "the same, and the operator wants the backup", f: recoverFacts{backup: "x", masters: []recoverSeen{{name: "a", data: true, lacks: "/etc/kubernetes/pki/ca.key"}, away("b"), away("c")}}, wished: WayBackup, want: WayBackup},
		{says: "who takes part in what is half done is lost, too", f: recoverFacts{halfDone: true, stuck: []string{"b"}, backup: "x", masters: []recoverSeen{with("a"), away("b"), away("c")}}, refuse: "--way backup --lost b"},
		{says: "the same, and the operator begins anew", f: recoverFacts{halfDone: true, stuck: []string{"b"}, backup: "x", masters: []recoverSeen{with("a"), away("b"), away("c")}}, wished: WayBackup, want: WayBackup},
		{says: "the others are the new cluster", f: recoverFacts{halfDone: true, quorum: true, stuck: []string{"b"}, without: []string{"b"}, backup: "x", masters: []recoverSeen{with("a"), away("b"), with("c")}}, want: WayFinish},
		{says: "the same, and the operator would throw it away", f: recoverFacts{halfDone: true, quorum: true, stuck: []string{"b"}, without: []string{"b"}, backup: "x", masters: []recoverSeen{with("a"), away("b"), with("c")}}, wished: WayBackup, refuse: "has its quorum"},
		{says: "etcd is full", f: recoverFacts{full: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, refuse: "ha-install etcd alarms disarm"},
		{says: "etcd is full, and one member has said so", f: recoverFacts{full: true, quorum: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, refuse: "ha-install etcd alarms disarm"},
		{says: "the same, and a way is wished for", f: recoverFacts{full: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, wished: WaySurvivor, refuse: "ha-install etcd alarms disarm"},
		{says: "etcd is full, and a master is away", f: recoverFacts{full: true, masters: []recoverSeen{with("a"), with("b"), away("c")}}, refuse: "--way survivor --lost c"},
		{says: "the same, and the operator says so", f: recoverFacts{full: true, masters: []recoverSeen{with("a"), with("b"), away("c")}}, wished: WaySurvivor, want: WaySurvivor},
		{says: "a restore that is half done is full", f: recoverFacts{halfDone: true, full: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, want: WayFinish},
		{says: "a restore was begun on a cluster that is well", f: recoverFacts{planned: true, quorum: true, masters: []recoverSeen{with("a"), with("b"), with("c")}}, refuse: "ha-install restore INVENTORY"},
		{says: "a way is wished for, and quorum holds", f: recoverFacts{quorum: true, masters: []recoverSeen{with("a"), with("b"), away("c")}}, wished: WaySurvivor, refuse: "has its quorum"},
		{says: "bare masters came", f: recoverFacts{quorum: true, masters: []recoverSeen{with("a"), {name: "b", bare: true}, away("c")}}, want: WayJoin},
		{says: "one master has lost its data, the others hold quorum", f: recoverFacts{quorum: true, masters: []recoverSeen{with("a"), with("b"), gone("c")}}, want: WayNone},
	} {
		got, why, err := test.f.choose(test.wished)
		switch {
		case test.refuse != "":
			if err == nil || !strings.Contains(err.Error(), test.refuse) {
				t.Errorf("%s: %q, error %v, want a refusal with %q", test.says, got, err, test.refuse)
			}
		case err != nil || got != test.want || why == "":
			t.Errorf("%s: %q (%s), error %v, want %q", test.says, got, why, err, test.want)
		}
	}
}

// onlyMasters dials the named masters and all other hosts.
func onlyMasters(w *sim.World, masters ...string) Dial {
	return func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, dir string) (host.Host, error) {
		if ih.Role == inventory.RoleControlPlane && !slices.Contains(masters, ih.Name) {
			return nil, &host.UnreachableError{Host: ih.Name, Address: ih.Address + ":22", Err: os.ErrDeadlineExceeded}
		}
		return w.Dial(ctx, c, ih, dir)
	}
}

func recoverAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, dial Dial, o RecoverOptions, cut *sim.Cut, say func(phase.Event)) (phase.Tally, error) {
	w.MayEnd = true
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, dial)
	defer site.Close()
	if o.Backup.Directory == "" {
		o.Backup = backupsIn(w)
	}
	run := phase.Runner{Events: say}
	err := Recover(ctx, site, o, &run)
	return run.Tally(), err
}

// cp1Left is the operator's word when cp-1 alone is left.
var cp1Left = RecoverOptions{Lost: []string{"cp-2", "cp-3"}}

// lost takes masters' power and does not give it back.
func lost(w *sim.World, names ...string) {
	w.MayEnd = true
	for _, name := range names {
		w.Host(name).Down, w.Host(name).Mute = true, true
	}
}

// found gives it back.
func found(w *sim.World, names ...string) {
	for _, name := range names {
		w.Host(name).Down, w.Host(name).Mute = false, false
	}
}

// twoLost is a cluster of which one master is left.
func twoLost(t *testing.T, c *inventory.Cluster, dir string) *sim.State {
	t.Helper()
	return madeBy(t, c, func(t *testing.T, w *sim.World) {
		running(t, w, c, dir)
		lost(w, "cp-2", "cp-3")
	})
}

// onlyOne says what is not as the recovery of one master has to leave it.
func onlyOne(w *sim.World) string {
	var wrong []string
	if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter"}) {
		wrong = append(wrong, fmt.Sprintf("members %q", votes))
	}
	if note := string(w.Host("cp-1").Files[restoreFile].Content); !strings.Contains(note, `"done":true`) || !strings.Contains(note, `"verb":"recover"`) {
		wrong = append(wrong, "the note is "+note)
	}
	for _, lb := range []string{"lb-1", "lb-2"} {
		if config := string(w.Host(lb).Files["/etc/haproxy/haproxy.cfg"].Content); strings.Contains(config, "server cp-2") || !strings.Contains(config, "server cp-1") {
			wrong = append(wrong, lb+" still sends clients to a master that is left out")
		}
	}
	return strings.Join(wrong, "; ")
}

func TestRecoverFromASurvivorStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := workflow{
		name: "recover from one master of three", c: c, start: twoLost(t, c, dirs[0]),
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := recoverAll(ctx, w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, cut, nil)
			return err
		},
		wrong: onlyOne,
		about: notTheLock,
	}
	f.everywhere(t)
}

// planned wants a plan that has something to do, and changes nothing.
func planned(t *testing.T, w *sim.World, c *inventory.Cluster, dir string, dial Dial, want string) {
	t.Helper()
	ctx := w.Begin(t.Context(), nil)
	site := Connect(ctx, withoutCA(c), dir, dial)
	defer site.Close()
	var told string
	plan, _, err := PlanRecover(ctx, site, RecoverOptions{Backup: backupsIn(w)}, func(text string) { told = text })
	if err != nil || plan.Nothing() || !strings.Contains(told, want) {
		t.Errorf("%v, told %q, want %q", err, told, want)
	}
	for _, call := range w.Trace() {
		if call.Writes {
			t.Errorf("the plan changed %s by %q", call.Host, call.Name)
		}
	}
}

// TestThreeVotersAfterALostQuorum goes all the way: two of three lost, the one
// that is left makes a cluster of its own, the others come back as they were,
// and cannot merge; they are cleaned, and join.
func TestThreeVotersAfterALostQuorum(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := twoLost(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		planned(t, w, c, dirs[0], onlyMasters(w, "cp-1"), "way      survivor")
		var said []string
		say := func(e phase.Event) { said = append(said, e.Message) }
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, nil, say); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(said, "\n")
		for _, want := range []string{"cp-2     cannot be reached", "way      survivor", "power them on instead", "missing: cp-2, cp-3"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not said:\n%s", want, text)
			}
		}
		if bad := onlyOne(w); bad != "" {
			t.Error(bad)
		}
		if tally, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("a second recovery changed %d, error %v", tally.Changed, err)
		}

		found(w, "cp-2", "cp-3")
		if votes := w.Votes(); len(votes) != 1 {
			t.Errorf("those that came back are members: %q", votes)
		}
		if _, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil); err == nil {
			t.Error("apply goes on where members of two clusters run")
		}
		planned(t, w, c, dirs[0], w.Dial, "way      clean: cp-2, cp-3 came back")
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), unfinished(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
		if aside := w.Host("cp-2").Aside; !slices.Contains(aside, "/var/lib/etcd") {
			t.Errorf("cp-2's data were not moved aside: %q", aside)
		}
	})
}

func TestRecoverWhereDataAreLost(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	store := from[:strings.LastIndex(from, "/prod/")]
	for _, test := range []struct {
		says string
		lost []string
		way  string
	}{
		{"of two masters", []string{"cp-1", "cp-3"}, "way      survivor"},
		{"of all masters", []string{"cp-1", "cp-2", "cp-3"}, "way      backup"},
	} {
		t.Run(test.says, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow, w.MayEnd = true, true
				for _, name := range test.lost {
					w.LoseData(name)
				}
				var said []string
				o := RecoverOptions{Backup: BackupOptions{Directory: t.TempDir()}}
				if strings.HasSuffix(test.way, "backup") {
					o.Backup.Directory = store
				}
				if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, o, nil, func(e phase.Event) { said = append(said, e.Message) }); err != nil {
					t.Fatal(err)
				}
				if text := strings.Join(said, "\n"); !strings.Contains(text, test.way) {
					t.Errorf("%q is not said:\n%s", test.way, text)
				}
				if bad := append(w.Broken(), notRestored(w, c)); strings.Join(bad, "") != "" {
					t.Errorf("%q", bad)
				}
			})
		})
	}
}

func TestMembersThatOnlyStoppedAreBroughtBack(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow, w.MayEnd = true, true
		for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
			w.Host(name).Units["kubelet.service"].Active = false
		}
		before := w.Votes()
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if token, _ := w.Restored(); token != "" || !slices.Equal(w.Votes(), before) {
			t.Errorf("the cluster was made anew (%q), members %q", token, w.Votes())
		}
		if tally, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("a second recovery changed %d, error %v", tally.Changed, err)
		}
		var conflict *ConflictError
		w.Host("cp-1").Units["kubelet.service"].Active, w.Host("cp-2").Units["kubelet.service"].Active = false, false
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{Way: WayBackup}, nil, nil); !errors.As(err, &conflict) {
			t.Errorf("from a backup that is not there: %v", err)
		}
	})
}

// TestRecoverWantsTheOperatorsWord has etcd made anew only when somebody has
// said of all that cannot be reached that it is off, and nobody sees it.
func TestRecoverWantsTheOperatorsWord(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := twoLost(t, c, dirs[0])
	for _, test := range []struct {
		says string
		o    RecoverOptions
		meet func(*sim.World)
		want string
	}{
		{says: "no word", want: "--lost cp-2,cp-3"},
		{says: "a word about one of two", o: RecoverOptions{Lost: []string{"cp-2"}}, want: "cp-3 cannot be reached, and may still run"},
		{says: "a word about one that answers", o: RecoverOptions{Lost: []string{"cp-1", "cp-2", "cp-3"}}, want: "cp-1 is not lost"},
		{says: "a word about a host that is not there", o: RecoverOptions{Lost: []string{"cp-2", "cp-3", "cp-9"}}, want: "no master or balancer cp-9"},
		{says: "a lost one is seen by the others", o: cp1Left, meet: func(w *sim.World) { w.Host("cp-2").Down = false }, want: "cp-2 is not dead"},
		{says: "another way was agreed to", o: RecoverOptions{Lost: cp1Left.Lost, Agreed: new(RecoverWay)}, want: `the way was "", it is "survivor"`},
	} {
		t.Run(test.says, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				if test.meet != nil {
					test.meet(w)
				}
				tally, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), test.o, nil, nil)
				if err == nil || !strings.Contains(err.Error(), test.want) || tally.Changed > 0 {
					t.Errorf("%d changed, error %v, want %q", tally.Changed, err, test.want)
				}
				if note := w.Host("cp-1").Files[restoreFile]; note.Content != nil {
					t.Errorf("a refused recovery left %s", note.Content)
				}
			})
		})
	}
}

// TestOldMembersThatCanBeReachedAreFenced: a master that does not take part is
// stopped before another cluster runs beside what it has, and joins later.
func TestOldMembersThatCanBeReachedAreFenced(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		lost(w, "cp-3")
		delete(w.Host("cp-2").Files, "/etc/kubernetes/scheduler.conf")
		w.Host("cp-2").Mute = true
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1", "cp-2"), RecoverOptions{Lost: []string{"cp-3"}}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := onlyOne(w); bad != "" {
			t.Error(bad)
		}
		left := w.Host("cp-2")
		if _, manifest := left.Files["/etc/kubernetes/manifests/etcd.yaml"]; manifest || left.Units["kubelet.service"].Active {
			t.Errorf("cp-2 may run its old etcd: manifest %v, kubelet %v", manifest, left.Units["kubelet.service"])
		}
		found(w, "cp-2", "cp-3")
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), unfinished(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
	})
}

// TestARecoveryIsGivenUpWhenTheLostComeBack: nothing was stopped yet, and to
// finish it would lose what is written to the cluster that has its quorum again.
func TestARecoveryIsGivenUpWhenTheLostComeBack(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := twoLost(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		ctx, kill := context.WithCancel(t.Context())
		defer kill()
		_, err := recoverAll(ctx, w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, nil, func(e phase.Event) {
			if e.Kind == phase.Started && e.Phase == "stop" {
				kill()
			}
		})
		if note := string(w.Host("cp-1").Files[restoreFile].Content); !errors.Is(err, context.Canceled) || !strings.Contains(note, `"lost":["cp-2","cp-3"]`) {
			t.Fatalf("it was not stopped behind its note: %v, %s", err, note)
		}
		found(w, "cp-2", "cp-3")
		before := w.Votes()
		if config := string(w.Host("lb-1").Files["/etc/haproxy/haproxy.cfg"].Content); strings.Contains(config, "server cp-2") {
			t.Error("clients are sent to a master that is lost while the recovery is broken off")
		}
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, cp1Left, nil, nil); err != nil {
			t.Fatal(err)
		}
		if config := string(w.Host("lb-1").Files["/etc/haproxy/haproxy.cfg"].Content); !strings.Contains(config, "server cp-2") {
			t.Error("clients are still sent to one master only")
		}
		if token, _ := w.Restored(); token != "" || !slices.Equal(w.Votes(), before) || len(before) != 3 {
			t.Errorf("the cluster was made anew (%q), members %q", token, w.Votes())
		}
		if _, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil); err != nil {
			t.Errorf("apply after it: %v", err)
		}
	})
}

// TestTheSurvivorIsAsleep: its data give what they hold only when its etcd runs.
func TestTheSurvivorIsAsleep(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := twoLost(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		w.Host("cp-1").Units["kubelet.service"].Active = false
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := onlyOne(w); bad != "" {
			t.Error(bad)
		}
		// Of the new cluster's own the etcd is stopped, and the old ones are back.
		w.Host("cp-1").Units["kubelet.service"].Active = false
		found(w, "cp-2", "cp-3")
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), unfinished(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
	})
}
