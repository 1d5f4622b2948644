package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
)

var nodes = []inventory.Role{inventory.RoleControlPlane, inventory.RoleWorker}

func source(item Item, content string) Source {
	return Source{Item: item, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

func sources() []Source {
	return []Source{
		source(Item{Path: "binary/kubelet", Kind: KindBinary, Roles: nodes, Version: "v1.36.3", Mode: 0o755, Dest: "/usr/local/bin/kubelet"}, "the kubelet"),
		source(Item{Path: "images/echo.tar", Kind: KindImage, Roles: nodes, Version: "1", Mode: 0o644, Images: []string{"ha-install.test/echo:1"}, Purpose: PurposeProbe}, "an image"),
		source(Item{Path: "packages/haproxy.deb", Kind: KindPackage, Roles: []inventory.Role{inventory.RoleLoadBalancer}, Version: "2.6", Mode: 0o644, Package: &Package{Name: "haproxy", Version: "2.6"}}, ""),
	}
}

func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.tar")
	changed, err := Create(context.Background(), path, Manifest{KubernetesVersion: "v1.36.3", Arch: "amd64"}, sources())
	if err != nil || !changed {
		t.Fatalf("Create = %v, %v", changed, err)
	}
	return path
}

func open(t *testing.T, path string) *Bundle {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	b := open(t, create(t))
	if err := b.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[inventory.Role]string{
		inventory.RoleControlPlane: "the kubelet|an image|",
		inventory.RoleLoadBalancer: "|",
	} {
		var got string
		for _, item := range b.For(role) {
			data, err := io.ReadAll(b.Reader(item))
			if err != nil {
				t.Fatal(err)
			}
			got += string(data) + "|"
		}
		if got != want {
			t.Errorf("items of %s = %q, want %q", role, got, want)
		}
	}
	if diff := cmp.Diff([]string{"ha-install.test/echo:1"}, b.Images(inventory.RoleWorker)); diff != "" {
		t.Error(diff)
	}
	if ref, ok := b.Probe(); !ok || ref != "ha-install.test/echo:1" {
		t.Errorf("Probe = %q, %v", ref, ok)
	}
	if _, err := io.ReadAll(b.Reader(Item{Path: "other"})); err == nil {
		t.Error("an item of another bundle can be read")
	}
}

func TestASecondCreateChangesNothing(t *testing.T) {
	path := create(t)
	before, _ := os.Stat(path)
	changed, err := Create(context.Background(), path, Manifest{KubernetesVersion: "v1.36.3", Arch: "amd64"}, sources())
	after, _ := os.Stat(path)
	if err != nil || changed || !os.SameFile(before, after) {
		t.Fatalf("changed = %v, error = %v", changed, err)
	}
}

func TestCreateLeavesNothingBehindWhenASourceChanges(t *testing.T) {
	dir := t.TempDir()
	calls := 0
	s := sources()[0]
	s.Open = func() (io.ReadCloser, error) {
		calls++
		return io.NopCloser(strings.NewReader(fmt.Sprint(calls))), nil
	}
	_, err := Create(context.Background(), filepath.Join(dir, "b.tar"), Manifest{KubernetesVersion: "v1.36.3", Arch: "amd64"}, []Source{s})
	if err == nil || !strings.Contains(err.Error(), "changed while the bundle was written") {
		t.Fatalf("error = %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestManyHostsReadAtOnce(t *testing.T) {
	b := open(t, create(t))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for _, item := range b.Manifest().Items {
				data, err := io.ReadAll(b.Reader(item))
				if sum := sha256.Sum256(data); err != nil || hex.EncodeToString(sum[:]) != item.SHA256 {
					t.Errorf("%s: %v", item.Path, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestVerifyNamesEveryDamagedItem(t *testing.T) {
	path := create(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte("the kubelet"), []byte("the kubeleT"), 1)
	data = bytes.Replace(data, []byte("an image"), []byte("an imagE"), 1)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = open(t, path).Verify(context.Background(), func(Item, error) { seen++ })
	if err == nil || !strings.Contains(err.Error(), "binary/kubelet") || !strings.Contains(err.Error(), "images/echo.tar") {
		t.Errorf("error = %v", err)
	}
	if seen != 3 {
		t.Errorf("progress for %d items, want 3", seen)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := open(t, path).Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancel: %v", err)
	}
}

// entry is what a test puts into an archive.
type entry struct {
	name, content string
	kind          byte
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o644, Typeflag: e.kind}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else {
			h.Size, h.Linkname = 0, "elsewhere"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// manifest returns a valid manifest for one binary "a" with the content "x",
// after change.
func manifest(t *testing.T, change func(map[string]any)) entry {
	t.Helper()
	sum := sha256.Sum256([]byte("x"))
	m := map[string]any{"apiVersion": APIVersion, "kind": ManifestKind, "kubernetesVersion": "v1.36.3", "arch": "amd64",
		"items": []any{map[string]any{"path": "a", "kind": "binary", "roles": []any{"worker"}, "version": "1",
			"sha256": hex.EncodeToString(sum[:]), "size": 1, "mode": "0755", "dest": "/usr/local/bin/a"}}}
	if change != nil {
		change(m)
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return entry{name: ManifestName, content: string(data)}
}

func item(m map[string]any) map[string]any { return m["items"].([]any)[0].(map[string]any) }

func set(key string, value any) func(map[string]any) {
	return func(m map[string]any) { item(m)[key] = value }
}

func TestADamagedBundleIsRefused(t *testing.T) {
	a := entry{name: "a", content: "x"}
	good := func(change func(map[string]any)) []byte { return archive(t, manifest(t, change), a) }
	whole := archive(t, manifest(t, nil), entry{name: "a", content: "x"})
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"an empty file":                    {nil, "not a bundle"},
		"a text":                           {[]byte(strings.Repeat("no tar ", 200)), "not a bundle"},
		"the manifest is not first":        {archive(t, a, manifest(t, nil)), `the first entry is "a"`},
		"the manifest is a link":           {archive(t, entry{name: ManifestName, kind: tar.TypeSymlink}), "not a bundle"},
		"the manifest is no JSON":          {archive(t, entry{name: ManifestName, content: "{"}), "manifest.json: "},
		"two documents":                    {archive(t, entry{name: ManifestName, content: manifest(t, nil).content + "{}"}, a), "more than one document"},
		"an unknown field":                 {good(func(m map[string]any) { m["extra"] = 1 }), `unknown field "extra"`},
		"an unknown field of an item":      {good(set("owner", "root")), `unknown field "owner"`},
		"another apiVersion":               {good(func(m map[string]any) { m["apiVersion"] = "v2" }), `want "ha-install.io/v1alpha1"`},
		"a version without its v":          {good(func(m map[string]any) { m["kubernetesVersion"] = "1.36.3" }), `want a version like "v1.36.3"`},
		"another architecture":             {good(func(m map[string]any) { m["arch"] = "mips" }), `arch "mips"`},
		"no items":                         {archive(t, manifest(t, func(m map[string]any) { m["items"] = []any{} })), "no items"},
		"an item outside the archive":      {good(set("path", "../a")), "stays inside the archive"},
		"an item with an absolute path":    {good(set("path", "/a")), "stays inside the archive"},
		"an item called like the manifest": {good(set("path", ManifestName)), "stays inside the archive"},
		"an unknown kind":                  {good(set("kind", "script")), `kind "script"`},
		"an unknown role":                  {good(set("roles", []any{"master"})), `role "master"`},
		"a role twice":                     {good(set("roles", []any{"worker", "worker"})), "listed twice"},
		"no role":                          {good(set("roles", []any{})), "no roles"},
		"no version of an item":            {good(set("version", "")), "no version"},
		"a short sum":                      {good(set("sha256", "abc")), "64 lower-case hex digits"},
		"a mode with the set-user-ID bit":  {good(set("mode", "4755")), `mode "4755"`},
		"a mode that is a number":          {good(set("mode", 493)), "want an octal string"},
		"a destination with dots":          {good(set("dest", "/usr/../etc/passwd")), "absolute path with no dots"},
		"a binary without a destination":   {good(set("dest", "")), "absolute path with no dots"},
		"a binary with images":             {good(set("images", []any{"a:1"})), "only an image has them"},
		"a binary with a package":          {good(set("package", map[string]any{"name": "runc", "version": "1"})), "only a package has one"},
		"a binary with a purpose":          {good(set("purpose", "probe")), "on an image"},
		"an image without a reference":     {good(func(m map[string]any) { item(m)["kind"] = "image"; item(m)["dest"] = "" }), "no images"},
		"an image reference without a tag": {good(func(m map[string]any) { item(m)["kind"] = "image"; item(m)["images"] = []any{"a/b"} }), "want a reference with a tag"},
		"a digest of something else": {good(func(m map[string]any) {
			item(m)["kind"] = "image"
			item(m)["digests"] = map[string]any{"b:1": "sha256:0"}
		}), "of one of the images"},
		"a package without a name": {good(func(m map[string]any) { item(m)["kind"] = "package" }), "want a name and a version"},
		"a package that is an option": {good(func(m map[string]any) {
			item(m)["kind"] = "package"
			item(m)["package"] = map[string]any{"name": "--force", "version": "1"}
		}), "want a name and a version"},
		"the same item twice in the manifest":      {good(func(m map[string]any) { m["items"] = append(m["items"].([]any), item(m)) }), `path a is also that of "a"`},
		"two items for one place":                  {archive(t, manifest(t, func(m map[string]any) { m["items"] = append(m["items"].([]any), with(item(m), "path", "b")) }), a, entry{name: "b", content: "x"}), "dest /usr/local/bin/a (worker) is also that of"},
		"an entry that the manifest does not have": {archive(t, manifest(t, nil), a, entry{name: "b", content: "x"}), "b: in the archive, but not in the manifest"},
		"an entry that leaves the archive":         {archive(t, manifest(t, nil), a, entry{name: "../b", content: "x"}), "leaves the archive"},
		"an entry twice":                           {archive(t, manifest(t, nil), a, a), "a: twice in the archive"},
		"an entry that is a link":                  {archive(t, manifest(t, nil), entry{name: "a", kind: tar.TypeSymlink}), "not a regular file"},
		"an entry that is missing":                 {archive(t, manifest(t, nil)), "a: in the manifest, but not in the archive"},
		"another size":                             {good(set("size", 2)), "1 bytes in the archive, 2 in the manifest"},
		"cut inside the manifest":                  {whole[:600], "truncated"},
		"cut inside a header":                      {whole[:len(whole)-1024-512-100], "truncated or damaged"},
		"cut inside an item":                       {whole[:len(whole)-1024-512], "truncated"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bundle.tar")
			if err := os.WriteFile(path, c.data, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v\nwant it to contain %q", err, c.want)
			}
		})
	}
}

func with(m map[string]any, key string, value any) map[string]any {
	c := map[string]any{}
	for k, v := range m {
		c[k] = v
	}
	c[key] = value
	return c
}

func TestEveryProblemIsNamedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle.tar")
	data := archive(t, manifest(t, func(m map[string]any) {
		m["arch"] = "mips"
		item(m)["version"] = ""
		item(m)["roles"] = []any{}
	}))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	for _, want := range []string{"arch", "no version", "no roles"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}
