package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

// writeCA writes a CA set into a directory.
func writeCA(t *testing.T, dir string) {
	t.Helper()
	set, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Files() {
		putFile(t, filepath.Join(dir, strings.TrimPrefix(f.Path, templates.PKIDir)), string(f.Content))
	}
}

func putFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// withFiles names every kind of file in an inventory.
func withFiles(s string) string {
	s = strings.Replace(s, "agent: false}", "agent: false, identityFiles: [key], bastion: {address: 127.0.0.9, identityFiles: [jump]}}", 1)
	return s + "  pki: {directory: pki}\n  network: {cni: {plugin: manifests, manifests: [one.yaml, two.yaml]}}\n"
}

func TestFilesThatTheInventoryNames(t *testing.T) {
	const object = "apiVersion: v1\nkind: Namespace\nmetadata: {name: network}\n"
	rows := []struct {
		name     string
		spoil    func(t *testing.T, dir string)
		errors   []string // each with its line in the file
		warnings []string // of validate; errors of apply
	}{
		{"all are there", func(*testing.T, string) {}, nil, nil},
		{"the login keys are in an agent, their public halves here", func(t *testing.T, dir string) {
			for _, key := range []string{"key", "jump"} {
				os.Remove(filepath.Join(dir, key))
				putFile(t, filepath.Join(dir, key+".pub"), "ssh-ed25519 AAAA")
			}
		}, nil, nil},
		{"none is there", func(t *testing.T, dir string) {
			for _, name := range []string{"key", "jump", "bundle.tar", "pki", "one.yaml", "two.yaml"} {
				os.RemoveAll(filepath.Join(dir, name))
			}
		}, []string{":16:50: spec.network.cni.manifests[0]: ", ":16:60: spec.network.cni.manifests[1]: "},
			[]string{":7:22: spec.software.bundle: ", ":8:60: spec.ssh.identityFiles[0]: ", ":8:112: spec.ssh.bastion.identityFiles[0]: ", ":15:20: spec.pki.directory: pki: no CA set"}},
		{"each is something else", func(t *testing.T, dir string) {
			for _, name := range []string{"bundle.tar", "pki/ca.key", "pki/etcd/ca.crt", "one.yaml"} {
				putFile(t, filepath.Join(dir, name), "something else")
			}
			os.Remove(filepath.Join(dir, "pki/sa.pub"))
			putFile(t, filepath.Join(dir, "two.yaml"), "# nothing\n")
		}, []string{"spec.software.bundle: bundle", "pki: ca.crt: its key ca.key", "pki: etcd/ca.crt: no certificate", "pki: incomplete CA set: missing sa.pub", "one.yaml: document 1", "two.yaml: no object"}, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			file := writeInventory(t, withFiles)
			dir := filepath.Dir(file)
			writeCA(t, filepath.Join(dir, "pki"))
			for name, content := range map[string]string{"key": "k", "jump": "k", "one.yaml": object, "two.yaml": object} {
				putFile(t, filepath.Join(dir, name), content)
			}
			row.spoil(t, dir)
			wantValidated(t, file, row.errors, row.warnings)
			code, _, errOut := run(t, "", "apply", file)
			refused := append(row.errors, row.warnings...)
			if len(refused) > 0 && code != exitInvalid || len(refused) == 0 && code == exitInvalid {
				t.Errorf("apply: exit code %d\n%s", code, errOut)
			}
			for _, want := range refused {
				if !strings.Contains(errOut, want) {
					t.Errorf("apply does not say %q:\n%s", want, errOut)
				}
			}
			if code, _, errOut := run(t, "", "status", file); code == exitInvalid {
				t.Errorf("status needs none of these files: %s", errOut)
			}
		})
	}
}

// wantValidated runs validate in both of its forms.
func wantValidated(t *testing.T, file string, errors, warnings []string) {
	t.Helper()
	wantCode := 0
	if len(errors) > 0 {
		wantCode = exitInvalid
	}
	code, _, errOut := run(t, "", "validate", file)
	if code != wantCode || strings.Count(errOut, "warning: ") != len(warnings) || strings.Count(errOut, "\n") != len(errors)+len(warnings) {
		t.Errorf("exit code %d, wanted %d, %d errors and %d warnings:\n%s", code, wantCode, len(errors), len(warnings), errOut)
	}
	for _, want := range errors {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not said:\n%s", want, errOut)
		}
	}
	for _, want := range warnings {
		place, rest, _ := strings.Cut(want, ": ")
		if !strings.Contains(errOut, place+": warning: "+rest) {
			t.Errorf("%q is no warning:\n%s", want, errOut)
		}
	}
	_, out, _ := run(t, "", "validate", "-o", "json", file)
	var v struct {
		Valid  bool
		Issues []inventory.Issue
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Valid != (wantCode == 0) || len(v.Issues) != len(errors)+len(warnings) {
		t.Errorf("%v\n%s", err, out)
	}
	for _, issue := range v.Issues {
		if issue.Line == 0 || issue.Path == "" {
			t.Errorf("it has no place: %+v", issue)
		}
	}
}
