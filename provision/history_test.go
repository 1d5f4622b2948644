package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// teachJournals has hosts of a world understand the script that lists journals.
func teachJournals(w *sim.World) {
	w.Script(journalsScript, func(h *sim.Host, _ []string) ([]byte, error) {
		var b bytes.Buffer
		for id, lines := range h.Journals {
			fmt.Fprintf(&b, "= %s\n%s\n", id, strings.Join(lines, "\n"))
		}
		return b.Bytes(), nil
	})
}

func history(t *testing.T, w *sim.World, c *inventory.Cluster, down ...string) []Past {
	t.Helper()
	site := Connect(w.Begin(context.Background(), nil), c, "", func(ctx context.Context, c *inventory.Cluster, h inventory.Host, dir string) (host.Host, error) {
		if slices.Contains(down, h.Name) {
			return nil, &host.UnreachableError{Host: h.Name, Err: context.DeadlineExceeded}
		}
		return w.Dial(ctx, c, h, dir)
	})
	defer site.Close()
	site.ReadOnly()
	all, err := History(context.Background(), site)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHistoryTellsOfOperationsThatEndedAndOfOnesThatDidNot(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	if all := history(t, w, c); len(all) != 0 {
		t.Errorf("bare hosts know of %v", all)
	}
	dies := sim.Cut{Host: "cp-1", Name: "systemctl daemon-reload", Nth: 1, When: sim.After, Fault: sim.Dies}
	if _, err := applyAll(context.Background(), w, c, dirs[0], &dies, nil); err == nil {
		t.Fatal("it was to die")
	}
	w.Host("cp-2").StepFails = stepStart + "-1"
	if _, err := applyAll(context.Background(), w, c, dirs[0], nil, nil); err == nil {
		t.Fatal("it was to fail")
	}
	running(t, w, c, dirs[0])
	for _, down := range [][]string{nil, {"cp-1"}, {"cp-2", "cp-3"}} {
		all := history(t, w, c, down...)
		var got []string
		for _, p := range all {
			got = append(got, string(p.Result))
		}
		if diff := cmp.Diff([]string{"done", "failed", "broke off"}, got); diff != "" {
			t.Fatalf("without %q (-want +got):\n%s", down, diff)
		}
		if all[0].Changed == 0 || all[0].Command != "apply" || all[0].Cluster != "prod" || len(all[0].Phases) != 0 || len(all[0].On) != 3-len(down) {
			t.Errorf("the last one: %+v", all[0])
		}
		if all[1].ExitCode != 1 || !slices.Equal(all[1].Phases, []string{"cp-2: join"}) || !strings.Contains(all[1].Error, "it broke") {
			t.Errorf("the one that failed: %+v", all[1])
		}
		if len(all[2].Phases) == 0 {
			t.Errorf("the one that died: %+v", all[2])
		}
	}
}

// TestHistoryOfOne has all that was said, kubeadm's output too, and no secret.
func TestHistoryOfOne(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	var said []phase.Event
	if _, err := applyAll(context.Background(), w, c, dirs[0], nil, func(e phase.Event) { said = append(said, e) }); err != nil {
		t.Fatal(err)
	}
	id := history(t, w, c)[0].ID
	site := Connect(w.Begin(context.Background(), nil), c, "", w.Dial)
	defer site.Close()
	p, err := HistoryOf(context.Background(), site, id)
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]int{}, map[string]int{}
	for _, e := range said {
		if e.Kind == phase.Started || e.Kind == phase.Finished || e.Kind == phase.Notice || e.Kind == phase.Output {
			want[string(e.Kind)+" "+e.Host+" "+e.Phase]++
		}
	}
	for i, e := range p.Entries {
		if e.N != i+1 {
			t.Fatalf("entry %d has the number %d", i, e.N)
		}
		if e.Kind == phase.Started || e.Kind == phase.Finished || e.Kind == phase.Notice || e.Kind == phase.Output {
			got[string(e.Kind)+" "+e.Host+" "+e.Phase]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the journal differs from what was said (-said +journal):\n%s", diff)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secretsIn(w, c) {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the journal holds a secret, %.12s...", secret)
		}
	}
	if _, err := HistoryOf(context.Background(), site, "20200101t000000z-aaaaaa"); err == nil || !strings.Contains(err.Error(), ErrNoOperation.Error()) {
		t.Errorf("one that never was: %v", err)
	}
	if _, err := HistoryOf(context.Background(), site, "../lock/holder"); err == nil {
		t.Error("an ID leads out of the directory")
	}
}

// secretsIn are long lines of every key and secret on the hosts.
func secretsIn(w *sim.World, c *inventory.Cluster) []string {
	var found []string
	for _, ih := range c.ControlPlanes() {
		for p, f := range w.Host(ih.Name).Files {
			if f.Mode.Perm() != 0o600 || !strings.HasPrefix(p, "/etc/kubernetes/") {
				continue
			}
			for line := range strings.Lines(string(f.Content)) {
				if line = strings.TrimSpace(line); len(line) > 40 && !strings.HasPrefix(line, "-----") {
					found = append(found, line)
				}
			}
		}
	}
	return found
}

func TestWhatAJournalTells(t *testing.T) {
	began := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	at := func(n int, kind phase.EventKind, host, name string) Entry {
		return Entry{N: n, Event: phase.Event{Time: began.Add(time.Duration(n) * time.Second), Kind: kind, Host: host, Phase: name}}
	}
	begin := at(1, entryBegin, "", "")
	begin.Begin = &Began{Holder: host.Holder{Command: "ha-install apply x", Operator: "a@b"}, Cluster: "prod"}
	end := at(9, entryEnd, "", "")
	end.End = &Ended{Result: ResultFailed, ExitCode: 6, Error: "oh", Phases: []string{"cp-2: join"}, Changed: 4}
	for _, row := range []struct {
		name    string
		entries []Entry
		holds   bool
		want    string
	}{
		{"nothing but its name: it died at once", nil, false, "broke off|0|"},
		{"an end says how it ended", []Entry{begin, at(2, phase.Started, "cp-2", "join"), end}, false, "failed|4|cp-2: join"},
		{"an end counts, even while the lock is not given back yet", []Entry{begin, end}, true, "failed|4|cp-2: join"},
		{"no end, and it holds the lock: it runs", []Entry{begin, at(2, phase.Started, "cp-1", "init")}, true, "running|0|cp-1: init"},
		{"no end, and it does not hold the lock: it broke off where it was", []Entry{begin, at(2, phase.Started, "cp-1", "software"),
			at(3, phase.Started, "cp-2", "software"), at(4, phase.Finished, "cp-1", "software")}, false, "broke off|1|cp-2: software"},
		{"no end after a failure", []Entry{begin, at(2, phase.Started, "cp-2", "join"), at(3, phase.Failed, "cp-2", "join")}, false, "broke off|0|cp-2: join"},
	} {
		p := told(row.entries, row.holds)
		if got := fmt.Sprintf("%s|%d|%s", p.Result, p.Changed, p.Where()); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
