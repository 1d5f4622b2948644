//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// planned is what the tests read of `plan -o json`.
type planned struct {
	Cluster, Digest string
	Steps           []struct {
		Phase, Host, State string
		WaitsFor           []string
		Changes            []struct {
			Kind, Name, Diff, Withheld string
			Figures                    []struct {
				Name          string
				Before, After int
			}
		}
	}
}

// in are the steps in a state: "cp-2: join".
func (p planned) in(state string) []string {
	var ids []string
	for _, s := range p.Steps {
		if s.State == state {
			ids = append(ids, strings.TrimPrefix(s.Host+": "+s.Phase, ": "))
		}
	}
	return ids
}

// figures are a membership change's numbers: "voters 1>2, quorum 1>2, ...".
func (p planned) figures() []string {
	var all []string
	for _, s := range p.Steps {
		for _, c := range s.Changes {
			if c.Kind != "membership" {
				continue
			}
			var parts []string
			for _, f := range c.Figures {
				parts = append(parts, fmt.Sprintf("%s %d>%d", f.Name, f.Before, f.After))
			}
			all = append(all, s.Host+": "+strings.Join(parts, ", "))
		}
	}
	return all
}

// planOf runs plan, and wants the hosts as they were before, by the footprint.
func planOf(t *testing.T, code int, hosts []string, footprint, path string, args ...string) (planned, result) {
	t.Helper()
	before := onEach(t, hosts, footprint)
	r := ha(t, append([]string{"plan", "-o", "json", path}, args...)...)
	wantSame(t, "a plan", before, onEach(t, hosts, footprint))
	r.want(t, code)
	var p planned
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatalf("%v\n%s", err, r.tail())
	}
	for _, secret := range []string{"PRIVATE KEY", "client-key-data", "secret: "} {
		if strings.Contains(r.stdout, secret) {
			t.Errorf("the plan shows a secret: %q", secret)
		}
	}
	return p, r
}

