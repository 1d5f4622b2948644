package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/test/golden"
)

func TestExitCodes(t *testing.T) {
	refusal := func(s etcd.State) error { return &etcd.QuorumError{What: "join cp-2", Verdict: etcd.Verdict{State: s}} }
	step := &kube.StepError{Host: "cp-1", Name: "kubeadm-init", Code: 1}
	rows := []struct {
		name string
		err  error
		want int
	}{
		{"any error", errors.New("x"), 1},
		{"a wrong command line", &usageError{errors.New("x")}, 64},
		{"an interrupt", context.Canceled, 130},
		{"a bad inventory", &inventory.Errors{}, 3},
		{"an inventory that kubeadm would refuse", &invalidError{errors.New("x")}, 3},
		{"preflight's errors", &preflight.Failure{}, 4},
		{"preflight's errors that were shown", &saidError{&preflight.Failure{}}, 4},
		{"a host out of reach", &provision.UnreachableError{Err: errors.New("x")}, 5},
		{"a command on a host", step, 6},
		{"a refusal while degraded", refusal(etcd.Degraded), 10},
		{"a refusal although all are healthy", refusal(etcd.Pass), 10},
		{"a refusal without quorum", refusal(etcd.NoQuorum), 11},
		{"a refusal of a split cluster", refusal(etcd.Split), 12},
		{"a refusal when nothing is proven", refusal(etcd.Unknown), 13},
		{"a verdict that was shown", &saidError{&verdictError{etcd.NoQuorum}}, 11},
		{"a degraded verdict", &verdictError{etcd.Degraded}, 10},
		{"a master that is not dead", &provision.AliveError{Host: "cp-2"}, 10},
		{"a node that is not empty", &kube.DrainError{Node: "w-1"}, 16},
	}
	for _, row := range rows {
		for wrapped, err := range map[string]error{
			"as it is":            row.err,
			"wrapped":             fmt.Errorf("cp-2: join: %w", row.err),
			"of a phase":          &phase.Error{Phase: "cp-2: join", Part: "gate", Err: phase.Final(row.err)},
			"among parallel ones": multierror.Append(nil, errors.New("first"), row.err),
			"joined by its undo":  errors.Join(row.err, errors.New("taking it back: y")),
		} {
			if got := exitCode(err); got != row.want {
				t.Errorf("%s, %s: exit code %d, wanted %d", row.name, wrapped, got, row.want)
			}
		}
	}
}

