package cmd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/golden"
)

// examplePlan has one of everything that a plan can show.
func examplePlan() provision.Plan {
	figures := []phase.Figure{{Name: "voters", Before: 3, After: 4}, {Name: "quorum", Before: 2, After: 3}, {Name: "healthy", Before: 3, After: 4}, {Name: "can lose", Before: 1, After: 1}}
	binary := []phase.Change{{Kind: "package", Name: "runc", Text: "1.1.5", New: true, Bytes: 3 << 20}, {Kind: "binary", Name: "/usr/local/bin/kubelet", Text: "v1.36.3", New: true, Bytes: 58 << 20}}
	return provision.Plan{Cluster: "prod", Plan: phase.Plan{Steps: []phase.PlannedStep{
		{Phase: "preflight", State: phase.Proof, Stage: 1},
		{Phase: "claim", Host: "cp-1", State: phase.AlreadyDone, Stage: 2, Parallel: true},
		{Phase: "claim", Host: "cp-4", State: phase.ToChange, Stage: 2, Parallel: true, Changes: []phase.Change{
			{Kind: "file", Name: "/var/lib/ha-install/cluster.json", Mode: "0644", New: true, Bytes: 18, Diff: "--- /dev/null\n+++ /var/lib/ha-install/cluster.json\n@@ -0,0 +1 @@\n+{\"cluster\":\"prod\"}\n"}}},
		{Phase: "software", Host: "cp-4", State: phase.ToChange, Stage: 3, Parallel: true, Changes: binary},
		{Phase: "software", Host: "w-2", State: phase.ToChange, Stage: 3, Parallel: true, Changes: binary},
		{Phase: "images", Host: "cp-4", State: phase.NotKnown, Stage: 4, Parallel: true, WaitsFor: []string{"cp-4: configure"}, Changes: []phase.Change{{Kind: "image", Name: "registry.k8s.io/pause:3.10", New: true, Bytes: 700 << 10}}},
		{Phase: "certificates", Host: "cp-4", State: phase.ToChange, Stage: 5, Changes: []phase.Change{{Kind: "file", Name: "/etc/kubernetes/pki/ca.key", Mode: "0600", New: true, Withheld: "secret"}}},
		{Phase: "balancer", Host: "lb-1", State: phase.ToChange, Stage: 6, Changes: []phase.Change{
			{Kind: "file", Name: "/etc/haproxy/haproxy.cfg", Mode: "0644", Bytes: 900, Diff: "--- /etc/haproxy/haproxy.cfg\n+++ /etc/haproxy/haproxy.cfg\n@@ -7,3 +7,4 @@\n backend kube-apiserver\n   server cp-3 198.51.100.23:6443\n+  server cp-4 198.51.100.24:6443\n"}, {Kind: "reload", Name: "haproxy"}}},
		{Phase: "balancer", Host: "lb-2", State: phase.ToChange, Stage: 6, Changes: []phase.Change{{Kind: "reload", Name: "haproxy"}}},
		{Phase: "join", Host: "cp-4", State: phase.ToChange, Stage: 7, Changes: []phase.Change{{Kind: "membership", Name: "cp-4", Text: "added as a learner, promoted to voter when it has caught up", New: true, Figures: figures}}},
		{Phase: "data-path", State: phase.ToChange, Stage: 8},
	}}}
}

func TestPlanInWords(t *testing.T) {
	for file, verbose := range map[string]bool{"plan.txt": false, "plan-verbose.txt": true} {
		var out bytes.Buffer
		renderPlan(&out, examplePlan(), verbose)
		golden.Check(t, file, out.Bytes())
	}
	var out bytes.Buffer
	done := examplePlan()
	done.Steps = done.Steps[:2]
	renderPlan(&out, done, false)
	if want := "nothing to do: cluster prod is as the inventory says\n"; out.String() != want {
		t.Errorf("said %q", out.String())
	}
}

