package cmd

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision/backup"
)

func TestWhatRestoreAndRecoverAreCalledWith(t *testing.T) {
	file := writeInventory(t, nil)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"restore", file}, "--from is missing"},
		{[]string{"restore", "--from", "x", "--confirm", "staging", file}, `"staging" is not the name of the cluster`},
		{[]string{"restore", "--from", "x", "--plan", "--confirm", "prod", file}, "none of the others can be"},
		{[]string{"recover", "--way", "luck", file}, "want one of bring-back, survivor, backup"},
		{[]string{"recover", "--confirm", "staging", file}, `"staging" is not the name of the cluster`},
		{[]string{"recover", "--identity", "nowhere", file}, "nowhere"},
	} {
		if code, _, errOut := run(t, "", test.args...); code != exitUsage || !strings.Contains(errOut, test.want) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", test.args, code, exitUsage, test.want, errOut)
		}
	}
	if code := exitCode(fmt.Errorf("looking: %w", &backup.DamagedError{})); code != exitDamaged {
		t.Errorf("a damaged backup ends with %d", code)
	}
}

func TestABackupIsNamedByItsDirectoryOrItsName(t *testing.T) {
	store := t.TempDir()
	name := "2026-11-23T04-26-01Z"
	if err := os.MkdirAll(store+"/prod/"+name, 0o700); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		name:                        store + "/prod/" + name,
		store + "/prod/" + name:     store + "/prod/" + name,
		"2026-01-01T00-00-00Z":      "2026-01-01T00-00-00Z",
		"elsewhere/prod/of-another": "elsewhere/prod/of-another",
	} {
		if got := chosen(store, "prod", from); got != want {
			t.Errorf("%s is %s, want %s", from, got, want)
		}
	}
}
