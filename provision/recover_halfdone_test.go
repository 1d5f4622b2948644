package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// killedAt is the cluster that a restore leaves which is killed when a phase begins.
func killedAt(t *testing.T, w *sim.World, c *inventory.Cluster, dir, from, name string) {
	t.Helper()
	w.Slow = true
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	_, err := restoreAll(ctx, w, c, dir, RestoreOptions{From: from}, nil, func(e phase.Event) {
		if e.Kind == phase.Started && e.Phase == name {
			kill()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("it was not killed at %s: %v", name, err)
	}
}

// doneOnTwo says what is not as a restore has to leave it that is finished without cp-3.
func doneOnTwo(w *sim.World, token string) string {
	var wrong []string
	if now, _ := w.Restored(); now != token {
		wrong = append(wrong, fmt.Sprintf("the cluster is of restore %s, it was of %s", now, token))
	}
	if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-2 voter", "cp-3 voter"}) {
		wrong = append(wrong, fmt.Sprintf("members %q", votes))
	}
	for _, name := range []string{"cp-1", "cp-2"} {
		h := w.Host(name)
		if note := string(h.Files[restoreFile].Content); !strings.Contains(note, token) || !strings.Contains(note, `"done":true`) {
			wrong = append(wrong, name+": its note is "+note)
		}
		for _, c := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
			if _, there := h.Files["/etc/kubernetes/manifests/"+c+".yaml"]; !there {
				wrong = append(wrong, name+" has no "+c)
			}
		}
	}
	return strings.Join(wrong, "; ")
}

// succeeded has a master's controllers take over what those of a lost one led.
func succeeded(w *sim.World, lost, by string) {
	for _, component := range []string{"kube-controller-manager", "kube-scheduler"} {
		lease := w.API.Get("leases", "kube-system", component)
		if spec, _ := lease["spec"].(kubeapi.Object); spec["holderIdentity"] == lost+"_x" {
			w.API.Set("leases", "kube-system", component, kubeapi.Object{"spec": kubeapi.Object{"holderIdentity": by + "_x", "renewTime": spec["renewTime"]}})
		}
	}
}

// TestAMasterIsLostBeforeARestoreIsFinished: the others are the new cluster, and
// serve. It is finished without the lost one, and nothing that was written is thrown away.
func TestAMasterIsLostBeforeARestoreIsFinished(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	store := BackupOptions{Directory: from[:strings.LastIndex(from, "/prod/")]}
	for _, at := range []string{"quorum", "start-controllers", "finish"} {
		for _, end := range []string{"replaced", "comes back", "bare"} {
			t.Run(at+", the lost one "+end, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					w := start.World(t, c)
					killedAt(t, w, c, dirs[0], from, at)
					token, _ := w.Restored()
					dial := onlyMasters(w, "cp-1", "cp-2")
					if end == "bare" {
						w.Wipe(c, "cp-3")
						dial = w.Dial
					} else {
						lost(w, "cp-3")
					}
					succeeded(w, "cp-3", "cp-1")
					if end == "replaced" {
						for _, way := range []RecoverWay{WayBackup, WaySurvivor} {
							_, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], dial, RecoverOptions{Way: way, Lost: []string{"cp-3"}, Backup: store}, nil, nil)
							if err == nil || !strings.Contains(err.Error(), "has its quorum") {
								t.Errorf("--way %s: %v", way, err)
							}
						}
					}
					planned := ""
					site := Connect(w.Begin(t.Context(), nil), withoutCA(c), dirs[0], dial)
					_, way, err := PlanRecover(t.Context(), site, RecoverOptions{Backup: store}, func(text string) { planned = text })
					site.Close()
					if err != nil || way != WayFinish || !strings.Contains(planned, "goes on without cp-3") || strings.Contains(planned, "wanted") {
						t.Errorf("the plan: way %q, error %v\n%s", way, err, planned)
					}
					var said []string
					if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], dial, RecoverOptions{Backup: store}, nil, func(e phase.Event) { said = append(said, e.Message) }); err != nil {
						t.Fatal(err)
					}
					if bad := doneOnTwo(w, token); bad != "" {
						t.Error(bad)
					}
					if text := strings.Join(said, "\n"); !strings.Contains(text, "ha-install replace INVENTORY cp-3") {
						t.Errorf("how to go on is not said:\n%s", text)
					}
					if end == "comes back" { // as it was: it is a member, and its note is not done
						found(w, "cp-3")
						if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{Backup: store}, nil, nil); err != nil {
							t.Fatal(err)
						}
						if now, _ := w.Restored(); now != token || notRestored(w, c) != "" {
							t.Errorf("%s after %s; %s", now, token, notRestored(w, c))
						}
						return
					}
					found(w, "cp-3")
					w.Wipe(c, "cp-3")
					if _, err := replaceHost(t.Context(), w, withoutCA(c), dirs[0], "cp-3", "", nil); err != nil {
						t.Fatalf("replace: %v", err)
					}
					if bad := joined(w, c); bad != "" {
						t.Error(bad)
					}
				})
			})
		}
	}
}

