package host

import (
	"bufio"
	"context"
	_ "embed" // for the scripts
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	//go:embed scripts/hold.sh
	holdScript string
	//go:embed scripts/holder.sh
	holderScript string
	//go:embed scripts/fence.sh
	fenceScript string
)

const (
	// retake is how often a lost session is made anew.
	retake = time.Second
	// relock bounds the making of a session, the answer included.
	relock = 20 * time.Second
)

// hold is a Lock over SSH: a script on the host that holds it while it hears
// from us.
type hold struct {
	h     *SSH
	who   Holder
	hooks LockHooks
	stop  context.CancelFunc
	ended chan struct{} // closed when the last session is over

	mu      sync.Mutex
	epoch   string // as found
	raised  string // as we set it; "" before
	heard   time.Time
	fenced  bool
	notes   []note        // not acknowledged yet
	sent    int           // of notes, on the present session
	wake    chan struct{} // there are notes
	orders  chan string   // lines to be said
	answers chan string   // to orders; "lost" when the session ended instead
}

type note struct {
	n    int
	line string
	sync bool
}

// Lock is Locker's.
func (h *SSH) Lock(ctx context.Context, who Holder, hooks LockHooks) (Lock, error) {
	if !stepID.MatchString(who.Operation) {
		return nil, fmt.Errorf("%s: operation %q: an ID is made of a-z, 0-9 and '-'", h.cfg.Name, who.Operation)
	}
	d := &hold{h: h, who: who, hooks: hooks, ended: make(chan struct{}), wake: make(chan struct{}, 1), orders: make(chan string, 1), answers: make(chan string, 1)}
	s, epoch, err := d.take(ctx)
	if err != nil {
		return nil, err
	}
	d.epoch = epoch
	// It outlives an interrupt: what is taken back then is taken back under it.
	staying, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	go d.stay(staying, s)
	return d, nil
}

// take makes a session and has it take the lock.
func (d *hold) take(ctx context.Context) (*holdSession, string, error) {
	ctx, cancel := context.WithTimeout(ctx, relock)
	defer cancel()
	name := d.h.cfg.Name
	text, err := json.Marshal(d.who)
	if err != nil {
		return nil, "", err
	}
	var s *holdSession
	err = d.h.idempotent(ctx, func(l *link) (err error) {
		s, err = d.h.openHold(ctx, l)
		return err
	})
	if err != nil {
		return nil, "", d.h.named([]string{"take the lock"}, err)
	}
	asked := time.Now()
	var answer string
	if err = s.say("take " + d.who.Operation + " " + string(text)); err == nil {
		answer, err = s.hear(ctx)
	}
	word, rest, _ := strings.Cut(answer, " ")
	switch {
	case err != nil:
	case word == "held":
		d.mu.Lock()
		d.heard = asked
		d.mu.Unlock()
		return s, rest, nil
	case word == "busy":
		err = parseBusy(name, rest)
	default:
		err = fmt.Errorf("%s: lock: cannot understand the answer %.80q", name, answer)
	}
	s.end()
	var busy *BusyError
	if !errors.As(err, &busy) {
		err = d.h.named([]string{"take the lock"}, err)
	}
	return nil, "", err
}

// parseBusy reads "SECONDS HOLDER".
func parseBusy(host, text string) *BusyError {
	seconds, who, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(seconds) // 0 will do
	return &BusyError{Host: host, Holder: parseHolder(who), Age: time.Duration(n) * time.Second}
}

// Holder is Locker's.
func (h *SSH) Holder(ctx context.Context) (*BusyError, error) {
	out, err := h.Query(ctx, script(holderScript, "ha-install-holder", h.lockDir)...)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return parseBusy(h.cfg.Name, string(out)), nil
}

func parseHolder(text string) Holder {
	var who Holder
	_ = json.Unmarshal([]byte(strings.TrimSpace(text)), &who) // one that is cut off names nobody
	return who
}

// stay keeps the lock over as many sessions as it takes.
func (d *hold) stay(ctx context.Context, s *holdSession) {
	defer close(d.ended)
	for {
		if s != nil {
			d.attend(ctx, s)
			s.close(ctx)
			d.answer("lost")
		}
		if ctx.Err() != nil {
			return
		}
		next, epoch, err := d.take(ctx)
		var busy *BusyError
		if errors.As(err, &busy) {
			epoch = d.now(ctx)
		}
		switch {
		case (err == nil || busy != nil) && epoch != d.current():
			if next != nil {
				next.end()
			}
			d.lose(ctx)
			return
		case err != nil: // out of reach, or held by one who may yet let go
			s = nil
			if !wait(ctx, retake) {
				return
			}
		default:
			s = next
		}
	}
}

// now is the host's epoch while another holds it, who may have raised it or
// not; ours when it cannot be read.
func (d *hold) now(ctx context.Context) string {
	epoch, err := d.h.ReadFile(ctx, d.h.lockDir+"/epoch")
	if err != nil {
		return d.current()
	}
	return strings.TrimSpace(string(epoch))
}

// current is what the host's epoch must be while nobody took over.
func (d *hold) current() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raised != "" {
		return d.raised
	}
	return d.epoch
}

// lose is told that the host has another epoch.
func (d *hold) lose(ctx context.Context) {
	by, err := d.h.ReadFile(ctx, d.h.lockDir+"/by")
	if err != nil {
		by = nil // it is fenced by whomever
	}
	d.markFenced(&FencedError{Host: d.h.cfg.Name, By: parseHolder(string(by))})
}

