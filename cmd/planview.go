package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// planGroup are the steps of one stage that say the same on several hosts.
type planGroup struct {
	phase.PlannedStep
	hosts []string
}

// renderPlan shows a plan to people: what is done already only when verbose.
func renderPlan(w io.Writer, p provision.Plan, verbose bool) {
	if p.Nothing() {
		fmt.Fprintf(w, "nothing to do: cluster %s is as the inventory says\n", p.Cluster)
		if !verbose {
			return
		}
	} else {
		fmt.Fprintf(w, "plan for cluster %s, in this order:\n", p.Cluster)
	}
	for _, g := range grouped(p.Steps) {
		if g.State == phase.AlreadyDone && !verbose {
			continue
		}
		renderGroup(w, g, verbose)
	}
	renderRestarts(w, p.Steps)
	fmt.Fprintf(w, "\n%s to change, %d not known yet, %d done already\n", steps(p.Count(phase.ToChange)), p.Count(phase.NotKnown), p.Count(phase.AlreadyDone))
}

func steps(n int) string {
	if n == 1 {
		return "1 step"
	}
	return fmt.Sprintf("%d steps", n)
}

func grouped(steps []phase.PlannedStep) []planGroup {
	var groups []planGroup
	for _, s := range steps {
		i := slices.IndexFunc(groups, func(g planGroup) bool { return sameStep(g.PlannedStep, s) })
		if i < 0 {
			groups, i = append(groups, planGroup{PlannedStep: s}), len(groups)
		}
		if s.Host != "" {
			groups[i].hosts = append(groups[i].hosts, s.Host)
		}
	}
	return groups
}

// sameStep says whether two steps differ in nothing but their host. Those that
// run one after the other keep their own lines, unless there is nothing to say.
func sameStep(a, b phase.PlannedStep) bool {
	if a.Phase != b.Phase || a.Stage != b.Stage || a.State != b.State || a.Host == "" || b.Host == "" {
		return false
	}
	if !a.Parallel && a.State != phase.AlreadyDone {
		return false
	}
	x, err1 := json.Marshal([]any{a.Changes, a.WaitsFor})
	y, err2 := json.Marshal([]any{b.Changes, b.WaitsFor})
	return err1 == nil && err2 == nil && string(x) == string(y)
}

func renderGroup(w io.Writer, g planGroup, verbose bool) {
	word := map[phase.State]string{phase.ToChange: "", phase.NotKnown: "  not known yet: it waits for " + strings.Join(g.WaitsFor, ", "), phase.AlreadyDone: "  done", phase.Proof: "  only looks"}[g.State]
	fmt.Fprintf(w, "\n%s%s\n", strings.TrimRight(g.Phase+"  "+strings.Join(g.hosts, ", "), " "), word)
	if g.State == phase.NotKnown && len(g.Changes) > 0 {
		fmt.Fprintln(w, "  at most:")
	}
	for _, c := range g.Changes {
		fmt.Fprintln(w, "  "+changeLine(c))
		for _, f := range c.Figures {
			fmt.Fprintf(w, "      %-9s %d -> %d\n", f.Name, f.Before, f.After)
		}
		if c.Diff != "" && (verbose || !c.New) {
			for line := range strings.Lines(c.Diff) {
				fmt.Fprint(w, "      "+strings.TrimSuffix(line, "\n")+"\n")
			}
		}
	}
}

// changeLine reads "+ file /etc/crictl.yaml 0644 (91 B)".
func changeLine(c phase.Change) string {
	sign := "~"
	if c.New {
		sign = "+"
	}
	parts := []string{sign, c.Kind, c.Name}
	if c.Mode != "" {
		parts = append(parts, c.Mode)
	}
	if c.Bytes > 0 {
		parts = append(parts, "("+units.Bytes(c.Bytes)+")")
	}
	line := strings.Join(parts, " ")
	if c.Withheld != "" {
		line += "  [not shown: " + c.Withheld + "]"
	}
	if c.Text != "" {
		line += "  " + c.Text
	}
	return line
}

// renderRestarts lists what is restarted or reloaded, in order.
func renderRestarts(w io.Writer, steps []phase.PlannedStep) {
	var lines []string
	for _, s := range steps {
		for _, c := range s.Changes {
			if c.Kind == "restart" || c.Kind == "reload" && s.Phase == "balancer" {
				at := ""
				if s.Parallel {
					at = "  (at the same time as others of this step)"
				}
				lines = append(lines, fmt.Sprintf("  %-8s %s on %s%s", c.Kind, c.Name, s.Host, at))
			}
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\nrestarts, in this order:\n%s\n", strings.Join(lines, "\n"))
	}
}
