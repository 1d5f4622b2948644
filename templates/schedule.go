package templates

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

// Where scheduled backups lie on a master, and what makes them. The unit is not
// named ha-install-...: those are steps, which a run waits for.
const (
	BackupProgram    = "/usr/local/lib/ha-install/ha-install" // this program
	BackupConfigPath = "/etc/ha-install/backup.json"
	BackupTimer      = "hainstall-backup.timer"
	BackupService    = "hainstall-backup.service"
	BackupStatePath  = "/var/lib/ha-install/backup-state.json" // how the last look ended
	BackupDir        = "/var/lib/ha-install/backups"

	systemdDir = "/etc/systemd/system/"
)

// BackupConfig is what a master is told of scheduled backups; the same on all.
type BackupConfig struct {
	Cluster    string        `json:"cluster"`
	Every      time.Duration `json:"everyNanoseconds"`
	Keep       int           `json:"keep"`
	Recipients []string      `json:"recipients"` // of age; none: without the cluster's keys
	Directory  string        `json:"directory"`
	// Copies are where a backup is sent that was made.
	Copies []ScheduledCopy `json:"copies,omitempty"`
}

// Tick is how often a master looks whether a backup is due.
func (c BackupConfig) Tick() time.Duration {
	tick := ticks[0]
	for _, t := range ticks {
		if t.every <= c.Every/12 {
			tick = t
		}
	}
	return tick.every
}

// Grace is how long a master leaves the turn to the one before it.
func (c BackupConfig) Grace() time.Duration { return 3 * c.Tick() }

// ticks are what a calendar of systemd can say, the shortest first.
var ticks = []struct {
	every    time.Duration
	calendar string
}{
	{5 * time.Second, "*:*:0/5"}, {10 * time.Second, "*:*:0/10"}, {30 * time.Second, "*:*:0/30"},
	{time.Minute, "*:0/1:00"}, {5 * time.Minute, "*:0/5:00"},
}

// BackupFiles are what a master holds, beside the program, to make scheduled
// backups in its turn, and to send and take copies of them.
func BackupFiles(c *inventory.Cluster, ih inventory.Host, keys []CopyKeys) ([]File, error) {
	b := c.Spec.Backup
	copies, files, err := scheduledCopies(b, keys)
	if err != nil {
		return nil, err
	}
	config := BackupConfig{Cluster: c.Metadata.Name, Every: b.Every(), Keep: b.Keep, Recipients: slices.Concat([]string{}, b.Recipients), Directory: BackupDir, Copies: copies}
	document, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	calendar := ""
	for _, t := range ticks {
		if t.every == config.Tick() {
			calendar = t.calendar
		}
	}
	files = append(files,
		File{Path: BackupConfigPath, Mode: 0o600, Content: append(document, '\n')},
		File{Path: systemdDir + BackupService, Mode: 0o644, Content: fmt.Appendf(nil, backupService, BackupProgram, BackupConfigPath)},
		File{Path: systemdDir + BackupTimer, Mode: 0o644, Content: fmt.Appendf(nil, backupTimer, calendar, min(config.Tick()/5, 20*time.Second).Milliseconds())})
	if len(config.ReceivesIn()) > 0 {
		files = append(files, receiveUnits(ih)...)
	}
	return files, nil
}

// BackupUnits are the paths of the unit files.
func BackupUnits() []string { return []string{systemdDir + BackupTimer, systemdDir + BackupService} }

// The service has no sandbox of namespaces: systemd cannot make one in every
// container that a master may be. Notices and worse are logged, or each look
// would fill the journal.
const backupService = `[Unit]
Description=Scheduled backup of etcd, by the master whose turn it is
Documentation=https://github.com/ha-install/ha-install
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=%s backup turn --config %s
UMask=0077
NoNewPrivileges=yes
Nice=10
IOSchedulingClass=idle
TimeoutStartSec=2h
SyslogLevel=notice
LogLevelMax=notice
`

// A look that was missed is made up for by the next one: what is due is decided
// by the clock and by what etcd has on record, not by the timer.
const backupTimer = `[Unit]
Description=Looks whether a backup of etcd is due

[Timer]
OnCalendar=%s
RandomizedDelaySec=%dms
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
`
