package etcd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
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
