package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// backUp is `ha-install backup create`.
func backUp(ctx context.Context, w *sim.World, c *inventory.Cluster, o BackupOptions, cut *sim.Cut, say func(phase.Event)) (Backed, error) {
	ctx = w.Begin(ctx, cut)
	site := ConnectSoon(ctx, c, "", w.Dial)
	defer site.Close()
	return Backup(ctx, site, o, &phase.Runner{Events: say})
}

// sealed is a Seal for a new identity, which is in the file.
func sealed(t *testing.T) (backup.Seal, string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seal, err := backup.SealFor([]string{id.Recipient().String()}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return seal, file
}

// stored says what is wrong with a directory of backups, "" for nothing: n
// whole ones are wanted and nothing beside them.
func stored(ctx context.Context, dir string, n int, identity string) string {
	all, err := backup.In(dir, "prod").List()
	if err != nil || len(all) != n {
		return fmt.Sprintf("%d backups, want %d: %v", len(all), n, err)
	}
	openers, err := backup.Openers(identity, "")
	if err != nil {
		return err.Error()
	}
	for _, e := range all {
		r, err := backup.Verify(ctx, e.Path, backup.Expected{Cluster: "prod", Openers: openers})
		if err != nil || !r.Whole || !r.Opened {
			return fmt.Sprintf("%+v: %v", r, err)
		}
	}
	names, err := os.ReadDir(filepath.Join(dir, "prod"))
	if err != nil || len(names) != n {
		return fmt.Sprintf("%v beside the backups: %v", names, err)
	}
	return ""
}

func TestBackupOfAClusterChangesNothing(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	seal, identity := sealed(t)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		before := w.Snapshot(nil)
		o := BackupOptions{Directory: t.TempDir(), Seal: seal}
		b, err := backUp(t.Context(), w, c, o, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bad := stored(t.Context(), o.Directory, 1, identity); bad != "" {
			t.Error(bad)
		}
		m := b.Manifest
		if m.From == "" || m.Leader || !m.Quorum || m.KubernetesVersion != "v1.36.3" || m.CASHA256 != fingerprintOn(w.Host("cp-1")) || len(m.Members) != 3 || m.Snapshot.Hash == nil {
			t.Errorf("%+v", m)
		}
		for _, call := range w.Trace() {
			if call.Writes {
				t.Errorf("%s was changed by %q", call.Host, call.Name)
			}
		}
		if after := w.Snapshot(nil); after != before {
			t.Errorf("hosts were changed:\n%s", after)
		}
	})
}

func TestBackupWithoutSealSaysWhatThatMeans(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		var said []string
		b, err := backUp(t.Context(), w, c, BackupOptions{Directory: t.TempDir()}, nil, func(e phase.Event) { said = append(said, e.Message) })
		if err != nil {
			t.Fatal(err)
		}
		if b.Manifest.Keys != nil || !slices.Contains(said, WithoutKeys) || b.Manifest.CASHA256 != fingerprintOn(w.Host("cp-1")) {
			t.Errorf("keys %+v, said %q", b.Manifest.Keys, said)
		}
		if _, err := os.Stat(filepath.Join(b.Path, backup.KeysFile)); !os.IsNotExist(err) {
			t.Errorf("the archive: %v", err)
		}
	})
}

func TestBackupWithoutQuorumIsLabelled(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	seal, identity := sealed(t)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.MayEnd = true
		for _, name := range []string{"cp-1", "cp-3"} {
			w.Host(name).Mute = true
		}
		var said []string
		o := BackupOptions{Directory: t.TempDir(), Seal: seal}
		b, err := backUp(t.Context(), w, c, o, nil, func(e phase.Event) { said = append(said, e.Message) })
		if err != nil {
			t.Fatal(err)
		}
		if m := b.Manifest; m.Quorum || m.Verdict.HasQuorum() || m.From != "cp-2" || !strings.Contains(b.String(), "WITHOUT QUORUM") {
			t.Errorf("%+v", m)
		}
		if !strings.Contains(strings.Join(said, "\n"), "writes that were acknowledged last may be missing") {
			t.Errorf("not said: %q", said)
		}
		if bad := stored(t.Context(), o.Directory, 1, identity); bad != "" {
			t.Error(bad)
		}
	})
}

