package etcdtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/schedule"
)

// disk is full with so many backups on it.
type disk struct {
	dir   string
	holds int
	mute  bool // it does not say how much is free
}

func (d disk) room(needed int64) error {
	all, err := backup.In(d.dir, "prod").List()
	if err != nil || len(all) < d.holds {
		return err
	}
	full := &backup.SpaceError{Dir: d.dir}
	if !d.mute {
		full.Needed, full.Free = needed, needed
		for _, e := range all[d.holds-1:] {
			full.Free -= e.Manifest.Bytes()
		}
	}
	return &backup.LocalError{Err: full}
}

// TestAFullDiskMakesRoomForTheNext: as many as are to be kept fill it.
func TestAFullDiskMakesRoomForTheNext(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	const full, went = "no room for a backup in", "there was no room, and of the older backups here 1 went first"
	for _, row := range []struct {
		name    string
		keep    int
		there   int
		damaged int // of them, the newest ones: a bit
		disk    disk
		made    bool
		want    string // of the outcome, or the error
		left    int
	}{
		{"the oldest goes", 3, 3, 0, disk{holds: 3}, true, went, 3},
		{"what is whole stays, not what is damaged", 2, 3, 1, disk{mute: true}, false, went + ": ", 2},
		{"the last one never goes", 1, 1, 0, disk{holds: 1}, false, full, 1},
		{"none goes that is to be kept", 3, 2, 0, disk{holds: 2}, false, full, 2},
		{"nor of few", 3, 1, 0, disk{holds: 1}, false, full, 1},
		{"none goes in vain", 3, 3, 0, disk{holds: 1}, false, full, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := scheduleOf(t, c)
			turn := s.of["cp-1"]
			row.disk.dir = turn.Config.Directory
			turn.Config.Keep, turn.Room = row.keep, row.disk.room
			s.of["cp-1"] = turn
			now := s.now
			s.now = now.Add(s.every - time.Minute)
			newestWhole := ""
			for i := range row.there { // from the oldest
				path, _ := takeAs(t, c, m, turn.Config.Directory, now.Add(time.Duration(i-9)*s.every), func(*backup.Manifest) {})
				if i < row.there-row.damaged {
					newestWhole = path
				} else {
					flip(t, filepath.Join(path, backup.SnapshotFile))
				}
			}
			outcome, err := s.take("cp-1")
			said := outcome
			if err != nil {
				said = err.Error()
			}
			if strings.HasPrefix(outcome, "made ") != row.made || !strings.Contains(said, row.want) {
				t.Errorf("%q, want %q", said, row.want)
			}
			if state, err := schedule.ReadState(turn.State); err != nil || state.Outcome+state.Err != said {
				t.Errorf("the state says %+v, %v", state, err)
			}
			if left := s.there("cp-1"); len(left) != row.left {
				t.Errorf("left: %q, want %d", left, row.left)
			}
			if backup.Read(newestWhole).Err != nil {
				t.Errorf("%s, the newest that is whole, is gone", newestWhole)
			}
			// Each backup takes a turn, and the cluster is that of all rows.
			if _, err := c.client(t).Delete(bg, "/ha-install/backup/last"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// flip changes a bit in the middle of a file.
func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
