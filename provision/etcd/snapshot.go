package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"
)

// SnapshotInfo describes a snapshot whose trailer was verified.
type SnapshotInfo struct {
	Size    int64    `json:"size"`   // in bytes, trailer included
	SHA256  string   `json:"sha256"` // of the database, as the trailer says
	Host    string   `json:"host,omitempty"`
	Member  MemberID `json:"member,omitempty"`
	Cluster MemberID `json:"cluster,omitempty"`
	// Revision is what the member had when the snapshot began, or a later one.
	Revision int64  `json:"revision,omitempty"`
	Version  string `json:"version,omitempty"` // of the member
}

// Snapshot streams a snapshot to w and verifies it on the way. With an empty
// host it is taken from a follower, else from a leader. It works without
// quorum; whether that is wanted is Project's question.
func (m *Members) Snapshot(ctx context.Context, host string, w io.Writer) (SnapshotInfo, error) {
	seen := m.answering(ctx, nil)
	seen = slices.DeleteFunc(seen, func(s seenMember) bool {
		return s.status.Learner || host != "" && s.target.Name != host
	})
	slices.SortStableFunc(seen, func(x, y seenMember) int {
		switch {
		case x.leads() == y.leads():
			return 0
		case x.leads():
			return 1
		default:
			return -1
		}
	})
	if len(seen) == 0 {
		return SnapshotInfo{}, fmt.Errorf("snapshot %s: no voter answers", host)
	}
	s := seen[0]
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(snapshotIdle, func() {
		cancel(fmt.Errorf("nothing came for %s", snapshotIdle))
	})
	defer idle.Stop()
	r, err := s.conn.maint.SnapshotWithVersion(ctx)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("%s: snapshot: %w", s.target.Name, cmp.Or(context.Cause(ctx), err))
	}
	defer r.Snapshot.Close()
	info, err := VerifySnapshot(io.TeeReader(alive{r.Snapshot, idle}, w))
	info.Host, info.Member, info.Cluster = s.target.Name, s.status.MemberID, s.status.ClusterID
	info.Revision, info.Version = s.status.Revision, s.status.Version
	if err != nil {
		return info, fmt.Errorf("%s: snapshot: %w", s.target.Name, cmp.Or(context.Cause(ctx), err))
	}
	return info, nil
}

// snapshotIdle is how long a snapshot may come to a halt: a large one may take
// minutes, but a member that hangs must not hold us for ever.
const snapshotIdle = 30 * time.Second

// alive puts the idle timer off with each read.
type alive struct {
	io.Reader
	idle *time.Timer
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.idle.Reset(snapshotIdle)
	}
	return n, err
}

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
