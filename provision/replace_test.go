package provision

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// replaceHost is `ha-install replace`; with may be "", cut nil.
func replaceHost(ctx context.Context, w *sim.World, c *inventory.Cluster, dir, lost, with string, cut *sim.Cut) (phase.Tally, error) {
	target, o, err := ReplaceTarget(c, lost, with)
	if err != nil {
		return phase.Tally{}, err
	}
	w.MayLeave = lost
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, target, dir, w.Dial)
	defer site.Close()
	var run phase.Runner
	o.Backup = backupsIn(w)
	err = Replace(ctx, site, o, nil, &run)
	return run.Tally(), err
}

// replacing is `ha-install replace` as a workflow.
func replacing(name, lost, with string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	whole := c
	if with != "" {
		whole = lessHost(c, lost)
	}
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := replaceHost(ctx, w, withoutCA(c), dirs[0], lost, with, cut)
			return err
		},
		wrong: func(w *sim.World) string {
			wrong := joined(w, whole)
			if noted := noted(w); !strings.HasSuffix(noted, noteEnded) {
				wrong += "; noted: " + noted
			}
			if with != "" && slices.Contains(w.API.Names("nodes"), "/"+lost) {
				wrong += "; the Node " + lost + " is left"
			}
			return wrong
		},
		about: notTheLock,
	}
}

func noted(w *sim.World) string {
	data, _ := w.API.Get("configmaps", "kube-system", "ha-install")["data"].(map[string]any)
	text, _ := data[noteReplacing].(string)
	return text
}

// one more master than the test's cluster has, which is not there yet.
func andOneMore(c *inventory.Cluster) *inventory.Cluster {
	return lessHost(lessHost(fiveMasters(c), "cp-5"), "w-2")
}

// loss is a finished cluster in which something was lost.
func loss(t *testing.T, have, c *inventory.Cluster, dir string, lose func(*sim.World)) *sim.State {
	t.Helper()
	return madeBy(t, c, func(t *testing.T, w *sim.World) {
		running(t, w, have, dir)
		lose(w)
	})
}

func TestReplaceByAnotherHostStoppedAnywhere(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	four := andOneMore(three)
	start := loss(t, three, four, dirs[0], func(w *sim.World) { w.Destroy("cp-1") })
	f := replacing("replace of the first master, dead, by another host", "cp-1", "cp-4", four, start, dirs)
	f.about = func(c sim.Call) bool { return notTheLock(c) && c.Host != "cp-4" } // which joins as in an apply
	f.everywhere(t)
}

func TestReplaceByTheSameHostStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := loss(t, c, c, dirs[0], func(w *sim.World) {
		w.Destroy("cp-1")
		w.Wipe(c, "cp-1")
	})
	replacing("replace of the first master by itself, installed anew", "cp-1", "", c, start, dirs).everywhere(t)
}

func TestReplaceOfWipedDataStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := loss(t, c, c, dirs[0], func(w *sim.World) {
		w.WipeData("cp-2")
		w.Succeed("cp-2")
	})
	replacing("replace of a master without its data", "cp-2", "", c, start, dirs).everywhere(t)
}

func TestReplaceOfTheVIPsHolderStoppedAnywhere(t *testing.T) {
	t.Parallel()
	three, dirs := onMasters(testCluster(t)), baseDirs(t)
	four := andOneMore(three)
	start := loss(t, three, four, dirs[0], func(w *sim.World) { w.Destroy("cp-1") })
	f := replacing("replace of a dead master that held the VIP", "cp-1", "cp-4", four, start, dirs)
	f.about = ofTheBalancer
	f.everywhere(t)
}

// renewedBy keeps a Node's lease moving, as its kubelet does.
func renewedBy(w *sim.World, node string) {
	w.API.Set("leases", "kube-node-lease", node, coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: time.Now()}}})
}

