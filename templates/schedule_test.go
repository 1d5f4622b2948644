package templates

import (
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

func TestBackupFiles(t *testing.T) {
	c := testCluster()
	c.Spec.Backup = inventory.Backup{Schedule: "6h", Keep: 7, Recipients: []string{"age1one", "age1two"}}
	files, err := BackupFiles(c)
	if err != nil {
		t.Fatal(err)
	}
	goldenFiles(t, "files-backup.txt", files)
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
		files, err := BackupFiles(&inventory.Cluster{Spec: inventory.Spec{Backup: inventory.Backup{Schedule: every.String(), Keep: 1}}})
		if err != nil || !strings.Contains(string(files[2].Content), "OnCalendar=*:") {
			t.Errorf("%s: %v\n%s", every, err, files[2].Content)
		}
	}
}
