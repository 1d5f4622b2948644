package provision

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
)

// ScheduleBackups has the masters back etcd up by themselves, as the inventory says.
func ScheduleBackups() Chore {
	return Chore{"backup schedule", func(_ context.Context, c *chore) ([]phase.Stage, error) {
		if c.Cluster.Spec.Backup.Schedule == "" {
			return nil, &ConflictError{
				What: "the inventory does not say how often backups are to be made", Why: "spec.backup.schedule is not set",
				Run: "set it, for example to 6h, and the same command again; --off takes the timers away",
			}
		}
		return c.scheduling(), c.schedulable()
	}}
}

// UnscheduleBackups ends that; backups stay where they are.
func UnscheduleBackups() Chore {
	return Chore{"backup schedule --off", func(ctx context.Context, c *chore) ([]phase.Stage, error) {
		if c.Cluster.Spec.Backup.Schedule != "" {
			phase.Tell(ctx, "the inventory still has spec.backup.schedule: the next apply sets the timers up again")
		}
		return []phase.Stage{phase.AtOnce(c.Cluster.ControlPlanes(), c.unschedule)}, nil
	}}
}

// scheduling sets scheduled backups up on every master; none where the inventory
// has no schedule. The program is large, and sent to one after the other: masters
// serve meanwhile.
func (a *apply) scheduling() []phase.Stage {
	if a.Cluster.Spec.Backup.Schedule == "" {
		return nil
	}
	return []phase.Stage{phase.InTurn(a.Cluster.ControlPlanes(), a.schedule)}
}

// schedule puts the program and its timer on a master.
func (a *apply) schedule(ih inventory.Host) phase.Phase {
	var gate []phase.Check
	for _, unit := range a.scheduleUnits() {
		gate = append(gate, a.unitActive(ih, unit))
	}
	return phase.Phase{
		Name: "schedule", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, files, err := a.scheduleFiles(ctx, ih)
			if err != nil {
				return false, err
			}
			owed, err := changes(ctx, h, "schedule", files)
			if err != nil || len(owed) > 0 {
				return false, err
			}
			if stale, err := staleCopies(ctx, h, files); err != nil || len(stale) > 0 {
				return false, err
			}
			for _, unit := range a.scheduleUnits() {
				if up, err := active(ctx, h, unit); err != nil || !up {
					return false, err
				}
			}
			return true, nil
		},
		Do: func(ctx context.Context) error {
			h, files, err := a.scheduleFiles(ctx, ih)
			if err != nil {
				return err
			}
			stale, err := staleCopies(ctx, h, files)
			if err != nil {
				return err
			}
			changed, err := owe(ctx, h, "schedule", files, stale...)
			if err != nil {
				return err
			}
			for _, f := range files {
				for _, path := range changed {
					if path == f.Path {
						phase.Expect(ctx, f.Size)
					}
				}
			}
			if err := putFiles(ctx, h, files); err != nil {
				return err
			}
			if _, err := h.Query(ctx, checkTurn()...); err != nil {
				return fmt.Errorf("the program that was sent cannot take a turn here: %w", err)
			}
			if err := removeStale(ctx, h, changed, files); err != nil {
				return err
			}
			commands := [][]string{{"systemctl", "daemon-reload"}}
			for _, unit := range a.scheduleUnits() {
				commands = append(commands, []string{"systemctl", "enable", unit}, []string{"systemctl", "restart", unit})
			}
			return settle(ctx, h, "schedule", commands...)
		},
		Gate: gate,
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			h, files, err := a.scheduleFiles(ctx, ih)
			if err != nil {
				return nil, err
			}
			differ, err := differing(ctx, h, files[:1])
			if err != nil {
				return nil, err
			}
			explained, err := a.explainFiles(ctx, h, files[1:])
			if err != nil {
				return nil, err
			}
			keys, err := a.copyKeys()
			if err != nil {
				return nil, err
			}
			a.tellKeys(explained, keys)
			stale, err := staleCopies(ctx, h, files)
			for _, path := range stale {
				explained = append(explained, phase.Change{Kind: changeClean, Name: path, Text: "removed: its place is no more among the copies"})
			}
			if len(differ) > 0 {
				explained = append([]phase.Change{{Kind: changeBinary, Name: templates.BackupProgram, Text: "this program", Bytes: files[0].Size}}, explained...)
			}
			for _, unit := range a.scheduleUnits() {
				explained = append(explained, phase.Change{Kind: changeStart, Name: unit})
			}
			return explained, err
		},
	}
}

// scheduleUnits are what runs on a master: the timer, and who takes copies.
func (s *Site) scheduleUnits() []string {
	if s.Cluster.Spec.Backup.BetweenMasters() {
		return []string{templates.BackupTimer, templates.ReceiveSocket}
	}
	return []string{templates.BackupTimer}
}

