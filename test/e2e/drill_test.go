//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/test/browser"
)

// masterGap is the longest time without an acknowledged write that a whole
// master may cost here; raw kubeadm behind plain HAProxy took 3.3 s.
const masterGap = 2500 * time.Millisecond

// drills plays every scenario on the running cluster, and counts.
func drills(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	ids := memberIDs(t, masters)
	page := filepath.Join(t.TempDir(), "drill.html")
	report := played(t, ha(t, "drill", "--confirm", clusterName, "-o", "json", "--report", page, path))
	if report.Schema != 1 || report.Verdict != drill.Pass || len(report.Scenarios) != len(drill.Names()) {
		t.Errorf("schema %d, verdict %s, %d scenarios", report.Schema, report.Verdict, len(report.Scenarios))
	}
	for _, s := range report.Scenarios {
		gap := s.WriteGap().Duration()
		taken, _ := s.TakenOver()
		t.Logf("%-18s on %s: longest write gap %s, moved %s, taken over after %s, whole %s after the repair", s.Scenario, s.Host,
			gap.Round(10*time.Millisecond), s.Moved, taken, s.Recovered)
		if s.Verdict != drill.Pass || s.Lost() != 0 {
			t.Errorf("%s: %s, %d acknowledged writes lost: %q", s.Scenario, s.Verdict, s.Lost(), s.Reasons)
		}
		for _, c := range s.Clients {
			t.Logf("%-18s %s: %d of %d writes failed, %d of %d reads; write gap %s, read outage %s", s.Scenario, c.Kind, c.FailedWrites, c.Writes, c.FailedReads, c.Reads, c.WriteGap, c.ReadOutage)
			if c.Writes < 200 || c.Reads < 200 {
				t.Errorf("%s: the client with %s has hardly asked: %d writes, %d reads", s.Scenario, c.Kind, c.Writes, c.Reads)
			}
		}
		if w := s.Workload; w == nil || w.Failed != 0 || w.Requests < 100 {
			t.Errorf("%s: pods: %+v", s.Scenario, w)
		} else {
			t.Logf("%-18s pods: %d requests, none failed; a new one ran after %s, a deleted one's successor after %s", s.Scenario, w.Requests, w.Scheduled, w.Replaced)
		}
		switch s.Scenario {
		case "etcd", "master", "balancer":
			if s.Moved == 0 {
				t.Errorf("%s: no client noticed anything: was there a failure?", s.Scenario)
			}
		}
		if s.Scenario == "master" && gap > masterGap {
			t.Errorf("a whole master off: no write for %s, %s are allowed", gap, masterGap)
		}
	}
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	wantNoMarks(t)
	lookAtDrill(t, page, report)
	if left := kubectl(t, "get", "namespaces", "-o", "name"); strings.Contains(left, "drill") {
		t.Errorf("the drill's namespace is left:\n%s", left)
	}
}

// played is the report of a drill that came to its end, whatever its verdict:
// the reasons of one that failed are in there.
func played(t *testing.T, r result) drill.Report {
	t.Helper()
	var report drill.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("exit %d, drill -o json: %v\n%s", r.code, err, r.tail())
	}
	for _, s := range report.Scenarios {
		if s.Verdict != drill.Pass {
			t.Errorf("%s on %s: %s: %q", s.Scenario, s.Host, s.Verdict, s.Reasons)
		}
	}
	if r.code != 0 {
		t.Errorf("the drill ended with exit %d, want 0: %q", r.code, report.Error)
	}
	return report
}

// drillWithPower takes the power of a whole master away by commands of the
// operator's, and gives it back.
func drillWithPower(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 4*time.Minute)
	h, err := theLab.Host(masters[0])
	if err != nil {
		t.Fatal(err)
	}
	container := strings.TrimSuffix(h.Container(), masters[0])
	hook := func(name, commands string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte("#!/bin/sh -e\nname="+container+"\"$1\"\n"+commands), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	// A host without power says nothing any more: no connection of its is closed.
	const off = `pid=$(lxc-info --name "$name" --pid --no-humanize)
for to in INPUT OUTPUT; do nsenter --target "$pid" --net iptables --wait --insert "$to" --jump DROP; done
exec lxc-stop --kill --name "$name"
`
	const on = `exec lxc-start --daemon --name "$name"
`
	report := played(t, ha(t, "drill", "--confirm", clusterName, "-o", "json", "--scenario", "master",
		"--power-off-hook", hook("off", off), "--power-on-hook", hook("on", on), path))
	if len(report.Scenarios) != 1 {
		t.Fatalf("%d scenarios were played", len(report.Scenarios))
	}
	s := report.Scenarios[0]
	t.Logf("%s without power: longest write gap %s, moved %s, whole %s after it came back; %+v", s.Host, s.WriteGap(), s.Moved, s.Recovered, s.Takeovers)
	if gap := s.WriteGap().Duration(); s.Verdict != drill.Pass || s.Lost() != 0 || s.Moved == 0 || gap > masterGap {
		t.Errorf("%s, %d lost, no write for %s, moved %s: %q", s.Verdict, s.Lost(), gap, s.Moved, s.Reasons)
	}
}

