package provision

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// restore makes etcd anew on all masters of its site from one snapshot, and
// brings up the control planes on it. What was there is kept beside.
type restore struct {
	*apply // without a bundle; for its gates
	RestoreOptions
	verb   string
	source restoreSource
	seen   map[string]masterSeen
	now    etcd.Verdict // what the members said before
	note   restoreNote
	// resumed says that the note is of an earlier run that did not come to its end.
	resumed bool
	// goesOn is a note that is finished without some of those who took part: the new
	// cluster has its quorum among the masters of the site.
	goesOn *restoreNote
	// restored is the note of an earlier run that did; nil for none.
	restored *restoreNote
	away     []string                     // hosts that are left out
	whole    *inventory.Cluster           // as the inventory has it
	saved    bool                         // what is there now is the source itself
	lost     []string                     // the hosts that the operator has said to be lost
	before   func(*restore) []phase.Stage // what comes before anything stops; nil for nothing
}

// Restore takes a cluster back to what it was in a backup. Where all masters of
// the inventory are bare it is made anew on them, see rehousing; else on the same
// masters: on all of them etcd is stopped and made anew from the same snapshot, as a
// cluster that no member of the one before can join. It needs every master. A
// run that broke off is finished by the next one of the same backup; a backup
// that was restored already is left alone, unless again.
func Restore(ctx context.Context, s *Site, o RestoreOptions, run *phase.Runner) error {
	if bare, err := s.ontoBare(ctx); err != nil || bare {
		if err != nil {
			return err
		}
		return s.rehouse(ctx, o, run)
	}
	r, done, err := newRestore(ctx, s, o)
	if err != nil {
		return err
	}
	defer done()
	return r.operate(ctx, r.verb, run, func(ctx context.Context) error {
		if err := r.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := r.begin(ctx); err != nil {
			return err
		}
		return run.Run(ctx, r.stages())
	})
}

// PlanRestore says what Restore would do. tell is given what would be lost.
func PlanRestore(ctx context.Context, s *Site, o RestoreOptions, tell func(string)) (Plan, error) {
	view, closeView := s.view()
	defer closeView()
	if bare, err := view.ontoBare(ctx); err != nil || bare {
		if err != nil {
			return Plan{}, err
		}
		return view.planRehouse(ctx, o, tell)
	}
	r, done, err := newRestore(ctx, view, o)
	if err != nil {
		return Plan{}, err
	}
	defer done()
	r.ReadOnly()
	if err := r.begin(ctx); err != nil {
		return Plan{}, err
	}
	tell(r.outlook())
	return r.plan(ctx, phase.Planner{SkipGates: true}, r.stages())
}

// newRestore proves the backup, and leaves out of the site what can be done
// without: workers and balancers that are away. The caller calls done.
func newRestore(ctx context.Context, s *Site, o RestoreOptions) (r *restore, done func(), err error) {
	if err := s.requireMasters(); err != nil {
		return nil, nil, err
	}
	o.Expected.CASHA256 = CAFingerprint(ctx, s)
	source, err := sourceOf(ctx, o, s.Cluster.Metadata.Name)
	if err != nil {
		return nil, nil, err
	}
	here, done := s.ofTheConnected()
	return &restore{apply: &apply{Site: here}, RestoreOptions: o, verb: "restore", source: source, away: sortedKeys(s.down), whole: s.Cluster}, done, nil
}

// requireMasters is an *UnreachableError unless every master is connected.
func (s *Site) requireMasters() error {
	var all []error
	for _, ih := range s.Cluster.ControlPlanes() {
		all = append(all, s.down[ih.Name])
	}
	if err := phase.Join(onceForEachBastion(all)...); err != nil {
		return &UnreachableError{err}
	}
	return nil
}

// ofTheConnected is the site of the cluster without the hosts that are away, on
// the same connections. The caller calls done, which closes what is its own.
func (s *Site) ofTheConnected() (here *Site, done func()) {
	return s.withOnly(func(ih inventory.Host) bool { return s.down[ih.Name] == nil })
}

// withOnly is the site of the cluster with only some of its hosts, under the
// same lock. The caller calls done, which closes what is its own.
func (s *Site) withOnly(stays func(inventory.Host) bool) (here *Site, done func()) {
	c := *s.Cluster
	c.Spec.Hosts = slices.DeleteFunc(slices.Clone(s.Cluster.Spec.Hosts), func(ih inventory.Host) bool { return !stays(ih) })
	here = newSite(&c, s.BaseDir)
	here.Operation, here.Operator, here.lock, here.readOnly = s.Operation, s.Operator, s.lock, s.readOnly
	for _, ih := range s.connected(c.Spec.Hosts) {
		here.hosts[ih.Name] = s.hosts[ih.Name]
	}
	here.members = here.newMembers()
	return here, func() { _ = here.members.Close() } // always says "context canceled"
}

// begin looks at everything, and refuses before anything stops.
func (r *restore) begin(ctx context.Context) (err error) {
	if r.seen, err = r.seeMasters(ctx); err != nil {
		return err
	}
	r.now = r.members.Look(ctx, etcd.Options{ReadOnly: true, Inputs: true})
	notes := map[string]restoreNote{}
	for name, m := range r.seen {
		if m.note != nil {
			notes[name] = *m.note
		}
	}
	cluster := initialClusterOf(r.Cluster)
	if !r.Again {
		r.restored = completed(notes, len(r.Cluster.ControlPlanes()), r.source.sum)
	}
	if r.goesOn != nil {
		r.note, r.resumed = *r.goesOn, true
	} else if n := adopt(notes, r.source.sum, cluster); n != nil {
		r.note, r.resumed = *n, true
	} else {
		r.note = r.newNote(notes, cluster)
	}
	return restorable(r.Cluster, r.source, r.seen, r.note.Token)
}

