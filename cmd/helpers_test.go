package cmd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// run executes one command line, away from the tester's own configuration.
func run(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("KUBECONFIG", "")
	var o, e bytes.Buffer
	code = Execute(context.Background(), append([]string{}, args...), strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

// writeInventory writes an inventory whose hosts refuse every connection, and
// its bundle beside it.
func writeInventory(t *testing.T, change func(string) string) string {
	t.Helper()
	var hosts strings.Builder
	for i, h := range []string{"lb-1 load-balancer", "lb-2 load-balancer", "cp-1 control-plane", "cp-2 control-plane", "cp-3 control-plane"} {
		name, role, _ := strings.Cut(h, " ")
		fmt.Fprintf(&hosts, "    - {name: %s, role: %s, address: 127.0.0.%d, internalAddress: 198.51.100.%d}\n", name, role, i+2, i+11)
	}
	text := `apiVersion: ha-install.io/v1alpha1
kind: Cluster
metadata: {name: prod}
spec:
  kubernetes: {version: v1.36.3}
  endpoint: {host: 198.51.100.100}
  software: {bundle: bundle.tar}
  ssh: {user: root, port: 1, agent: false}
  hosts:
` + hosts.String()
	if change != nil {
		text = change(text)
	}
	dir := t.TempDir()
	writeBundle(t, dir)
	file := filepath.Join(dir, "inventory.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
