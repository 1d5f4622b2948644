package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/bundle"
)

func TestParseSimulation(t *testing.T) {
	got := parseSimulation(`NOTE: This is only a simulation!
Inst libc6 (2.36-9 Debian:12.15/oldstable [amd64]) [gcc-12-base:amd64 ]
Inst conntrack (1:1.4.7-1+b2 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst netbase (6.4 Debian:12.15/oldstable [all])
Conf libc6 (2.36-9 Debian:12.15/oldstable [amd64])
`)
	want := []deb{
		{name: "conntrack", version: "1:1.4.7-1+b2", arch: "amd64"},
		{name: "libc6", version: "2.36-9", arch: "amd64"},
		{name: "netbase", version: "6.4", arch: "all"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(deb{})); diff != "" {
		t.Error(diff)
	}
}

func TestNamesOfWhatIsBuilt(t *testing.T) {
	r := releases[0]
	for _, c := range []struct {
		of   component
		want string
	}{
		{r.etcdComponent(), "server etcdctl etcdutl"},
		{flannelComponent(), "flannel install_conf"},
		{pauseComponent("1"), "pause"},
	} {
		if got := strings.Join(c.of.names(), " "); got != c.want {
			t.Errorf("%s builds %q, want %q", c.of.dir, got, c.want)
		}
	}
}

func TestEveryComponentOfEveryReleaseHasItsModule(t *testing.T) {
	for _, r := range releases {
		for _, c := range []component{r.kubernetesComponent(), r.etcdComponent(), r.corednsComponent(),
			containerdComponent(), cniComponent(), cniFlannelComponent(), flannelComponent()} {
			mod, err := os.ReadFile(filepath.Join(c.dir, "go.mod"))
			if err != nil {
				t.Error(err)
				continue
			}
			if !strings.Contains(string(mod), " "+c.version+" ") {
				t.Errorf("%s/go.mod does not pin %s", c.dir, c.version)
			}
		}
	}
}

func TestWhatTwoReleasesShareIsBuiltOnce(t *testing.T) {
	w := &workshop{root: "../..", cache: "/cache", arch: "amd64"}
	places := map[string]bool{}
	releases, err := choose("", true) // a patch shares more with its minor
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range releases {
		for _, s := range new(parts).steps(r) {
			key, err := w.key(s.what)
			if err != nil {
				t.Fatal(err)
			}
			places[w.builtIn(s.what, key)] = true
		}
	}
	// containerd, two sets of CNI plugins, flannel and the probe
	const shared = 5
	each := len(new(parts).steps(releases[0])) - shared // of every release its own
	if want := shared + len(releases)*each; len(places) != want {
		t.Errorf("%d releases are built from %d components, want %d: %v", len(releases), len(places), want, sortedKeys(places))
	}
}

// TestAnImageIsMadeOnce also holds its archive to what the import needs: the
// name's annotation, and blobs under their own sums.
func TestAnImageIsMadeOnce(t *testing.T) {
	w := &workshop{cache: t.TempDir(), arch: "amd64", log: io.Discard}
	if err := os.Mkdir(filepath.Join(w.cache, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(w.cache, "echo")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	img := image{ref: "ha-install.test/echo:1", version: "1", files: map[string]string{"/usr/bin/echo": program},
		from: []built{{key: "k"}}, purpose: bundle.PurposeProbe, entrypoint: []string{"/usr/bin/echo"}}
	file, digest, err := w.archive(context.Background(), img, "")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	again, sameDigest, err := w.archive(context.Background(), img, "")
	if err != nil || again != file || sameDigest != digest {
		t.Fatalf("again: %s %s, %v", again, sameDigest, err)
	}
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Error("made twice")
	}
	names, index := contents(t, file)
	if !strings.Contains(index, `"io.containerd.image.name":"ha-install.test/echo:1"`) {
		t.Errorf("index.json = %s", index)
	}
	if !strings.Contains(names, "blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")) {
		t.Errorf("%s is not among %s", digest, names)
	}
}

func contents(t *testing.T, file string) (names, index string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, index
		}
		if err != nil {
			t.Fatal(err)
		}
		names += head.Name + " "
		if head.Name == "index.json" {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			index = string(data)
		}
	}
}
