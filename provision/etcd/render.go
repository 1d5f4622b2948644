package etcd

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Render writes the quorum table: a header, a row for each member, the numbers
// now and, with a decision, after it.
func Render(w io.Writer, v Verdict, d *Decision) error {
	var b bytes.Buffer
	header(&b, v)
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "MEMBER\tID\tROLE\tSTATE\tRAFT/APPLIED\tDB/QUOTA\tLATENCY\tWHY")
	for _, m := range v.Members {
		fmt.Fprintln(tw, strings.Join(cells(m), "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("quorum table: %w", err)
	}
	out := trimLines(b.String())
	now, after := v.Numbers.String(), ""
	if d != nil {
		after = d.After.String()
	}
	wide := max(utf8.RuneCountInString(now), utf8.RuneCountInString(after))
	out += fmt.Sprintf("now    %-*s   %s%s\n", wide, now, v.State, reasons(v))
	if d != nil {
		word := "refused"
		if d.Allowed {
			word = "allowed"
		}
		out += fmt.Sprintf("after  %-*s   %s: %s\n", wide, after, word, d.Reason)
	}
	for _, s := range v.Warnings {
		out += "warn   " + s + "\n"
	}
	if _, err := io.WriteString(w, out); err != nil {
		return fmt.Errorf("quorum table: %w", err)
	}
	return nil
}

func header(b *bytes.Buffer, v Verdict) {
	left := strings.TrimSpace("QUORUM  " + v.Title)
	term := "-"
	if v.Term > 0 {
		term = strconv.FormatUint(v.Term, 10)
	}
	right := fmt.Sprintf("cluster %s  etcd %s  term %s  leader %s",
		v.ClusterID.Short(), cmp.Or(v.Version, "-"), term, cmp.Or(v.LeaderName, "-"))
	fmt.Fprintf(b, "%s     %s\n", left, right)
}

// reasons are shown where the rows do not already say it.
func reasons(v Verdict) string {
	if v.State == Pass || v.State == Degraded || len(v.Reasons) == 0 {
		return ""
	}
	return ": " + strings.Join(v.Reasons, "; ")
}

func cells(m Member) []string {
	role := string(m.Role)
	if m.Leader {
		role += "*"
	}
	raft, db, latency := "-", "-", "-"
	if m.Version != "" { // it answered
		raft = fmt.Sprintf("%d/%d", m.RaftIndex, m.AppliedIndex)
		db = size(m.DBSize) + "/" + size(m.DBQuota)
	}
	if m.Latency > 0 {
		latency = shortDuration(m.Latency.Duration())
	}
	return []string{m.Name, m.ID.Short(), cmp.Or(role, "-"), string(m.State), raft, db, latency, m.Why}
}

// size rounds to what fits a column: 38M, 8G.
func size(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%dG", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1fG", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%dM", n>>20)
	default:
		return fmt.Sprintf("%dK", max(n>>10, 1))
	}
}

func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
