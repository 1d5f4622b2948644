package provision

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
)

func TestStatusOfScheduledBackups(t *testing.T) {
	const every = 6 * time.Hour
	aged := func(by time.Duration) *schedule.Note {
		return &schedule.Note{Host: "cp-2", Period: statusTime.Add(-by), Time: statusTime.Add(-by)}
	}
	// all three masters have the timer, and know of that backup
	timers := func(last *schedule.Note, change func(st *Status)) func(*Status) {
		return func(st *Status) {
			for i := range st.Hosts {
				st.Hosts[i].Schedule = &ScheduleStatus{Timer: "active", Result: "success", config: templates.BackupConfig{Every: every},
					State: schedule.State{Since: statusTime.Add(-30 * 24 * time.Hour), At: statusTime.Add(-time.Minute), Last: last}}
			}
			if change != nil {
				change(st)
			}
		}
	}
	for _, row := range []struct {
		name    string
		is      func(*Status)
		warning string // the only one; "" for none
		age     time.Duration
	}{
		{"no master makes backups, and none is to", nil, "", 0},
		{"none has the timer, although the inventory wants it", func(st *Status) { st.wanted = every }, "the inventory has backups made every 6h0m0s, and no master has the timer for it: run ha-install backup schedule", 0},
		{"all is well", timers(aged(5*time.Hour), nil), "", 5 * time.Hour},
		{"one of twice the period is well", timers(aged(12*time.Hour), nil), "", 12 * time.Hour},
		{"an older one warns", timers(aged(13*time.Hour), nil), "the newest scheduled backup is 13h0m0s old, and one is due every 6h0m0s: journalctl -u hainstall-backup.service on a master says why", 13 * time.Hour},
		{"the newest of what masters know counts", timers(aged(13*time.Hour), func(st *Status) { st.Hosts[2].Schedule.Last = aged(time.Hour) }), "", time.Hour},
		{"none was made yet, and the timers are new", timers(nil, func(st *Status) {
			for i := range st.Hosts {
				st.Hosts[i].Schedule.Since = statusTime.Add(-time.Hour)
			}
		}), "", 0},
		{"none was ever made", timers(nil, nil), "no scheduled backup was made since 2026-10-23 12:00:00, although one is due every 6h0m0s: journalctl -u hainstall-backup.service on a master says why", 0},
		{"a timer is missing", timers(aged(time.Hour), func(st *Status) { st.Hosts[2].Schedule = nil }), "cp-3: no timer for scheduled backups, which cp-1, cp-2 have: run ha-install backup schedule", time.Hour},
		{"a master that is off is told once, elsewhere", timers(aged(time.Hour), func(st *Status) { st.Hosts[2].Schedule, st.Hosts[2].SSH = nil, "off" }), "", time.Hour},
		{"a timer is stopped", timers(aged(time.Hour), func(st *Status) { st.Hosts[1].Schedule.Timer = "inactive" }), "cp-2: the timer of scheduled backups is inactive: run ha-install backup schedule", time.Hour},
		{"a look failed", timers(aged(time.Hour), func(st *Status) { st.Hosts[0].Schedule.Err = "no room" }), "cp-1: scheduled backups: no room", time.Hour},
		{"a copy is not there", timers(aged(time.Hour), func(st *Status) {
			st.Hosts[0].Schedule.Sent = &schedule.Sent{Backup: "2026-11-23T11-00-00Z", Copies: []schedule.Copy{{Place: "s3://b/p"}, {Place: "masters:///b/c on cp-3", Err: "masters:///b/c on cp-3: no route"}}}
		}), "cp-1: its backup 2026-11-23T11-00-00Z is not at masters:///b/c on cp-3: no route", time.Hour},
		{"the program was killed", timers(aged(time.Hour), func(st *Status) { st.Hosts[0].Schedule.Result = "signal" }), "cp-1: the service of scheduled backups ended with signal: journalctl -u hainstall-backup.service there says why", time.Hour},
		{"a master is silent", timers(aged(time.Hour), func(st *Status) { st.Hosts[0].Schedule.At = statusTime.Add(-7 * time.Hour) }), "cp-1: it has not looked for scheduled backups since 2026-11-22 05:00:00", time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			st := healthyStatus(row.is)
			if got := strings.Join(st.Warnings, "; "); got != row.warning || len(st.Problems) > 0 && row.name != "a master that is off is told once, elsewhere" {
				t.Errorf("warnings %q, problems %q", got, st.Problems)
			}
			switch {
			case row.age == 0 && st.Backups != nil && st.Backups.Newest != nil:
				t.Errorf("%+v", st.Backups)
			case row.age > 0 && (st.Backups == nil || st.Backups.Age.Duration() != row.age || st.Backups.Newest.Host != "cp-2" || st.Backups.Every.Duration() != every):
				t.Errorf("%+v", st.Backups)
			}
		})
	}
}

// TestStatusAsksMastersForTheSchedule reads what the script prints.
func TestStatusAsksMastersForTheSchedule(t *testing.T) {
	t.Parallel()
	c, dirs := backedUpEvery(withoutCA(testCluster(t)), "6h"), baseDirs(t)
	start := withSchedule(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		now := time.Now().UTC().Truncate(time.Second)
		for _, name := range []string{"cp-1", "cp-3"} {
			w.Host(name).Put(templates.BackupStatePath, 0o600, fmt.Sprintf(`{"since":%q,"time":%q,"outcome":"made it","last":{"period":%q,"time":%q,"host":"cp-3","path":"/b"}}`,
				now.Format(time.RFC3339), now.Format(time.RFC3339), now.Format(time.RFC3339), now.Add(-time.Minute).Format(time.RFC3339)))
		}
		ctx := w.Begin(t.Context(), nil)
		site := ConnectSoon(ctx, c, "", w.Dial)
		defer site.Close()
		st := TakeStatus(ctx, site)
		if b := st.Backups; b == nil || b.Newest == nil || b.Newest.Host != "cp-3" || len(b.Masters) != 3 || b.Age.Duration() < time.Minute || st.State != etcd.Pass {
			t.Errorf("%s %+v %q", st.State, b, st.Problems)
		}
	})
}
