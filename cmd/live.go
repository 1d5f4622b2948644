package cmd

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// live shows a run on a terminal: what has ended scrolls up as plain lines,
// what is under way stays below and moves. It reads no input, sets no mode of
// the terminal and leaves signals alone, so that nothing has to be restored,
// however the program ends.
type live struct {
	out   *os.File
	plain *plain
	head  runHead
	prog  *tea.Program  // nil until the run begins, and after its end
	gone  chan struct{} // closed when prog has ended
}

func newLive(out *os.File, p *plain) *live { return &live{out: out, plain: p} }

func (l *live) begin(h runHead) {
	l.head = h
	l.plain.begin(h)
}

func (l *live) event(e phase.Event) {
	if l.prog == nil && e.Kind == phase.Workflow {
		l.start()
	}
	line := l.plain.line(e)
	if l.prog == nil {
		l.plain.print(line)
		return
	}
	l.prog.Send(liveEvent{e, line}) // does nothing when prog has broken down
}

func (l *live) start() {
	m := newLiveModel(l.head, l.plain.color, utf8Locale())
	l.prog = tea.NewProgram(m, tea.WithInput(nil), tea.WithOutput(&watched{l.out, &m.drawn}), tea.WithoutSignalHandler(), tea.WithFPS(liveFPS))
	l.gone = make(chan struct{})
	go func() {
		defer close(l.gone)
		_, _ = l.prog.Run() // a view that breaks down must not stop the run
	}()
}

func (l *live) end(s runSummary) {
	if l.prog != nil {
		l.prog.Send(liveEnd{})
		<-l.gone
		l.prog = nil
	}
	l.plain.end(s)
}

// watched notes that something was drawn. Before the first time, the library
// takes the whole screen for its own, and what is scrolled up would push away
// what the terminal showed before.
type watched struct {
	*os.File
	drawn *atomic.Bool
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	w.drawn.Store(true)
	return n, err
}

const (
	liveFPS   = 20
	liveFrame = 100 * time.Millisecond // of the spinner
)

type (
	liveEvent struct {
		event phase.Event
		line  string // to scroll up; may be empty
	}
	livePrinted struct{}
	liveTick    time.Time
	liveEnd     struct{}
)

// liveRow is a phase that is under way on a host.
type liveRow struct {
	phase, host string
	since       time.Time
	sent        *phase.Transfer
	detail      string // what it waits for, or the last line of its command
}

// liveModel is what the view is made of.
type liveModel struct {
	head          runHead
	color         bool
	signs         signs
	width, height int
	began, now    time.Time
	frame         int
	rows          []*liveRow
	toCome        []phase.Target // not begun yet
	total, ended  int
	stopping      bool
	drawn         atomic.Bool
	lines         []string // to be scrolled up
	printing      bool     // some are on their way
	over          bool
}

func newLiveModel(h runHead, color, utf8 bool) *liveModel {
	m := &liveModel{head: h, color: color, signs: asciiSigns, began: h.Time, now: h.Time}
	if utf8 {
		m.signs = utf8Signs
	}
	return m
}

func tick() tea.Cmd { return tea.Tick(liveFrame, func(t time.Time) tea.Msg { return liveTick(t) }) }

// Init starts the clock.
func (m *liveModel) Init() tea.Cmd { return tick() }

// Update takes in what has happened. Lines are scrolled up batch after batch:
// commands that are under way at the same time have no order.
func (m *liveModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case liveTick:
		m.now = time.Time(msg)
		m.frame++
		return m, tick()
	case liveEvent:
		m.take(msg.event)
		if msg.line != "" {
			m.lines = append(m.lines, m.wrapped(msg.line)...)
		}
	case livePrinted:
		m.printing = false
	case liveEnd:
		m.over = true
		m.rows = nil
	}
	return m, m.scroll()
}

// scroll prints what fits above the view at once: more would scroll the view
// itself away.
func (m *liveModel) scroll() tea.Cmd {
	switch {
	case m.printing || !m.drawn.Load():
		return nil
	case len(m.lines) > 0:
		n := min(len(m.lines), max(1, m.height-1-strings.Count(m.content(), "\n")-1))
		batch := strings.Join(m.lines[:n], "\n")
		m.lines, m.printing = m.lines[n:], true
		return tea.Sequence(tea.Println(batch), func() tea.Msg { return livePrinted{} })
	case m.over:
		return tea.Quit
	}
	return nil
}

// wrapped breaks what is wider than the terminal: the library counts rows.
func (m *liveModel) wrapped(text string) []string {
	if m.width > 1 {
		text = ansi.Hardwrap(text, m.width-1, true)
	}
	return strings.Split(text, "\n")
}

