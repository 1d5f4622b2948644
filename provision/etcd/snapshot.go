package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// SnapshotInfo describes a snapshot whose trailer was verified.
type SnapshotInfo struct {
	Size   int64  `json:"size"`   // in bytes, trailer included
	SHA256 string `json:"sha256"` // of the database, as the trailer says
}

// SnapshotSources orders the voters that a snapshot may be taken from, the best
// first: healthy followers before the leader, and the most advanced of equals.
// Without proven quorum it is whoever answers, the most advanced first; what
// such a snapshot lacks nobody knows, so it has to be labelled. The error is a
// *QuorumError: nobody answers, or the members disagree about what the cluster is.
func SnapshotSources(v Verdict) ([]Member, error) {
	if r := byState(v); v.State == Split {
		return nil, refused(v, Decision{Op: Operation{Kind: OpSnapshot}, Before: v.Numbers, After: v.Numbers, Reason: r.reason, Run: r.run, Definite: true})
	}
	sources := v.only(func(m Member) bool {
		return m.Role == Voter && m.Host != "" && snapshotRank(v, m) > 0
	})
	slices.SortStableFunc(sources, func(x, y Member) int {
		return cmp.Or(cmp.Compare(snapshotRank(v, x), snapshotRank(v, y)), cmp.Compare(y.AppliedIndex, x.AppliedIndex))
	})
	if len(sources) == 0 {
		return nil, refused(v, Decision{Op: Operation{Kind: OpSnapshot}, Before: v.Numbers, After: v.Numbers, Reason: "no voter answers that could give one", Run: seeStatus})
	}
	return sources, nil
}

// snapshotRank sorts voters as sources of a snapshot; 0 for none. A member
// that has no room left has all its data; one that has diverged has others'.
func snapshotRank(v Verdict, m Member) int {
	switch m.State {
	case MemberHealthy, MemberAlarm:
	case MemberIsolated, MemberLagging, MemberLate, MemberFailing:
		if v.State.HasQuorum() {
			return 0 // it may lack what the majority has acknowledged
		}
	default:
		return 0
	}
	switch {
	case !v.State.HasQuorum():
		return 1
	case m.State == MemberAlarm:
		return 3
	case m.Leader:
		return 2
	}
	return 1
}

// SnapshotStream is a snapshot on its way. Reading it to io.EOF says nothing
// about its bytes: give them to VerifySnapshot. The caller closes it.
type SnapshotStream struct {
	io.ReadCloser
	Host    string
	Member  MemberID
	Cluster MemberID
	Size    int64 // of the database when it was asked for, in bytes; it may have grown
	Leader  bool
	Version string // of the member

	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   *time.Timer
}

// Snapshot asks the member on a host of the inventory for a snapshot. It works
// without quorum; whom to ask is the question of SnapshotSources. It is given
// up when nothing comes for half a minute, or when ctx ends.
func (m *Members) Snapshot(ctx context.Context, host string) (*SnapshotStream, error) {
	i := slices.IndexFunc(m.targets, func(t Target) bool { return t.Name == host })
	if i < 0 {
		return nil, fmt.Errorf("%s: snapshot: no member of the inventory", host)
	}
	finding, found := context.WithTimeout(ctx, observeBudget)
	defer found()
	view := View{Host: host}
	c, status := m.find(finding, m.targets[i], &view)
	if c == nil {
		return nil, fmt.Errorf("%s: snapshot: %s", host, ownFailure(&view))
	}
	if status.Learner {
		return nil, fmt.Errorf("%s: snapshot: it is a learner, and may lack what the others have", host)
	}
	s := &SnapshotStream{
		Host: host, Member: status.MemberID, Cluster: status.ClusterID, Size: status.DBSize,
		Leader: status.Leader == status.MemberID, Version: status.Version,
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.idle = time.AfterFunc(snapshotIdle, func() { s.cancel(fmt.Errorf("nothing came for %s", snapshotIdle)) })
	r, err := c.maint.SnapshotWithVersion(s.ctx)
	if err != nil {
		defer s.end()
		return nil, fmt.Errorf("%s: snapshot: %w", host, s.cause(err))
	}
	s.ReadCloser = r.Snapshot
	return s, nil
}

// Read puts the idle timer off with each read.
func (s *SnapshotStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.idle.Reset(snapshotIdle)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.cause(err)
	}
	return n, err
}

// Close ends the stream, wherever it is.
func (s *SnapshotStream) Close() error {
	s.end()
	return s.ReadCloser.Close()
}

func (s *SnapshotStream) end() {
	s.idle.Stop()
	s.cancel(nil)
}

// cause is why the stream was given up, where it was; the transport says of
// that only that it was cancelled.
func (s *SnapshotStream) cause(err error) error { return cmp.Or(context.Cause(s.ctx), err) }

// snapshotIdle is how long a snapshot may come to a halt: a large one may take
// minutes, but a member that hangs must not hold us for ever.
const snapshotIdle = 30 * time.Second

// boltMagic opens both meta pages of the database, 16 bytes into the page.
const boltMagic = 0xED0CDAED

// VerifySnapshot reads a snapshot to its end and checks that it is a database
// followed by that database's SHA-256; anything else is ErrCorruptSnapshot.
// etcdutl's own status check passes damaged files.
func VerifySnapshot(r io.Reader) (SnapshotInfo, error) {
	sum := sha256.New()
	var size int64
	var head, tail []byte
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		size += int64(n)
		if need := 20 - len(head); need > 0 {
			head = append(head, buf[:min(need, n)]...)
		}
		tail = append(tail, buf[:n]...)
		if over := len(tail) - sha256.Size; over > 0 {
			sum.Write(tail[:over])
			tail = append(tail[:0], tail[over:]...)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return SnapshotInfo{Size: size}, fmt.Errorf("read snapshot: %w", err)
		}
	}
	info := SnapshotInfo{Size: size, SHA256: hex.EncodeToString(tail)}
	switch {
	case size <= sha256.Size:
		return info, fmt.Errorf("%w: %d bytes hold no database", ErrCorruptSnapshot, size)
	case size%512 != sha256.Size:
		return info, fmt.Errorf("%w: %d bytes are not whole pages and a SHA-256", ErrCorruptSnapshot, size)
	case len(head) < 20 || binary.LittleEndian.Uint32(head[16:]) != boltMagic:
		return info, fmt.Errorf("%w: it does not begin like an etcd database", ErrCorruptSnapshot)
	case !bytes.Equal(sum.Sum(nil), tail):
		return info, fmt.Errorf("%w: its SHA-256 is %x, its trailer says %x", ErrCorruptSnapshot, sum.Sum(nil), tail)
	}
	return info, nil
}