// TestReplaceRefuses what is not lost, and what cannot be replaced.
func TestReplaceRefuses(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	four := andOneMore(three)
	start := finished(t, three, four, dirs[0])
	rows := []struct {
		name       string
		lost, with string
		prepare    func(*testing.T, *sim.World)
		want       []string
	}{
		{"one that lives", "cp-2", "cp-4", nil, []string{"cp-2 is not dead", "cp-1: port 2379 is open", "ha-install remove"}},
		{"one that lives, by itself", "cp-2", "", nil, []string{"cp-2 is not lost", "has its etcd data"}},
		{"one whose etcd alone is down", "cp-2", "cp-4", func(_ *testing.T, w *sim.World) { w.Host("cp-2").Mute = true }, []string{"port 2379 is refused by it, so that it runs"}},
		{"one whose kubelet is heard of", "cp-2", "cp-4", func(t *testing.T, w *sim.World) {
			renewedBy(w, "cp-2")
			w.Destroy("cp-2")
			ctx, cancel := context.WithCancel(context.Background())
			t.Cleanup(cancel)
			go func() {
				for ctx.Err() == nil {
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Second):
						renewedBy(w, "cp-2")
					}
				}
			}()
		}, []string{"its kubelet has renewed its Node's lease"}},
		{"one that is dead, and nobody comes in its place", "cp-2", "", func(_ *testing.T, w *sim.World) { w.Destroy("cp-2") }, []string{"cannot be reached", "--with NEWHOST"}},
		{"two that are dead", "cp-2", "cp-4", func(_ *testing.T, w *sim.World) {
			w.MayEnd = true
			w.Destroy("cp-2")
			w.Host("cp-3").Mute = true
		}, []string{"NO QUORUM", "ha-install recover"}},
		{"a worker", "w-1", "cp-4", nil, []string{"no master w-1"}},
		{"by a worker", "cp-2", "w-1", nil, []string{"no master w-1", "one more master"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				w := start.World(t, four)
				w.Slow = true
				if row.prepare != nil {
					row.prepare(t, w)
				}
				before := w.Votes()
				_, err := replaceHost(t.Context(), w, withoutCA(four), dirs[0], row.lost, row.with, nil)
				if err == nil {
					t.Fatal("not refused")
				}
				for _, text := range row.want {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("%q does not say %q", err, text)
					}
				}
				if diff := cmp.Diff(before, w.Votes()); diff != "" || len(w.Host("cp-4").Files) > 0 || noted(w) != "" {
					t.Errorf("something was changed before it was refused:\n%s", diff)
				}
			})
		})
	}
}

// TestReplaceOfAnEtcdThatDoesNotComeUp: what finds no data makes a directory of
// its own, and dies; when it comes up meanwhile it is not lost.
func TestReplaceOfAnEtcdThatDoesNotComeUp(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	for name, comesUp := range map[string]bool{"never": false, "after a minute": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				id := string(w.Host("cp-2").Files[etcdMember+"/id"].Content)
				w.WipeData("cp-2")
				w.Host("cp-2").Put(etcdMember+"/id", 0o600, "nobody's")
				votes := w.Votes()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if comesUp {
					go func() {
						select {
						case <-ctx.Done():
						case <-time.After(time.Minute):
							w.Restore("cp-2", etcdMember+"/id", id)
						}
					}()
				}
				_, err := replaceHost(ctx, w, withoutCA(c), dirs[0], "cp-2", "", nil)
				var alive *AliveError
				switch {
				case comesUp && !errors.As(err, &alive), comesUp && !slices.Equal(w.Votes(), votes):
					t.Errorf("error %v, members %q", err, w.Votes())
				case !comesUp && (err != nil || joined(w, c) != "" || len(w.Lost()) > 0):
					t.Errorf("error %v, %s, lost %q", err, joined(w, c), w.Lost())
				}
			})
		})
	}
}

// TestReplaceSaysThatTheKeyIsNew: what was installed anew has another host key.
func TestReplaceSaysThatTheKeyIsNew(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	_, o, err := ReplaceTarget(c, "cp-2", "")
	if err != nil {
		t.Fatal(err)
	}
	changed := &host.HostKeyError{Host: "cp-2", Address: "198.51.100.22:22", Type: "ssh-ed25519", Fingerprint: "SHA256:new", Known: []host.KnownKey{{Type: "ssh-ed25519", Fingerprint: "SHA256:old", Where: "known_hosts:3"}}}
	site := newSite(c, "")
	site.down["cp-2"] = changed
	var conflict *ConflictError
	if err := o.reachable(site); !errors.As(err, &conflict) || !strings.Contains(err.Error(), "hostKeys of cp-2") || !strings.Contains(err.Error(), "SHA256:new") {
		t.Errorf("error %v", err)
	}
}

