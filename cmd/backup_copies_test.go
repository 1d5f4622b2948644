package cmd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/test/golden"
	"github.com/ha-install/ha-install/test/sshd"

	"bytes"
)

// copyTo is an inventory with one place for copies behind SFTP, and its URL.
func copyTo(t *testing.T, s *sshd.Server, dir string) (file, url string) {
	t.Helper()
	url = fmt.Sprintf("sftp://backup@%s:%d%s", s.Host(), s.Port(), dir)
	place := fmt.Sprintf("  backup:\n    copies:\n      - to: %s\n        ssh: {knownHosts: [%s], identityFiles: [%s], agent: false}\n  hosts:\n", url, s.KnownHosts(t), s.KeyFile)
	return writeInventory(t, func(text string) string { return strings.Replace(text, "  hosts:\n", place, 1) }), url
}

func TestBackupCopiesGoAndComeBack(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	there := t.TempDir()
	file, url := copyTo(t, s, there)
	if code, _, errOut := run(t, "", "backup", "copy", file); code != exitOther || !strings.Contains(errOut, "there is no backup") {
		t.Errorf("without a backup: exit %d, %s", code, errOut)
	}
	now := time.Now()
	older, newer := putBackup(t, file, now.Add(-48*time.Hour), ""), putBackup(t, file, now, "")
	for _, name := range []string{older, newer} {
		if code, out, errOut := run(t, "", "backup", "copy", file, filepath.Base(name)); code != 0 || !strings.Contains(out, "copy      "+url) {
			t.Fatalf("exit %d\n%s%s", code, out, errOut)
		}
	}
	if code, out, _ := run(t, "", "backup", "copy", file); code != 0 || !strings.Contains(out, "was there already") {
		t.Errorf("again: exit %d\n%s", code, out)
	}

	code, out, errOut := run(t, "", "backup", "list", "--copies", "-o", "json", file)
	var list struct{ Copies []keptRow }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Copies) != 1 || len(list.Copies[0].Backups) != 2 || list.Copies[0].Backups[0].Revision != 50 {
		t.Errorf("exit %d, %v\n%s%s", code, err, out, errOut)
	}

	if err := os.RemoveAll(filepath.Dir(newer)); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(t, "", "backup", "fetch", file, filepath.Base(newer)); code != 0 || !strings.HasPrefix(out, "whole    "+newer) {
		t.Errorf("by name: exit %d\n%s%s", code, out, errOut)
	}
	if code, out, errOut := run(t, "", "backup", "fetch", file, url+"/prod/"+filepath.Base(older)); code != 0 || !strings.HasPrefix(out, "whole    "+older) {
		t.Errorf("by URL: exit %d\n%s%s", code, out, errOut)
	}
	if code, _, errOut := run(t, "", "backup", "fetch", file, url+"/test/"+filepath.Base(older)); code != exitUsage || !strings.Contains(errOut, "not the URL of a copy of prod") {
		t.Errorf("another cluster's: exit %d\n%s", code, errOut)
	}

	// restore fetches first; no host of this inventory answers.
	if err := os.RemoveAll(newer); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(t, "", "restore", "--plan", "--from", url+"/prod/"+filepath.Base(newer), file); code != exitUnreachable {
		t.Errorf("exit %d\n%s", code, errOut)
	}
	if e := backup.Read(newer); e.Err != nil {
		t.Errorf("restore fetched nothing: %v", e.Err)
	}

	for _, dry := range []bool{true, false} {
		args := []string{"backup", "prune", "--keep", "1", file}
		if dry {
			args = append(args, "--dry-run")
		}
		if code, out, errOut := run(t, "", args...); code != 0 || strings.Count(out, "number 1 of 1 to keep") != 2 || strings.Count(out, "deleted") != 2 {
			t.Errorf("exit %d\n%s%s", code, out, errOut)
		}
	}
	left, err := os.ReadDir(filepath.Join(there, "prod"))
	if err != nil || len(left) != 1 || left[0].Name() != filepath.Base(newer) {
		t.Errorf("%v, %v", left, err)
	}
}

// TestBackupCopyFails: one place of two is gone. The other has its copy, and the
// exit code says that not all is well.
func TestBackupCopyFails(t *testing.T) {
	s, gone := sshd.New(t, sshd.Options{}), sshd.New(t, sshd.Options{})
	there := t.TempDir()
	file, _ := copyTo(t, s, there)
	gone.Close()
	made := putBackup(t, file, time.Now(), "")
	dead := fmt.Sprintf("sftp://backup@%s:%d/x", gone.Host(), gone.Port())
	code, out, errOut := run(t, "", "backup", "copy", file, "--copy-to", dead)
	if code != exitCopies || !strings.Contains(errOut, "1 of 2 copies of "+made) || !strings.Contains(errOut, dead) || strings.Count(errOut, "run: ha-install backup copy") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	if e := backup.Read(filepath.Join(there, "prod", filepath.Base(made))); e.Err != nil {
		t.Errorf("the other copy: %v", e.Err)
	}
	if code, out, errOut := run(t, "", "backup", "list", "--copy-to", dead, file); code != exitCopies || !strings.Contains(errOut, dead) || strings.Contains(out, "COPIES "+dead) {
		t.Errorf("list: exit %d\n%s%s", code, out, errOut)
	}
	for _, bad := range []string{"sftp://u:hunter2@h/d", "ftp://h/d", "s3://b-b/x?secret=hunter2"} {
		if code, _, errOut := run(t, "", "backup", "copy", file, "--copy-to", bad); code != exitUsage || strings.Contains(errOut, "hunter2") {
			t.Errorf("%s: exit %d, %s", bad, code, errOut)
		}
	}
}

func TestCopiesTables(t *testing.T) {
	var out bytes.Buffer
	kept := []keptRow{{Place: "s3://bucket/prefix", Backups: []backupRow{
		{Path: "prod/2026-11-23T04-05-06Z", Bytes: 34_000_000, Revision: 18234, Keys: 812, Quorum: true, Secrets: true},
		{Path: "prod/2026-11-22T04-05-06Z", Err: "it was changed after it was written"},
	}}, {Place: "sftp://backup@nas/srv"}, {Place: "sftp://backup@away/srv", Err: "x"}}
	pruned := []prunedCopyRow{{"s3://bucket/prefix", prunedRow{Path: "prod/2026-11-22T04-05-06Z", Fate: "deleted", Why: "older than what is to be kept"}}}
	if err := renderKept(&out, kept); err != nil {
		t.Fatal(err)
	}
	if err := renderPrunedCopies(&out, pruned); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "backup-copies.txt", out.Bytes())
}

func TestBootWantsABundle(t *testing.T) {
	made := putBackup(t, writeInventory(t, nil), time.Now(), "")
	for _, args := range [][]string{{"--boot", made}, {"--bundle", "x", made}, {"--namespaces", made}} {
		if code, _, errOut := run(t, "", append([]string{"backup", "verify"}, args...)...); code != exitUsage || !strings.Contains(errOut, "--boot") {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
	if code, _, errOut := run(t, "", "backup", "verify", "--boot", "--bundle", "/none", made); code != exitOther || !strings.Contains(errOut, "/none") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}
