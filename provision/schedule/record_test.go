package schedule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStateIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	if s, err := ReadState(file); err != nil || !s.At.IsZero() {
		t.Errorf("of nothing: %+v, %v", s, err)
	}
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	for _, s := range []State{
		{Since: at, At: at, Outcome: "made one", Last: &Note{Period: at, Host: "cp-1"}, Recorded: at},
		{Since: at, At: at.Add(time.Hour), Err: "two\nlines"},
	} {
		if err := s.Write(file); err != nil {
			t.Fatal(err)
		}
		got, err := ReadState(file)
		if err != nil || !cmp.Equal(got, s) {
			t.Errorf("%+v, %v, want %+v", got, err, s)
		}
		if data, _ := os.ReadFile(file); strings.Count(string(data), "\n") != 1 {
			t.Errorf("not one line: %q", data)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestConfigIsLookedAt(t *testing.T) {
	for name, row := range map[string]struct{ text, why string }{
		"whole":      {`{"cluster":"lab","everyNanoseconds":60000000000,"keep":7,"directory":"/b"}`, ""},
		"no keep":    {`{"cluster":"lab","everyNanoseconds":60000000000,"directory":"/b"}`, "number to keep"},
		"no cluster": {`{}`, "backup schedule INVENTORY"},
		"cut":        {`{"cluster":"l`, "unexpected end"},
	} {
		file := filepath.Join(t.TempDir(), "backup.json")
		if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadConfig(file)
		if (err == nil) != (row.why == "") || err != nil && !strings.Contains(err.Error(), row.why) {
			t.Errorf("%s: %v, want %q", name, err, row.why)
		}
	}
}