// TestReplaceLooksForTwoMinutes, and not for less.
func TestReplaceLooksForTwoMinutes(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	four := andOneMore(three)
	start := loss(t, three, four, dirs[0], func(w *sim.World) { w.Destroy("cp-3") })
	bubble(t, func(t *testing.T) {
		w := start.World(t, four)
		w.Slow = true
		began := time.Now()
		var removed time.Duration
		w.Watch(func(m sim.Moment) {
			if m.Name == "etcd remove" {
				removed = time.Since(began)
			}
		})
		if _, err := replaceHost(t.Context(), w, withoutCA(four), dirs[0], "cp-3", "cp-4", nil); err != nil {
			t.Fatal(err)
		}
		if removed < etcd.MinDead || removed > etcd.MinDead+time.Minute {
			t.Errorf("the member was removed after %s, want %s and a little", removed, etcd.MinDead)
		}
		tally, err := replaceHost(t.Context(), w, withoutCA(four), dirs[0], "cp-3", "cp-4", nil)
		if err != nil || tally.Changed > 0 {
			t.Errorf("a second replace changed %d, error %v", tally.Changed, err)
		}
		if _, there := w.Host("cp-4").Files[kube.AdminConf]; !there {
			t.Error("cp-4 has not joined")
		}
	})
}

// TestPlanOfAReplacement says the member that goes and who comes, and changes nothing.
func TestPlanOfAReplacement(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	four := andOneMore(three)
	start := loss(t, three, four, dirs[0], func(w *sim.World) { w.Destroy("cp-3") })
	bubble(t, func(t *testing.T) {
		w := start.World(t, four)
		w.Slow = true
		target, o, err := ReplaceTarget(withoutCA(four), "cp-3", "cp-4")
		if err != nil {
			t.Fatal(err)
		}
		o.Backup = backupsIn(w)
		var told []string
		plan, err := planBy(t.Context(), t, w, target, dirs[0], func(ctx context.Context, site *Site) (Plan, error) {
			return PlanReplace(ctx, site, o, func(text string) { told = append(told, text) })
		})
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(told, "\n"); !strings.Contains(text, "cp-3 is seen by nobody now") {
			t.Errorf("the plan tells %q", text)
		}
		want := []string{"backup", "begin", "cp-3: delete-node", "cp-3: remove-member", "cp-4: join"}
		if diff := cmp.Diff(want, inState(plan, phase.ToChange)); diff != "" {
			t.Errorf("to change (-want +got):\n%s", diff)
		}
	})
}

// damaged gives cp-2 data that no etcd starts with.
func damaged(w *sim.World) {
	w.WipeData("cp-2")
	w.Host("cp-2").Put(etcdMember+"/id", 0o600, "nobody's")
}

func TestReplaceTheSameMasterTwice(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		for n := range 2 {
			damaged(w)
			tally, err := replaceHost(t.Context(), w, withoutCA(c), dirs[0], "cp-2", "", nil)
			if err != nil || joined(w, c) != "" {
				t.Errorf("replacement %d: changed %d, error %v, %s, noted %q", n+1, tally.Changed, err, joined(w, c), noted(w))
			}
		}
	})
}

// TestReplaceEndedBeforeItsFence: what is noted has not happened yet, and the damaged
// data are not of the join.
func TestReplaceEndedBeforeItsFence(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		damaged(w)
		target, o, err := ReplaceTarget(withoutCA(c), "cp-2", "")
		if err != nil {
			t.Fatal(err)
		}
		w.MayLeave = "cp-2"
		ctx, end := context.WithCancel(t.Context())
		defer end()
		ctx = w.Begin(ctx, nil)
		site := Connect(ctx, target, dirs[0], w.Dial)
		o.Backup = backupsIn(w)
		run := phase.Runner{Events: func(e phase.Event) {
			if e.Kind == phase.Started && e.Phase == "fence" {
				end()
			}
		}}
		if err := Replace(ctx, site, o, nil, &run); err == nil {
			t.Error("it was not ended")
		}
		site.Close()
		tally, err := replaceHost(t.Context(), w, withoutCA(c), dirs[0], "cp-2", "", nil)
		if err != nil || joined(w, c) != "" {
			t.Errorf("the second run: changed %d, error %v, %s, noted %q", tally.Changed, err, joined(w, c), noted(w))
		}
	})
}
