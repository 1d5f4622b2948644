package cmd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/units"
)

// drillHead names what drillRow says.
var drillHead = []string{"scenario", "host", "failed writes", "failed reads", "write gap", "moved", "taken over", "new pod", "pod replaced", "workload", "whole again", "lost", "verdict"}

// renderDrill shows what a drill has shown: a row for each scenario, then what
// mitigated it, then the verdict.
func renderDrill(out io.Writer, r drill.Report) error {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(drillHead, "\t")))
	for _, s := range r.Scenarios {
		fmt.Fprintln(w, strings.Join(drillRow(s), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, `
(failures and gaps: of the client with new connections / of the long-lived one;
 moved: when the last request failed before the repair; taken over: etcd, leases;
 workload: failed requests to a running pod on another host;
 whole again: counted from the repair; lost: acknowledged writes)`)
	for _, s := range r.Scenarios {
		fmt.Fprintf(out, "\n%s: %s", s.Scenario, s.Fails)
		if s.Host != "" {
			fmt.Fprintf(out, " (%s: %s)", s.Host, s.Why)
		}
		fmt.Fprintf(out, "\n  mitigated by: %s\n", s.Mitigates)
		for _, t := range s.Takeovers {
			fmt.Fprintf(out, "  %s\n", takeover(t))
		}
		for _, reason := range s.Reasons {
			fmt.Fprintf(out, "  %s: %s\n", strings.ToLower(string(s.Verdict)), reason)
		}
	}
	_, err := fmt.Fprintf(out, "\n%s  (%s)\n", r.Verdict, short(units.Seconds(r.Ended.Sub(r.Began))))
	return err
}

func drillRow(s drill.Result) []string {
	if s.Verdict == drill.LeftOut {
		row := slices.Repeat([]string{"-"}, len(drillHead))
		row[0], row[len(row)-1] = s.Scenario, string(s.Verdict)
		return row
	}
	var writes, reads, gaps []string
	for _, c := range s.Clients {
		writes = append(writes, fmt.Sprintf("%d", c.FailedWrites))
		reads = append(reads, fmt.Sprintf("%d", c.FailedReads))
		gaps = append(gaps, drillTime(c.WriteGap))
	}
	taken := "-"
	if last, all := s.TakenOver(); len(s.Takeovers) > 0 {
		if taken = drillTime(last); !all {
			taken = "no"
		}
	}
	moved := "-"
	if s.Moved > 0 {
		moved = drillTime(s.Moved)
	}
	return []string{s.Scenario, s.Host, strings.Join(writes, " / "), strings.Join(reads, " / "), strings.Join(gaps, " / "),
		moved, taken, podTime(s.Workload, func(w *drill.Workload) *units.Seconds { return w.Scheduled }),
		podTime(s.Workload, func(w *drill.Workload) *units.Seconds { return w.Replaced }), workloadCell(s.Workload),
		drillTime(s.Recovered), fmt.Sprint(s.Lost()), string(s.Verdict)}
}

// podTime is one of the times of a workload.
func podTime(w *drill.Workload, of func(*drill.Workload) *units.Seconds) string {
	if w == nil {
		return "-"
	}
	if at := of(w); at != nil {
		return drillTime(*at)
	}
	return "no"
}

// workloadCell is the effect on a pod that runs.
func workloadCell(w *drill.Workload) string {
	switch {
	case w == nil:
		return "-"
	case w.Failed == 0:
		return "none"
	}
	return fmt.Sprintf("%d of %d", w.Failed, w.Requests)
}

// drillPods are sentences about pods; none where none was watched.
func drillPods(w *drill.Workload) []string {
	if w == nil {
		return nil
	}
	pod := func(what string, at *units.Seconds) string {
		if at == nil {
			return what + " did not run before the repair"
		}
		return what + " ran after " + drillTime(*at)
	}
	return []string{
		fmt.Sprintf("%d of %d requests to a running pod failed", w.Failed, w.Requests),
		pod("a new pod", w.Scheduled), pod("a pod in the place of a deleted one", w.Replaced),
	}
}

func takeover(t drill.Takeover) string {
	if t.To == "" {
		return fmt.Sprintf("%s: nobody took over from %s", t.What, t.From)
	}
	return fmt.Sprintf("%s: %s took over from %s after %s", t.What, t.To, t.From, drillTime(t.After))
}

// drillTime reads "0.31 s": below a minute hundredths count.
func drillTime(s units.Seconds) string { return fmt.Sprintf("%.2f s", s.Duration().Seconds()) }
