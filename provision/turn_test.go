package provision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ha-install/ha-install/templates"
)

// TestAMasterReadsItsOwnSecrets: what a turn puts into a backup is what `backup
// create` reads over SSH, of the same files.
func TestAMasterReadsItsOwnSecrets(t *testing.T) {
	t.Parallel()
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	put := func(path string, content []byte) {
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := onMaster{localFiles{root}, "prod"}
	if _, err := m.commonSecrets(t.Context()); !errors.Is(err, fs.ErrNotExist) || m.caFingerprint(t.Context()) != "" || m.runningVersion(t.Context(), "") != "" {
		t.Errorf("of a bare host: %v", err)
	}
	want := secrets{ca: sets[0], encryption: templates.EncryptionConfig([32]byte{1})}
	for _, f := range want.files() {
		put(f.Path, f.Content)
	}
	put(markerFile, []byte(`{"cluster":"prod","caSHA256":"abc"}`))
	put(apiServerManifest, []byte("spec:\n  containers:\n  - name: kube-apiserver\n    image: registry.k8s.io/kube-apiserver:v1.36.3\n"))
	got, err := m.commonSecrets(t.Context())
	if err != nil || got.ca.Fingerprint() != want.ca.Fingerprint() || string(got.encryption) != string(want.encryption) {
		t.Errorf("%+v, %v", got, err)
	}
	if f, v := m.caFingerprint(t.Context()), m.runningVersion(t.Context(), ""); f != "abc" || v != "v1.36.3" {
		t.Errorf("fingerprint %q, version %q", f, v)
	}
	other := onMaster{localFiles{root}, "test"}
	if _, err := other.commonSecrets(t.Context()); !errors.Is(err, errNotOurs) || other.caFingerprint(t.Context()) != "" {
		t.Errorf("of another cluster's host: %v", err)
	}
}