// TestFinishWithoutALostMasterStoppedAnywhere kills what goes on without it.
func TestFinishWithoutALostMasterStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	var state *sim.State
	token := ""
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		killedAt(t, w, c, dirs[0], from, "start-api")
		token, _ = w.Restored()
		lost(w, "cp-3")
		w.Begin(t.Context(), nil)
		state = w.Keep()
	})
	f := workflow{
		name: "recover that finishes a restore without a lost master", c: c, start: state,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := recoverAll(ctx, w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1", "cp-2"), RecoverOptions{}, cut, nil)
			return err
		},
		wrong: func(w *sim.World) string { return doneOnTwo(w, token) },
		about: notTheLock,
	}
	f.everywhere(t)
}

// TestRecoverOfAFullCluster: votes that are missing for alarms alone are not lost, and
// no recovery gives them back; with a master lost besides, one that is asked for does.
func TestRecoverOfAFullCluster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := aged(t, c, dirs[0], full)
	for _, way := range []RecoverWay{WayNone, WaySurvivor, WayBringBack} {
		bubble(t, func(t *testing.T) {
			w := start.World(t, c)
			w.Slow = true
			tally, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{Way: way}, nil, nil)
			var conflict *ConflictError
			if !errors.As(err, &conflict) || conflict.Run != "ha-install etcd alarms disarm INVENTORY" || tally.Changed > 0 {
				t.Errorf("--way %q: changed %d, error %v", way, tally.Changed, err)
			}
			if _, _, err := choreAll(t.Context(), w, withoutCA(c), DisarmAlarms(), nil); err != nil {
				t.Error(err)
			}
			if tally, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], w.Dial, RecoverOptions{}, nil, nil); err != nil || tally.Changed > 0 {
				t.Errorf("after it: changed %d, error %v", tally.Changed, err)
			}
		})
	}
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		lost(w, "cp-3")
		two := onlyMasters(w, "cp-1", "cp-2")
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], two, RecoverOptions{Lost: []string{"cp-3"}}, nil, nil); err == nil || !strings.Contains(err.Error(), "ha-install recover --way survivor --lost cp-3") {
			t.Errorf("with cp-3 away: %v", err)
		}
		if _, err := recoverAll(t.Context(), w, withoutCA(withQuota(c, 32*mega)), dirs[0], two, RecoverOptions{Way: WaySurvivor, Lost: []string{"cp-3"}}, nil, nil); err != nil || w.Alarms() != 0 {
			t.Errorf("the way that was named: %d alarms, error %v", w.Alarms(), err)
		}
		if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-2 voter"}) {
			t.Errorf("members %q", votes)
		}
	})
}

// TestABackupDoesNotReplaceWhatComesBackMeanwhile: when the way was chosen nobody
// answered; before anything stops the half done cluster has its quorum.
func TestABackupDoesNotReplaceWhatComesBackMeanwhile(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		killedAt(t, w, c, dirs[0], from, "try-controllers")
		token, _ := w.Restored()
		lost(w, "cp-3")
		succeeded(w, "cp-3", "cp-1")
		kubelets := func(run bool) {
			for _, name := range []string{"cp-1", "cp-2"} {
				w.Host(name).Units["kubelet.service"].Active = run
			}
		}
		kubelets(false)
		o := RecoverOptions{Way: WayBackup, Lost: []string{"cp-3"}, Backup: BackupOptions{Directory: from[:strings.LastIndex(from, "/prod/")]}}
		_, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1", "cp-2"), o, nil, func(e phase.Event) {
			if e.Kind == phase.Started && e.Phase == "push" {
				kubelets(true)
			}
		})
		if now, _ := w.Restored(); err == nil || !strings.Contains(err.Error(), "has its quorum") || now != token {
			t.Errorf("error %v; of restore %s, it was of %s", err, now, token)
		}
	})
}
