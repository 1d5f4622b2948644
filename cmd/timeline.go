package cmd

import (
	"bytes"
	"cmp"
	_ "embed" // for the page
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

//go:embed timeline.html
var timelinePage string

var timelineTemplate = template.Must(template.New("timeline").Funcs(template.FuncMap{
	"short": short,
	"bytes": units.Bytes,
	"rate":  units.Rate,
	"clock": func(t time.Time) string { return t.UTC().Format(time.TimeOnly) },
	"date":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
}).Parse(timelinePage))

// recordedRun is everything that a run has shown.
type recordedRun struct {
	Head    runHead
	Events  []phase.Event
	Summary runSummary
}

// timeline renders a run as one HTML file that needs nothing else: no script,
// no font, no picture, no request. It is a pure function of the run.
func timeline(w io.Writer, run recordedRun) error {
	var page bytes.Buffer
	if err := timelineTemplate.Execute(&page, newTimelinePage(run)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err := w.Write(page.Bytes())
	return err
}

// timelineView is what the page shows.
type timelineView struct {
	recordedRun
	Began, Ended time.Time
	Span         units.Seconds
	Ticks        []timelineTick
	Lanes        []timelineLane
	Steps        []*timelineStep // as they began
	Failures     []*timelineStep
	Gates        []timelineGate
	Notes        []timelineNote
	Phases       []timelinePhase
}

type timelinePhase struct {
	phaseSummary
	Share   float64 // per cent of the longest
	Seconds float64
}

type timelineTick struct {
	Left  float64 // per cent
	Label string
	Odd   bool // left out where there is little room
}

// timelineLane is a host, or the cluster as a whole.
type timelineLane struct {
	Name, Role string
	Steps      []*timelineStep
}

// timelineStep is one phase on one host.
type timelineStep struct {
	Phase, Host, Lane string
	State             string // "finished", "skipped", "failed", "stopped"
	Word              string // the same for people
	Began             time.Time
	At, Took          units.Seconds // At is since the run began
	Left, Width       float64       // per cent
	Sent              *phase.Transfer
	Message           string
	Waited            string   // what it waited for last
	Lines             []string // the last ones of its command

	ended bool
}

// Title is what a bar says when it is pointed at.
func (s *timelineStep) Title() string {
	t := fmt.Sprintf("%s: %s, %s, %s, from %s on", s.Lane, s.Phase, s.Word, short(s.Took), short(s.At))
	if s.Sent != nil {
		t += ", " + strings.TrimSpace(sent(s.Sent))
	}
	if s.Waited != "" {
		t += "; waited for " + firstLine(s.Waited)
	}
	return t
}

// Seconds is how long it took, for programs.
func (s *timelineStep) Seconds() float64 { return s.Took.Duration().Seconds() }

// Wide says that the bar has room for its name.
func (s *timelineStep) Wide() bool { return s.Width >= 1+0.7*float64(len(s.Phase)) }

// Tight says that it has none on a narrow screen.
func (s *timelineStep) Tight() bool { return s.Width < 3+2.1*float64(len(s.Phase)) }

// timelineGate is a proof of quorum.
type timelineGate struct {
	At       units.Seconds
	Who      string
	Verdict  etcd.Verdict
	Decision *etcd.Decision
}

// timelineNote is anything else that the operator should read.
type timelineNote struct {
	At        units.Seconds
	Who, Text string
}

const wholeCluster = "cluster"

func newTimelinePage(run recordedRun) *timelineView {
	v := &timelineView{recordedRun: run, Began: run.Head.Time, Ended: run.Summary.Time}
	if n := len(run.Events); n > 0 && run.Events[n-1].Time.After(v.Ended) {
		v.Ended = run.Events[n-1].Time
	}
	v.Span = units.Seconds(max(v.Ended.Sub(v.Began), time.Millisecond))
	for _, e := range run.Events {
		v.take(e)
	}
	lanes := map[string]*timelineLane{wholeCluster: {Name: wholeCluster}}
	order := []string{wholeCluster}
	for _, h := range run.Head.Hosts {
		lanes[h.Name] = &timelineLane{Name: h.Name, Role: string(h.Role)}
		order = append(order, h.Name)
	}
	for _, s := range v.Steps {
		if !s.ended {
			v.close(s, phase.Event{Kind: phase.Stopped, Time: v.Ended})
		}
		if lanes[s.Lane] == nil {
			lanes[s.Lane] = &timelineLane{Name: s.Lane}
			order = append(order, s.Lane)
		}
		lanes[s.Lane].Steps = append(lanes[s.Lane].Steps, s)
	}
	for _, name := range order {
		if len(lanes[name].Steps) > 0 {
			v.Lanes = append(v.Lanes, *lanes[name])
		}
	}
	v.ticks()
	longest := units.Seconds(1)
	for _, p := range run.Summary.Phases {
		longest = max(longest, p.Elapsed)
	}
	for _, p := range run.Summary.Phases {
		v.Phases = append(v.Phases, timelinePhase{p, float64(p.Elapsed) / float64(longest) * 100, p.Elapsed.Duration().Seconds()})
	}
	return v
}

func (v *timelineView) at(t time.Time) units.Seconds { return units.Seconds(max(t.Sub(v.Began), 0)) }

func (v *timelineView) percent(d units.Seconds) float64 {
	return float64(d) / float64(v.Span) * 100
}

func (v *timelineView) take(e phase.Event) {
	if e.Kind == phase.Started {
		s := &timelineStep{Phase: e.Phase, Host: e.Host, Lane: cmp.Or(e.Host, wholeCluster), Began: e.Time, At: v.at(e.Time)}
		s.Left = v.percent(s.At)
		v.Steps = append(v.Steps, s)
		return
	}
	s := v.running(e)
	switch e.Kind {
	case phase.Notice:
		v.notice(e)
	case phase.Stopping:
		v.Notes = append(v.Notes, timelineNote{v.at(e.Time), v.Head.Command, "stop asked for: " + e.Message})
	case phase.Undoing:
		v.Notes = append(v.Notes, timelineNote{v.at(e.Time), who(e), "taken back after: " + e.Message})
	case phase.Waiting:
		if s != nil && e.Elapsed.Duration() > patience {
			s.Waited = e.Message
		}
	case phase.Output:
		if s != nil {
			const kept = 20
			if s.Lines = append(s.Lines, e.Message); len(s.Lines) > kept {
				s.Lines = s.Lines[1:]
			}
		}
	case phase.Finished, phase.Skipped, phase.Failed, phase.Stopped:
		if s != nil {
			v.close(s, e)
		}
	}
}

// running is the step that the event belongs to; nil when there is none.
func (v *timelineView) running(e phase.Event) *timelineStep {
	for _, s := range v.Steps {
		if s.Phase == e.Phase && s.Host == e.Host && !s.ended {
			return s
		}
	}
	return nil
}

var stepWords = map[phase.EventKind]string{
	phase.Finished: "changed", phase.Skipped: "already so", phase.Failed: "failed", phase.Stopped: "stopped",
}

func (v *timelineView) close(s *timelineStep, e phase.Event) {
	s.ended = true
	s.State, s.Word, s.Message, s.Sent = string(e.Kind), stepWords[e.Kind], e.Message, e.Transfer
	if s.Took = e.Elapsed; s.Took == 0 {
		s.Took = units.Seconds(e.Time.Sub(s.Began))
	}
	s.Width = min(v.percent(s.Took), 100-s.Left)
	if e.Kind == phase.Failed {
		v.Failures = append(v.Failures, s)
	}
}

func who(e phase.Event) string {
	if e.Host == "" {
		return e.Phase
	}
	return e.Host + ": " + e.Phase
}

// notice is a quorum table where the event has its numbers, else its text.
func (v *timelineView) notice(e phase.Event) {
	g := timelineGate{At: v.at(e.Time), Who: who(e)}
	if decode(e.Data["quorum"], &g.Verdict) {
		var d etcd.Decision
		if decode(e.Data["decision"], &d) {
			g.Decision = &d
		}
		v.Gates = append(v.Gates, g)
		return
	}
	v.Notes = append(v.Notes, timelineNote{v.at(e.Time), who(e), strings.TrimRight(e.Message, "\n")})
}

// decode reads a value of an event's data, be it as it was made or as it came
// back from JSON.
func decode(value, into any) bool {
	if value == nil {
		return false
	}
	data, err := json.Marshal(value)
	return err == nil && json.Unmarshal(data, into) == nil
}

// ticks divide the axis into round pieces, eight at most.
func (v *timelineView) ticks() {
	step := time.Second
	for _, round := range []time.Duration{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600} {
		if step = round * time.Second; v.Span.Duration() <= 8*step {
			break
		}
	}
	for at := time.Duration(0); at <= v.Span.Duration(); at += step {
		label := strings.TrimSuffix(at.String(), "m0s")
		if label != at.String() {
			label += "m"
		}
		v.Ticks = append(v.Ticks, timelineTick{Left: v.percent(units.Seconds(at)), Label: label, Odd: len(v.Ticks)%2 == 1})
	}
}

// Class is the verdict's style.
func (g timelineGate) Class() string {
	if g.Verdict.State.HasQuorum() {
		return string(g.Verdict.State)
	}
	return "bad"
}

// Rows are the members as the table shows them.
func (g timelineGate) Rows() []timelineMember {
	var rows []timelineMember
	for _, m := range g.Verdict.Members {
		r := timelineMember{Member: m, Raft: "-", DB: "-", Latency: "-"}
		if m.Version != "" {
			r.Raft = fmt.Sprintf("%d / %d", m.RaftIndex, m.AppliedIndex)
			r.DB = units.Bytes(m.DBSize)
			if m.DBQuota > 0 {
				r.DB += " / " + units.Bytes(m.DBQuota)
			}
		}
		if m.Latency > 0 {
			r.Latency = m.Latency.Duration().Round(100 * time.Microsecond).String()
		}
		rows = append(rows, r)
	}
	return rows
}

type timelineMember struct {
	etcd.Member
	Raft, DB, Latency string
}
