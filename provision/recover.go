package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// RecoverOptions say how a cluster that lost its quorum may come back.
type RecoverOptions struct {
	// Way is the operator's own choice; WayNone leaves it to what loses least.
	Way RecoverWay
	// Lost are the names of the masters and balancers that cannot be reached, are
	// off and stay off, on the operator's word.
	Lost []string
	// Agreed is the way that was agreed to, as PlanRecover returned it; another
	// one is a *MovedError. nil: nobody was asked.
	Agreed *RecoverWay
	// Backup is where backups lie, and the survivor's snapshot is put.
	Backup BackupOptions
	// Expected is what a backup is held against besides: openers of its keys.
	Expected backup.Expected
}

// recovery is one run of `ha-install recover`, on the hosts that are here.
type recovery struct {
	*Site
	RecoverOptions
	whole *inventory.Cluster // as the inventory has it
	seen  map[string]masterSeen
	now   etcd.Verdict
	facts recoverFacts
	way   RecoverWay
	why   string
	full  bool            // etcd votes, and takes no write
	note  *restoreNote    // of the recovery that is half done, or was done last; nil for none
	best  backup.Manifest // of facts.backup

	mu     sync.Mutex
	read   []dataRead // what the data of those told that answer nobody
	unread []error    // of those that could not be read
}

// Recover brings a cluster back that lost its quorum, in the way that loses
// least, and on the masters that can be reached; bare ones join at the end. It
// begins where an earlier run stopped. On a cluster that has its quorum it has
// those join that do not vote, and changes nothing else. Where etcd is made anew
// without the operator's word for all that cannot be reached it is a
// *ConflictError, and an *AliveError where somebody sees such a host.
func Recover(ctx context.Context, s *Site, o RecoverOptions, run *phase.Runner) error {
	rc, done, err := newRecovery(s, o)
	if err != nil {
		return err
	}
	defer done()
	return rc.operate(ctx, "recover", run, func(ctx context.Context) error {
		if err := rc.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := rc.begin(ctx); err != nil {
			return err
		}
		if err := run.Run(ctx, []phase.Stage{phase.One(says("look", rc.outlook(), rc.data()))}); err != nil {
			return err
		}
		if err := rc.agreed(); err != nil {
			return err
		}
		return rc.goOn(ctx, run)
	})
}

// PlanRecover says what Recover would do, and by which way. tell is given what
// was seen, and what would be lost.
func PlanRecover(ctx context.Context, s *Site, o RecoverOptions, tell func(string)) (Plan, RecoverWay, error) {
	view, closeView := s.view()
	defer closeView()
	rc, done, err := newRecovery(view, o)
	if err != nil {
		return Plan{}, WayNone, err
	}
	defer done()
	rc.ReadOnly()
	if err := rc.begin(ctx); err != nil {
		return Plan{}, WayNone, err
	}
	tell(rc.outlook())
	p, err := rc.plan(ctx)
	return p, rc.way, err
}

// newRecovery leaves the hosts that are away out of the site. The caller calls done.
func newRecovery(s *Site, o RecoverOptions) (*recovery, func(), error) {
	if len(s.connected(s.Cluster.ControlPlanes())) == 0 {
		if err := s.requireMasters(); err != nil {
			return nil, nil, err
		}
	}
	here, done := s.ofTheConnected()
	return &recovery{Site: here, RecoverOptions: o, whole: s.Cluster}, done, nil
}

// begin looks at every member and every data directory, and chooses the way.
func (rc *recovery) begin(ctx context.Context) (err error) {
	if rc.seen, err = rc.seeMasters(ctx); err != nil {
		return err
	}
	rc.now = rc.members.Judge(ctx, etcd.Options{ReadOnly: true, Inputs: true})
	if err := givenUp(rc.whole, rc.seen); err != nil {
		return err
	}
	if rc.note = rc.lastNote(); rc.note != nil && rc.note.Onto && !rc.note.Done {
		return halfDone(*rc.note, "its hosts")
	}
	rc.full = rc.isFull(ctx)
	rc.facts = rc.gather()
	if err := rc.bestBackup(ctx); err != nil {
		return err
	}
	if rc.way, rc.why, err = rc.facts.choose(rc.Way); err != nil {
		return err
	}
	return rc.checkLost(ctx)
}

