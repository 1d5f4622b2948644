package provision

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
)

// BackupOptions say where a backup goes and who can open its keys.
type BackupOptions struct {
	Directory string      // on this machine; it has a directory for each cluster
	Seal      backup.Seal // none: without the keys
	Copies    CopyOptions // where copies go besides
	// Spare is what has to stay free there, in bytes, where others live on the
	// same disk.
	Spare int64
	// Room is asked for that in place of the directory's file system; for tests.
	Room func(needed int64) error
	// Prefer is whose member is asked for the snapshot before others as good.
	Prefer string
	// Scheduled is what the manifest says of who made it.
	Scheduled bool
	// Sure is asked before the backup appears under its name; nil: it may.
	Sure func(context.Context) error
}

// Backed is a backup that was made.
type Backed struct {
	Path     string          `json:"path"`
	Manifest backup.Manifest `json:"manifest"`
}

// Backup takes a backup of a running cluster, or of what is left of one. It
// changes nothing on any host, and needs no lock: what it takes is a state that
// etcd had at one revision, whoever works on the cluster meanwhile.
func Backup(ctx context.Context, s *Site, o BackupOptions, run *phase.Runner) (Backed, error) {
	b := s.newBacking(o)
	if len(o.Copies.To) > 0 {
		b.last = append(b.last, backupStep{"copies", func(ctx context.Context) error { return s.sendCopies(ctx, b.done.Path, o.Copies) }})
	}
	return b.run(ctx, run)
}

func (b *backing) run(ctx context.Context, run *phase.Runner) (Backed, error) {
	defer b.close()
	var stages []phase.Stage
	for _, step := range b.steps() {
		stages = append(stages, phase.One(phase.Phase{Name: step.name, Do: step.do}))
	}
	err := run.Run(ctx, stages)
	return b.done, err
}

// backupTo is Backup within a phase of another workflow, in whose name it
// reports.
func (s *Site) backupTo(ctx context.Context, o BackupOptions) (Backed, error) {
	b := s.newBacking(o)
	defer b.close()
	for _, step := range b.steps() {
		if err := step.do(ctx); err != nil {
			return Backed{}, err
		}
	}
	return b.done, nil
}

// explainBackup is what a plan says of the backup that is taken before.
func explainBackup(o BackupOptions) []phase.Change {
	return []phase.Change{{Kind: changeRun, Name: "snapshot of etcd", Text: "kept and verified in " + o.Directory + " on this machine"}}
}

// backing is one backup on its way.
type backing struct {
	origin
	members *etcd.Members
	options BackupOptions
	store   backup.Store
	draft   *backup.Draft // nil before it is begun
	began   time.Time
	m       backup.Manifest
	done    Backed
	last    []backupStep // after it is whole
	// given takes the snapshot from elsewhere than a member that answers; nil: one is asked.
	given func(context.Context) error
}

func (s *Site) newBacking(o BackupOptions) *backing {
	return newBacking(s, s.members, s.Cluster.Metadata.Name, s.Operation.Version, o)
}

func newBacking(of origin, members *etcd.Members, cluster, version string, o BackupOptions) *backing {
	return &backing{origin: of, members: members, options: o, store: backup.In(o.Directory, cluster), began: time.Now(), m: backup.Manifest{Cluster: cluster, Program: version, Scheduled: o.Scheduled}}
}

// close removes what did not become a backup.
func (b *backing) close() {
	if b.draft != nil {
		_ = b.draft.Close() // else the next one does
	}
}

// backupStep is a part of a backup.
type backupStep struct {
	name string
	do   func(context.Context) error
}

func (b *backing) steps() []backupStep {
	return append([]backupStep{{"begin", b.begin}, {"snapshot", b.snapshot}, {"keys", b.keys}, {"keep", b.keep}}, b.last...)
}

// begin clears what runs left that died, and makes the new directory.
func (b *backing) begin(ctx context.Context) error {
	swept, err := b.store.Sweep()
	if err != nil {
		return err
	}
	for _, dir := range swept.Removed {
		phase.Tell(ctx, "removed "+dir+": a run that was ended before its end left it")
	}
	for _, dir := range swept.Held {
		phase.Tell(ctx, dir+": another run is at work there; this one makes its own backup")
	}
	for _, dir := range swept.Strange {
		phase.Tell(ctx, "warning: "+dir+" looks like what a broken run leaves, but has other files in it; it was left alone")
	}
	b.draft, err = b.store.Begin(b.began)
	return err
}

// snapshot takes one from the best source; when that fails on the way, from
// the next one, chosen anew.
func (b *backing) snapshot(ctx context.Context) error {
	if b.given != nil {
		return b.given(ctx)
	}
	failed := map[string]error{}
	for {
		v := b.members.Judge(ctx, etcd.Options{ReadOnly: true, Hash: true, Inputs: true})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		tellVerdict(ctx, v, "snapshot", nil)
		from, err := nextSource(v, b.options.Prefer, failed)
		if err != nil {
			return err
		}
		if err = b.hasRoom(from.DBSize); err == nil {
			err = b.takeFrom(ctx, v, from)
		}
		var local *backup.LocalError
		if err == nil || ctx.Err() != nil || errors.As(err, &local) {
			return err
		}
		failed[from.Host] = onHost(from.Host, err)
		phase.Tell(ctx, fmt.Sprintf("%v; trying another member", failed[from.Host]))
	}
}

// hasRoom wants room for a database of that size.
func (b *backing) hasRoom(dbSize int64) error {
	room := b.options.Room
	if room == nil {
		room = b.store.Room
	}
	return room(roomFor(dbSize) + b.options.Spare)
}

