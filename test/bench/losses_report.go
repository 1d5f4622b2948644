package main

import (
	"fmt"
	"io"
	"time"
)

// losing is the table on backups, a restore and a replacement, and those on where
// the time of the last two went.
func (r result) losing(w io.Writer) {
	l := *r.losses
	_, quiet, _ := spread(inSeconds(l.quiet))
	_, during, _ := spread(inSeconds(l.during))
	fmt.Fprintln(w, "\n| Keeping data, and coming back | |\n|---|---:|")
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "| %s | "+format+" |\n", append([]any{what}, args...)...)
	}
	line(fmt.Sprintf("`backup create` of %d MB, proved", l.bytes>>20), "%s, %.0f MB/s", seconds(l.backup.took), l.throughput()/(1<<20))
	line("`status`, the median", "%.2f s", quiet)
	line("`status` while that backup is made, the median", "%.2f s", during)
	line("Ratio", "%.2f", l.slower())
	line("`restore` of it on the same masters", "%s", seconds(l.restore.took))
	line("`replace` of a master that was installed anew", "%s", seconds(l.replace.took))
	line("Machine busy before the backup", "%.0f %%", 100*l.busy)
	r.spent(w, "restore", l.restore)
	r.spent(w, "replace", l.replace)
}

// longPhase is what is worth a line.
const longPhase = time.Second

// spent shows the phases of a run that took their time.
func (r result) spent(w io.Writer, verb string, of run) {
	fmt.Fprintf(w, "\n| phase of `%s`, of a second or more | runs | time |\n|---|---:|---:|\n", verb)
	for _, s := range spans(of.events, r.masters) {
		if s.took >= longPhase {
			fmt.Fprintf(w, "| %s | %d | %s |\n", s.name, s.hosts, seconds(s.took))
		}
	}
	fmt.Fprintf(w, "| all, with connecting | | %s |\n", seconds(of.took))
}
