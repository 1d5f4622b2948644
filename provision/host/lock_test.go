package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
)

// operators are connections to one host that share its directories, as two
// runs of the program do.
func operators(t testing.TB, n int) ([]*SSH, *sshd.Server) {
	t.Helper()
	first, s := dial(t, sshd.Options{}, "ops")
	all := []*SSH{first}
	for len(all) < n {
		h := must[*SSH](t)(Dial(testContext(t), configFor(t, s, "ops")))
		t.Cleanup(func() { h.Close() })
		h.stepsDir, h.lockDir, h.journalDir = first.stepsDir, first.lockDir, first.journalDir
		all = append(all, h)
	}
	for _, h := range all {
		h.lockExpiry = 3 * time.Second
	}
	return all, s
}

func who(operation string) Holder {
	return Holder{Operation: operation, Command: "ha-install apply x.yaml", Operator: operation + "@laptop", PID: 4711, Since: time.Unix(1700000000, 0).UTC()}
}

// locked takes a host and raises its epoch.
func locked(t testing.TB, h *SSH, operation, epoch string, hooks LockHooks) Lock {
	t.Helper()
	l := must[Lock](t)(h.Lock(testContext(t), who(operation), hooks))
	if err := l.Raise(testContext(t), epoch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}

// awaitLock takes a host as soon as it is free and says how long that took.
func awaitLock(t testing.TB, h *SSH, operation string) (Lock, time.Duration) {
	t.Helper()
	began := time.Now()
	for {
		l, err := h.Lock(testContext(t), who(operation), LockHooks{})
		var busy *BusyError
		if err == nil {
			t.Cleanup(l.Release)
			return l, time.Since(began)
		}
		if !errors.As(err, &busy) || time.Since(began) > 20*time.Second {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestASecondOperatorIsRefusedAtOnceAndToldWhoHoldsTheHost(t *testing.T) {
	h, _ := operators(t, 2)
	first := locked(t, h[0], "one", "1.one", LockHooks{})
	if first.Epoch() != "0" || !first.Fresh() {
		t.Errorf("epoch %q, fresh %t", first.Epoch(), first.Fresh())
	}
	if by := must[*BusyError](t)(h[1].Holder(testContext(t))); by == nil || by.Holder != who("one") {
		t.Errorf("the holder is %+v", by)
	}
	time.Sleep(1100 * time.Millisecond)
	began := time.Now()
	_, err := h[1].Lock(testContext(t), who("two"), LockHooks{})
	var busy *BusyError
	if !errors.As(err, &busy) || busy.Holder != who("one") || busy.Host != "cp-1" || busy.Age < time.Second {
		t.Errorf("%v: %+v", err, busy)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the refusal took %s", took)
	}
	first.Release()
	if by := must[*BusyError](t)(h[1].Holder(testContext(t))); by != nil {
		t.Errorf("after its release it is held by %+v", by)
	}
	second := must[Lock](t)(h[1].Lock(testContext(t), who("two"), LockHooks{})) // at once
	defer second.Release()
	if second.Epoch() != "1.one" {
		t.Errorf("the epoch is %q: it must outlive its holder", second.Epoch())
	}
}

func TestALockEndsWithItsHolder(t *testing.T) {
	for name, row := range map[string]struct {
		signal  syscall.Signal
		atLeast time.Duration
	}{
		"it is killed": {syscall.SIGKILL, 0},
		"it is frozen": {syscall.SIGSTOP, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, s := operators(t, 1)
			p := newProcess(t, h[0], s)
			p.signal(t, row.signal)
			_, took := awaitLock(t, h[0], "two")
			if took < row.atLeast || took > row.atLeast+3*time.Second {
				t.Errorf("it was free after %s", took)
			}
		})
	}
}

func TestOfManyAtOnceOneWins(t *testing.T) {
	h, _ := operators(t, 6)
	var won atomic.Int32
	var all sync.WaitGroup
	for i, one := range h {
		all.Go(func() {
			_, err := one.Lock(testContext(t), who(fmt.Sprint("op-", i)), LockHooks{})
			var busy *BusyError
			switch {
			case err == nil:
				won.Add(1)
			case !errors.As(err, &busy) || !strings.HasPrefix(busy.Holder.Operation, "op-"):
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of %d hold the host", won.Load(), len(h))
	}
}

// ways are all the ways to change a host; each leaves a trace in dir.
func ways(ctx context.Context, h *SSH, dir string) map[string]error {
	did := map[string]error{}
	_, did["Run"] = h.Run(ctx, Command{Argv: []string{"touch", dir + "/run"}})
	_, did["Run with input"] = h.Run(ctx, Command{Argv: []string{"tee", dir + "/fed"}, Stdin: strings.NewReader("x")})
	_, did["Upload"] = h.Upload(ctx, File{Path: dir + "/new/upload", Mode: 0o600, Content: []byte("x")})
	_, did["MoveAside"] = h.MoveAside(ctx, dir+"/precious")
	_, did["Step"] = h.Step(ctx, Step{ID: "late", Argv: []string{"touch", dir + "/step"}})
	return did
}

// TestASleeperThatWakesUpCanDoNothing is the fence: every way to change a host
// is refused once another operation has raised the epoch.
func TestASleeperThatWakesUpCanDoNothing(t *testing.T) {
	ctx := testContext(t)
	h, s := operators(t, 1)
	sleeper := newProcess(t, h[0], s)
	write(t, sleeper.dir+"/precious", "old")
	sleeper.signal(t, syscall.SIGSTOP)
	second, _ := awaitLock(t, h[0], "two")
	if second.Epoch() != "1.one" {
		t.Errorf("epoch %q", second.Epoch())
	}
	if err := second.Raise(ctx, "2.two"); err != nil {
		t.Fatal(err)
	}
	sleeper.signal(t, syscall.SIGCONT)
	said := sleeper.act(t)
	for _, way := range []string{"told", "Run", "Run with input", "Upload", "MoveAside", "Step"} {
		if want := way + ": cp-1: another operation took over: two@laptop (ha-install apply x.yaml, pid 4711), begun "; !strings.HasPrefix(said[way], want) {
			t.Errorf("%q, want %q", said[way], want)
		}
	}
	left := must[[]os.DirEntry](t)(os.ReadDir(sleeper.dir))
	if len(left) != 1 || left[0].Name() != "precious" {
		t.Errorf("the sleeper changed something: %v", left)
	}
	for way, err := range ways(ctx, h[0], sleeper.dir) {
		if err != nil {
			t.Errorf("the new holder: %s: %v", way, err)
		}
	}
}

// TestAnUploadThatATakeoverOvertakes has its content on the way when another
// operation raises the epoch: it must not be put in place.
func TestAnUploadThatATakeoverOvertakes(t *testing.T) {
	ctx := testContext(t)
	h, _ := operators(t, 2)
	first := locked(t, h[0], "one", "1.one", LockHooks{})
	name := filepath.Join(t.TempDir(), "f")
	_, err := h[0].Upload(ctx, File{
		Path: name, Mode: 0o600, Sum: fmt.Sprintf("%x", sha256.Sum256([]byte("late"))), Size: 4,
		Open: func() (io.ReadCloser, error) {
			first.Release()
			locked(t, h[1], "two", "2.two", LockHooks{})
			return io.NopCloser(strings.NewReader("late")), nil
		},
	})
	var fenced *FencedError
	if !errors.As(err, &fenced) || fenced.By != who("two") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("it was put in place")
	}
}

func TestALostConnectionTakesTheLockAgain(t *testing.T) {
	h, s := operators(t, 2)
	l := locked(t, h[0], "one", "1.one", LockHooks{Fenced: func(e *FencedError) { t.Errorf("%v", e) }})
	before := s.Connections()
	s.Drop()
	deadline := time.Now().Add(10 * time.Second)
	for s.Connections() == before || !holds(h[1], "one") {
		if time.Now().After(deadline) {
			t.Fatal("the lock was not taken again")
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(3 * time.Second) // longer than what was heard before is good for
	if !l.Fresh() {
		t.Error("it has no fresh word of its lock")
	}
	if _, err := h[0].Run(testContext(t), Command{Argv: []string{"true"}}); err != nil {
		t.Error(err)
	}
}

// holds says whether the operation holds the host.
func holds(h *SSH, operation string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	l, err := h.Lock(ctx, who("looker"), LockHooks{})
	if err == nil {
		l.Release()
		return false
	}
	var busy *BusyError
	return errors.As(err, &busy) && busy.Holder.Operation == operation
}

// TestASessionThatIsCutOffIsTakenOver has the host not notice that its operator
// was cut off: the new connection must not wait for the old one's expiry.
func TestASessionThatIsCutOffIsTakenOver(t *testing.T) {
	h, s := operators(t, 1)
	newProcess(t, h[0], s).signal(t, syscall.SIGSTOP)
	began := time.Now()
	l, err := h[0].Lock(testContext(t), who("one"), LockHooks{})
	if err != nil || l.Epoch() != "1.one" || time.Since(began) > 2*time.Second {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
	l.Release()
}

func TestANewHolderWaitsForWhatIsUnderWay(t *testing.T) {
	ctx := testContext(t)
	h, _ := operators(t, 2)
	first := locked(t, h[0], "one", "1.one", LockHooks{})
	dir := t.TempDir()
	done := make(chan error, 2)
	go func() {
		_, err := h[0].Run(ctx, Command{Argv: []string{"sh", "-c", "echo >" + dir + "/begun; sleep 1; echo >" + dir + "/ended"}})
		done <- err
	}()
	feed, endless := io.Pipe() // an operator who sends no more
	defer endless.Close()
	go func() {
		_, err := h[0].Run(ctx, Command{Argv: []string{"sh", "-c", "echo >" + dir + "/fed; cat >" + dir + "/half"}, Stdin: feed})
		done <- err
	}()
	awaitFile(t, dir+"/begun")
	awaitFile(t, dir+"/fed")
	first.Release()
	second, _ := awaitLock(t, h[1], "two")
	if err := second.Raise(ctx, "2.two"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/ended"); err != nil {
		t.Error("the epoch was raised while a command of the last one was at work")
	}
	ends := map[bool]int{}
	for range 2 {
		ends[<-done == nil]++
	}
	if ends[true] != 1 || ends[false] != 1 {
		t.Errorf("one is to end by itself, and the other, which waits for its frozen operator, to be ended: %v", ends)
	}
}

func awaitFile(t testing.TB, name string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := os.Stat(name); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", name)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAHostThatWasSetUpAnewRefuses(t *testing.T) {
	h, _ := operators(t, 1)
	locked(t, h[0], "one", "1.one", LockHooks{})
	if err := os.RemoveAll(h[0].lockDir); err != nil {
		t.Fatal(err)
	}
	var fenced *FencedError
	if _, err := h[0].Run(testContext(t), Command{Argv: []string{"true"}}); !errors.As(err, &fenced) || fenced.By.Operation != "" {
		t.Errorf("%v", err)
	}
}

func TestBeforeIsAskedAndItsAnswerObeyed(t *testing.T) {
	h, _ := operators(t, 1)
	no := errors.New("not now")
	locked(t, h[0], "one", "1.one", LockHooks{Before: func(context.Context) error { return no }})
	name := filepath.Join(t.TempDir(), "f")
	if _, err := h[0].Run(testContext(t), Command{Argv: []string{"touch", name}}); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("it was done all the same")
	}
}

func TestNotesArriveOnceAndInOrderAcrossLostConnections(t *testing.T) {
	h, s := operators(t, 1)
	var newest atomic.Int64
	l := locked(t, h[0], "one", "1.one", LockHooks{Noted: func(n int) { newest.Store(int64(n)) }})
	var want []string
	for n := 1; n <= 60; n++ {
		line := fmt.Sprintf(`{"n":%d,"text":"a \"b\" $(c) \\ 'd' %%s"}`, n)
		want = append(want, line)
		l.Note(n, line, n%10 == 0)
		if n == 30 {
			s.Drop()
		}
	}
	if err := l.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if newest.Load() != 60 {
		t.Errorf("told of %d", newest.Load())
	}
	var got []string
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile(h[0].journalDir + "/one.jsonl")))) {
		if line = strings.TrimSpace(line); len(got) == 0 || got[len(got)-1] != line {
			got = append(got, line)
		}
	}
	seen := map[string]bool{}
	var once []string
	for _, line := range got { // one that was sent again stands there twice
		if !seen[line] {
			seen[line] = true
			once = append(once, line)
		}
	}
	if strings.Join(once, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", once)
	}
	if info := must[os.FileInfo](t)(os.Stat(h[0].journalDir + "/one.jsonl")); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestOldJournalsAreRemoved(t *testing.T) {
	h, _ := operators(t, 1)
	if err := os.MkdirAll(h[0].journalDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		write(t, fmt.Sprintf("%s/20260101t0000%02dz-aaaaaa.jsonl", h[0].journalDir, i), "x\n")
	}
	l := locked(t, h[0], "20270101t000000z-bbbbbb", "1.b", LockHooks{})
	l.Note(1, "{}", true)
	if err := l.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	left := must[[]os.DirEntry](t)(os.ReadDir(h[0].journalDir))
	if len(left) != 51 || left[0].Name() != "20260101t000010z-aaaaaa.jsonl" {
		t.Errorf("%d are left, from %s on", len(left), left[0].Name())
	}
}
