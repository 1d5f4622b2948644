package provision

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// Operation says who runs what. No secret may be in it.
type Operation struct {
	Command         string // "ha-install apply prod.yaml"
	Operator        string // "ops@laptop"
	Version         string // of the program
	InventorySHA256 string
	ExitCode        func(error) int // of the program, for the journal; may be nil
}

// errReadOnly means that a plan tried to change something: a defect of ours.
var errReadOnly = errors.New("this run only looks, and was about to change the cluster")

// LockedError means that another operation is under way; nothing was changed.
type LockedError struct {
	Cluster string
	Holder  host.Holder
	Host    string        // where it was met
	Age     time.Duration // since it began
	Err     error         // *host.BusyError or *host.WorkingError
}

func (e *LockedError) Error() string {
	var working *host.WorkingError
	if errors.As(e.Err, &working) {
		return fmt.Sprintf("cluster %s: %s\nwhy: two operations at a time would undo each other; nothing was changed\nrun: wait until they have ended, or end them on %s, and run the same command again",
			e.Cluster, working, working.Host)
	}
	return fmt.Sprintf("cluster %s is held by %s, who runs %q (pid %d) for %s; met on %s\nwhy: two operations at a time would undo each other; nothing was changed\nrun: wait, ha-install history shows how far it is; if that operator has died or is cut off, the lock frees itself within %s",
		e.Cluster, cmp.Or(e.Holder.Operator, "somebody"), e.Holder.Command, e.Holder.PID, e.Age, e.Host, host.LockExpiry)
}

func (e *LockedError) Unwrap() error { return e.Err }

// lock is held on every host of the site. Masters decide: it is ours while a
// majority of them says so.
type lock struct {
	id      string
	who     host.Holder
	epoch   int
	masters []string
	journal *journal
	fence   context.CancelCauseFunc // ends the operation

	mu     sync.Mutex
	held   map[string]host.Lock // by host
	fenced *host.FencedError
}

// operate runs the one operation that the cluster has at a time: the lock is
// taken on every host before do, and given back after it; what run says
// meanwhile is kept in the masters' journals. When another operation takes
// over, do's context ends and the error is *host.FencedError.
func (s *Site) operate(ctx context.Context, verb string, run *phase.Runner, do func(context.Context) error) error {
	ctx, fence := context.WithCancelCause(ctx)
	defer fence(nil)
	l, err := s.takeLock(ctx, verb, fence)
	if err != nil {
		return err
	}
	defer l.release()
	s.lock = l
	defer func() { s.lock = nil }()
	l.journal.begin(s, l.who, l.epoch)
	l.journal.listen(run)
	if err = s.notHalfRestored(ctx, verb); err == nil {
		err = do(ctx)
	}
	if lost := l.lost(); lost != nil && err != nil {
		err = lost
	}
	l.journal.end(ctx, s, run.Tally(), err)
	return err
}

// mayAct is asked before every change, of a host, of members and of what an API
// server holds. What only looks has no lock and needs none.
func (s *Site) mayAct(ctx context.Context) error {
	if s.readOnly {
		return errReadOnly
	}
	if s.lock == nil {
		return nil
	}
	return s.lock.confirm(ctx)
}

// takeLock takes all hosts or none. The first master, by address, is taken
// alone: of two operators who begin at the same moment, one comes through.
func (s *Site) takeLock(ctx context.Context, verb string, fence context.CancelCauseFunc) (*lock, error) {
	masters := s.Cluster.ControlPlanes()
	slices.SortFunc(masters, func(a, b inventory.Host) int { return a.IP().Compare(b.IP()) })
	l := &lock{id: newOperationID(), journal: newJournal(), fence: fence, held: map[string]host.Lock{}}
	for _, h := range masters {
		l.masters = append(l.masters, h.Name)
	}
	l.who = s.holder(l.id, verb, os.Getpid())
	take := func(ctx context.Context, ih inventory.Host, h host.Host) error {
		held, err := h.Lock(ctx, l.who, host.LockHooks{Before: l.confirm, Fenced: l.takenOver, Noted: l.journal.heard})
		if err == nil {
			l.mu.Lock()
			l.held[ih.Name] = held
			l.mu.Unlock()
		}
		return err
	}
	others := slices.DeleteFunc(slices.Clone(s.Cluster.Spec.Hosts), func(h inventory.Host) bool { return h.Name == masters[0].Name })
	err := s.onAll(ctx, masters[:1], take)
	if err == nil {
		err = s.onAll(ctx, others, take)
	}
	if err == nil {
		l.epoch = l.nextEpoch()
		epoch := fmt.Sprintf("%d.%s", l.epoch, l.id)
		err = s.onAll(ctx, s.Cluster.Spec.Hosts, func(ctx context.Context, ih inventory.Host, _ host.Host) error {
			return l.held[ih.Name].Raise(ctx, epoch)
		})
	}
	if err != nil {
		l.release()
		return nil, s.lockError(err)
	}
	for _, name := range l.masters {
		l.journal.to = append(l.journal.to, l.held[name])
	}
	return l, nil
}

func (s *Site) lockError(err error) error {
	var busy *host.BusyError
	var working *host.WorkingError
	switch {
	case errors.As(err, &busy):
		return &LockedError{Cluster: s.Cluster.Metadata.Name, Holder: busy.Holder, Host: busy.Host, Age: busy.Age, Err: err}
	case errors.As(err, &working):
		return &LockedError{Cluster: s.Cluster.Metadata.Name, Host: working.Host, Err: err}
	}
	return err
}

// newOperationID sorts by time and is met only once.
func newOperationID() string {
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails
	return time.Now().UTC().Format("20060102t150405z") + "-" + hex.EncodeToString(random[:])
}

// nextEpoch is above that of every host: a host that was away when the last
// one was raised must not make it go backwards.
func (l *lock) nextEpoch() int {
	highest := 0
	for _, h := range l.held {
		number, _, _ := strings.Cut(h.Epoch(), ".")
		if n, err := strconv.Atoi(number); err == nil {
			highest = max(highest, n)
		}
	}
	return highest + 1
}

// takenOver is told by a host that another operation has raised its epoch.
func (l *lock) takenOver(e *host.FencedError) {
	l.mu.Lock()
	if l.fenced == nil {
		l.fenced = e
	}
	l.mu.Unlock()
	l.fence(e)
}

// lost is why the lock is not ours any more; nil while it may be.
func (l *lock) lost() *host.FencedError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced
}

const (
	// confirmPatience is for masters that are on their way back.
	confirmPatience = time.Minute
	confirmPoll     = 50 * time.Millisecond
)

// confirm passes while a majority of the masters has said so lately that the
// lock cannot be another's yet. One that was frozen or suspended finds what
// was said too old, and waits for a fresh word.
func (l *lock) confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	for {
		if lost := l.lost(); lost != nil {
			return lost
		}
		stale := l.stale()
		if 2*len(stale) < len(l.masters) {
			l.journal.known(ctx)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the lock is not confirmed by a majority of the masters, %s do not answer: %w: %w", strings.Join(stale, ", "), host.ErrConnectionLost, ctx.Err())
		case <-time.After(confirmPoll):
		}
	}
}

// stale are the masters that have not confirmed the lock lately.
func (l *lock) stale() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.masters), func(name string) bool { return l.held[name] != nil && l.held[name].Fresh() })
}

// release gives all hosts free.
func (l *lock) release() {
	var all sync.WaitGroup
	for _, h := range l.held {
		all.Go(h.Release)
	}
	all.Wait()
}
