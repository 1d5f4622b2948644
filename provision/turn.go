package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
)

// Turn is what the program does on a master when its timer wakes it.
type Turn struct {
	Config  templates.BackupConfig
	Version string // of the program
	State   string // the file that says how it ended

	// For tests; the zero values are a master's own.
	Root     string // before the paths of the cluster's files
	Endpoint string // of this master's etcd
	Room     func(needed int64) error
	Now      func() time.Time
	Receiver func(master string) string // where it takes copies
}

const (
	localEtcdURL = "https://127.0.0.1:2379"
	// backupSpare stays free on a master's disk beside a backup: etcd is most
	// often on the same one.
	backupSpare = 1 << 30
)

// localFiles are those of the machine that the program runs on.
type localFiles struct{ root string }

func (l localFiles) ReadFile(_ context.Context, path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(l.root, path))
}

// onMaster is the master that the program runs on, as the origin of a backup.
type onMaster struct {
	localFiles
	cluster string
}

func (m onMaster) commonSecrets(ctx context.Context) (*secrets, error) {
	return readSecrets(ctx, m, m.cluster)
}

func (m onMaster) caFingerprint(ctx context.Context) string {
	seen, err := readMarker(ctx, m)
	if err != nil || seen.Cluster != m.cluster {
		return ""
	}
	return seen.CASHA256
}

func (m onMaster) runningVersion(ctx context.Context, _ string) string {
	pod, err := m.ReadFile(ctx, apiServerManifest)
	if err != nil {
		return ""
	}
	v, _ := imageVersion(apiServerManifest, pod)
	return v
}

// Take looks whether a backup is due, and makes it if the turn is this master's. How
// it ended is kept in the state file, too.
func (t Turn) Take(ctx context.Context, run *phase.Runner) (outcome string, err error) {
	if t.Now == nil {
		t.Now = time.Now
	}
	s, reading := schedule.ReadState(t.State)
	if reading != nil {
		s = schedule.State{} // it only tells of the past
	}
	if s.Since.IsZero() {
		s.Since = t.Now().UTC()
	}
	outcome, err = t.take(ctx, run, &s)
	s.At, s.Outcome, s.Err = t.Now().UTC(), outcome, ""
	if err != nil {
		s.Err = err.Error()
	}
	return outcome, errors.Join(err, s.Write(t.State))
}

// Check proves that a turn could be taken here: the configuration can be read, and
// etcd answers through quorum.
func (t Turn) Check(ctx context.Context) error {
	if _, err := backup.SealFor(t.Config.Recipients, "", ""); err != nil {
		return err
	}
	records, _, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer records.Close()
	if _, err := records.Look(ctx); err != nil {
		return err
	}
	return t.checkCopies(ctx)
}

func (t Turn) master() onMaster { return onMaster{localFiles{t.Root}, t.Config.Cluster} }

func (t Turn) endpoint() string {
	if t.Endpoint != "" {
		return t.Endpoint
	}
	return localEtcdURL
}

func (t Turn) open(ctx context.Context) (*schedule.Records, *tls.Config, error) {
	cfg, err := etcdClientTLS(ctx, t.master())
	if err != nil {
		return nil, nil, err
	}
	records, err := schedule.Open(ctx, t.endpoint(), cfg)
	return records, cfg, err
}

func (t Turn) take(ctx context.Context, run *phase.Runner, s *schedule.State) (string, error) {
	records, cfg, err := t.open(ctx)
	if err != nil {
		return "", err
	}
	defer records.Close()
	view, err := records.Look(ctx)
	if err != nil {
		return "", err
	}
	if view.Last != nil {
		s.Last = view.Last
	}
	own, err := t.own(ctx, view.Cluster)
	if err != nil {
		return "", err
	}
	d := schedule.Decide(schedule.Facts{Now: t.Now(), Every: t.Config.Every, Grace: t.Config.Grace(), Self: view.Self.Name, Masters: view.Names(), Last: view.Last, Own: times(own), Recorded: s.Recorded})
	switch {
	case d.Kind == schedule.Nothing, d.Kind == schedule.Wait:
		return d.Why, t.copyMissing(ctx, view, cfg, records, s, own)
	case view.Holder != "":
		return view.Holder + " is making the backup of this period", nil
	}
	turn, working, err := records.Take(ctx, view)
	if errors.Is(err, schedule.ErrTaken) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	defer turn.End(ctx)
	note, made, freed, err := t.workInRoom(working, run, d, view, turn, cfg, own)
	if lost := context.Cause(working); err != nil && errors.Is(lost, schedule.ErrLost) {
		err = errors.Join(lost, err)
	}
	if err == nil {
		err = turn.Record(working, note)
	}
	if err != nil {
		return "", err
	}
	s.Recorded = note.Time
	s.Last = &note
	turn.End(ctx) // sending takes its time, and needs no turn
	if len(t.Config.Copies) > 0 {
		err = t.copy(ctx, view, cfg, records, s, made.Path)
	}
	return "made " + note.Path + freed, errors.Join(err, t.prune(ctx, made))
}

