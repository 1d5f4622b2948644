package provision

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// madeLog is a log as etcd writes it, of as many entries; marked says up to which each
// of its states marks them as committed.
func madeLog(t *testing.T, entries, marked uint64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "wal")
	w, err := wal.Create(zap.NewNop(), dir, []byte("metadata"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := uint64(1); i <= entries; i++ {
		e := raftpb.Entry{Term: 7, Index: i, Data: bytes.Repeat([]byte{byte(i)}, int(i)*13)} // of all paddings
		if err := w.Save(raftpb.HardState{Term: 7, Vote: 1<<63 + 5, Commit: min(i-1, marked)}, []raftpb.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func wholeLog(t *testing.T, dir string) (string, error) {
	t.Helper()
	out, err := exec.Command("perl", "-e", wholeLogScript, dir).CombinedOutput()
	return string(out), err
}

// TestAllOfALogIsMarked holds the script against etcd's own reader.
func TestAllOfALogIsMarked(t *testing.T) {
	for _, test := range []struct {
		entries, marked uint64
		said            string
	}{
		{1, 0, "entry 1, 0 is the last"}, {2, 9, "entry 2, 1 is the last"}, {30, 3, "entry 30, 3 is the last"}, {300, 300, "entry 300, 299 is the last"},
	} {
		dir := madeLog(t, test.entries, test.marked)
		if out, err := wholeLog(t, dir); err != nil || !strings.Contains(out, test.said) {
			t.Errorf("%d entries, %d marked: %q, %v", test.entries, test.marked, out, err)
		}
		if out, err := wholeLog(t, dir); err != nil || out != "all of its log is marked as committed\n" {
			t.Errorf("the second time: %q, %v", out, err)
		}
		w, err := wal.Open(zap.NewNop(), dir, walpb.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		_, state, read, err := w.ReadAll()
		w.Close()
		if want := (raftpb.HardState{Term: 7, Vote: 1<<63 + 5, Commit: test.entries}); err != nil || state != want || uint64(len(read)) != test.entries {
			t.Errorf("%d entries: etcd reads %d, state %+v, %v, want %+v", test.entries, len(read), state, err, want)
		}
	}
}

// TestALogThatIsTornIsLeftAlone: etcd itself repairs it, or not.
func TestALogThatIsTornIsLeftAlone(t *testing.T) {
	for says, tear := range map[string]func([]byte, int) []byte{
		"the last entry is of zeros":      func(all []byte, end int) []byte { clear(all[end-600 : end]); return all },
		"its last record has other bytes": func(all []byte, end int) []byte { all[end-1] ^= 1; return all },
		"it ends within an entry":         func(all []byte, end int) []byte { return all[:end-100] },
		"it is empty":                     func([]byte, int) []byte { return nil },
	} {
		dir := madeLog(t, 50, 40)
		files, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		all, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		// The last record is a state of few bytes, an entry is before it.
		torn := tear(all, len(bytes.TrimRight(all, "\x00")))
		if err := os.WriteFile(files[0], torn, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := wholeLog(t, dir)
		after, read := os.ReadFile(files[0])
		if err == nil || read != nil || !bytes.Equal(after, torn) {
			t.Errorf("%s: %q, %v; changed: %t", says, out, err, !bytes.Equal(after, torn))
		}
	}
}