// roomFor is what a backup of a database of that size may need.
func roomFor(dbSize int64) int64 { return dbSize + dbSize/10 + 1<<20 }

// nextSource is the best of the members that have not failed yet; of followers that
// are as good the one that is preferred.
func nextSource(v etcd.Verdict, prefer string, failed map[string]error) (etcd.Member, error) {
	sources, err := etcd.SnapshotSources(v)
	if i := slices.IndexFunc(sources, func(m etcd.Member) bool { return m.Host == prefer && m.Healthy && !m.Leader }); i > 0 {
		sources[0], sources[i] = sources[i], sources[0]
	}
	for _, m := range sources {
		if failed[m.Host] == nil {
			return m, nil
		}
	}
	if len(failed) == 0 {
		return etcd.Member{}, err
	}
	var all []error
	for _, name := range sortedKeys(failed) {
		all = append(all, failed[name])
	}
	return etcd.Member{}, fmt.Errorf("no member gave a snapshot:\n%w", phase.Join(append(all, err)...))
}

// takeFrom takes the snapshot from one member.
func (b *backing) takeFrom(ctx context.Context, v etcd.Verdict, from etcd.Member) error {
	stream, err := b.members.Snapshot(ctx, from.Host)
	if err != nil {
		return err
	}
	phase.Expect(ctx, stream.Size)
	counted := phase.Count(ctx, stream)
	defer counted.Close()
	var agreed *etcd.Hash
	if from.Inputs != nil {
		agreed = from.Inputs.Hash
	}
	s, err := b.draft.WriteSnapshot(ctx, counted, agreed)
	if err != nil {
		phase.Expect(ctx, -stream.Size) // the next one is a whole one again
		return err
	}
	b.m.Snapshot, b.m.ClusterID, b.m.EtcdVersion = s, stream.Cluster, stream.Version
	b.m.From, b.m.Member, b.m.Leader = from.Host, stream.Member, stream.Leader
	b.m.Quorum, b.m.Verdict, b.m.Members = v.State.HasQuorum(), v.State, listMembers(v)
	if !b.m.Quorum {
		phase.Tell(ctx, fmt.Sprintf("warning: %s when the snapshot of %s was taken: writes that were acknowledged last may be missing in it; it is labelled so", v.State, from.Host))
	}
	return nil
}

func listMembers(v etcd.Verdict) []backup.Member {
	members := []backup.Member{}
	for _, m := range v.Members {
		if m.Role != etcd.NoRole {
			members = append(members, backup.Member{ID: m.ID, Name: m.Name, PeerURL: m.PeerURL, Role: m.Role, State: m.State})
		}
	}
	return members
}

// WithoutKeys is what it means that a backup has no keys.
const WithoutKeys = `warning: the backup holds no keys: neither the CA set nor the key of the encryption at rest
without them it restores onto these masters as long as one of them has its /etc/kubernetes; when all
masters are lost, no certificate of the cluster can be renewed, and its Secrets cannot be read by anybody
give --recipient, --recipients-file or --passphrase-file to put them in, encrypted`

// keys seals the CA set and the key of the encryption at rest.
func (b *backing) keys(ctx context.Context) error {
	b.m.KubernetesVersion = b.runningVersion(ctx, b.m.From)
	if b.options.Seal.None() {
		phase.Tell(ctx, WithoutKeys)
		b.m.CASHA256 = b.caFingerprint(ctx)
		return nil
	}
	found, err := b.commonSecrets(ctx)
	if err != nil {
		return err
	}
	b.m.CASHA256 = found.ca.Fingerprint()
	k, err := b.draft.WriteKeys(append(found.ca.Files(), templates.EncryptionFile(found.encryption)), b.options.Seal)
	if err == nil {
		b.m.Keys = &k
	}
	return err
}

// keep lets the backup appear under its name.
func (b *backing) keep(ctx context.Context) error {
	b.m.Took = units.Seconds(time.Since(b.began).Round(time.Millisecond))
	if b.options.Sure != nil {
		if err := b.options.Sure(ctx); err != nil {
			return err
		}
	}
	path, err := b.draft.Commit(b.m)
	if err != nil {
		return err
	}
	e := backup.Read(path)
	if e.Err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(path, backup.ManifestFile), e.Err)
	}
	b.done = Backed{Path: path, Manifest: e.Manifest}
	phase.TellData(ctx, b.done.String(), phase.Data{"backup": b.done})
	return nil
}

// String is the backup in a few lines.
func (b Backed) String() string {
	m := b.Manifest
	role, label := "follower", string(m.Verdict)
	if m.Leader {
		role = "leader"
	}
	if !m.Quorum {
		label += ", WITHOUT QUORUM"
	}
	text := fmt.Sprintf("backup    %s\nsnapshot  %s, revision %d, %d keys, from %s (%s), %s", b.Path, units.Bytes(m.Snapshot.Bytes), m.Snapshot.Revision, m.Snapshot.Keys, m.From, role, label)
	if h := m.Snapshot.Hash; h != nil {
		text += fmt.Sprintf("\nproved    read back and opened; its data at revision %d are those that the members serve (hash %08x)", h.Revision, h.Sum)
	} else {
		text += "\nproved    read back and opened; not compared with what the members serve: they were not heard, or compacted meanwhile"
	}
	if m.Keys == nil {
		return text + "\nkeys      none"
	}
	return text + fmt.Sprintf("\nkeys      the CA set and the key of the encryption at rest, encrypted for %s", strings.Join(m.Keys.SealedFor, ", "))
}
