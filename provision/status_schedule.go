package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
)

// scheduleScript tells what a master knows of scheduled backups; nothing where it
// makes none. $1 is the configuration, $2 the state, $3 the timer, $4 its service.
const scheduleScript = `[ -e "$1" ] || exit 0
echo "config=$(tr -d '\n' <"$1")"
[ ! -e "$2" ] || echo "state=$(tr -d '\n' <"$2")"
echo "timer=$(systemctl show --property ActiveState --value "$3")"
echo "result=$(systemctl show --property Result --value "$4")"
`

// ScheduleStatus is what one master says of scheduled backups.
type ScheduleStatus struct {
	Timer  string `json:"timer"`  // systemd's word: "active"
	Result string `json:"result"` // of the service's last run: "success"
	schedule.State
	config templates.BackupConfig
}

// ScheduledBackups are what the masters make by themselves, as all of them tell it.
type ScheduledBackups struct {
	Every   units.Seconds `json:"everySeconds"`
	Masters []string      `json:"masters"` // that have the timer
	// Newest is the one on record; nil for none yet. It lies on the master of its
	// name, and at the places of its copies that have no error.
	Newest *schedule.Note `json:"newest,omitempty"`
	Age    units.Seconds  `json:"ageSeconds,omitempty"` // of it
}

// askSchedule is nil where the host makes no backups.
func askSchedule(ctx context.Context, h host.Reader) (*ScheduleStatus, error) {
	out, err := h.Query(ctx, "sh", "-c", scheduleScript, "ha-install-schedule",
		templates.BackupConfigPath, templates.BackupStatePath, templates.BackupTimer, templates.BackupService)
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return nil, err
	}
	var s ScheduleStatus
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "config":
			err = json.Unmarshal([]byte(value), &s.config)
		case "state":
			err = json.Unmarshal([]byte(value), &s.State)
		case "timer":
			s.Timer = value
		case "result":
			s.Result = value
		}
		if err != nil {
			return nil, fmt.Errorf("the host's answer %.80q: %w", line, err)
		}
	}
	return &s, nil
}

// lateLooks is for how many looks of its own, and how long beside, a master may be
// silent.
const (
	lateLooks = 4
	lateBy    = 2 * time.Minute
)

// backups makes one thing of what the masters say of scheduled backups, and warns of
// what is not as it should be.
func (c *conclusion) backups() {
	st := c.st
	var all ScheduledBackups
	var since time.Time
	var without []string
	for _, h := range st.Hosts {
		if h.Role != inventory.RoleControlPlane || h.SSH != ok {
			continue
		}
		s := h.Schedule
		if s == nil {
			without = append(without, h.Name)
			continue
		}
		all.Masters = append(all.Masters, h.Name)
		all.Every = units.Seconds(s.config.Every)
		if s.Last != nil && (all.Newest == nil || s.Last.Period.After(all.Newest.Period)) {
			all.Newest = s.Last
		}
		if since.IsZero() || !s.Since.IsZero() && s.Since.Before(since) {
			since = s.Since
		}
		c.scheduleOn(h.Name, s)
		c.copiesOf(h.Name, s)
	}
	switch {
	case len(all.Masters) == 0 && st.wanted > 0 && len(without) > 0:
		c.warn("the inventory has backups made every %s, and no master has the timer for it: run ha-install backup schedule", st.wanted)
	case len(all.Masters) > 0 && len(without) > 0:
		c.warn("%s: no timer for scheduled backups, which %s have: run ha-install backup schedule", strings.Join(without, ", "), strings.Join(all.Masters, ", "))
	}
	if st.Backups = nil; len(all.Masters) == 0 {
		return
	}
	st.Backups = &all
	limit := 2 * all.Every.Duration()
	if all.Newest == nil {
		if !since.IsZero() && st.At.Sub(since) > limit {
			c.warn("no scheduled backup was made since %s, although one is due every %s: journalctl -u %s on a master says why", since.UTC().Format(time.DateTime), all.Every.Duration(), templates.BackupService)
		}
		return
	}
	all.Age = units.Seconds(st.At.Sub(all.Newest.Time).Round(time.Second))
	if all.Age.Duration() > limit {
		c.warn("the newest scheduled backup is %s old, and one is due every %s: journalctl -u %s on a master says why", all.Age.Duration(), all.Every.Duration(), templates.BackupService)
	}
}

func (c *conclusion) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// copiesOf warns of places that have not got a master's newest backup; the look that
// found out may be long over.
func (c *conclusion) copiesOf(name string, s *ScheduleStatus) {
	if s.Sent == nil || s.Err != "" {
		return // the error says it, of all places
	}
	for _, at := range s.Sent.Copies {
		if at.Err != "" {
			c.warn("%s: its backup %s is not at %s: %s", name, s.Sent.Backup, at.Place, strings.TrimPrefix(at.Err, at.Place+": "))
		}
	}
}

// scheduleOn warns of a master whose timer or last look is not well.
func (c *conclusion) scheduleOn(name string, s *ScheduleStatus) {
	silent := lateLooks*s.config.Tick() + lateBy
	switch {
	case s.Timer != "active":
		c.warn("%s: the timer of scheduled backups is %s: run ha-install backup schedule", name, s.Timer)
	case s.Err != "":
		c.warn("%s: scheduled backups: %s", name, s.Err)
	case s.Result != "" && s.Result != "success":
		c.warn("%s: the service of scheduled backups ended with %s: journalctl -u %s there says why", name, s.Result, templates.BackupService)
	case !s.At.IsZero() && c.st.At.Sub(s.At) > silent && c.st.At.Sub(s.At) > s.config.Every:
		c.warn("%s: it has not looked for scheduled backups since %s", name, s.At.UTC().Format(time.DateTime))
	}
}
