package inventory

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzParse holds for any bytes: no panic; an *Errors or a Cluster; every issue
// has a place inside the file and is one line.
func FuzzParse(f *testing.F) {
	many, err := os.ReadFile("testdata/many-errors.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		[]byte(base), Example(), many,
		[]byte("a: &a [*a, {<<: *a}]"), []byte("? {a: b}\n: c"), []byte("%YAML 1.1\n---\n- !!set {a}"),
		[]byte("{apiVersion: ha-install.io/v1alpha1, kind: Cluster, spec: {hosts: [{address: '::'}], kubeadm: {clusterConfiguration: {a: 1e999}}}}"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, warnings, err := Parse("f", data)
		var all *Errors
		switch {
		case err == nil && c == nil:
			t.Fatal("neither a cluster nor an error")
		case err != nil && (c != nil || !errors.As(err, &all) || len(all.Issues) == 0):
			t.Fatalf("cluster %v, error %T", c, err)
		}
		if all != nil {
			warnings = append(warnings, all.Issues...)
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") +
			strings.Count(string(data), "\u0085") + strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") + 2
		for _, issue := range warnings {
			if issue.Line < 1 || issue.Line > lines || issue.Column < 1 || issue.Message == "" {
				t.Errorf("out of place: %+v", issue)
			}
			if strings.ContainsAny(issue.String(), "\n\r") {
				t.Errorf("more than a line: %q", issue)
			}
		}
	})
}
