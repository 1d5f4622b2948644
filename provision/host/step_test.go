package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
)

func TestStepGivesOutputAndResult(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "ops")
	var lines []string
	res, err := h.Step(testContext(t), Step{
		ID: "one", Argv: []string{"sh", "-c", `printf 'a $HOME %%h\nb\nc'; echo >&2; echo "$GREETING"`},
		Env:    map[string]string{"GREETING": "it's $(me)"},
		Output: func(l string) { lines = append(lines, l) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "a $HOME %h\nb\nc\nit's $(me)"
	if got := strings.Join(lines, "\n"); got != want || string(res.Output) != want+"\n" {
		t.Errorf("lines %q, output %q", got, res.Output)
	}
	if res.Code != 0 || res.Attached || res.Began.IsZero() || res.Ended.Before(res.Began) {
		t.Errorf("result %+v", res)
	}
}

func TestStepThatFailsGivesItsCodeAndItsLastWords(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	for id, c := range map[string]struct {
		argv   []string
		code   int
		signal string
	}{
		"exit":    {[]string{"sh", "-c", "echo oh no; exit 7"}, 7, ""},
		"killed":  {[]string{"sh", "-c", "echo oh no; kill -9 $$"}, -1, "KILL"},
		"missing": {[]string{"no-such-command"}, 127, ""},
	} {
		res, err := h.Step(testContext(t), Step{ID: id, Argv: c.argv})
		var run *RunError
		if !errors.As(err, &run) {
			t.Fatalf("%s: %v", id, err)
		}
		if run.Code != c.code || run.Signal != c.signal || res.Code != c.code || !strings.Contains(run.Stderr, "no") {
			t.Errorf("%s: result %+v, error %+v", id, res, run)
		}
	}
}

func TestStepRunsOnceForAnID(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	count := filepath.Join(t.TempDir(), "count")
	s := Step{ID: "once", Argv: []string{"sh", "-c", "echo run >>" + count + "; echo done; exit 3"}}
	first, _ := h.Step(ctx, s)
	second, err := h.Step(ctx, s)
	var run *RunError
	if !errors.As(err, &run) || run.Code != 3 {
		t.Errorf("second: %v", err)
	}
	if first.Attached || !second.Attached || string(second.Output) != "done\n" || !second.Began.Equal(first.Began) {
		t.Errorf("first %+v, second %+v", first, second)
	}
	wantFile(t, count, "run\n", 0o644)
}

func TestStepGoesOnWhenTheConnectionDrops(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "ops")
	gate := filepath.Join(t.TempDir(), "gate")
	var lines []string
	res, err := h.Step(testContext(t), Step{
		ID: "drop", Argv: []string{"sh", "-c", "for i in 1 2 3; do echo line $i; until [ -e " + gate + "$i ]; do sleep 0.05; done; done"},
		Output: func(l string) {
			lines = append(lines, l)
			s.Drop()
			if err := os.WriteFile(gate+l[len(l)-1:], nil, 0o600); err != nil {
				t.Error(err)
			}
		},
	})
	if err != nil || res.Code != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := strings.Join(lines, ","); got != "line 1,line 2,line 3" {
		t.Errorf("lines %s", got)
	}
	if s.Connections() < 4 {
		t.Errorf("%d connections; the drops did not happen", s.Connections())
	}
}

func TestStepOutlivesItsWaiterAndIsPickedUp(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	gate := filepath.Join(t.TempDir(), "gate")
	s := Step{ID: "pick-up", Argv: []string{"sh", "-c", "echo begun; until [ -e " + gate + " ]; do sleep 0.05; done; echo ended"}}
	ctx, cancel := context.WithCancel(testContext(t))
	waiting := s
	waiting.Output = func(string) { cancel() }
	res, err := h.Step(ctx, waiting)
	if !errors.Is(err, context.Canceled) || string(res.Output) != "begun\n" {
		t.Fatalf("%q, %v", res.Output, err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	res, err = h.Step(testContext(t), s)
	if err != nil || !res.Attached || string(res.Output) != "begun\nended\n" {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStepWhoseHostRebooted(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	dir := filepath.Join(h.stepsDir, "old")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "began"), []byte("another-boot 1700000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := h.Step(testContext(t), Step{ID: "old", Argv: []string{"true"}})
	var reboot *RebootError
	if !errors.As(err, &reboot) || reboot.Before != "another-boot" || reboot.After != h.Facts().BootID {
		t.Errorf("%v", err)
	}
}

func TestStepThatLeftNoResult(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	res, err := h.Step(testContext(t), Step{ID: "gone", Argv: []string{"sh", "-c", "echo bye; rm " + h.stepsDir + "/gone/end"}})
	var lost *StepLostError
	if !errors.As(err, &lost) || string(res.Output) != "bye\n" {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStepPromptly(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	began := time.Now()
	if _, err := h.Step(testContext(t), Step{ID: "quick", Argv: []string{"sleep", "0.2"}}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a step of 0.2 s took %s", took)
	}
}