// TestBackupThroughEveryFault has one fault at each call that a backup makes:
// it comes to a whole backup all the same, or fails and leaves those before it
// as they were; the next one then comes to its end.
func TestBackupThroughEveryFault(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	seal, identity := sealed(t)
	var trace []sim.Call
	var from string
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		b, err := backUp(t.Context(), w, c, BackupOptions{Directory: t.TempDir(), Seal: seal}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		trace, from = w.Trace(), b.Manifest.From
	})
	all, _ := everywhere()
	tried, others, failed := 0, 0, 0
	for _, call := range trace {
		if call.Name != "etcd snapshot" && (call.Nth > 1 || tried%9 != 0 && !all) {
			tried++
			continue
		}
		for _, f := range []sim.Fault{sim.Dies, sim.Fails, sim.Loses, sim.Reboots, sim.EtcdDies, sim.Isolates} {
			cut := sim.Cut{Host: call.Host, Name: call.Name, Nth: call.Nth, When: sim.Before, Fault: f}
			tried++
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				o := BackupOptions{Directory: t.TempDir(), Seal: seal}
				if _, err := backUp(t.Context(), w, c, o, nil, nil); err != nil {
					t.Fatal(err)
				}
				want := 2
				var sent *phase.Transfer
				b, err := backUp(t.Context(), w, c, o, &cut, func(e phase.Event) {
					if e.Kind == phase.Finished && e.Phase == "snapshot" {
						sent = e.Transfer
					}
				})
				if err == nil && (sent == nil || sent.Total > 1<<20) { // what one member said that it has
					t.Errorf("%s: %+v", cut, sent)
				}
				switch {
				case err != nil && f != sim.Dies:
					failed++
					t.Errorf("%s: %v", cut, err)
				case err != nil:
					want = 1
				case call.Name == "etcd snapshot" && b.Manifest.From != from:
					others++
				}
				if bad := stored(t.Context(), o.Directory, want, identity); bad != "" {
					t.Errorf("%s: %s", cut, bad)
				}
				w.Back()
				if _, err := backUp(t.Context(), w, c, o, nil, nil); err != nil {
					t.Errorf("%s: the next one: %v", cut, err)
				}
				if bad := stored(t.Context(), o.Directory, want+1, identity); bad != "" {
					t.Errorf("%s: the next one: %s", cut, bad)
				}
			})
		}
	}
	t.Logf("%d calls, %d faults; %d snapshots were taken from another member", len(trace), tried, others)
	if others == 0 {
		t.Error("no fault made it take another member")
	}
}

func TestBackupWithinAnotherWorkflow(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	seal, identity := sealed(t)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, dirs[0], w.Dial)
		defer site.Close()
		var events []phase.Event
		run := &phase.Runner{Events: func(e phase.Event) { events = append(events, e) }}
		o := BackupOptions{Directory: t.TempDir(), Seal: seal}
		err := site.operate(ctx, "apply", run, func(ctx context.Context) error {
			return run.Run(ctx, []phase.Stage{phase.One(phase.Phase{Name: "guard", Do: func(ctx context.Context) error {
				b, err := site.backupTo(ctx, o)
				if err == nil && b.Path != filepath.Join(o.Directory, "prod", backup.Name(b.Manifest.Time)) {
					t.Errorf("%s", b.Path)
				}
				return err
			}})})
		})
		if err != nil {
			t.Fatal(err)
		}
		if bad := stored(ctx, o.Directory, 1, identity); bad != "" {
			t.Error(bad)
		}
		last := events[len(events)-1]
		if last.Phase != "guard" || last.Kind != phase.Finished || last.Transfer == nil || last.Transfer.Done < 4096 || last.Transfer.Total < last.Transfer.Done {
			t.Errorf("%+v", last)
		}
	})
}

func TestTheNextSourceOfASnapshot(t *testing.T) {
	v := etcd.Verdict{State: etcd.Pass}
	for i, name := range []string{"cp-1", "cp-2", "cp-3"} {
		v.Members = append(v.Members, etcd.Member{ID: etcd.MemberID(i + 1), Name: name, Host: name, Role: etcd.Voter, State: etcd.MemberHealthy, Healthy: true, Leader: i == 0})
	}
	for prefer, want := range map[string]string{"": "cp-2", "cp-2": "cp-2", "cp-3": "cp-3", "cp-1": "cp-2", "cp-9": "cp-2"} {
		if m, err := nextSource(v, prefer, nil); err != nil || m.Host != want {
			t.Errorf("with %q preferred: %s, want %s: %v", prefer, m.Host, want, err)
		}
	}
	failed := map[string]error{}
	for _, want := range []string{"cp-2", "cp-3", "cp-1"} {
		m, err := nextSource(v, "", failed)
		if err != nil || m.Host != want {
			t.Fatalf("%s, want %s: %v", m.Host, want, err)
		}
		failed[want] = fmt.Errorf("%s: it died", want)
	}
	_, err := nextSource(v, "", failed)
	for name := range failed {
		if err == nil || !strings.Contains(err.Error(), name+": it died") {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	v.State = etcd.Split
	var q *etcd.QuorumError
	if _, err := nextSource(v, "", nil); !errors.As(err, &q) {
		t.Errorf("of a split cluster: %v", err)
	}
}

// TestBackupStaysWhenACopyFails: hosts of paper give no SFTP, so no copy comes
// about; the backup is there, whole, and the error says what to run.
func TestBackupStaysWhenACopyFails(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	seal, identity := sealed(t)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		o := BackupOptions{Directory: t.TempDir(), Seal: seal}
		o.Copies = CopyOptions{To: []inventory.BackupCopy{{To: "masters:///var/backups/ha-install"}}, Here: "cp-1"}
		made, err := backUp(t.Context(), w, c, o, nil, func(phase.Event) {})
		var failed *CopiesError
		if !errors.As(err, &failed) || failed.Places != 2 || len(failed.Failed) != 2 || !strings.Contains(err.Error(), "run: ha-install backup copy INVENTORY "+filepath.Base(made.Path)) {
			t.Fatalf("%v", err)
		}
		for i, name := range []string{"cp-2", "cp-3"} {
			if !strings.Contains(failed.Failed[i].Error(), "on "+name) {
				t.Errorf("%v does not name %s", failed.Failed[i], name)
			}
		}
		if wrong := stored(t.Context(), o.Directory, 1, identity); wrong != "" {
			t.Error(wrong)
		}
	})
}
