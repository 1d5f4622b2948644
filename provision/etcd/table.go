package etcd

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Projections says of every operation on members what would become of it now:
// add a learner, promote or remove each learner, remove a member that is dead
// or alive, restart each, take a snapshot. It takes for granted what only the
// operation itself can see to: that the newcomer's directory is empty, and
// that a dead member is fenced.
func Projections(v Verdict) []Decision {
	ops := []Operation{{Kind: OpAddLearner, HostEmpty: true}}
	each := func(kind OpKind, fits func(Member) bool) {
		for _, m := range v.only(fits) {
			ops = append(ops, Operation{Kind: kind, Host: m.Name, ID: m.ID, PeerURL: m.PeerURL, Fenced: kind == OpRemoveDead})
		}
	}
	each(OpPromote, func(m Member) bool { return m.Role == Learner })
	each(OpRemoveLearner, func(m Member) bool { return m.Role == Learner })
	each(OpRemoveDead, func(m Member) bool { return m.Role == Voter && !m.Healthy })
	each(OpRemoveLive, func(m Member) bool { return m.Role == Voter && m.Healthy })
	each(OpRestart, func(m Member) bool { return m.Role == Voter })
	ops = append(ops, Operation{Kind: OpSnapshot})
	decisions := make([]Decision, len(ops))
	for i, op := range ops {
		decisions[i] = Project(v, op)
	}
	return decisions
}

// RenderProjections writes one row for each outcome; members that share one
// share a row.
func RenderProjections(w io.Writer, decisions []Decision) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "OPERATION\tNOW\tVOTERS\tQUORUM\tHEALTHY\tCAN LOSE\tWHY")
	for len(decisions) > 0 {
		d := decisions[0]
		var names []string
		decisions = slices.DeleteFunc(slices.Clone(decisions), func(o Decision) bool {
			same := o.Op.Kind == d.Op.Kind && o.Allowed == d.Allowed && o.Reason == d.Reason && o.After == d.After
			if same && o.Op.Host != "" {
				names = append(names, o.Op.Host)
			}
			return same
		})
		what := strings.TrimSpace(string(d.Op.Kind) + " " + strings.Join(names, ", "))
		if len(names) > 0 && strings.Contains(string(d.Op.Kind), " ") {
			what = string(d.Op.Kind) + ": " + strings.Join(names, ", ")
		}
		word := "refused"
		if d.Allowed {
			word = "allowed"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", what, word, d.After.Voters, d.After.Quorum, d.After.Healthy, max(d.After.CanLose, 0), cmp.Or(d.Reason, "-"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("table of operations: %w", err)
	}
	if _, err := io.WriteString(w, trimLines(b.String())); err != nil {
		return fmt.Errorf("table of operations: %w", err)
	}
	return nil
}