func TestPlanOfHostsOutOfReach(t *testing.T) {
	out := filepath.Join(t.TempDir(), "plan.json")
	code, _, errOut := run(t, "", "plan", "--out", out, writeInventory(t, nil))
	if code != exitUnreachable || !strings.Contains(errOut, "cp-3") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plan was kept: %v", err)
	}
}

func TestApplyRefusesWhatIsNoPlan(t *testing.T) {
	rows := []struct{ name, content, want string }{
		{"not JSON", "plan", "not a plan"},
		{"JSON of something else", `{"kind": "Cluster"}`, "not a plan"},
		{"a plan that was changed by hand", `{"apiVersion": "ha-install.io/v1alpha1", "kind": "Plan", "cluster": "prod", "steps": [], "inputs": {}, "digest": "00"}`, "changed after it was made"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "plan.json")
			if err := os.WriteFile(file, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out, errOut := run(t, "", "apply", "--plan", file, writeInventory(t, nil))
			if code != exitOther || !strings.Contains(errOut, row.want) || !strings.Contains(errOut, file) {
				t.Errorf("exit code %d: %s%s", code, out, errOut)
			}
		})
	}
	if code, _, errOut := run(t, "", "apply", "--plan", "x", "--yes", writeInventory(t, nil)); code != exitUsage || !strings.Contains(errOut, "[plan yes] were all set") {
		t.Errorf("--plan with --yes: exit code %d: %s", code, errOut)
	}
}

func TestAnswerIsYesOrNothingHappens(t *testing.T) {
	for answer, want := range map[string]string{"yes\n": "yes", " yes \n": "yes", "y\n": "y"} {
		if got, err := readLine(t.Context(), strings.NewReader(answer)); err != nil || got != want {
			t.Errorf("%q: %q, %v", answer, got, err)
		}
	}
	if _, err := readLine(t.Context(), strings.NewReader("")); !errors.Is(err, errDeclined) {
		t.Errorf("the end of the input: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	if _, err := readLine(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupt: %v", err)
	}
}

func TestAskIsForChangesOnly(t *testing.T) {
	nothing := examplePlan()
	nothing.Steps = nothing.Steps[:2]
	rows := []struct {
		name   string
		plan   provision.Plan
		answer string
		err    error
		asked  bool
	}{
		{"yes agrees", examplePlan(), "yes\n", nil, true},
		{"anything else does not", examplePlan(), "ok\n", errDeclined, true},
		{"nor does silence", examplePlan(), "", errDeclined, true},
		{"nothing to do needs no answer", nothing, "", nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var errOut bytes.Buffer
			c := &cobra.Command{}
			c.SetContext(t.Context())
			c.SetIn(strings.NewReader(row.answer))
			c.SetErr(&errOut)
			plan, err := ask(c, row.plan)
			if !errors.Is(err, row.err) || (plan != nil) != (row.err == nil) || strings.Contains(errOut.String(), "Type yes") != row.asked {
				t.Errorf("%v, %v, asked %q", plan, err, errOut.String())
			}
		})
	}
}

func TestNobodyIsAskedWithoutATerminal(t *testing.T) {
	c := &cobra.Command{}
	c.SetContext(t.Context())
	for _, a := range []agreement{{terminal: false}, {yes: true, terminal: true}} {
		if plan, err := a.plan(c, nil, nil); plan != nil || err != nil {
			t.Errorf("%+v: %v, %v", a, plan, err)
		}
	}
	if onTerminal(c) {
		t.Error("the test's own streams are taken for a terminal")
	}
}

func TestAgain(t *testing.T) {
	rows := map[string][]string{
		"ha-install apply inventory.yaml":          {"apply", "--plan", "plan.json", "inventory.yaml"},
		"ha-install apply --yes inventory.yaml":    {"apply", "--yes", "inventory.yaml"},
		"ha-install apply 'my inventory.yaml'":     {"apply", "--plan=plan.json", "my inventory.yaml"},
		"ha-install reset --confirm prod inv.yaml": {"reset", "--confirm", "prod", "inv.yaml"},
	}
	for want, args := range rows {
		if got := again(args); got != want {
			t.Errorf("%q: %q, wanted %q", args, got, want)
		}
	}
}
