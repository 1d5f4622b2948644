package templates

import (
	"strings"
	"testing"
)

func TestComparableConfigurations(t *testing.T) {
	c := testCluster()
	document, err := ClusterConfiguration(c, true)
	if err != nil {
		t.Fatal(err)
	}
	text := string(document)
	swap := func(from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in\n%s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	tests := []struct {
		name, other string
		same        bool
	}{
		{"itself", text, true},
		{"another version", swap("kubernetesVersion: "+c.Spec.Kubernetes.Version, "kubernetesVersion: v1.35.4"), true},
		{"kubeadm's defaults, written out", text + "dns: {}\nimageRepository: registry.k8s.io\ncertificateValidityPeriod: 8760h0m0s\n", true},
		{"arguments in another order", swap("    - name: quota-backend-bytes\n      value: \"8589934592\"\n    - name: initial-cluster-state\n      value: existing\n",
			"    - name: initial-cluster-state\n      value: existing\n    - name: quota-backend-bytes\n      value: \"8589934592\"\n"), true},
		{"names in another order", swap("  - cp-1\n  - 198.51.100.21\n", "  - 198.51.100.21\n  - cp-1\n"), true},
		{"an argument of another value", swap("value: 5s", "value: 7s"), false},
		{"a field of its own", text + "featureGates:\n  NodeLocalCRISocket: true\n", false},
	}
	want, err := ComparableConfiguration(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ComparableConfiguration([]byte(tt.other))
			if err != nil {
				t.Fatal(err)
			}
			if (string(got) == string(want)) != tt.same {
				t.Errorf("same: %t, want %t:\n%s", !tt.same, tt.same, got)
			}
		})
	}
	if _, err := ComparableConfiguration([]byte(text + "noSuchField: 1\n")); err == nil {
		t.Error("an unknown field is not refused: it would be lost unseen")
	}
}