// outlook is what was seen, and what would be done and lost.
func (rc *recovery) outlook() string {
	var b strings.Builder
	for _, m := range rc.facts.masters {
		fmt.Fprintf(&b, "%-9s%s\n", m.name, m)
	}
	if rc.facts.backup != "" {
		fmt.Fprintf(&b, "backup   %s: revision %d, of %s\n", rc.facts.backup, rc.best.Snapshot.Revision, rc.best.Time.UTC().Format(time.DateTime+"Z"))
	} else {
		fmt.Fprintf(&b, "backup   none that is whole in %s\n", rc.Backup.Directory)
	}
	fmt.Fprintf(&b, "way      %s: %s", cmp.Or(string(rc.way), "none"), rc.why)
	switch rc.way {
	case WaySurvivor:
		b.WriteString("\nlost     nothing that the survivor knows to be committed. If another master led etcd at the end, what was acknowledged in the last moment before the others died (a heartbeat, 0.1 s) may be missing; all since then, where the survivor had been off or cut off before them")
		if len(rc.silent()) > 0 {
			b.WriteString("\n         An etcd that answers nobody was started anew: all of its log is taken, so that what nobody was told to be written may be written")
		}
	case WayBackup:
		fmt.Fprintf(&b, "\nlost     %s", lossOf(rc.best, rc.now, time.Now()))
	}
	if away := namesOf(rc.away()); len(away) > 0 && rc.leavesBehind() {
		fmt.Fprintf(&b, "\nwarning  %s cannot be reached. If they are only off, power them on instead: with them nothing is lost.", strings.Join(away, ", "))
		b.WriteString("\n         Once the cluster is made anew they must not serve: the balancers are told to leave them out, and their data cannot join")
		if rc.whole.Spec.LoadBalancer.Mode == inventory.BalancerExternal {
			b.WriteString("\n         The balancer is yours: have it send clients to no master but those that are left")
		}
	}
	if rc.leavesBehind() {
		for _, w := range lowered(rc.whole, rc.now) {
			b.WriteString("\nwarning  " + w)
		}
	}
	if names := rc.unsaid(); len(names) > 0 {
		fmt.Fprintf(&b, "\nwanted   --lost %s: your word that they are off and stay off", strings.Join(namesOf(rc.away()), ","))
	}
	return b.String()
}

// data is what the outlook says, for programs.
func (rc *recovery) data() phase.Data {
	type master struct {
		Name     string `json:"name"`
		Seen     string `json:"seen"`
		Revision int64  `json:"revision,omitempty"`
	}
	var masters []master
	for _, m := range rc.facts.masters {
		masters = append(masters, master{m.name, m.String(), m.revision})
	}
	return phase.Data{"recover": map[string]any{"way": cmp.Or(rc.way, "none"), "why": rc.why, "masters": masters, "backup": rc.facts.backup, "away": namesOf(rc.away())}}
}

// left says whether a host takes part when the cluster is made anew: masters
// that are whole and here do, or those that the half done recovery began with.
func (rc *recovery) left(ih inventory.Host) bool {
	m := rc.seen[ih.Name]
	switch {
	case ih.Role != inventory.RoleControlPlane:
		return true
	case rc.way == WayFinish:
		return rc.note.has(ih) && !slices.Contains(rc.facts.without, ih.Name)
	}
	return m.lacks == "" && m.marker.CASHA256 != ""
}

// goOn does what was chosen, until every master that is here votes.
func (rc *recovery) goOn(ctx context.Context, run *phase.Runner) error {
	wake := rc.wake()
	if rc.way == WaySurvivor && len(wake) > 0 {
		if err := run.Run(ctx, wake); err != nil {
			return err
		}
		if err := rc.lookAgain(ctx, run); err != nil {
			return err
		}
	}
	switch {
	case rc.way == WayBringBack:
		if err := run.Run(ctx, rc.bringBack()); err != nil {
			return fmt.Errorf("%w\nthe members that were started do not come to a quorum; --way survivor makes the cluster anew of the most advanced of them", err)
		}
		rc.Way = WayNone
		if err := rc.lookAgain(ctx, run); err != nil {
			return err
		}
	case rc.way == WaySurvivor && len(rc.silent()) > 0:
		if err := run.Run(ctx, rc.readAll()); err != nil {
			return err
		}
		if err := rc.lookAgain(ctx, run); err != nil {
			return err
		}
	}
	switch rc.way {
	case WaySurvivor, WayBackup, WayFinish:
		if err := rc.anew(ctx, run); err != nil {
			return err
		}
	case WayClean:
		if err := run.Run(ctx, rc.clean()); err != nil {
			return err
		}
	}
	if given := rc.giveUp(); len(given) > 0 {
		if err := run.Run(ctx, given); err != nil {
			return err
		}
	}
	return rc.join(ctx, run)
}

// lookAgain chooses the way anew when members were started: they tell their
// revision now, or have their quorum.
func (rc *recovery) lookAgain(ctx context.Context, run *phase.Runner) error {
	if err := rc.begin(ctx); err != nil {
		return err
	}
	if err := run.Run(ctx, []phase.Stage{phase.One(says("look-again", rc.outlook(), rc.data()))}); err != nil {
		return err
	}
	if rc.way.remakes() {
		return rc.agreed()
	}
	return nil
}