func (m *liveModel) take(e phase.Event) {
	if e.Time.After(m.now) {
		m.now = e.Time
	}
	switch e.Kind {
	case phase.Workflow:
		m.toCome = nil
		for _, s := range e.Stages {
			m.toCome = append(m.toCome, s.Phases...)
		}
		m.total, m.ended, m.began = len(m.toCome), 0, e.Time
	case phase.Stopping:
		m.stopping = true
	case phase.Started:
		if i := slices.Index(m.toCome, phase.Target{Phase: e.Phase, Host: e.Host}); i >= 0 {
			m.toCome = slices.Delete(m.toCome, i, i+1)
		}
		m.rows = append(m.rows, &liveRow{phase: e.Phase, host: e.Host, since: e.Time})
	case phase.Finished, phase.Skipped, phase.Failed, phase.Stopped:
		m.ended++
		m.rows = slices.DeleteFunc(m.rows, func(r *liveRow) bool { return r.phase == e.Phase && r.host == e.Host })
	default:
		for _, r := range m.rows {
			if r.phase == e.Phase && r.host == e.Host {
				r.take(e)
			}
		}
	}
}

func (r *liveRow) take(e phase.Event) {
	switch e.Kind {
	case phase.Progress:
		r.sent = e.Transfer
	case phase.Waiting:
		r.detail, r.sent = "waiting for "+firstLine(e.Message), nil
	case phase.Output:
		r.detail = strings.TrimSpace(e.Message)
		if r.sent != nil && r.sent.Done >= r.sent.Total {
			r.sent = nil
		}
	case phase.Undoing:
		r.detail, r.sent = "taking it back after: "+firstLine(e.Message), nil
	}
}

// View is the part that moves. The cursor stays visible at its end.
func (m *liveModel) View() tea.View {
	content := m.content()
	v := tea.NewView(content)
	v.DisableBracketedPasteMode = true
	v.Cursor = tea.NewCursor(0, strings.Count(content, "\n"))
	return v
}

// content is a headline and a row for each phase that is under way, as many
// as fit on the screen. It ends in an empty line, where the cursor rests.
func (m *liveModel) content() string {
	if m.over || m.width == 0 || m.total == 0 {
		return ""
	}
	rows, more := m.rows, ""
	switch room := m.height - 3; { // headline, cursor, and a line of what went before
	case room < 1:
		rows = nil
	case len(rows) > room:
		more = fmt.Sprintf("  ... and %d more", len(rows)-(room-1))
		rows = rows[:room-1]
	}
	lines := []string{m.headline()}
	hosts := 0
	for _, r := range m.rows {
		hosts = max(hosts, ansi.StringWidth(r.host))
	}
	last := ""
	for _, r := range rows {
		lines = append(lines, m.row(r, hosts, r.phase != last))
		last = r.phase
	}
	if more != "" {
		lines = append(lines, more)
	}
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width-1, m.signs.cut)
	}
	return strings.Join(lines, "\n") + "\n"
}

func (m *liveModel) headline() string {
	spin := m.signs.spinner[m.frame%len(m.signs.spinner)]
	line := fmt.Sprintf("%s %s %s  %d of %d steps  %s", paint(m.color, cyan, spin), m.head.Command, m.head.Cluster, m.ended, m.total, elapsedText(m.now.Sub(m.began)))
	if m.stopping {
		return line + "  " + paint(m.color, yellow, "stopping at the next safe point")
	}
	var next []string
	for _, t := range m.toCome {
		if !slices.Contains(next, t.Phase) {
			next = append(next, t.Phase)
		}
	}
	if len(next) > 0 {
		line += paint(m.color, dim, "  then "+strings.Join(next, ", "))
	}
	return line
}

func (m *liveModel) row(r *liveRow, hosts int, first bool) string {
	name := r.phase
	if !first {
		name = ""
	}
	line := fmt.Sprintf("  %-13s %-*s %6s  ", name, hosts, r.host, elapsedText(m.now.Sub(r.since)))
	if r.sent == nil {
		return line + paint(m.color, dim, r.detail)
	}
	const bar = 20
	full := 0
	if r.sent.Total > 0 {
		full = int(bar * r.sent.Done / r.sent.Total)
	}
	return line + paint(m.color, cyan, strings.Repeat(m.signs.full, full)) + paint(m.color, dim, strings.Repeat(m.signs.empty, bar-full)) +
		fmt.Sprintf("  %s of %s, %s", units.Bytes(r.sent.Done), units.Bytes(r.sent.Total), units.Rate(r.sent.Rate))
}

// elapsedText counts seconds only: what moves faster cannot be read.
func elapsedText(d time.Duration) string { return max(d, 0).Truncate(time.Second).String() }
