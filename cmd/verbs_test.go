package cmd

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/test/golden"
)

// writeBundle makes a bundle of two small items in a directory.
func writeBundle(t *testing.T, dir string) string {
	t.Helper()
	from := func(text string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	}
	file := filepath.Join(dir, "bundle.tar")
	nodes := []inventory.Role{inventory.RoleWorker, inventory.RoleControlPlane}
	_, err := bundle.Create(context.Background(), file, bundle.Manifest{KubernetesVersion: "v1.36.3", Arch: "amd64"}, []bundle.Source{
		{Item: bundle.Item{Path: "binary/kubelet", Kind: bundle.KindBinary, Roles: nodes, Version: "v1.36.3", Mode: 0o755, Dest: "/usr/local/bin/kubelet"}, Open: from(strings.Repeat("the kubelet ", 100_000))},
		{Item: bundle.Item{Path: "packages/haproxy.deb", Kind: bundle.KindPackage, Roles: []inventory.Role{inventory.RoleLoadBalancer}, Version: "2.6.12", Mode: 0o644,
			Package: &bundle.Package{Name: "haproxy", Version: "2.6.12"}}, Open: from("a package")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestBundleInspect(t *testing.T) {
	file := writeBundle(t, t.TempDir())
	code, out, errOut := run(t, "", "bundle", "inspect", file)
	if code != 0 || errOut != "" {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	golden.Check(t, "bundle-inspect.txt", []byte(out))
	_, out, _ = run(t, "", "bundle", "inspect", "-o", "json", file)
	var m bundle.Manifest
	if err := json.Unmarshal([]byte(out), &m); err != nil || len(m.Items) != 2 || m.Items[0].Dest != "/usr/local/bin/kubelet" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestBundleVerify(t *testing.T) {
	file := writeBundle(t, t.TempDir())
	if code, out, errOut := run(t, "", "bundle", "verify", file); code != 0 || !strings.Contains(out, "all 2 items") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), "a package")
	data[at] = 'A'
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(t, "", "bundle", "verify", file); code != exitOther || !strings.Contains(errOut, "packages/haproxy.deb: sha256 is") || out != "" {
		t.Errorf("a flipped bit: exit code %d, %s%s", code, out, errOut)
	}
	if err := os.Truncate(file, int64(at)); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(t, "", "bundle", "verify", file); code != exitOther || !strings.Contains(errOut, "truncated") {
		t.Errorf("a truncated one: exit code %d, %s", code, errOut)
	}
}

func TestHostsOutOfReach(t *testing.T) {
	file := writeInventory(t, nil)
	for _, args := range [][]string{{"apply", file}, {"reset", "--confirm", "prod", file}} {
		code, _, errOut := run(t, "", args...)
		if code != exitUnreachable {
			t.Errorf("%s: exit code %d, wanted %d: %s", args[0], code, exitUnreachable, errOut)
		}
		for _, name := range []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3"} {
			if !strings.Contains(errOut, name) {
				t.Errorf("%s: %s is not named: %s", args[0], name, errOut)
			}
		}
	}
}

func TestPreflightOfHostsOutOfReachIsATable(t *testing.T) {
	code, out, errOut := run(t, "", "preflight", writeInventory(t, func(s string) string { return strings.Replace(s, "bundle.tar", "elsewhere.tar", 1) }))
	if code != exitPreflight || !strings.Contains(out, "cp-3") || !strings.HasPrefix(errOut, "warning: what the bundle asks") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}

func TestStatusOfHostsOutOfReachIsUnknown(t *testing.T) {
	code, out, _ := run(t, "", "status", "-o", "json", writeInventory(t, nil))
	var st struct {
		Quorum struct{ State string }
		Hosts  []struct{ Name, SSH string }
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != exitUnknown && code != exitNoQuorum || len(st.Hosts) != 5 {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
}

func TestResetWantsTheNameFirst(t *testing.T) {
	file := writeInventory(t, nil)
	rows := []struct {
		name, typed string
		flag        []string
		code        int
		want        string
	}{
		{"the name is typed", "prod\n", nil, exitUnreachable, "Type the cluster's name (prod) to go on: "},
		{"with blanks around", "  prod \n", nil, exitUnreachable, ""},
		{"another name is typed", "staging\n", nil, exitUsage, `"staging" is not the name of the cluster, "prod"; nothing was changed`},
		{"yes is no name", "yes\n", nil, exitUsage, `"yes" is not the name`},
		{"nothing is typed", "\n", nil, exitUsage, `"" is not the name`},
		{"no terminal", "", nil, exitUsage, "no name was typed; without a terminal use --confirm NAME"},
		{"the name by flag", "", []string{"--confirm", "prod"}, exitUnreachable, ""},
		{"another name by flag", "prod\n", []string{"--confirm", "staging"}, exitUsage, `"staging" is not the name`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			code, out, errOut := run(t, row.typed, append([]string{"reset", file}, row.flag...)...)
			if code != row.code || !strings.Contains(errOut, row.want) {
				t.Errorf("exit code %d, wanted %d\nout: %s\nerr: %s", code, row.code, out, errOut)
			}
		})
	}
}

func config(name, server string) *clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server}
	c.AuthInfos[name+"-admin"] = &clientcmdapi.AuthInfo{Token: "secret-" + name}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name + "-admin"}
	c.CurrentContext = name
	return c
}

func TestKubeconfigIsMerged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kube", "config")
	for _, c := range []*clientcmdapi.Config{config("old", "https://192.0.2.1:6443"), config("prod", "https://192.0.2.2:6443"), config("prod", "https://192.0.2.3:6443")} {
		if err := mergeKubeconfig(file, c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Clusters) != 2 || got.Clusters["old"].Server != "https://192.0.2.1:6443" || got.AuthInfos["old-admin"].Token != "secret-old" {
		t.Errorf("another cluster's entries were not kept: %v", got.Clusters)
	}
	if got.Clusters["prod"].Server != "https://192.0.2.3:6443" || got.CurrentContext != "prod" {
		t.Errorf("ours are not the new ones: %s, context %s", got.Clusters["prod"].Server, got.CurrentContext)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestKubeconfigIsPrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mergeKubeconfig(file, config("prod", "https://192.0.2.2:6443")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestKubeconfigThatIsBrokenIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("clusters: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mergeKubeconfig(file, config("prod", "https://192.0.2.2:6443")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "clusters: [" {
		t.Errorf("it holds %q, %v", data, err)
	}
}