func TestEveryExitCodeIsDocumented(t *testing.T) {
	for _, code := range []int{exitOK, exitOther, exitInvalid, exitPreflight, exitUnreachable, exitStep, exitDegraded, exitNoQuorum, exitSplit, exitUnknown, exitDrill, exitDrain, exitUsage, exitInterrupted} {
		if !strings.Contains(exitCodeHelp, fmt.Sprintf("\n  %-4d ", code)) {
			t.Errorf("exit code %d is not in the help", code)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	good := writeInventory(t, nil)
	rows := []struct {
		name string
		args []string
		want string
	}{
		{"an unknown verb", []string{"frobnicate"}, `unknown command "frobnicate"`},
		{"an unknown verb of bundle", []string{"bundle", "frobnicate"}, "frobnicate"},
		{"an unknown flag", []string{"apply", "--force", good}, "unknown flag: --force"},
		{"an unknown flag of the root", []string{"--frob"}, "unknown flag: --frob"},
		{"no inventory", []string{"apply"}, "ha-install apply takes one inventory file, got 0 arguments"},
		{"two inventories", []string{"status", good, good}, "got 2 arguments"},
		{"an unknown format", []string{"status", "-o", "yaml", good}, "-o yaml: want text or json"},
		{"a flag without its value", []string{"status", good, "-o"}, "flag needs an argument"},
		{"init to two files", []string{"init", "a", "b"}, "accepts at most 1 arg"},
		{"an argument to schema", []string{"schema", "x"}, "schema"},
		{"no bundle", []string{"bundle", "inspect"}, "accepts 1 arg"},
		{"two bundles", []string{"bundle", "verify", "a", "b"}, "accepts 1 arg"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			code, out, errOut := run(t, "", row.args...)
			if code != exitUsage || !strings.Contains(errOut, row.want) || out != "" {
				t.Errorf("exit code %d, wanted %d\nout: %s\nerr: %s\nwanted %q", code, exitUsage, out, errOut, row.want)
			}
			if !strings.HasPrefix(errOut, "ha-install: ") {
				t.Errorf("error output: %s", errOut)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	code, out, errOut := run(t, "", "--help")
	if code != 0 || errOut != "" {
		t.Errorf("exit code %d, err %q", code, errOut)
	}
	golden.Check(t, "help.txt", []byte(out))
	if code, bare, _ := run(t, ""); code != 0 || bare != out {
		t.Errorf("without a verb: exit code %d, another text than --help", code)
	}
}

// TestEveryVerbHelps walks all verbs there are.
func TestEveryVerbHelps(t *testing.T) {
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		code, out, errOut := run(t, "", append(path, "--help")...)
		if code != 0 || errOut != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%v --help: exit code %d, err %q, out %q", path, code, errOut, out)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%v: its summary is %q; want a phrase without a full stop", path, c.Short)
		}
		for _, sub := range c.Commands() {
			walk(sub, append(append([]string{}, path...), sub.Name()))
		}
	}
	walk(newRoot(), nil)
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errOut := run(t, "", "completion", shell); code != 0 || !strings.Contains(out, "ha-install") {
			t.Errorf("%s: exit code %d, err %q", shell, code, errOut)
		}
	}
	if _, out, _ := run(t, "", "__complete", "status", "--output", ""); !strings.Contains(out, "text") || !strings.Contains(out, "json") {
		t.Errorf("-o completes to %q", out)
	}
	if _, out, _ := run(t, "", "__complete", "apply", ""); !strings.Contains(out, "yaml") {
		t.Errorf("the inventory completes to %q", out)
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := run(t, "", "--version"); code != 0 || !strings.Contains(out, Version) {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestValidate(t *testing.T) {
	rows := []struct {
		name   string
		change func(string) string
		code   int
		out    string
		err    string
	}{
		{"a good inventory", nil, 0, "inventory.yaml is valid: cluster prod, Kubernetes v1.36.3, 3 masters, 0 workers, 2 balancers\n", ""},
		{"a misspelt field", func(s string) string { return strings.Replace(s, "endpoint:", "endpiont:", 1) }, 3, "", "inventory.yaml:6:3: spec.endpiont: unknown field"},
		{"two masters are a warning", func(s string) string { return s[:strings.LastIndex(strings.TrimSpace(s), "\n")+1] }, 0, "2 masters", "warning: "},
		{"what kubeadm would refuse", func(s string) string {
			return s + "  kubeadm: {clusterConfiguration: {apiServer: {certSANs: [\"not a name!\"]}}}\n"
		}, 3, "", "not a name!"},
		{"a manifest that is not there", func(s string) string {
			return s + "  network: {cni: {plugin: manifests, manifests: [calico.yaml]}}\n"
		}, 3, "", "calico.yaml"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			code, out, errOut := run(t, "", "validate", writeInventory(t, row.change))
			if code != row.code || !strings.Contains(out, row.out) || !strings.Contains(errOut, row.err) || row.err == "" && errOut != "" {
				t.Errorf("exit code %d, wanted %d\nout: %s\nerr: %s", code, row.code, out, errOut)
			}
		})
	}
}

func TestValidateFileThatIsNotThere(t *testing.T) {
	code, _, errOut := run(t, "", "validate", "nowhere.yaml")
	if code != exitInvalid || !strings.Contains(errOut, "`ha-install init nowhere.yaml` writes one to start from") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestValidateStandardInput(t *testing.T) {
	text, err := os.ReadFile(writeInventory(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(t, string(text), "validate", "-"); code != 0 || !strings.HasPrefix(out, "- is valid: cluster prod") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
}

func TestInitWritesWhatValidates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inventory.yaml")
	if code, out, errOut := run(t, "", "init", file); code != 0 || errOut != "" {
		t.Fatalf("exit code %d, %s%s", code, out, errOut)
	}
	if code, _, errOut := run(t, "", "validate", file); code != 0 {
		t.Errorf("what init wrote does not validate: %s", errOut)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(t, "", "init", file); code == 0 || !strings.Contains(errOut, "file exists") {
		t.Errorf("a second time: exit code %d, %s", code, errOut)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed (%v)", err)
	}
	if code, out, _ := run(t, "", "init"); code != 0 || out != string(before) {
		t.Errorf("without a file: exit code %d, %d bytes", code, len(out))
	}
}

func TestSchemaIsJSON(t *testing.T) {
	code, out, _ := run(t, "", "schema")
	var schema map[string]any
	if err := json.Unmarshal([]byte(out), &schema); code != 0 || err != nil || schema["$schema"] == nil {
		t.Errorf("exit code %d, %v, $schema %v", code, err, schema["$schema"])
	}
}