// planBare plans on hosts that have nothing.
func planBare(t *testing.T) {
	recreate(t, baseHosts...)
	path := writeInventory(t, nil, nil)
	p, r := planOf(t, 2, baseHosts, bareFootprint, path)
	t.Logf("a plan of bare hosts in %s: %d steps to change", r.took.Round(100*time.Millisecond), len(p.in("change")))
	if unknown := p.in("unknown"); len(unknown) > 0 {
		t.Errorf("not known on bare hosts: %q", unknown)
	}
	want := []string{
		"cp-1: voters 0>1, quorum 0>1, healthy 0>1, can lose 0>0",
		"cp-2: voters 1>2, quorum 1>2, healthy 1>2, can lose 0>0",
		"cp-3: voters 2>3, quorum 2>2, healthy 2>3, can lose 0>1",
	}
	if got := p.figures(); !slices.Equal(got, want) {
		t.Errorf("projections\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if again, _ := planOf(t, 2, baseHosts, bareFootprint, path); again.Digest != p.Digest {
		t.Error("two plans of the same hosts have different digests")
	}
}

// ownWrites is every change of our own keys in etcd since a revision.
func ownWrites(t *testing.T, host, revision string) string {
	t.Helper()
	argv := append([]string{"timeout", "3"}, etcdctlArgs("watch", "--prefix", "/ha-install/", "--rev", revision)...)
	return shell(t, host, strings.Join(argv, " ")+"; exit 0")
}

func etcdRevision(t *testing.T, host string) string {
	t.Helper()
	var answer []struct {
		Status struct{ Header struct{ Revision int64 } }
	}
	if err := json.Unmarshal([]byte(etcdctl(t, host, "endpoint", "status", "-w", "json")), &answer); err != nil || len(answer) != 1 {
		t.Fatalf("endpoint status: %v", err)
	}
	return fmt.Sprint(answer[0].Status.Header.Revision + 1)
}

// planFinished plans where nothing is to do, and where two masters and a
// worker more are wanted; neither leaves a trace on hosts or in etcd.
func planFinished(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitProbePodsGone(t)
	from := etcdRevision(t, "cp-1")
	p, r := planOf(t, 0, baseHosts, clusterFootprint, path)
	t.Logf("a plan with nothing to do: %s", r.took.Round(100*time.Millisecond))
	if todo := append(p.in("change"), p.in("unknown")...); len(todo) > 0 {
		t.Errorf("to do on a finished cluster: %q", todo)
	}
	if text := ha(t, "plan", path); text.code != 0 || !strings.Contains(text.stdout, "nothing to do") {
		t.Errorf("exit %d\n%s", text.code, text.tail())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, moreHosts...); err != nil {
		t.Fatal(err)
	}
	recreate(t, moreHosts...)
	grown := with(t, moreHosts...)
	p, r = planOf(t, 2, baseHosts, clusterFootprint, grown)
	t.Logf("a plan of two masters and a worker more: %s, %d steps to change", r.took.Round(100*time.Millisecond), len(p.in("change")))
	want := []string{
		"cp-4: voters 3>4, quorum 2>3, healthy 3>4, can lose 1>1",
		"cp-5: voters 4>5, quorum 3>3, healthy 4>5, can lose 1>2",
	}
	if got := p.figures(); !slices.Equal(got, want) {
		t.Errorf("projections\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, host := range []string{"cp-1: ", "cp-2: ", "cp-3: ", "w-1: "} {
		for _, id := range p.in("change") {
			if strings.HasPrefix(id, host) {
				t.Errorf("%s would change, though its host is as it should be", id)
			}
		}
	}
	if writes := ownWrites(t, "cp-1", from); writes != "" {
		t.Errorf("plans wrote to etcd:\n%s", writes)
	}
	// The same question sees what an apply writes, or it would prove nothing.
	ha(t, "apply", path).want(t, 0)
	if ownWrites(t, "cp-1", from) == "" {
		t.Error("an apply has written none of our keys: the test looks in the wrong place")
	}
}

// stoppedAndPlanned makes a cluster by a plan, asks it to stop in the middle,
// goes on, and grows it by another plan, on bare hosts.
func stoppedAndPlanned(t *testing.T) {
	recreate(t, baseHosts...)
	small := writeInventory(t, []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3"}, nil)
	file := filepath.Join(t.TempDir(), "plan.json")
	ha(t, "plan", "--out", file, small).want(t, 2)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the plan's file: %v, %v", info, err)
	}
	ha(t, "apply", "--plan", file, writeInventory(t, nil, nil)).want(t, 9, "w-1] was added", "nothing was changed")

	asked := false
	r := haActing(t, func(line string, program *os.Process) {
		if e := parseEvent(t, line); !asked && e.Kind == "started" && e.Phase == "init" {
			asked = true
			if err := program.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
	}, "apply", "-o", "json", "--plan", file, small)
	r.want(t, 130, "stopped at a safe point", "ended:", "left:", "join (cp-2, cp-3)", "ha-install apply -o json "+small)
	if strings.Contains(r.stderr, "--plan") {
		t.Errorf("it says to run the same plan again, which does not hold any more:\n%s", r.stderr)
	}
	for _, e := range r.events(t) {
		if e.Phase == "join" {
			t.Errorf("%s of a join after the stop was asked for", e.Kind)
		}
	}
	if up := shell(t, "cp-1", "ls /etc/kubernetes/manifests"); !strings.Contains(up, "etcd.yaml") {
		t.Errorf("the init that was under way was not finished: %q", up)
	}
	ha(t, "apply", "--plan", file, small).want(t, 9, "cp-1: claim: to change then, done now")
	half, _ := planOf(t, 2, masters, clusterFootprint, small)
	if got := half.figures(); len(got) != 2 || !strings.HasPrefix(got[0], "cp-2: voters 1>2") {
		t.Errorf("what is left of a stopped run: %q", got)
	}
	ha(t, "apply", small).want(t, 0)
	wantMembers(t, masters)

	whole := writeInventory(t, nil, nil)
	ha(t, "plan", "--out", file, whole).want(t, 2)
	ha(t, "apply", "--plan", file, writeInventory(t, nil, func(d document) { d.spec()["loadBalancer"] = map[string]any{"virtualRouterID": 77} })).
		want(t, 9, "spec.loadBalancer.virtualRouterID has changed")
	r = ha(t, "apply", "-o", "json", "--plan", file, whole)
	r.want(t, 0)
	awaitProbePodsGone(t)
	if p, _ := planOf(t, 0, baseHosts, clusterFootprint, whole); r.changed(t) == 0 || len(p.in("done")) == 0 {
		t.Errorf("%d steps changed", r.changed(t))
	}
	ha(t, "apply", "--plan", file, whole).want(t, 9, "w-1: claim: to change then, done now")
}