// anew makes the cluster of one snapshot on the masters that are left.
func (rc *recovery) anew(ctx context.Context, run *phase.Runner) error {
	from := rc.facts.backup
	if rc.way == WaySurvivor {
		if err := run.Run(ctx, []phase.Stage{phase.One(rc.survive(&from))}); err != nil {
			return err
		}
	}
	if len(rc.read)+len(rc.unread) > 0 {
		if err := run.Run(ctx, rc.forget()); err != nil {
			return err
		}
	}
	r, done, err := rc.remake(ctx, from)
	if err != nil {
		return err
	}
	defer done()
	if err := r.begin(ctx); err != nil {
		return err
	}
	return run.Run(ctx, r.stages())
}

// remake is the restore on the masters that are left. The caller calls done.
func (rc *recovery) remake(ctx context.Context, from string) (*restore, func(), error) {
	o := RestoreOptions{From: from, Expected: rc.Expected, Again: true, Backup: rc.Backup}
	if rc.way == WayFinish {
		r, done := rc.remakeFrom(rc.note.source(), o)
		return r, done, nil
	}
	source, err := sourceOf(ctx, o, rc.Cluster.Metadata.Name)
	if err != nil {
		return nil, nil, err
	}
	r, done := rc.remakeFrom(source, o)
	return r, done, nil
}

// source is the snapshot of a recovery that is half done.
func (n restoreNote) source() restoreSource {
	return restoreSource{dir: n.From, file: filepath.Join(n.From, backup.SnapshotFile), sum: n.SHA256, size: n.Bytes, m: n.Manifest}
}

// canFinish says whether what a half done recovery needs of its snapshot is
// still there. Where it is not, nothing has stopped yet: without the snapshot no
// master has come to that.
func (rc *recovery) canFinish() bool {
	if info, err := os.Stat(rc.note.source().file); err == nil && info.Size() == rc.note.Bytes {
		return true
	}
	for _, m := range rc.seen {
		if m.pushed || m.token == rc.note.Token || m.unpacked == rc.note.Token {
			return true
		}
	}
	return false
}

func (rc *recovery) remakeFrom(source restoreSource, o RestoreOptions) (*restore, func()) {
	here, done := rc.withOnly(rc.left)
	r := &restore{apply: &apply{Site: here}, RestoreOptions: o, verb: "recover", source: source, whole: rc.whole, saved: rc.way == WaySurvivor, lost: rc.Lost, before: rc.before}
	if len(rc.facts.without) > 0 {
		r.goesOn, r.before = rc.note, nil
		_ = here.members.Close()
		here.members = here.membersOf(rc.whole)
	}
	for _, ih := range rc.whole.Spec.Hosts {
		if _, in := here.Cluster.HostByName(ih.Name); !in {
			r.away = append(r.away, ih.Name)
		}
	}
	return r, done
}

// join has the bare masters join, by all that apply does, and says what is missing.
func (rc *recovery) join(ctx context.Context, run *phase.Runner) error {
	if without := rc.facts.without; rc.way == WayFinish && len(without) > 0 {
		return run.Run(ctx, []phase.Stage{phase.One(says("missing", fmt.Sprintf("missing: %s, of which the new cluster has a member that does not vote.\nOne that is only off: power it on, then ha-install recover. One that is lost: ha-install replace INVENTORY %s",
			strings.Join(without, ", "), without[0]), phase.Data{"missing": without}))})
	}
	var away, unfit []string
	bare := false
	for _, m := range rc.facts.masters {
		switch {
		case m.away:
			away = append(away, m.name)
		case m.bare, m.returned:
			bare = true
		case m.lacks != "":
			unfit = append(unfit, m.name)
		}
	}
	if bare {
		if err := rc.balancersHere(); err != nil {
			return err
		}
		a, err := newApply(rc.Site)
		if err != nil {
			return err
		}
		defer a.close()
		if err := a.findFirst(ctx); err != nil {
			return err
		}
		if err := run.Run(ctx, a.stages()); err != nil {
			return err
		}
	}
	if missing := append(away, unfit...); len(missing) > 0 {
		return run.Run(ctx, []phase.Stage{phase.One(says("missing", fmt.Sprintf("missing: %s. The cluster has %d of %d masters. Set them up anew, bare, and run ha-install apply: they join.\nOne that comes back as it was cannot merge: ha-install recover takes the old data off it, and has it join",
			strings.Join(missing, ", "), len(rc.facts.masters)-len(missing), len(rc.facts.masters)), phase.Data{"missing": missing}))})
	}
	return nil
}

// says is a phase that only tells something.
func says(name, text string, data phase.Data) phase.Phase {
	return phase.Phase{Name: name, Gate: []phase.Check{{Name: name, Run: func(ctx context.Context) error {
		phase.TellData(ctx, text, data)
		return nil
	}}}}
}

// balancersHere wants all balancers: one that was away would not know those that
// join, and those that are here would not know it, and both hold the VIP.
func (rc *recovery) balancersHere() error {
	for _, ih := range rc.whole.Balancers() {
		if _, here := rc.Cluster.HostByName(ih.Name); !here {
			return errors.New("the balancer " + ih.Name + " cannot be reached: no master joins without it\nrun: bring it back, then ha-install apply")
		}
	}
	return nil
}
