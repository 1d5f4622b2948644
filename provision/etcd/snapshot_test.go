package etcd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// snapshotFile is a database's shape with a valid trailer.
func snapshotFile(pages int) []byte {
	db := make([]byte, pages*4096)
	for i := range db {
		db[i] = byte(i * 7)
	}
	binary.LittleEndian.PutUint32(db[16:], boltMagic)
	sum := sha256.Sum256(db)
	return append(db, sum[:]...)
}

func TestVerifySnapshot(t *testing.T) {
	good := snapshotFile(200)
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	empty := sha256.Sum256(nil)
	for _, tt := range []struct {
		name string
		file []byte
		ok   bool
	}{
		{"a whole snapshot is good", good, true},
		{"a small one is good", snapshotFile(1), true},
		{"an empty file is damaged", nil, false},
		{"a trailer alone is damaged", empty[:], false},
		{"one byte less is damaged", good[:len(good)-1], false},
		{"without its trailer it is damaged", good[:len(good)-32], false},
		{"half of it is damaged", good[:len(good)/2], false},
		{"half of it, at a page's end, is damaged", good[:100*4096+32], false},
		{"a bit flipped in the data is damaged", flip(300_000), false},
		{"a bit flipped in the trailer is damaged", flip(len(good) - 1), false},
		{"a bit flipped in the head is damaged", flip(17), false},
		{"one byte more is damaged", append(bytes.Clone(good), 0), false},
		{"a sum over something else than a database is damaged", func() []byte {
			db := make([]byte, 4096)
			sum := sha256.Sum256(db)
			return append(db, sum[:]...)
		}(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.file), iotest.OneByteReader(bytes.NewReader(tt.file)), iotest.DataErrReader(bytes.NewReader(tt.file))} {
				info, err := VerifySnapshot(r)
				if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrCorruptSnapshot) {
					t.Errorf("%v", err)
				}
				if info.Size != int64(len(tt.file)) {
					t.Errorf("size %d, want %d", info.Size, len(tt.file))
				}
			}
		})
	}
	cut := errors.New("connection lost")
	if _, err := VerifySnapshot(iotest.ErrReader(cut)); !errors.Is(err, cut) || errors.Is(err, ErrCorruptSnapshot) {
		t.Errorf("a read error is %v", err)
	}
}

func TestSnapshotSources(t *testing.T) {
	behind := func(i int, applied uint64) fault {
		return edit(i, func(v *View) { v.First.AppliedIndex, v.Last.AppliedIndex = applied, applied })
	}
	corrupt := edit(3, func(v *View) { v.Last.ClusterID = 0xbad })
	lost := func(f ...fault) []fault { return append(f, noWrite) }
	for _, tt := range []struct {
		name   string
		n      int
		faults []fault
		want   string // hosts, the best first; "" for a refusal
	}{
		{"a follower before the leader", 3, nil, "cp-2 cp-3 cp-1"},
		{"the only member", 1, nil, "cp-1"},
		{"a dead follower is none", 3, []fault{dead(2)}, "cp-3 cp-1"},
		{"a hung follower is none", 3, []fault{hung(3)}, "cp-2 cp-1"},
		{"of five the one that has applied most", 5, []fault{behind(4, 61050)}, "cp-4 cp-2 cp-3 cp-5 cp-1"},
		{"one that lags behind is none while there is quorum", 3, []fault{behind(2, 60000)}, "cp-3 cp-1"},
		{"a learner is none", 4, []fault{learnerAt(4, 61042)}, "cp-2 cp-3 cp-1"},
		{"no follower is healthy: the leader", 2, []fault{learnerAt(2, 61042)}, "cp-1"},
		{"one without room comes last: it has all data", 3, []fault{alarm(2, "NOSPACE")}, "cp-3 cp-1 cp-2"},
		{"one whose data differ is none, and makes it a split", 3, []fault{alarm(2, "CORRUPT")}, ""},
		{"one of another cluster makes it a split", 3, []fault{corrupt}, ""},
		{"without quorum the survivor", 3, lost(leaderless(1), dead(2), dead(3)), "cp-1"},
		{"without quorum the most advanced of two", 5, lost(leaderless(1), leaderless(2), dead(3), dead(4), dead(5), behind(2, 61050)), "cp-2 cp-1"},
		{"nobody answers", 3, lost(dead(1), dead(2), dead(3)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Assess(observed(tt.n, tt.faults...))
			sources, err := SnapshotSources(v)
			var names []string
			for _, m := range sources {
				names = append(names, m.Host)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("%s: %q, want %q", v.State, got, tt.want)
			}
			var q *QuorumError
			if (err == nil) != (tt.want != "") || err != nil && (!errors.As(err, &q) || q.Reason == "") {
				t.Errorf("%v", err)
			}
		})
	}
}
