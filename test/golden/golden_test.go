package golden

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// recorder is a test that is only written down.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, v ...any) {
	r.said = append(r.said, fmt.Sprintf(format, v...))
}

func (r *recorder) Fatalf(format string, v ...any) {
	r.Errorf(format, v...)
	panic(r)
}

func check(t *testing.T, name, got string) string {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		Check(r, name, []byte(got))
	}()
	return strings.Join(r.said, "\n")
}

func TestCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	if said := check(t, "sub/new.txt", "one\n"); !strings.Contains(said, "-update writes it") {
		t.Errorf("a missing file: %q", said)
	}
	*update = true
	said := check(t, "sub/new.txt", "one\n")
	*update = false
	if content, err := os.ReadFile("testdata/sub/new.txt"); said != "" || err != nil || string(content) != "one\n" {
		t.Errorf("-update wrote %q, %v, %q", content, err, said)
	}
	if said := check(t, "sub/new.txt", "one\n"); said != "" {
		t.Errorf("an equal file: %q", said)
	}
	if said := check(t, "sub/new.txt", "two\n"); !strings.Contains(said, "one") || !strings.Contains(said, "two") {
		t.Errorf("another content: %q", said)
	}
}