// own are the whole backups of this cluster that this master has, the newest first.
// What it has of the time before a restore is of another cluster by its ID, and what it
// has of one of the same name that was reset by its CA set: the ID comes of a master's
// address, and may be the same.
func (t Turn) own(ctx context.Context, cluster etcd.MemberID) ([]backup.Entry, error) {
	all, err := backup.In(t.Config.Directory, t.Config.Cluster).List()
	ca := t.master().caFingerprint(ctx)
	var own []backup.Entry
	for _, e := range all {
		if m := e.Manifest; e.Err == nil && m.Cluster == t.Config.Cluster && m.ClusterID == cluster && m.CASHA256 == ca {
			own = append(own, e)
		}
	}
	return own, err
}

func times(entries []backup.Entry) []time.Time {
	var all []time.Time
	for _, e := range entries {
		all = append(all, e.Manifest.Time)
	}
	return all
}

// work makes the backup of the period, or finds the one that was made and not put on
// record.
func (t Turn) work(ctx context.Context, run *phase.Runner, d schedule.Decision, view schedule.View, turn *schedule.Turn, cfg *tls.Config, own []backup.Entry) (schedule.Note, Backed, error) {
	for _, e := range own {
		if d.Kind != schedule.Adopt || e.Manifest.Time.Before(d.Period) {
			break
		}
		r, err := backup.Verify(ctx, e.Path, backup.Expected{Cluster: t.Config.Cluster, CASHA256: t.master().caFingerprint(ctx)})
		if err != nil {
			return schedule.Note{}, Backed{}, err
		}
		if r.Whole {
			made := Backed{Path: e.Path, Manifest: e.Manifest}
			return noteOf(made, d, view), made, nil
		}
	}
	seal, err := backup.SealFor(t.Config.Recipients, "", "")
	if err != nil {
		return schedule.Note{}, Backed{}, err
	}
	members := etcd.NewMembers(t.targets(view, cfg), nil)
	defer members.Close()
	made, err := newBacking(t.master(), members, t.Config.Cluster, t.Version, BackupOptions{
		Directory: t.Config.Directory, Seal: seal, Spare: backupSpare, Prefer: view.Self.Name, Sure: turn.Held, Room: t.Room, Scheduled: true,
	}).run(ctx, run)
	return noteOf(made, d, view), made, err
}

// targets are the voters as this master reaches them: its own over the loopback, the
// others at their addresses, all with its own certificate.
func (t Turn) targets(view schedule.View, cfg *tls.Config) []etcd.Target {
	var targets []etcd.Target
	for _, m := range view.Voters {
		target := etcd.Target{
			Name: m.Name, PeerURL: m.PeerURL, ClientURL: m.ClientURL, RemoteURL: m.ClientURL, Dial: (&net.Dialer{}).DialContext,
			TLS: func(context.Context) (*tls.Config, error) { return cfg, nil },
		}
		if m.ID == view.Self.ID {
			target.ClientURL = t.endpoint()
		}
		targets = append(targets, target)
	}
	return targets
}

func noteOf(b Backed, d schedule.Decision, view schedule.View) schedule.Note {
	m := b.Manifest
	return schedule.Note{ClusterID: view.Cluster, Period: d.Period, Time: m.Time, Took: m.Took, Host: view.Self.Name, Path: b.Path, From: m.From,
		Revision: m.Snapshot.Revision, Bytes: m.Snapshot.Bytes, SHA256: m.Snapshot.SHA256, Keys: m.Keys != nil}
}

// prune removes what is beyond the number to keep, of this cluster's: by its CA set, so
// that those of before a restore go in their time, too.
func (t Turn) prune(ctx context.Context, made Backed) error {
	return t.pruneStore(ctx, backup.In(t.Config.Directory, t.Config.Cluster), made.Path, func(m backup.Manifest) bool { return m.CASHA256 == made.Manifest.CASHA256 })
}

// pruneStore removes what is beyond the number to keep of those that are meant. The one
// that was made just now is proved and stays; of older ones it is enough that they are
// there as long as their manifests say, or each turn would read them all.
func (t Turn) pruneStore(ctx context.Context, store backup.Store, made string, meant func(backup.Manifest) bool) error {
	found, err := store.List()
	if err != nil {
		return err
	}
	var all []backup.Entry
	for _, e := range found {
		if meant(e.Manifest) {
			all = append(all, e)
		}
	}
	fates := backup.Decide(all, t.Config.Cluster, backup.Rule{Keep: t.Config.Keep}, t.Now(), func(e backup.Entry) bool {
		info, err := os.Stat(filepath.Join(e.Path, backup.SnapshotFile))
		return err == nil && info.Size() == e.Manifest.Snapshot.Bytes
	})
	for _, f := range fates {
		if !f.Remove || f.Path == made {
			continue
		}
		if err := store.Remove(f.Entry); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		phase.Tell(ctx, "removed "+f.Path+": "+f.Why)
	}
	return nil
}