// lookAtDrill compares what a browser shows of a drill with its JSON.
func lookAtDrill(t *testing.T, file string, r drill.Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, width := range []int{1280, 400} {
		seen, picture, err := browser.Look(ctx, file, browser.View{Width: width})
		if err != nil {
			t.Fatal(err)
		}
		if dir := os.Getenv("HA_INSTALL_PICTURES"); dir != "" { // to look at by eye
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("drill-%d.png", width)), picture, 0o644); err != nil {
				t.Error(err)
			}
		}
		for _, bad := range browser.CompareDrill(seen, r) {
			t.Errorf("at %d pixels: %s", width, bad)
		}
		if seen.PageWidth > seen.WindowWidth || len(seen.Requests)+len(seen.Complaints) > 0 {
			t.Errorf("at %d pixels: %.0f wide, requests %q, complaints %q", width, seen.PageWidth, seen.Requests, seen.Complaints)
		}
	}
}

// marksOfDrill prints what an injection has left on a host.
const marksOfDrill = `ls -d /run/ha-install-drill 2>/dev/null
systemctl is-active --quiet ha-drill.service && echo its unit runs
command -v iptables >/dev/null && iptables -S | grep HA-INSTALL-DRILL
for u in kubelet haproxy keepalived; do
	p=$(systemctl show -p MainPID --value $u.service); [ "${p:-0}" != 0 ] && grep -q '^State:.T' /proc/$p/status && echo "$u is frozen"
	[ "$(systemctl is-enabled $u.service 2>/dev/null)" = enabled ] && ! systemctl is-active --quiet $u.service && echo "$u does not run"
done
exit 0`

func wantNoMarks(t *testing.T) {
	t.Helper()
	for host, left := range onEach(t, baseHosts, marksOfDrill) {
		if left != "" {
			t.Errorf("%s: what a drill has done is there:\n%s", host, left)
		}
	}
}

// selfRepair is how long a host may take to undo an injection whose operator died.
const selfRepair = 15 * time.Second

// drillsKilled kills the program (SIGKILL) in the middle of a scenario: the host
// undoes it, and the cluster is whole again without anybody.
func drillsKilled(t *testing.T) {
	path := writeInventory(t, nil, nil)
	for _, name := range drill.Names() {
		t.Run(name, func(t *testing.T) {
			awaitFaultless(t, path, 4*time.Minute)
			struck := false
			r := haWatched(t, func(line string) bool {
				if !strings.Contains(line, "watching what becomes of it") {
					return false
				}
				for _, left := range onEach(t, baseHosts, marksOfDrill) {
					struck = struck || left != ""
				}
				return true
			}, "drill", "-v", "--confirm", clusterName, "--scenario", name, path)
			if r.code != -1 || !struck {
				t.Fatalf("exit %d, a failure was seen: %t\n%s", r.code, struck, r.tail())
			}
			killed := time.Now()
			for {
				left := ""
				for host, marks := range onEach(t, baseHosts, marksOfDrill) {
					if marks != "" {
						left += host + ": " + marks + "\n"
					}
				}
				if left == "" {
					break
				}
				if time.Since(killed) > selfRepair {
					t.Fatalf("%s after the kill:\n%s", time.Since(killed), left)
				}
			}
			undone := time.Since(killed)
			awaitFaultless(t, path, 4*time.Minute)
			t.Logf("%s: undone %s after the kill, whole after %s", name, undone.Round(100*time.Millisecond), time.Since(killed).Round(time.Second))
		})
		if t.Failed() {
			return
		}
	}
	// The next drill finds a whole cluster, and what the killed ones have left in it goes.
	ha(t, "drill", "--confirm", clusterName, "--scenario", "apiserver", path).want(t, 0)
	if left := kubectl(t, "get", "namespaces", "-o", "name"); strings.Contains(left, "drill") {
		t.Errorf("the drill's namespace is left:\n%s", left)
	}
}
