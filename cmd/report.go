package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// runFlags are what all verbs have in common that work on hosts for longer.
type runFlags struct {
	output   string
	progress string
	report   string // where the timeline goes; "" for none
	verbose  bool
	debug    bool
}

func (f *runFlags) add(c *cobra.Command) {
	outputFlag(c, &f.output, "text", "json")
	choiceFlag(c, &f.progress, "progress", "", "on a terminal a live view, elsewhere plain lines", progressAuto, progressLive, progressPlain)
	c.Flags().StringVar(&f.report, "report", "", "write a timeline of the run to this file, as one HTML page")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show the output of long commands too (kubeadm)")
	c.Flags().BoolVar(&f.debug, "debug", false, "show every remote command on standard error, with its time and bytes, never its content")
}

// viewer shows a run in one form. Its methods are called one at a time.
type viewer interface {
	begin(runHead)
	event(phase.Event)
	end(runSummary)
}

// reporter shows a run as it goes and sums it up.
type reporter struct {
	view   viewer
	now    func() time.Time
	began  time.Time
	phases []phaseSummary
	file   string      // of the timeline; "" for none
	record recordedRun // for the timeline
}

// begin shows the head of a run of the verb c. none is what it means that
// nothing was changed.
func (f *runFlags) begin(c *cobra.Command, cluster *inventory.Cluster, none string) (*reporter, error) {
	out := c.OutOrStdout()
	tty, err := f.terminal(out)
	if err != nil {
		return nil, err
	}
	if f.debug {
		debugTo(c, c.ErrOrStderr())
	}
	if err := writable(f.report); err != nil {
		return nil, &usageError{fmt.Errorf("--report: %w; nothing was changed", err)}
	}
	r := &reporter{now: time.Now, began: time.Now(), file: f.report}
	text := &plain{out: out, lines: f.verbose, none: none}
	switch {
	case tty != nil:
		text.color = colourful()
		r.view = newLive(tty, text)
	case f.output == "json":
		r.view = newJSONLines(out)
	default:
		r.view = text
	}
	r.record.Head = headOf(c.Name(), cluster, r.began)
	r.view.begin(r.record.Head)
	return r, nil
}

// goAhead starts the clock anew: how long a plan was thought over is no part
// of the run.
func (r *reporter) goAhead() {
	r.began = r.now()
	r.record.Head.Time = r.began.UTC()
}

// event is called by the runner, one call at a time.
func (r *reporter) event(e phase.Event) {
	if e.Phase != "" {
		r.phases = summarize(r.phases, e)
	}
	r.view.event(e)
	if r.file != "" && e.Kind != phase.Progress {
		r.record.Events = append(r.record.Events, e)
	}
}

// end shows how the run ended, with err or without, and writes its timeline.
// It returns err, and what went wrong with the timeline.
func (r *reporter) end(c *cobra.Command, err error, tally func() phase.Tally) error {
	now, t := r.now(), tally()
	s := runSummary{
		Time: now.UTC(), Kind: "summary", Result: resultOK,
		Changed: t.Changed, Unchanged: t.Skipped, Elapsed: units.Seconds(now.Sub(r.began)), Phases: r.phases,
	}
	if err != nil {
		s.Result, s.ExitCode, s.Error = resultFailed, codeOf(c.Context(), err), err.Error()
		if s.ExitCode == exitInterrupted {
			s.Result = resultInterrupted
		}
	}
	r.view.end(s)
	r.record.Summary = s
	if saving := r.save(); saving != nil {
		return errors.Join(err, saving)
	}
	return err
}

func (r *reporter) save() error {
	if r.file == "" {
		return nil
	}
	var page bytes.Buffer
	err := timeline(&page, r.record)
	if err == nil {
		err = writeFile(r.file, page.Bytes())
	}
	if err != nil {
		return fmt.Errorf("the run is over, its --report was not written: %w", err)
	}
	return nil
}

// writable tries whether a file could be written: a run must not find out at
// its end.
func writable(file string) error {
	if file == "" {
		return nil
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", file)
	}
	probe, err := os.CreateTemp(filepath.Dir(file), ".ha-install-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// plain shows a run as lines for people and log files.
type plain struct {
	out   io.Writer
	color bool
	lines bool              // show the output of long commands
	none  string            // what it means that nothing was changed
	waits map[string]string // what each phase last said that it waits for
}

func (p *plain) begin(runHead) { p.waits = map[string]string{} }

func (p *plain) event(e phase.Event) {
	p.print(p.line(e))
}

func (p *plain) print(line string) {
	if line != "" {
		fmt.Fprintln(p.out, line)
	}
}

// line is what is shown of an event; "" for nothing.
func (p *plain) line(e phase.Event) string {
	who := e.Phase
	if e.Host != "" {
		who = e.Host + " " + e.Phase
	}
	at := e.Time.Local().Format(time.TimeOnly)
	row := func(colour, word, text string) string {
		word = paint(p.color, colour, fmt.Sprintf("%-8s", word))
		return strings.TrimRight(fmt.Sprintf("%s  %s %-26s %s", at, word, who, text), " ")
	}
	switch e.Kind {
	case phase.Finished:
		return row(green, "ok", short(e.Elapsed)+sent(e.Transfer))
	case phase.Skipped:
		return row(dim, "already", short(e.Elapsed))
	case phase.Failed:
		return row(red, "FAILED", short(e.Elapsed)+sent(e.Transfer))
	case phase.Waiting:
		// What passes by at once is not worth a line.
		if e.Elapsed.Duration() > patience && p.waits[who] != e.Message {
			p.waits[who] = e.Message
			return row(yellow, "...", "waiting for "+firstLine(e.Message))
		}
	case phase.Stopped:
		return row(yellow, "stopped", e.Message)
	case phase.Stopping:
		return fmt.Sprintf("%s  %-8s %s", at, "stop", e.Message)
	case phase.Undoing:
		return row(yellow, "undo", "after: "+e.Message)
	case phase.Output:
		if p.lines {
			return row("", "", "| "+e.Message)
		}
	case phase.Notice:
		return "\n" + indentBlock(e.Message)
	}
	return ""
}

// sent is how much a phase has sent; "" for one that sent nothing.
func sent(t *phase.Transfer) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("  %s, %s", units.Bytes(t.Done), units.Rate(t.Rate))
}

// end says what was done and where the time went; why a run failed is said on
// standard error.
func (p *plain) end(s runSummary) {
	if s.Result != resultOK {
		return
	}
	if s.Changed == 0 {
		fmt.Fprintf(p.out, "\n%s (%s)\n", p.none, short(s.Elapsed))
		return
	}
	fmt.Fprintf(p.out, "\n%-14s %-6s %s\n", "PHASE", "RUNS", "TIME")
	for _, of := range s.Phases {
		if of.Changed > 0 {
			fmt.Fprintf(p.out, "%-14s %-6d %s\n", of.Phase, of.Runs, short(of.Elapsed))
		}
	}
	fmt.Fprintf(p.out, "\ndone: %d steps changed something, %d found all as it should be (%s)\n", s.Changed, s.Unchanged, short(s.Elapsed))
}

// patience is how long a phase runs before its waiting is shown.
const patience = 2 * time.Second

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func short(d units.Seconds) string { return d.Duration().Round(100 * time.Millisecond).String() }

func indentBlock(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}