// removeStale removes what was noted as changed and is wanted no more.
func removeStale(ctx context.Context, h host.Host, changed []string, files []host.File) error {
	var stale []string
	for _, path := range changed {
		if !slices.ContainsFunc(files, func(f host.File) bool { return f.Path == path }) {
			stale = append(stale, path)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	if slices.Contains(stale, templates.ReceiveUnits()[0]) {
		if err := endReceiving(ctx, h); err != nil {
			return err
		}
	}
	return runAll(ctx, h, append([]string{"rm", "-f"}, stale...))
}

// checkTurn asks the program on a master whether it could take a turn there.
func checkTurn() []string {
	return []string{templates.BackupProgram, "backup", "turn", "--check", "--config", templates.BackupConfigPath}
}

// scheduleFiles are what a master needs; the program is the first.
func (a *apply) scheduleFiles(ctx context.Context, ih inventory.Host) (host.Host, []host.File, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, nil, err
	}
	program, err := a.program(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys, err := a.copyKeys()
	if err != nil {
		return nil, nil, err
	}
	rendered, err := templates.BackupFiles(a.Cluster, ih, keys)
	return h, append([]host.File{program}, hostFiles(rendered)...), err
}

// thisProgram is where the program lies; a test has a smaller one.
var thisProgram = os.Executable

// program is this program, as it is sent to masters.
func (s *Site) program(ctx context.Context) (host.File, error) {
	file, err := thisProgram()
	if err != nil {
		return host.File{}, err
	}
	f := host.File{Path: templates.BackupProgram, Mode: 0o755, Open: func() (io.ReadCloser, error) {
		r, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return phase.Count(ctx, r), nil
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.programSum == "" {
		if err := runsAnywhere(file); err != nil {
			return f, err
		}
		sum, size, err := sumOfFile(file)
		if err != nil {
			return f, err
		}
		s.programSum, s.programSize = sum, size
	}
	f.Sum, f.Size = s.programSum, s.programSize
	return f, nil
}

// runsAnywhere refuses a program that needs this machine's libraries, or is not for
// Linux: masters have neither.
func runsAnywhere(file string) error {
	refuse := func(why string) error {
		return &ConflictError{What: file + " cannot be put on the masters", Why: why, Run: "the same command with ha-install as `make build` makes it, for Linux"}
	}
	f, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse("it is no program for Linux")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return refuse("it is linked with libraries of this machine")
		}
	}
	return nil
}

// unschedule takes the timer off a master.
func (s *Site) unschedule(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "unschedule", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := s.host(ih.Name)
			if err != nil {
				return false, err
			}
			there, err := scheduled(ctx, h)
			return !there, err
		},
		Do: func(ctx context.Context) error {
			h, err := s.host(ih.Name)
			if err != nil {
				return err
			}
			return endSchedule(ctx, h)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeClean, Name: templates.BackupTimer, Text: "stopped, disabled and removed, with the program that it runs and the keys of copies; backups stay in " + templates.BackupDir}}, nil
		},
	}
}

// scheduled says whether anything of scheduled backups is on a host. Its
// configuration is the last to go.
func scheduled(ctx context.Context, h host.Reader) (bool, error) {
	seen, err := h.Stat(ctx, append(scheduleUnitFiles(), templates.BackupConfigPath)...)
	return len(seen) > 0, err
}

func scheduleUnitFiles() []string {
	return slices.Concat(templates.BackupUnits(), templates.ReceiveUnits())
}

// endSchedule takes scheduled backups off a host, where they are. A backup under way
// is given up; those that are whole stay.
func endSchedule(ctx context.Context, h host.Host) error {
	if there, err := scheduled(ctx, h); err != nil || !there {
		return err
	}
	// A run that broke off may have removed units that systemd has not forgotten.
	if err := runAll(ctx, h, []string{"systemctl", "daemon-reload"}); err != nil {
		return err
	}
	if err := endUnits(ctx, h, []string{"systemctl", "disable", "--now"}, templates.BackupTimer); err != nil {
		return err
	}
	if err := endUnits(ctx, h, []string{"systemctl", "stop"}, templates.BackupService); err != nil {
		return err
	}
	if err := endReceiving(ctx, h); err != nil {
		return err
	}
	return runAll(ctx, h,
		append([]string{"rm", "-f"}, scheduleUnitFiles()...),
		[]string{"systemctl", "daemon-reload"},
		[]string{"rm", "-rf", path.Dir(templates.BackupProgram), templates.BackupCopyDir, templates.BackupStatePath, owedFile("schedule")},
		[]string{"rm", "-f", templates.BackupConfigPath})
}

// LoadTurn is the turn as the configuration on a master has it.
func LoadTurn(config, version string) (Turn, error) {
	c, err := schedule.ReadConfig(config)
	return Turn{Config: c, Version: version, State: templates.BackupStatePath}, err
}

// TurnConfig is where masters have the configuration of a turn.
const TurnConfig = templates.BackupConfigPath
