package provision

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/release"
)

// rehousing makes a cluster anew on bare hosts from a backup of one that is
// lost. It is an apply whose first member starts with the backup's data, and
// whose masters get the backup's keys: what apply does besides makes the cluster
// one of these hosts, with their addresses and their endpoint.
type rehousing struct {
	*restore
	keys *secrets // of the backup
	then backedUp
}

// ontoBare looks at all masters, and says which restore it is.
func (s *Site) ontoBare(ctx context.Context) (bool, error) {
	if err := s.requireMasters(); err != nil {
		return false, err
	}
	seen, err := s.seeMasters(ctx)
	if err != nil {
		return false, err
	}
	return onto(s.Cluster, seen)
}

// newRehousing proves the backup, opens its keys, and holds both against the
// inventory; nothing of it needs a host. The caller calls close.
func newRehousing(ctx context.Context, s *Site, o RestoreOptions) (r *rehousing, err error) {
	a, err := newApply(s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	o.Expected.Openers, o.Expected.CASHA256 = o.Openers, CAFingerprint(ctx, s)
	r = &rehousing{restore: &restore{apply: a, RestoreOptions: o, verb: "restore", whole: s.Cluster}}
	if r.source, err = sourceOf(ctx, o, s.Cluster.Metadata.Name); err != nil {
		return nil, err
	}
	m := r.source.m
	if m.Keys == nil || len(o.Openers) == 0 {
		return nil, keysWanted(m)
	}
	set, encryption, err := backup.ReadKeys(filepath.Join(r.source.dir, backup.KeysFile), o.Openers, m.CASHA256, time.Now())
	if err != nil {
		return nil, err
	}
	r.keys = &secrets{ca: set, encryption: encryption}
	if r.then, err = readBackedUp(r.source.file); err != nil {
		return nil, err
	}
	var given *pki.CASet
	if s.Cluster.Spec.PKI.Directory != "" {
		if given, err = s.givenCA(); err != nil {
			return nil, err
		}
	}
	a.onto = r
	return r, rehousable(s.Cluster, m, r.then, set, given)
}

// keysWanted refuses a backup whose keys are not there, or cannot be opened.
func keysWanted(m backup.Manifest) error {
	e := &ConflictError{
		What: "all masters of the inventory are bare, and the backup's keys are not at hand",
		Why:  "on other hosts the cluster needs its CA and the key by which its Secrets are encrypted: no host has them",
		Run:  "the same command with what opens " + backup.KeysFile + ": --identity FILE, or --passphrase-file FILE",
	}
	if m.Keys == nil {
		e.Why += ", and this backup was made without them"
		e.Run = "take a backup that has keys (ha-install backup list); without any: ha-install apply makes a new cluster"
	}
	return e
}

// rehouse is Restore onto bare hosts.
func (s *Site) rehouse(ctx context.Context, o RestoreOptions, run *phase.Runner) error {
	r, err := newRehousing(ctx, s, o)
	if err != nil {
		return err
	}
	defer r.close()
	return r.operate(ctx, r.verb, run, func(ctx context.Context) error {
		if err := r.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := r.begin(ctx); err != nil {
			return err
		}
		return run.Run(ctx, r.apply.stages())
	})
}

// planRehouse is PlanRestore onto bare hosts.
func (s *Site) planRehouse(ctx context.Context, o RestoreOptions, tell func(string)) (Plan, error) {
	r, err := newRehousing(ctx, s, o)
	if err != nil {
		return Plan{}, err
	}
	defer r.close()
	if err := r.begin(ctx); err != nil {
		return Plan{}, err
	}
	tell(r.outlook())
	return r.plan(ctx, phase.Planner{SkipGates: true}, r.apply.stages())
}

// begin looks at everything under the lock, and refuses before anything is done.
func (r *rehousing) begin(ctx context.Context) (err error) {
	if r.seen, err = r.seeMasters(ctx); err != nil {
		return err
	}
	if bare, err := onto(r.Cluster, r.seen); err != nil || !bare {
		return cmp.Or(err, error(&MovedError{Differ: []string{"the masters were bare, and are not any more"}}))
	}
	if err := r.findFirst(ctx); err != nil {
		return err
	}
	if err := r.takeUpNote(); err != nil {
		return err
	}
	if err := r.stillThere(ctx); err != nil {
		return err
	}
	first := r.seen[r.seed().Name]
	if r.has(r.seed()) {
		return nil
	}
	all := room(r.seed().Name, r.source, first, r.note.Token)
	if tool, err := release.ParseEtcd(bundledEtcdutl(r.bundle)); err == nil && first.etcdutl == "" {
		all = append(all, fits("the bundle", r.source, masterSeen{restoreFacts: restoreFacts{etcdutl: tool.String()[1:]}})...)
	}
	return phase.Join(all...)
}

// takeUpNote goes on with what an earlier run has begun, or begins.
func (r *rehousing) takeUpNote() error {
	for _, ih := range r.Cluster.ControlPlanes() {
		n := r.seen[ih.Name].note
		if n == nil || n.Done {
			continue
		}
		if n.SHA256 != r.source.sum {
			return &ConflictError{
				What: "another backup is half restored onto these hosts",
				Why:  fmt.Sprintf("%s began at %s with %s; %s on %s says so", n.By, n.Began.UTC().Format(time.DateTime+"Z"), n.From, restoreFile, ih.Name),
				Run:  n.goOn() + "; to begin anew with this backup: ha-install reset INVENTORY, then the same command",
			}
		}
		// The one on the seed's host knows most.
		if !r.resumed || ih.Name+"="+peerURL(ih) == n.Cluster {
			r.note, r.resumed = *n, true
		}
	}
	if !r.resumed {
		r.note = r.newNote(nil, r.first.Name+"="+peerURL(r.first))
		r.note.Onto = true
		return nil
	}
	if r.seed().Name == "" {
		return &ConflictError{
			What: "the inventory has no master " + r.note.Cluster,
			Why:  "a restore onto these hosts is half done, and that is where it makes the first member",
			Run: "put it back into the inventory under this name and address. If its host is lost: see that it is off for good; ha-install reset with this inventory, " +
				"which is without it, takes back what is half done on the others; then the same command again, which begins anew",
		}
	}
	if !r.established {
		r.first = r.seed()
	}
	return nil
}

// seed is the master whose etcd starts with the backup's data.
func (r *rehousing) seed() inventory.Host {
	for _, ih := range r.Cluster.ControlPlanes() {
		if ih.Name+"="+peerURL(ih) == r.note.Cluster {
			return ih
		}
	}
	return inventory.Host{}
}

// outlook is what the operator has to know before agreeing.
func (r *rehousing) outlook() string {
	m := r.source.m
	var b strings.Builder
	fmt.Fprintf(&b, "backup   %s: revision %d, %d keys, of %s", r.source.dir, m.Snapshot.Revision, m.Snapshot.Keys, m.Time.UTC().Format(time.DateTime+"Z"))
	if !m.Quorum {
		b.WriteString("; taken WITHOUT QUORUM: what was acknowledged last may be missing")
	}
	fmt.Fprintf(&b, "\nonto     %s, which are bare: %s starts etcd with the backup's data, the others join it", strings.Join(namesOf(r.Cluster.ControlPlanes()), ", "), r.seed().Name)
	if r.resumed {
		fmt.Fprintf(&b, "\ngoes on  with what %s began at %s", r.note.By, r.note.Began.Format(time.DateTime+"Z"))
	}
	fmt.Fprintf(&b, "\nlost     %s", r.note.Loss)
	fmt.Fprintf(&b, "\nnodes    %s of the backup are taken out of the API, new hosts register anew; what pods kept on their disks is in no backup", strings.Join(sortedKeys(r.then.nodes), ", "))
	if old := formerly(r.Cluster, m); len(old) > 0 {
		fmt.Fprintf(&b, "\nwarning  the masters of before (%s) have to stay off: they would serve a cluster with the same CA", strings.Join(old, ", "))
	}
	if old := elsewhereThan(r.Cluster, r.then.kubelets); len(old) > 0 {
		fmt.Fprintf(&b, "\nwarning  no host of before may run (%s): its pods would leave the API and go on, or end with all that is only there", strings.Join(old, ", "))
	}
	return b.String()
}
