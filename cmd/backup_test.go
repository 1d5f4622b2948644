package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	agelib "filippo.io/age"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/golden"
	"github.com/ha-install/ha-install/test/snapdb"
)

// putBackup makes a backup of cluster prod beside an inventory, and returns its
// directory. With a file of age recipients it holds the keys.
func putBackup(t *testing.T, inventoryFile string, at time.Time, recipients string) string {
	t.Helper()
	d, err := backup.In(filepath.Join(filepath.Dir(inventoryFile), "backups"), "prod").Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.WriteSnapshot(context.Background(), bytes.NewReader(snapdb.Sent(snapdb.Database(t, 50, 1))), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := backup.Manifest{Cluster: "prod", From: "cp-2", Quorum: true, Verdict: etcd.Pass, Snapshot: s}
	if recipients != "" {
		set, err := pki.New(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		seal, err := backup.SealFor(nil, recipients, "")
		if err != nil {
			t.Fatal(err)
		}
		k, err := d.WriteKeys(append(set.Files(), templates.EncryptionFile([]byte("kind: EncryptionConfiguration\n"))), seal)
		if err != nil {
			t.Fatal(err)
		}
		m.CASHA256, m.Keys = set.Fingerprint(), &k
	}
	path, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// recipientFiles are a file of recipients and one of the identity that opens
// what is for them.
func recipientFiles(t *testing.T) (recipients, identity string) {
	t.Helper()
	id, err := agelib.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	recipients, identity = filepath.Join(dir, "recipients"), filepath.Join(dir, "identity")
	for file, text := range map[string]string{recipients: "# admins\n" + id.Recipient().String() + "\n", identity: id.String() + "\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return recipients, identity
}

func TestBackupTable(t *testing.T) {
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	rows := []backupRow{
		{Path: "/b/prod/2026-11-23T04-05-06Z", Cluster: "prod", Time: at, Age: units.Seconds(42 * time.Second), Bytes: 34_000_000, Revision: 18234, Keys: 812, Quorum: true, Secrets: true, Verified: at},
		{Path: "/b/prod/2026-11-22T04-05-06Z", Cluster: "prod", Time: at, Age: units.Seconds(24 * time.Hour), Bytes: 33_000_000, Revision: 17000, Keys: 800, Verified: at},
		{Path: "/b/prod/2026-10-01T04-05-06Z", Err: "it was changed after it was written"},
	}
	var out bytes.Buffer
	if err := renderBackups(&out, "/b/prod", rows); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(out.String(), at.Local().Format(time.DateTime), "2026-11-23 04:05:06") // wherever this is run
	golden.Check(t, "backup-list.txt", []byte(text))
}

func TestBackupListNeedsNoHost(t *testing.T) {
	file := writeInventory(t, nil)
	if code, out, errOut := run(t, "", "backup", "list", file); code != 0 || !strings.HasPrefix(out, "no backup in ") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}
	now := time.Now()
	older, newer := putBackup(t, file, now.Add(-time.Hour), ""), putBackup(t, file, now, "")
	for _, where := range []string{file, filepath.Dir(newer), filepath.Dir(filepath.Dir(newer))} {
		code, out, errOut := run(t, "", "backup", "list", "-o", "json", where)
		var list struct{ Backups []backupRow }
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Backups) != 2 {
			t.Fatalf("%s: exit %d, %v\n%s%s", where, code, err, out, errOut)
		}
		if b := list.Backups; b[0].Path != newer || b[1].Path != older || b[0].Revision != 50 || b[0].Keys != 50 || !b[0].Quorum || b[1].Age < units.Seconds(time.Hour) || b[0].Verified.IsZero() {
			t.Errorf("%s: %+v", where, b)
		}
	}
}

func TestBackupVerifySaysItsResultByExitCode(t *testing.T) {
	file := writeInventory(t, nil)
	recipients, identity := recipientFiles(t)
	if code, _, errOut := run(t, "", "backup", "verify", "--offline", file); code != exitOther || !strings.Contains(errOut, "`ha-install backup create` makes one") {
		t.Errorf("without a backup: exit %d, %s", code, errOut)
	}
	good := putBackup(t, file, time.Now(), recipients)
	for _, args := range [][]string{{good}, {"--offline", file}, {"--identity", identity, good}, {"--identity", identity, "--offline", "--all", file}} {
		code, out, errOut := run(t, "", append([]string{"backup", "verify"}, args...)...)
		opened := strings.Contains(out, "secrets opened, of this CA")
		if code != 0 || !strings.HasPrefix(out, "whole    "+good) || opened != (args[0] == "--identity") {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, errOut)
		}
	}
	// The hosts of this inventory do not answer: that is said, and no damage.
	if code, out, errOut := run(t, "", "backup", "verify", file); code != 0 || !strings.Contains(errOut, "no master told its CA's fingerprint") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	other := writeInventory(t, func(s string) string { return strings.Replace(s, "name: prod", "name: test", 1) })
	if err := os.CopyFS(filepath.Join(filepath.Dir(other), "backups", "test"), os.DirFS(filepath.Dir(good))); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := run(t, "", "backup", "verify", "--offline", other); code != exitDamaged || !strings.Contains(out, "other-cluster") {
		t.Errorf("another cluster's: exit %d\n%s", code, out)
	}
	snapshot := filepath.Join(good, backup.SnapshotFile)
	data, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(snapshot, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := run(t, "", "backup", "verify", "-o", "json", good)
	var seen struct{ Backups []backup.Report }
	if err := json.Unmarshal([]byte(out), &seen); err != nil || code != exitDamaged || errOut != "" || len(seen.Backups) != 1 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errOut)
	}
	if r := seen.Backups[0]; r.Whole || len(r.Damage) != 1 || r.Damage[0].Kind != backup.SnapshotTruncated {
		t.Errorf("%+v", r)
	}
	if code, out, _ := run(t, "", "backup", "verify", good); code != exitDamaged || !strings.Contains(out, "DAMAGED  "+good) || !strings.Contains(out, "(50 %)") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestBackupPrune(t *testing.T) {
	file := writeInventory(t, nil)
	now := time.Now()
	var all []string
	for i := range 4 {
		all = append(all, putBackup(t, file, now.Add(-time.Duration(i)*30*time.Hour), ""))
	}
	left := func() (n int) {
		for _, dir := range all {
			if _, err := os.Stat(dir); err == nil {
				n++
			}
		}
		return n
	}
	if code, out, errOut := run(t, "", "backup", "prune", "--keep", "2", "--dry-run", file); code != 0 || strings.Count(out, "would be deleted") != 2 || left() != 4 {
		t.Errorf("dry run: exit %d, %d are left\n%s%s", code, left(), out, errOut)
	}
	if code, out, errOut := run(t, "", "backup", "prune", "--keep-days", "3", file); code != 0 || strings.Count(out, "deleted") != 1 || left() != 3 {
		t.Errorf("exit %d, %d are left\n%s%s", code, left(), out, errOut)
	}
	code, out, errOut := run(t, "", "backup", "prune", "--keep", "1", "-o", "json", file)
	var rows struct{ Backups []prunedRow }
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 || left() != 1 || len(rows.Backups) != 3 || rows.Backups[0].Fate != "kept" || rows.Backups[2].Fate != "deleted" {
		t.Errorf("exit %d, %v, %d are left\n%s%s", code, err, left(), out, errOut)
	}
	if _, err := os.Stat(all[0]); err != nil {
		t.Errorf("the newest is gone: %v", err)
	}
}

func TestBackupCommandLines(t *testing.T) {
	file := writeInventory(t, nil)
	recipients, _ := recipientFiles(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"two kinds of seal", []string{"create", "--recipients-file", recipients, "--passphrase-file", recipients, file}, exitUsage, "passphrase-file"},
		{"a recipient that is none", []string{"create", "--recipient", "age1nobody", file}, exitUsage, "recipient number 1 is none (age1...)"},
		{"a passphrase on the command line", []string{"create", "--passphrase", "secret", file}, exitUsage, "unknown flag: --passphrase"},
		{"an empty passphrase", []string{"create", "--passphrase-file", empty, file}, exitUsage, "is empty; nothing was backed up"},
		{"no inventory", []string{"create"}, exitUsage, "takes one inventory file"},
		{"hosts that do not answer", []string{"create", file}, exitUnknown, "snapshot: refused: no voter answers that could give one"},
		{"nothing to keep", []string{"prune", file}, exitUsage, "keep"},
		{"a negative number", []string{"prune", "--keep", "-1", file}, exitUsage, "nothing was deleted"},
		{"a directory and a directory", []string{"list", "--directory", "x", t.TempDir()}, exitUsage, "is a directory already"},
		{"no such verb", []string{"restore"}, exitUsage, "unknown command"},
	} {
		code, _, errOut := run(t, "", append([]string{"backup"}, tt.args...)...)
		if code != tt.code || !strings.Contains(errOut, tt.says) {
			t.Errorf("%s: exit %d, want %d: %s", tt.name, code, tt.code, errOut)
		}
	}
	// One that came to nothing leaves nothing.
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "backups", "prod", "*")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestAFullDiskSaysWhatToDoOnce(t *testing.T) {
	full := &backup.LocalError{Err: &backup.SpaceError{Dir: "/b", Err: syscall.ENOSPC}}
	err := fmt.Errorf("snapshot: %w", &phase.Error{Phase: "snapshot", Part: "do", Err: full})
	if next := whatNext(err); next != "" || exitCode(err) != exitOther || !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "run: ") != 1 {
		t.Errorf("exit %d, next %q: %v", exitCode(err), next, err)
	}
}
