//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// caFiles are what a user gives in spec.pki.directory.
var caFiles = []string{"ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"}

const opensslConfig = `[req]
distinguished_name = name
prompt = no
[name]
CN = set on the command line
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
[leaf]
basicConstraints = critical, CA:FALSE
`

// openssl runs in the directory of the user's CA.
func openssl(t *testing.T, dir, args string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", strings.Fields(args)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", args, err, out)
	}
}

// usersCA makes a set as a company would with its own tools, no two of its
// keys of one kind, and returns the directory.
func usersCA(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
	const root = "req -config openssl.cnf -x509 -extensions ca -nodes -days 3650 "
	openssl(t, dir, root+"-newkey rsa:3072 -keyout ca.key -out ca.crt -subj /CN=acme-kubernetes")
	openssl(t, dir, root+"-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout etcd/ca.key -out etcd/ca.crt -subj /CN=acme-etcd")
	openssl(t, dir, root+"-newkey rsa:2048 -keyout front-proxy-ca.key -out front-proxy-ca.crt -subj /CN=acme-front-proxy")
	openssl(t, dir, "genpkey -algorithm RSA -out sa.key")
	openssl(t, dir, "pkey -in sa.key -pubout -out sa.pub")
	return dir
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantGivenCA wants the masters to hold the user's files, byte by byte.
func wantGivenCA(t *testing.T, dir string, masters []string) {
	t.Helper()
	var want strings.Builder
	for _, name := range caFiles {
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256([]byte(readFile(t, filepath.Join(dir, name)))), name)
	}
	for host, got := range onEach(t, masters, "cd /etc/kubernetes/pki && sha256sum "+strings.Join(caFiles, " ")) {
		if strings.TrimSpace(got) != strings.TrimSpace(want.String()) {
			t.Errorf("%s holds\n%s\nwant the user's\n%s", host, got, want.String())
		}
	}
	wantEqualCA(t, masters)
}

// refuseFiles gives a CA set and manifests in which everything is wrong that
// can be: all of it is said at once, and no host is asked.
func refuseFiles(t *testing.T) {
	dir := usersCA(t)
	openssl(t, dir, "genpkey -algorithm RSA -out ca.key")
	openssl(t, dir, "req -config openssl.cnf -new -key etcd/ca.key -out etcd.csr -subj /CN=acme-etcd")
	openssl(t, dir, "x509 -req -in etcd.csr -signkey etcd/ca.key -days -1 -extfile openssl.cnf -extensions ca -out etcd/ca.crt")
	openssl(t, dir, "req -config openssl.cnf -x509 -extensions leaf -key front-proxy-ca.key -days 3650 -subj /CN=leaf -out front-proxy-ca.crt")
	if err := os.Remove(filepath.Join(dir, "sa.pub")); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "network.yaml")
	writeFile(t, broken, "apiVersion: v1\nkind: Namespace\nmetadata: {name: [\n")
	path := writeInventory(t, nil, func(d document) {
		d.spec()["pki"] = map[string]any{"directory": dir}
		d.network()["cni"] = map[string]any{"plugin": "manifests", "manifests": []any{broken, "nowhere.yaml"}}
		d.ssh()["identityFiles"] = []any{theLab.Key(), "no-such-key"}
	})
	before := onEach(t, baseHosts, logins)
	refused(t, path, 3, path+":", "spec.pki.directory",
		"ca.key is not its key", "etcd/ca.crt: it expired at ", "front-proxy-ca.crt: it is not a CA", "missing sa.pub",
		"spec.network.cni.manifests[0]", "spec.network.cni.manifests[1]", "nowhere.yaml", "spec.ssh.identityFiles[1]", "no-such-key")
	wantSame(t, "logins", before, onEach(t, baseHosts, logins))
}
