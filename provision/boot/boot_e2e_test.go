//go:build e2e

package boot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

// bundleFile is the bundle of the lab, of the newest release.
func bundleFile(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("HA_INSTALL_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "ha-install")
	}
	found, err := filepath.Glob(filepath.Join(cache, "bundles", "*.tar"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no bundle in %s: make one with `make bundle` (%v)", cache, err)
	}
	return found[len(found)-1]
}

// source makes a backup of a real API server's data, with a Secret that is
// encrypted at rest, three ConfigMaps and a CustomResource of its own kind.
func source(t *testing.T, bundle string, id *age.X25519Identity) backup.Entry {
	t.Helper()
	ctx := t.Context()
	encryption := templates.EncryptionConfig([templates.EncryptionKeySize]byte{1})
	dir, err := newScratch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &drill{Options: Options{Bundle: bundle, Tell: func(text string) { t.Log("source: " + text) }}, dir: dir, began: time.Now()}
	d.encryption = dir.at("given.yaml")
	if err := os.WriteFile(d.encryption, encryption, 0o600); err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	for _, do := range []func(context.Context) error{d.unpack, d.startEtcd, d.startAPI} {
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://" + d.keys.api, TLSClientConfig: rest.TLSClientConfig{CAData: d.keys.caPEM, CertData: d.keys.certPEM, KeyData: d.keys.keyPEM}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"x": "y"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	crd := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"toys.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"toys","kind":"Toy"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`
	if err := client.RESTClient().Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").Body([]byte(crd)).SetHeader("Content-Type", "application/json").Do(ctx).Error(); err != nil {
		t.Fatal(err)
	}
	toy := `{"apiVersion":"example.com/v1","kind":"Toy","metadata":{"name":"ball"}}`
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := client.RESTClient().Post().AbsPath("/apis/example.com/v1/namespaces/default/toys").Body([]byte(toy)).SetHeader("Content-Type", "application/json").Do(ctx).Error()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(200 * time.Millisecond)
	}
	return taken(t, d, encryption, id)
}

// taken takes a backup of the source as `backup create` does, with keys.
func taken(t *testing.T, d *drill, encryption []byte, id *age.X25519Identity) backup.Entry {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + d.keys.etcd}, TLS: d.keys.client()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stream, err := c.SnapshotWithVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Snapshot.Close()
	draft, err := backup.In(t.TempDir(), "prod").Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	m := backup.Manifest{Cluster: "prod", Quorum: true, Verdict: etcd.Pass, KubernetesVersion: d.result.Kubernetes}
	if m.Snapshot, err = draft.WriteSnapshot(t.Context(), stream.Snapshot, nil); err != nil {
		t.Fatal(err)
	}
	set, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	seal, err := backup.SealFor([]string{id.Recipient().String()}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := draft.WriteKeys(append(set.Files(), templates.EncryptionFile(encryption)), seal)
	if err != nil {
		t.Fatal(err)
	}
	m.Keys, m.CASHA256 = &k, set.Fingerprint()
	path, err := draft.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return backup.Read(path)
}

func objects(r Result, resource string) (int64, map[string]int64) {
	for _, k := range r.Kinds {
		if k.Resource == resource {
			return k.Objects, k.Namespaces
		}
	}
	return 0, nil
}

func TestBootCountsWhatWasBackedUp(t *testing.T) {
	bundle := bundleFile(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	e := source(t, bundle, id)
	in := t.TempDir()
	o := Options{Backup: e, Bundle: bundle, Scratch: in, Openers: []age.Identity{id}, Tell: func(text string) { t.Log(text) }}
	before, err := os.ReadFile(filepath.Join(e.Path, backup.SnapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := r.Write(&table, true); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	if n, by := objects(r, "configmaps"); by["default"] != 3 {
		t.Errorf("%d ConfigMaps %v, want 3 in default", n, by)
	}
	if n, by := objects(r, "secrets"); n != 1 || by["kube-system"] != 1 {
		t.Errorf("%d Secrets %v, want 1", n, by)
	}
	if n, _ := objects(r, "toys.example.com"); n != 1 {
		t.Errorf("%d Toys, want 1", n)
	}
	if n, _ := objects(r, "namespaces"); n != 4 {
		t.Errorf("%d Namespaces, want 4", n)
	}
	if len(r.Unread) > 0 || r.Objects > r.Keys {
		t.Errorf("%+v", r)
	}
	if after, err := os.ReadFile(filepath.Join(e.Path, backup.SnapshotFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the backup was changed: %v", err)
	}
	t.Run("without the key", func(t *testing.T) {
		o := o
		o.Openers = nil
		sealed, err := Boot(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := objects(sealed, "secrets"); n != 0 || len(sealed.Unread) != 1 || sealed.Unread[0].Resource != "secrets" || !strings.Contains(sealed.Unread[0].Why, "encrypted at rest") {
			t.Errorf("%d Secrets, %+v", n, sealed.Unread)
		}
		if n, by := objects(sealed, "configmaps"); by["default"] != 3 {
			t.Errorf("%d ConfigMaps %v", n, by)
		}
	})
	t.Run("etcd cannot start", func(t *testing.T) {
		d := &drill{Options: o, began: time.Now()}
		if d.dir, err = newScratch(in); err != nil {
			t.Fatal(err)
		}
		defer d.dir.remove()
		defer d.stop()
		if err := d.unpack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.dir.at("data"), nil, 0o600); err != nil { // where a directory has to be
			t.Fatal(err)
		}
		var failed *Error
		if err := d.startEtcd(t.Context()); !errors.As(err, &failed) || failed.Component != "etcd" || !strings.Contains(failed.Log, "data") {
			t.Errorf("%v", err)
		}
	})
	t.Run("killed", func(t *testing.T) { killed(t, e, bundle, in) })
	if left, err := os.ReadDir(in); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestMain is the program that killed kills.
func TestMain(m *testing.M) {
	if spec := os.Getenv("BOOT_TEST"); spec != "" {
		var o Options
		if err := json.Unmarshal([]byte(spec), &o); err != nil {
			panic(err)
		}
		o.Backup, o.Tell = backup.Read(o.Backup.Path), func(text string) { os.Stdout.WriteString(text + "\n") }
		_, err := Boot(context.Background(), o)
		panic(err)
	}
	os.Exit(m.Run())
}

// killed ends a boot with a SIGKILL while both components run: they go with it,
// and the next boot removes what it left.
func killed(t *testing.T, e backup.Entry, bundle, in string) {
	spec, err := json.Marshal(map[string]any{"Backup": map[string]any{"Path": e.Path}, "Bundle": bundle, "Scratch": in})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BOOT_TEST="+string(spec))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	var said string
	for !strings.Contains(said, "counting") {
		n, err := out.Read(buf)
		if said += string(buf[:n]); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	mine, err := filepath.Glob(filepath.Join(in, scratchPrefix+"*"))
	if err != nil || len(mine) != 1 {
		t.Fatalf("%v, %v", mine, err)
	}
	running := processesOf(t, mine[0])
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	if len(running) != 2 {
		t.Errorf("ran: %v", running)
	}
	for deadline := time.Now().Add(10 * time.Second); len(processesOf(t, mine[0])) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("orphans: %v", processesOf(t, mine[0]))
		}
		<-time.After(50 * time.Millisecond)
	}
	next, err := newScratch(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.remove(); err != nil {
		t.Error(err)
	}
}

// processesOf are the processes of programs in a directory.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
			found = append(found, to)
		}
	}
	return found
}
