package backup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/test/snapdb"
)

func TestRecordsAreTheNewestOfTheirKeys(t *testing.T) {
	t.Parallel()
	object := func(key, value string) snapdb.Object { return snapdb.Object{Key: []byte(key), Value: []byte(value)} }
	file := filepath.Join(t.TempDir(), SnapshotFile)
	data := snapdb.Sent(snapdb.DatabaseWith(t, 5, []snapdb.Object{object("/registry/minions/a", "old"), object("/registry/minions/b", "b"), object("/registry/minions/a", "new")}, 0xa1))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Records(file, func(key string) bool { return strings.HasPrefix(key, "/registry/minions/") })
	if err != nil || len(got) != 2 || string(got["/registry/minions/a"]) != "new" || string(got["/registry/minions/b"]) != "b" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(file, data[:len(data)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Records(file, func(string) bool { return true }); err == nil {
		t.Errorf("of a damaged one: %q", got)
	}
}
