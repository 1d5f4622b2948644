package preflight

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Render writes the problems as a table, errors first, and a closing line with
// the counts. The same problem on several hosts is one row.
func (r Report) Render(w io.Writer) error {
	var b strings.Builder
	if rows := r.rows(); len(rows) > 0 {
		writeTable(&b, rows)
	}
	hosts := count(r.Hosts, "host")
	fmt.Fprintf(&b, "preflight: %s, %s, %s, %d ok (%s)\n", hosts, count(r.Count(Error), "error"),
		count(r.Count(Warning), "warning"), r.Count(OK), r.Took.Duration().Round(10*time.Millisecond))
	_, err := io.WriteString(w, b.String())
	return err
}

type row struct {
	hosts []string
	Finding
}

// rows groups the problems by everything but the host.
func (r Report) rows() []row {
	var rows []row
	for _, s := range []Severity{Error, Warning} {
		at := map[Finding]int{}
		for _, f := range r.Findings {
			if f.Severity != s {
				continue
			}
			name := hostName(f.Host)
			f.Host = ""
			i, ok := at[f]
			if !ok {
				i = len(rows)
				at[f] = i
				rows = append(rows, row{Finding: f})
			}
			rows[i].hosts = append(rows[i].hosts, name)
		}
	}
	return rows
}

// hostsShown bounds a row's first column in a cluster of many hosts.
const hostsShown = 4

func (r row) cells() [4]string {
	hosts := strings.Join(r.hosts, " ")
	if n := len(r.hosts); n > hostsShown {
		hosts = fmt.Sprintf("%s +%d", strings.Join(r.hosts[:hostsShown-1], " "), n-hostsShown+1)
	}
	result := r.Severity.String()
	if r.Ignored {
		result = "ignored"
	}
	return [4]string{hosts, r.Check, result, r.Seen}
}

// writeTable pads the first three columns; what was seen comes last in its
// line, and what is wanted and how to get there follow below it, so that no
// line grows with the longest text of another.
func writeTable(b *strings.Builder, rows []row) {
	head := [4]string{"HOST", "CHECK", "RESULT", "SEEN"}
	var width [3]int
	all := [][4]string{head}
	for _, r := range rows {
		all = append(all, r.cells())
	}
	for _, cells := range all {
		for i := range width {
			width[i] = max(width[i], utf8.RuneCountInString(cells[i]))
		}
	}
	indent := strings.Repeat(" ", width[0]+width[1]+width[2]+6)
	for i, cells := range all {
		for c := range width {
			fmt.Fprintf(b, "%-*s  ", width[c], cells[c])
		}
		fmt.Fprintf(b, "%s\n", cells[3])
		if i == 0 {
			continue
		}
		if r := rows[i-1]; r.Wanted != "" {
			fmt.Fprintf(b, "%swanted: %s\n", indent, r.Wanted)
		}
		if r := rows[i-1]; r.Fix != "" {
			fmt.Fprintf(b, "%sfix:    %s\n", indent, r.Fix)
		}
	}
}