// newNote is what this run writes on the masters before it stops anything.
func (r *restore) newNote(notes map[string]restoreNote, cluster string) restoreNote {
	at := time.Now().UTC().Truncate(time.Second)
	revision, before := newestRevision(r.now)
	if r.saved && revision == 0 { // nobody answers: the snapshot tells of which cluster it is
		before = r.source.m.ClusterID
	}
	highest := revision
	for _, n := range notes { // of clusters that nobody can ask any more
		highest = max(highest, n.Revision)
	}
	m := r.source.m
	bump := bumpFor(m.Snapshot.Revision, highest)
	return restoreNote{
		Token: newToken(r.Cluster.Metadata.Name), Verb: r.verb, From: r.source.dir, By: r.Operation.Operator,
		SHA256: r.source.sum, Bytes: r.source.size, Manifest: m, Bump: bump, Cluster: cluster,
		Lost: r.lost, Before: before, Revision: m.Snapshot.Revision + bump, Loss: lossOf(m, r.now, at), Began: at,
	}
}

// newToken is met only once.
func newToken(cluster string) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return cluster + "-" + hex.EncodeToString(random[:])
}

// initialClusterOf is etcd's flag of that name for all masters.
func initialClusterOf(c *inventory.Cluster) string {
	var parts []string
	for _, ih := range c.ControlPlanes() {
		parts = append(parts, ih.Name+"="+peerURL(ih))
	}
	return strings.Join(parts, ",")
}

func (r *restore) stages() []phase.Stage {
	masters := r.Cluster.ControlPlanes()
	if r.restored != nil {
		return []phase.Stage{phase.One(r.alreadyRestored())}
	}
	var before []phase.Stage
	if r.before != nil {
		before = r.before(r)
	}
	return slices.Concat([]phase.Stage{
		phase.One(r.keepBackup()),
		phase.AtOnce(masters, r.noteBegun),
		phase.AtOnce(masters, r.push),
		phase.AtOnce(masters, r.unpack),
		// Until here nothing has stopped.
	}, before, []phase.Stage{
		phase.AtOnce(masters, r.stop),
		phase.AtOnce(masters, r.exchange),
		phase.AtOnce(masters, r.startEtcd),
		phase.One(r.newQuorum()),
		phase.One(r.room()),
		phase.One(r.writes()),
		phase.AtOnce(masters, r.startAPI),
		phase.One(onceServed(r.noLeaders())),
		phase.AtOnce(masters, r.startControllers),
		phase.AtOnce(r.Cluster.Workers(), r.restartKubelet),
		phase.One(onceServed(r.readmitAll())),
		phase.One(onceServed(r.rememberExisting())),
		phase.One(onceServed(r.sweepTokens())),
		phase.One(r.tryControllers()),
		phase.One(r.verifyHere()),
		phase.AtOnce(masters, r.finish),
		phase.One(r.report()),
	})
}

// onceServed is a phase that a plan cannot ask about while API servers are to be
// started: those of now may not answer, and hold other data.
func onceServed(p phase.Phase) phase.Phase {
	p.After = []string{"start-api"}
	p.Foresee = func(context.Context, []string) (phase.State, []phase.Change, error) { return phase.NotKnown, nil, nil }
	return p
}

// outlook is what the operator has to know before agreeing.
func (r *restore) outlook() string {
	m := r.source.m
	var b strings.Builder
	fmt.Fprintf(&b, "backup   %s: revision %d, %d keys, of %s", r.source.dir, m.Snapshot.Revision, m.Snapshot.Keys, m.Time.UTC().Format(time.DateTime+"Z"))
	if !m.Quorum {
		b.WriteString("; taken WITHOUT QUORUM: what was acknowledged last may be missing")
	}
	switch {
	case r.restored != nil:
		fmt.Fprintf(&b, "\nrestored already, at %s; nothing is to be done (--again would restore it once more)", r.restored.Began.Format(time.DateTime+"Z"))
		return b.String()
	case r.resumed:
		fmt.Fprintf(&b, "\ngoes on  with what %s began at %s", r.note.By, r.note.Began.Format(time.DateTime+"Z"))
	}
	fmt.Fprintf(&b, "\nlost     %s", r.note.Loss)
	fmt.Fprintf(&b, "\nkept     the data of now, on each master beside the new ones")
	if !r.resumed && backupPossible(r.now) {
		b.WriteString(", and a backup of them here")
	}
	for _, w := range append(differentMembers(r.Cluster, m), lowered(r.Cluster, r.now)...) {
		b.WriteString("\nwarning  " + w)
	}
	for _, name := range r.away {
		b.WriteString("\nwarning  " + name + " cannot be reached and is left out")
	}
	fmt.Fprintf(&b, "\noutage   no API server runs on any master meanwhile; pods go on")
	return b.String()
}

// differentMembers says how the backup's members differ from the inventory's
// masters. All of them are made anew, so that it is no obstacle.
func differentMembers(c *inventory.Cluster, m backup.Manifest) []string {
	then := map[string]bool{}
	for _, member := range m.Members {
		then[member.PeerURL] = true
	}
	var all []string
	for _, ih := range c.ControlPlanes() {
		if !then[peerURL(ih)] {
			all = append(all, ih.Name+" was no member when the backup was taken; it becomes one")
		}
		delete(then, peerURL(ih))
	}
	for _, url := range sortedKeys(then) {
		all = append(all, "the member at "+url+" is no master of the inventory; it is in the backup's Nodes, and has to be removed from them afterwards")
	}
	return all
}
