package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
	"github.com/ha-install/ha-install/test/sshd"
)

const aSecretKey = "not/a/secret/of/anybody"

// copiedEvery is c with scheduled backups that go to all kinds of places.
func copiedEvery(t *testing.T, c *inventory.Cluster, every string) *inventory.Cluster {
	t.Helper()
	s := sshd.New(t, sshd.Options{})
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("[default]\naws_access_key_id = tester\naws_secret_access_key = "+aSecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := backedUpEvery(c, every)
	with.Spec.Backup.Copies = []inventory.BackupCopy{
		{To: fmt.Sprintf("sftp://backup@%s:%d/srv/backups", s.Host(), s.Port()), SSH: inventory.SSH{IdentityFiles: []string{s.KeyFile}, KnownHosts: []string{s.KnownHosts(t)}}},
		{To: "s3://bucket/prefix", CredentialsFile: keys},
		{To: "masters:///var/backups/ha-install"},
	}
	return with
}

// fewerCopies is c with only one of its places, the S3 storage.
func fewerCopies(c *inventory.Cluster) *inventory.Cluster {
	with := *c
	with.Spec.Backup.Copies = c.Spec.Backup.Copies[1:2]
	return &with
}

func TestScheduleWithCopiesStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	f := caring("backup schedule, with copies", c, start, ScheduleBackups(), func(w *sim.World) string { return unscheduled(w, c) })
	f.then = func(ctx context.Context, w *sim.World) error {
		tally, _, err := choreAll(ctx, w, c, ScheduleBackups(), nil)
		if err != nil || tally.Changed > 0 {
			return fmt.Errorf("the next run changed %d, error %w", tally.Changed, err)
		}
		return nil
	}
	f.everywhere(t)
}

// TestFewerCopiesStoppedAnywhere: keys that nobody needs any more are gone, wherever a
// run was killed, and nobody listens any more.
func TestFewerCopiesStoppedAnywhere(t *testing.T) {
	t.Parallel()
	all, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	c := fewerCopies(all)
	caring("backup schedule, fewer copies", c, withSchedule(t, all, dirs[0]), ScheduleBackups(), func(w *sim.World) string { return unscheduled(w, c) }).everywhere(t)
}

func TestScheduleWithCopiesOffStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	caring("backup schedule --off, with copies", c, withSchedule(t, c, dirs[0]), UnscheduleBackups(), func(w *sim.World) string { return stillScheduled(w, c) }).everywhere(t)
}

func TestChangedKeysAreRenewed(t *testing.T) {
	t.Parallel()
	c, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := withSchedule(t, c, dirs[0])
	file := c.Spec.Backup.Copies[1].CredentialsFile
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = tester\naws_secret_access_key = another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		for _, want := range []int{len(c.ControlPlanes()), 0} {
			tally, _, err := choreAll(t.Context(), w, c, ScheduleBackups(), nil)
			if bad := unscheduled(w, c); err != nil || tally.Changed != want || bad != "" {
				t.Errorf("changed %d, want %d: %v; %s", tally.Changed, want, err, bad)
			}
		}
	})
}

// TestPlanOfCopies says which keys go to masters, and shows none.
func TestPlanOfCopies(t *testing.T) {
	t.Parallel()
	c, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	plain, before := finished(t, testCluster(t), testCluster(t), dirs[0]), withSchedule(t, c, dirs[0])
	plan := func(t *testing.T, start *sim.State, c *inventory.Cluster) (seen []string, text string) {
		w := start.World(t, c)
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, "", w.Dial)
		defer site.Close()
		p, err := ScheduleBackups().Plan(ctx, site, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Steps {
			for _, change := range s.Changes {
				seen = append(seen, strings.TrimSpace(strings.Join([]string{s.Host, change.Kind, change.Name, change.Text}, " ")))
			}
		}
		all, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return seen, string(all)
	}
	bubble(t, func(t *testing.T) {
		seen, text := plan(t, plain, c)
		for _, want := range []string{
			"cp-1 file " + templates.BackupCopyDir + "/1-identity-1 the keys of " + c.Spec.Backup.Copies[0].To + ", identity file of the inventory",
			"cp-2 file " + templates.BackupCopyDir + "/2-credentials the keys of s3://bucket/prefix, from " + c.Spec.Backup.Copies[1].CredentialsFile,
			"cp-3 start " + templates.ReceiveSocket,
		} {
			if !slices.Contains(seen, want) {
				t.Errorf("the plan lacks %q:\n%s", want, strings.Join(seen, "\n"))
			}
		}
		if strings.Contains(text, aSecretKey) || strings.Contains(text, "PRIVATE KEY") {
			t.Error("the plan shows a key")
		}
	})
	bubble(t, func(t *testing.T) {
		seen, _ := plan(t, before, fewerCopies(c))
		for _, want := range []string{"cp-1 clean " + templates.BackupCopyDir + "/1-identity-1 removed: its place is no more among the copies", "cp-1 clean " + templates.ReceiveUnits()[0] + " removed: its place is no more among the copies"} {
			if !slices.Contains(seen, want) {
				t.Errorf("the plan lacks %q:\n%s", want, strings.Join(seen, "\n"))
			}
		}
	})
}

// TestCopiesThatMastersCannotMakeAreRefused before anything is changed.
func TestCopiesThatMastersCannotMakeAreRefused(t *testing.T) {
	t.Parallel()
	c, dirs := copiedEvery(t, withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	for name, change := range map[string]func(*inventory.Cluster){
		"the host key of 127.0.0.1 is not known here": func(c *inventory.Cluster) { c.Spec.Backup.Copies[0].SSH.KnownHosts = []string{"/nonexistent"} },
		"no credentials in /nonexistent":              func(c *inventory.Cluster) { c.Spec.Backup.Copies[1].CredentialsFile = "/nonexistent" },
	} {
		bad := *c
		bad.Spec.Backup.Copies = slices.Clone(c.Spec.Backup.Copies)
		change(&bad)
		bubble(t, func(t *testing.T) {
			w := start.World(t, &bad)
			var conflict *ConflictError
			tally, _, err := choreAll(t.Context(), w, &bad, ScheduleBackups(), nil)
			if !errors.As(err, &conflict) || !strings.Contains(conflict.Why, name) || !strings.Contains(conflict.Run, "spec.backup.copies[") || tally.Changed > 0 {
				t.Errorf("%+v, %v", tally, err)
			}
			if tally, err := applyAll(t.Context(), w, &bad, dirs[0], nil, nil); !errors.As(err, &conflict) || tally.Changed > 0 {
				t.Errorf("apply: %+v, %v", tally, err)
			}
		})
	}
}
