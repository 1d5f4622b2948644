package sshd

import (
	_ "embed" // for the shims
	"os"
	"path/filepath"
	"testing"
)

var (
	//go:embed shims/sudo
	sudoShim string
	//go:embed shims/systemd-run
	systemdRunShim string
	//go:embed shims/id
	idShim string
	//go:embed shims/systemctl
	systemctlShim string
)

// Shims writes stand-ins for sudo, id, systemd-run and systemctl into a new
// directory, for Options.Shims. The sudo obeys FailSudo.
func Shims(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"sudo": sudoShim, "id": idShim, "systemd-run": systemdRunShim, "systemctl": systemctlShim} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// FailSudo makes the sudo of a directory of shims say message and end with 1.
func FailSudo(t testing.TB, dir, message string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "sudo.message"), []byte(message+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