func (d *hold) markFenced(e *FencedError) {
	d.mu.Lock()
	again := d.fenced
	d.fenced = true
	d.mu.Unlock()
	if !again && d.hooks.Fenced != nil {
		d.hooks.Fenced(e)
	}
}

// attend speaks with one session until it ends.
func (d *hold) attend(ctx context.Context, s *holdSession) {
	d.mu.Lock()
	d.sent = 0
	d.mu.Unlock()
	beats := time.NewTicker(d.h.lockExpiry / beatsToExpiry)
	defer beats.Stop()
	asked := map[string]time.Time{}
	lines := s.sender()
	defer close(lines)
	for n := 1; ; {
		for _, line := range d.unsent() {
			lines <- line
		}
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case order := <-d.orders:
			lines <- order
		case now := <-beats.C:
			if len(asked) < silentBeats {
				beat := "beat " + strconv.Itoa(n)
				asked[beat] = now
				lines <- beat
				n++
			}
		case line, ok := <-s.lines:
			if !ok {
				return
			}
			d.heed(line, asked)
		}
	}
}

// silentBeats are sent to a host that does not answer.
const silentBeats = 10

// heed takes one answer.
func (d *hold) heed(line string, asked map[string]time.Time) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "beat":
		at, ok := asked[line]
		delete(asked, line)
		d.mu.Lock()
		if ok && at.After(d.heard) {
			d.heard = at
		}
		d.mu.Unlock()
	case "noted":
		n, err := strconv.Atoi(rest)
		if err == nil {
			d.noted(n)
		}
	case "raised", "working":
		d.answer(line)
	}
}

func (d *hold) answer(line string) {
	select {
	case d.answers <- line:
	default: // nobody waits any more
	}
}

// noted drops what is acknowledged: answers come in the order of the notes.
func (d *hold) noted(n int) {
	d.mu.Lock()
	for len(d.notes) > 0 && d.notes[0].n <= n {
		d.notes = d.notes[1:]
		d.sent = max(0, d.sent-1)
	}
	d.mu.Unlock()
	if d.hooks.Noted != nil {
		d.hooks.Noted(n)
	}
}

// unsent are the lines that this session has not been sent.
func (d *hold) unsent() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for _, n := range d.notes[d.sent:] {
		how := "-"
		if n.sync {
			how = "sync"
		}
		lines = append(lines, fmt.Sprintf("note %d %s %s", n.n, how, n.line))
	}
	d.sent = len(d.notes)
	return lines
}

// holdSession is one run of the script.
type holdSession struct {
	in    io.WriteCloser
	lines chan string // what it says; closed at its end
	end   func()
}

// openHold starts the script on one connection.
func (h *SSH) openHold(ctx context.Context, l *link) (*holdSession, error) {
	argv := script(holdScript, "ha-install-hold", h.lockDir, h.journalDir,
		strconv.Itoa(int(h.lockExpiry/time.Second)), strconv.Itoa(int(workPatience/time.Second)), fenceText())
	argv[0] = "bash" // read -t
	line, err := h.commandLine(argv, nil)
	if err != nil {
		return nil, err
	}
	s, release, err := l.newSession(ctx)
	if err != nil {
		return nil, err
	}
	in, err := s.StdinPipe()
	if err == nil {
		var out io.Reader
		if out, err = s.StdoutPipe(); err == nil {
			if err = s.Start(line); err == nil {
				unkept := l.sessions.keep()
				hs := &holdSession{in: in, lines: make(chan string), end: sync.OnceFunc(func() { unkept(); release() })}
				go hs.listen(out, l.done)
				return hs, nil
			}
		}
	}
	release()
	return nil, err
}

// fenceText is the script without its comments.
func fenceText() string { return script(fenceScript, "")[2] }

// listen hands on what the script says, and ends with it or its connection.
func (s *holdSession) listen(out io.Reader, gone <-chan struct{}) {
	defer close(s.lines)
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		select {
		case s.lines <- scan.Text():
		case <-gone:
			return
		}
	}
}

func (s *holdSession) say(line string) error {
	_, err := io.WriteString(s.in, line+"\n")
	return err
}

// sender writes the lines that it is given, so that a host that reads nothing
// keeps nobody waiting but its own queue.
func (s *holdSession) sender() chan<- string {
	lines := make(chan string, 1024)
	go func() {
		for line := range lines {
			if err := s.say(line); err != nil {
				break
			}
		}
		s.in.Close()
		for range lines { // let the queue run dry
		}
	}()
	return lines
}

// goodbye is how long a script that is told to end may take.
const goodbye = 2 * time.Second

// close ends the session. At a release it waits until the script has ended, so
// that the next operation finds the host free; its input is closed already.
func (s *holdSession) close(ctx context.Context) {
	defer s.end()
	if ctx.Err() == nil {
		return
	}
	late := time.NewTimer(goodbye)
	defer late.Stop()
	for {
		select {
		case _, more := <-s.lines:
			if !more {
				return
			}
		case <-late.C:
			return
		}
	}
}

func (s *holdSession) hear(ctx context.Context) (string, error) {
	select {
	case line, ok := <-s.lines:
		if !ok {
			return "", errors.New("the script that holds the lock ended at once")
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
