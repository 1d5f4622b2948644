package templates

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

func TestBackupFiles(t *testing.T) {
	c := testCluster()
	c.Spec.Backup = inventory.Backup{Schedule: "6h", Keep: 7, Recipients: []string{"age1one", "age1two"}}
	files, err := BackupFiles(c, c.Spec.Hosts[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	goldenFiles(t, "files-backup.txt", files)
}

// TestBackupFilesForCopies: all kinds of places, with their keys in files of their own.
func TestBackupFilesForCopies(t *testing.T) {
	c := testCluster()
	c.Spec.Backup = inventory.Backup{Schedule: "6h", Keep: 7, Copies: []inventory.BackupCopy{
		{To: "sftp://backup@nas/srv/backups"}, {To: "s3://bucket/prefix", Endpoint: "https://s3.example.com", Region: "eu-1"}, {To: "masters:///var/backups/ha-install"},
	}}
	keys := []CopyKeys{
		{Address: "192.0.2.9", Port: 2222, User: "backup", Identities: [][]byte{[]byte("a private key\n"), []byte("another\n")}, KnownHosts: []byte("[192.0.2.9]:2222 ssh-ed25519 AAAA\n")},
		{Credentials: []byte("[default]\n"), CA: []byte("a certificate\n")},
	}
	files, err := BackupFiles(c, c.Spec.Hosts[0], keys)
	if err != nil {
		t.Fatal(err)
	}
	goldenFiles(t, "files-backup-copies.txt", files)
	var config BackupConfig
	for _, f := range files {
		if f.Path == BackupConfigPath {
			if err := json.Unmarshal(f.Content, &config); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range files {
		if f.Mode.Perm() != 0o600 && strings.HasPrefix(f.Path, BackupCopyDir) || strings.HasPrefix(f.Path, BackupCopyDir) != slices.Contains(config.KeyFiles(), f.Path) {
			t.Errorf("%s: mode %o, and the configuration names %q", f.Path, f.Mode, config.KeyFiles())
		}
	}
	if dirs := config.ReceivesIn(); !slices.Equal(dirs, []string{"/var/backups/ha-install"}) {
		t.Errorf("%q", dirs)
	}
	if _, err := BackupFiles(c, c.Spec.Hosts[0], nil); err == nil {
		t.Error("rendered without keys")
	}
}

// TestTicks: several looks fit into the shortest period, with all masters' turns.
func TestTicks(t *testing.T) {
	for every, want := range map[time.Duration]time.Duration{
		time.Minute: 5 * time.Second, 2 * time.Minute: 10 * time.Second, 10 * time.Minute: 30 * time.Second,
		time.Hour: 5 * time.Minute, 15 * time.Minute: time.Minute, 24 * time.Hour: 5 * time.Minute,
	} {
		c := BackupConfig{Every: every}
		if got := c.Tick(); got != want || 2*c.Grace() >= every {
			t.Errorf("%s: a look every %s, want %s; grace %s", every, got, want, c.Grace())
		}
		files, err := BackupFiles(&inventory.Cluster{Spec: inventory.Spec{Backup: inventory.Backup{Schedule: every.String(), Keep: 1}}}, inventory.Host{}, nil)
		if err != nil || !strings.Contains(string(files[2].Content), "OnCalendar=*:") {
			t.Errorf("%s: %v\n%s", every, err, files[2].Content)
		}
	}
}
