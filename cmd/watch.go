package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
)

// statusView shows statuses: one, or round after round.
type statusView struct {
	out     io.Writer
	json    bool
	watch   bool
	inPlace bool
	size    func() (width, height int)
	before  *provision.Status
	// recent are the last changes, newest last: on a terminal those of one
	// round would be gone with the next.
	recent []string
	rounds int
}

func newStatusView(out io.Writer, json, watch bool) *statusView {
	v := &statusView{out: out, json: json, watch: watch}
	if f, ok := out.(*os.File); ok && watch && !json && term.IsTerminal(int(f.Fd())) {
		v.inPlace = true
		v.size = func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0, 0
			}
			return width, height
		}
	}
	return v
}

// watchStatus takes a status, shows it, waits, and begins again, until ctx
// ends; the error is the last verdict. Hosts that are not connected are dialled
// in the background meanwhile.
func watchStatus(ctx context.Context, site *provision.Site, view *statusView, interval time.Duration) error {
	last := etcd.Unknown
	for {
		st := provision.TakeStatus(ctx, site)
		if ctx.Err() != nil { // a round that was cut short says nothing
			return statusError(last)
		}
		if err := view.show(st); err != nil {
			return err
		}
		last = st.State
		pause := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			pause.Stop()
			return statusError(last)
		case <-pause.C:
		}
		site.Redial(ctx)
	}
}

// show writes one round.
func (v *statusView) show(st provision.Status) error {
	if v.before != nil {
		st.Changes = st.Since(*v.before)
	}
	v.before = &st
	v.rounds++
	if v.json {
		return writeStatusJSON(v.out, st, v.watch)
	}
	var b strings.Builder
	if v.watch && !v.inPlace {
		if v.rounds > 1 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "== %s\n", st.At.Local().Format(time.DateTime))
	}
	if err := renderStatus(&b, st); err != nil {
		return err
	}
	if v.inPlace {
		v.remember(st)
		return v.frame(b.String(), st)
	}
	if v.rounds > 1 {
		b.WriteString(changesText(st.Changes))
	}
	_, err := io.WriteString(v.out, b.String())
	return err
}

func changesText(changes []provision.Change) string {
	if len(changes) == 0 {
		return "no change since the last round\n"
	}
	text := "changed since the last round:\n"
	for _, c := range changes {
		text += "  " + c.String() + "\n"
	}
	return text
}

// keepChanges is how many changes a terminal shows.
const keepChanges = 8

func (v *statusView) remember(st provision.Status) {
	for _, c := range st.Changes {
		v.recent = append(v.recent, st.At.Local().Format(time.TimeOnly)+"  "+c.String())
	}
	v.recent = v.recent[max(0, len(v.recent)-keepChanges):]
}

// The few control sequences that refreshing in place needs. The terminal's
// modes are left as they are, so that an interrupt leaves nothing to repair.
const (
	home       = "\x1b[H"
	clearAll   = "\x1b[2J"
	clearRight = "\x1b[K"
	clearBelow = "\x1b[J"
)

// frame writes a round over the one before. What does not fit is left out, from
// the middle: the verdict at the top and the changes at the bottom are seen.
func (v *statusView) frame(text string, st provision.Status) error {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	tail := []string{fmt.Sprintf("%s  round %d  Ctrl-C ends", st.At.Local().Format(time.DateTime), v.rounds)}
	if len(v.recent) > 0 {
		tail = append(append([]string{"changes:"}, v.recent...), tail...)
	}
	lines = fit(lines, append([]string{""}, tail...), v.size)
	var b strings.Builder
	if v.rounds == 1 {
		b.WriteString(clearAll)
	}
	b.WriteString(home)
	for _, l := range lines {
		b.WriteString(l + clearRight + "\n")
	}
	b.WriteString(clearBelow)
	_, err := io.WriteString(v.out, b.String())
	return err
}

// fit cuts lines to the width and drops what is too many above the tail. The
// last row stays free for the cursor.
func fit(lines, tail []string, size func() (int, int)) []string {
	width, height := size()
	if height > 0 && len(lines)+len(tail) > height-1 {
		room := max(height-2-len(tail), 0)
		left := len(lines) - min(room, len(lines))
		lines = append(lines[:min(room, len(lines)):min(room, len(lines))], fmt.Sprintf("... %d more lines", left))
	}
	all := append(lines, tail...)
	for i, l := range all {
		if r := []rune(l); width > 0 && len(r) > width {
			all[i] = string(r[:width-1]) + "…"
		}
	}
	return all
}
