package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// The program of tests is the head of one, or each run would send the tests
// themselves.
func init() { thisProgram = sync.OnceValues(smallProgram) }

func smallProgram() (string, error) {
	dir, err := os.MkdirTemp("", "ha-install-test-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "ha-install")
	return file, os.WriteFile(file, elfHead(), 0o755)
}

// elfHead is the least that is a 64-bit program for Linux.
func elfHead() []byte {
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	head[16], head[18], head[20] = 2, 62, 1   // executable, amd64, version 1
	head[52], head[54], head[58] = 64, 56, 64 // sizes of the head, and of entries of its tables
	return head
}

// backedUpEvery is c with scheduled backups.
func backedUpEvery(c *inventory.Cluster, every string) *inventory.Cluster {
	with := *c
	with.Spec.Backup = inventory.Backup{Schedule: every, Keep: 7, Recipients: []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}}
	return &with
}

// unscheduled says what masters lack of scheduled backups, "" for nothing.
func unscheduled(w *sim.World, c *inventory.Cluster) string {
	var bad []string
	site := &Site{Cluster: c}
	keys, err := site.copyKeys()
	if err != nil {
		return err.Error()
	}
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		want, err := templates.BackupFiles(c, ih, keys)
		if err != nil {
			return err.Error()
		}
		wanted := map[string]bool{}
		for _, f := range want {
			wanted[f.Path] = true
			if at := h.Files[f.Path]; string(at.Content) != string(f.Content) || at.Mode.Perm() != f.Mode.Perm() {
				bad = append(bad, ih.Name+": "+f.Path+" is not as wanted")
			}
		}
		for path := range h.Files {
			if ofCopies(path) && !wanted[path] {
				bad = append(bad, ih.Name+": "+path+" is left")
			}
		}
		socket := h.Units[templates.ReceiveSocket]
		if up := socket != nil && socket.Active && socket.Enabled; up != c.Spec.Backup.BetweenMasters() {
			bad = append(bad, fmt.Sprintf("%s: the socket is %+v", ih.Name, socket))
		} else if up && !strings.Contains(socket.Runs, templates.ReceiveSocket) {
			bad = append(bad, ih.Name+": the socket was not told of its files")
		}
		if string(h.Files[templates.BackupProgram].Content) != string(elfHead()) {
			bad = append(bad, ih.Name+" does not have the program")
		}
		u := h.Units[templates.BackupTimer]
		if u == nil || !u.Active || !u.Enabled || !strings.Contains(u.Runs, templates.BackupConfigPath) {
			bad = append(bad, fmt.Sprintf("%s: the timer is %+v", ih.Name, u))
		}
		if _, owed := h.Files[owedFile("schedule")]; owed {
			bad = append(bad, ih.Name+": something is owed")
		}
	}
	return strings.Join(bad, "; ")
}

// ofCopies says whether a file is there for the sake of copies.
func ofCopies(path string) bool {
	return strings.HasPrefix(path, templates.BackupCopyDir+"/") || slices.Contains(templates.ReceiveUnits(), path)
}

// stillScheduled says what is left of scheduled backups on hosts, "" for nothing.
func stillScheduled(w *sim.World, c *inventory.Cluster) string {
	var bad []string
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		for p := range h.Files {
			if p == templates.BackupConfigPath || p == templates.BackupStatePath || p == templates.BackupProgram || ofCopies(p) || slices.Contains(templates.BackupUnits(), p) {
				bad = append(bad, ih.Name+" still has "+p)
			}
		}
		for _, unit := range []string{templates.BackupTimer, templates.ReceiveSocket} {
			if u := h.Units[unit]; u != nil && (u.Active || u.Enabled) {
				bad = append(bad, ih.Name+": "+unit+" is left")
			}
		}
		if kept := string(h.Files[templates.BackupDir+"/prod/one/snapshot.db"].Content); kept != "a backup" {
			bad = append(bad, ih.Name+" has lost a backup")
		}
	}
	return strings.Join(bad, "; ")
}

// withSchedule is a finished cluster that makes backups by itself, and has made one
// on each master.
func withSchedule(t *testing.T, c *inventory.Cluster, dir string) *sim.State {
	return aged(t, testCluster(t), dir, func(w *sim.World) {
		if _, _, err := choreAll(context.Background(), w, c, ScheduleBackups(), nil); err != nil {
			t.Fatal(err)
		}
		for _, ih := range c.ControlPlanes() {
			w.Host(ih.Name).Put(templates.BackupDir+"/prod/one/snapshot.db", 0o600, "a backup")
			w.Host(ih.Name).Put(templates.BackupStatePath, 0o600, `{"outcome":"made one"}`)
		}
	})
}

func TestScheduleStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := backedUpEvery(withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	f := caring("backup schedule", c, start, ScheduleBackups(), func(w *sim.World) string { return unscheduled(w, c) })
	f.then = func(ctx context.Context, w *sim.World) error {
		tally, _, err := choreAll(ctx, w, c, ScheduleBackups(), nil)
		if err != nil || tally.Changed > 0 {
			return fmt.Errorf("the next run changed %d, error %w", tally.Changed, err)
		}
		return nil
	}
	f.everywhere(t)
}

func TestChangedScheduleStoppedAnywhere(t *testing.T) {
	t.Parallel()
	dirs := baseDirs(t)
	start := withSchedule(t, backedUpEvery(withoutCA(testCluster(t)), "6h"), dirs[0])
	c := backedUpEvery(withoutCA(testCluster(t)), "2m")
	caring("backup schedule, changed", c, start, ScheduleBackups(), func(w *sim.World) string { return unscheduled(w, c) }).everywhere(t)
}

func TestScheduleOffStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := backedUpEvery(withoutCA(testCluster(t)), "6h"), baseDirs(t)
	f := caring("backup schedule --off", c, withSchedule(t, c, dirs[0]), UnscheduleBackups(), func(w *sim.World) string { return stillScheduled(w, c) })
	f.everywhere(t)
}

func TestResetTakesTheScheduleAndLeavesBackups(t *testing.T) {
	t.Parallel()
	c, dirs := backedUpEvery(withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := withSchedule(t, c, dirs[0])
	f := workflow{
		name: "reset of masters that make backups", c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			w.MayEnd = true
			return reset(ctx, w, c, cut)
		},
		wrong: func(w *sim.World) string { return afterReset(w, c) + stillScheduled(w, c) },
		about: func(c sim.Call) bool { return strings.Contains(c.Name, "backup") },
	}
	f.everywhere(t)
}

func TestApplyBringsTheScheduleToNewMasters(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	five := fiveMasters(backedUpEvery(three, "6h"))
	bubble(t, func(t *testing.T) {
		w := newWorld(t, five)
		w.Slow = true
		running(t, w, backedUpEvery(three, "6h"), dirs[0])
		if bad := unscheduled(w, backedUpEvery(three, "6h")); bad != "" {
			t.Fatal(bad)
		}
		running(t, w, five, dirs[0])
		if bad := unscheduled(w, five); bad != "" {
			t.Error(bad)
		}
		if tally, err := applyAll(t.Context(), w, withoutCA(five), dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("another apply changed %d, error %v", tally.Changed, err)
		}
	})
}

func TestSchedulePlanAndRefusals(t *testing.T) {
	t.Parallel()
	plain, dirs := withoutCA(testCluster(t)), baseDirs(t)
	c := backedUpEvery(plain, "6h")
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		var conflict *ConflictError
		if _, _, err := choreAll(t.Context(), w, plain, ScheduleBackups(), nil); !errors.As(err, &conflict) || !strings.Contains(conflict.Why, "spec.backup.schedule") {
			t.Errorf("without a schedule: %v", err)
		}
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, "", w.Dial)
		defer site.Close()
		p, err := ScheduleBackups().Plan(ctx, site, nil)
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, s := range p.Steps {
			for _, change := range s.Changes {
				seen = append(seen, s.Host+" "+change.Kind+" "+change.Name)
			}
		}
		for _, want := range []string{"cp-1 binary " + templates.BackupProgram, "cp-2 file " + templates.BackupConfigPath, "cp-3 start " + templates.BackupTimer} {
			if !slices.Contains(seen, want) {
				t.Errorf("the plan lacks %q: %q", want, seen)
			}
		}
	})
}

func TestOnlyAProgramThatRunsAnywhereIsSent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	linked := append(elfHead(), make([]byte, 56)...)
	linked[32], linked[56], linked[64] = 64, 1, 3 // one entry after the head: the interpreter
	for name, row := range map[string]struct {
		content []byte
		why     string
	}{
		"good":   {elfHead(), ""},
		"script": {[]byte("#!/bin/sh\n"), "no program for Linux"},
		"linked": {linked, "linked with libraries"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, row.content, 0o755); err != nil {
			t.Fatal(err)
		}
		err := runsAnywhere(file)
		if (err == nil) != (row.why == "") || err != nil && !strings.Contains(err.Error(), row.why) {
			t.Errorf("%s: %v, want %q", name, err, row.why)
		}
	}
}
