package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/probe"
)

// pair is one round: by hand, then by apply, on the same hosts.
type pair struct {
	hand  []step
	apply cluster
	busy  [2]float64 // of the machine before each
	load  [2]string
	off   [2]failover
}

func (p pair) byHand() time.Duration {
	var whole time.Duration
	for _, s := range p.hand {
		whole += s.took
	}
	return whole
}

func (p pair) ratio() float64 { return p.apply.whole.Seconds() / p.byHand().Seconds() }

// result is everything that was measured.
type result struct {
	at      time.Time
	machine string
	version string
	bare    run
	masters []string
	again   []time.Duration
	pairs   []pair
	rides   []rides
	losses  *losses // nil: not measured
	memory  int64   // bytes, the most of all runs
}

// markdown writes the tables for the README.
func (r result) markdown(w io.Writer) {
	fmt.Fprintf(w, "Measured on %s: %s; lab of two balancers, three masters and a worker, Kubernetes %s.\n\n", r.at.Format(time.DateOnly), r.machine, r.version)
	if len(r.pairs) > 0 {
		r.clusters(w)
	}
	if len(r.rides) > 0 {
		r.upgrades(w)
	}
	if r.losses != nil {
		r.losing(w)
	}
}

// clusters are the tables on making a cluster and on its first failover.
func (r result) clusters(w io.Writer) {
	var hand, apply, with, ratios []float64
	for _, p := range r.pairs {
		hand = append(hand, p.byHand().Seconds())
		apply = append(apply, p.apply.whole.Seconds())
		with = append(with, (p.apply.whole + p.apply.secrets).Seconds())
		ratios = append(ratios, p.ratio())
	}
	var again []float64
	for _, d := range r.again {
		again = append(again, d.Seconds())
	}
	fmt.Fprintln(w, "| | min | median | max | runs |\n|---|---:|---:|---:|---:|")
	row(w, "Three masters by hand, with kubeadm's documented commands", "%.1f s", hand)
	row(w, "Three masters by `apply`, quorum proven at each step", "%.1f s", apply)
	row(w, "Ratio, run by run", "%.2f", ratios)
	row(w, "`apply` with the making of the CA set, which is part of `kubeadm init`", "%.1f s", with)
	row(w, "`apply` from bare hosts to a verified cluster", "%.1f s", []float64{r.bare.took.Seconds()})
	row(w, "`apply` on a finished cluster", "%.1f s", again)
	row(w, "Memory of `ha-install apply`, the most", "%.0f MiB", []float64{float64(r.memory) / (1 << 20)})
	r.failovers(w)
	r.rounds(w)
	r.roundsOff(w)
	r.phases(w)
}

func row(w io.Writer, what, format string, values []float64) {
	low, middle, high := spread(values)
	fmt.Fprintf(w, "| %s | "+format+" | "+format+" | "+format+" | %d |\n", what, low, middle, high, len(values))
}

// spread is the least, the median and the most of at least one value.
func spread(values []float64) (low, middle, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return sorted[0], (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[n-1]
}

// rounds shows each pair, step by step, with how busy the machine was before.
func (r result) rounds(w io.Writer) {
	fmt.Fprintln(w, "\n| round | way | init | second | third | all | ratio | busy before | load |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|")
	for i, p := range r.pairs {
		line := func(way string, steps []step, whole time.Duration, ratio string, side int) {
			cells := make([]string, 0, len(steps))
			for _, s := range steps {
				cells = append(cells, seconds(s.took))
			}
			fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %.0f %% | %s |\n",
				i+1, way, strings.Join(cells, " | "), seconds(whole), ratio, 100*p.busy[side], p.load[side])
		}
		line("by hand", p.hand, p.byHand(), "", 0)
		line("`apply`", p.apply.steps, p.apply.whole, fmt.Sprintf("%.2f", p.ratio()), 1)
	}
}

// phases shows where the time went from bare hosts.
func (r result) phases(w io.Writer) {
	fmt.Fprintln(w, "\n| phase, from bare hosts | runs | time |\n|---|---:|---:|")
	for _, s := range spans(r.bare.events, r.masters) {
		fmt.Fprintf(w, "| %s | %d | %s |\n", s.name, s.hosts, seconds(s.took))
	}
	fmt.Fprintf(w, "| all, with connecting | | %s |\n", seconds(r.bare.took))
}

// failovers is the table on what clients see of a master's death.
func (r result) failovers(w io.Writer) {
	fmt.Fprintln(w, "\n| The plug of etcd's leader pulled | min | median | max | runs |\n|---|---:|---:|---:|---:|")
	gap := func(p probe.Report) float64 { return p.LongestGap.Seconds() }
	failures := func(p probe.Report) float64 { return float64(len(p.Failures)) }
	for _, fact := range []struct {
		what, format string
		figure       func(failover) float64
		compared     bool // run by run; a count may be nothing
	}{
		{"Longest time without a write, new connections", "%.1f s", func(f failover) float64 { return gap(f.fresh) }, true},
		{"Longest time without a write, a long-lived client of that master", "%.1f s", func(f failover) float64 { return gap(f.lasting) }, true},
		{"Writes that failed, new connections", "%.0f", func(f failover) float64 { return failures(f.fresh) }, false},
		{"Writes that failed, a long-lived client of that master", "%.0f", func(f failover) float64 { return failures(f.lasting) }, false},
		{"Until the balancer called that master dead", "%.1f s", func(f failover) float64 { return f.found.Seconds() }, true},
	} {
		var hand, apply, ratios []float64
		for _, p := range r.pairs {
			h, a := fact.figure(p.off[0]), fact.figure(p.off[1])
			hand, apply, ratios = append(hand, h), append(apply, a), append(ratios, a/h)
		}
		row(w, fact.what+": by hand, plain HAProxy", fact.format, hand)
		row(w, fact.what+": by `apply`", fact.format, apply)
		if fact.compared {
			row(w, "Ratio, run by run", "%.2f", ratios)
		}
	}
}

// roundsOff shows each master's death.
func (r result) roundsOff(w io.Writer) {
	fmt.Fprintln(w, "\n| round | way | unplugged | called dead after | new connections: longest gap | failed | long-lived: longest gap | failed | acknowledged writes lost |\n|---:|---|---|---:|---:|---:|---:|---:|---:|")
	for i, p := range r.pairs {
		for side, way := range []string{"by hand", "`apply`"} {
			f := p.off[side]
			fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s | %s | %s | %d |\n", i+1, way, f.master, seconds(f.found),
				seconds(f.fresh.LongestGap), failed(f.fresh), seconds(f.lasting.LongestGap), failed(f.lasting), f.lost())
		}
	}
}

// failed reads "3 of 280".
func failed(r probe.Report) string { return fmt.Sprintf("%d of %d", len(r.Failures), r.Attempts) }

// lost is an error when a cluster of either side lost acknowledged writes: how
// fast it was is worth nothing then.
func (r result) lost() error {
	for i, p := range r.pairs {
		for side, way := range []string{"by hand", "by apply"} {
			if n := p.off[side].lost(); n > 0 {
				return fmt.Errorf("round %d: the cluster made %s lost %d acknowledged writes when %s was unplugged", i+1, way, n, p.off[side].master)
			}
		}
	}
	for i, u := range r.rides {
		for side, ride := range []ride{u.hand, u.ours} {
			if n := ride.lost(); n > 0 {
				return fmt.Errorf("round %d: %d acknowledged writes were lost in the upgrade %s", i+1, n, []string{"by hand", "by upgrade"}[side])
			}
		}
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
