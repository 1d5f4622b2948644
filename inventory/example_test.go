package inventory

import (
	"os"
	"path/filepath"
	"testing"
)

// examples are all inventories that users are shown, by name.
func examples(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"example.yaml": Example()}
	paths, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(path)] = data
	}
	return out
}

func TestExamplesAreValid(t *testing.T) {
	want := map[string]string{
		"single-trial.yaml": "single-trial.yaml:16:3: warning: spec.hosts: ONE control plane host: " +
			"for trying out only, nothing survives its loss; want 3, 5 or 7",
	}
	for name, data := range examples(t) {
		_, warnings, err := Parse(name, data)
		if got := report(warnings, err); got != want[name] {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want[name])
		}
	}
}

func TestExampleIsTheTopologyItClaims(t *testing.T) {
	c, _, err := Parse("example.yaml", Example())
	if err != nil {
		t.Fatal(err)
	}
	if got := [3]int{len(c.ControlPlanes()), len(c.Balancers()), len(c.Workers())}; got != [3]int{3, 2, 1} {
		t.Errorf("control planes, balancers, workers: %v", got)
	}
	if got := c.Spec.LoadBalancer.VIP; got != "192.0.2.10" {
		t.Errorf("vip %q", got)
	}
}
