package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/test/lab"
)

// upgrades is the table on upgrading the masters, and on what clients saw of it.
func (r result) upgrades(w io.Writer) {
	fmt.Fprintf(w, "\n| %s to %s, under clients that write | min | median | max | runs |\n|---|---:|---:|---:|---:|\n", lab.OlderVersion, lab.DefaultVersion)
	var hand, ours, ratios, whole, wholly []float64
	for _, u := range r.rides {
		hand, ours = append(hand, u.hand.span.Seconds()), append(ours, u.ours.span.Seconds())
		ratios, whole = append(ratios, u.ratio()), append(whole, u.ours.whole.Seconds())
		wholly = append(wholly, u.ours.whole.Seconds()/u.hand.whole.Seconds())
	}
	row(w, "Three masters upgraded by hand, with kubeadm's documented commands", "%.0f s", hand)
	row(w, "Three masters upgraded by `upgrade`, quorum proven at each step", "%.0f s", ours)
	row(w, "Ratio, run by run", "%.2f", ratios)
	row(w, "`upgrade`, all of it: checks, software, images, snapshot, masters, worker", "%.0f s", whole)
	row(w, "Ratio of that to the masters alone by hand, run by run", "%.2f", wholly)
	clients := []struct {
		name   string
		report func(ride) probe.Report
	}{
		{"new connections", func(r ride) probe.Report { return r.fresh }},
		{"a long-lived client", func(r ride) probe.Report { return r.lasting }},
	}
	for _, fact := range []struct {
		what, format string
		figure       func(probe.Report) float64
	}{
		{"Writes that failed", "%.0f", func(p probe.Report) float64 { return float64(len(p.Failures)) }},
		{"Longest time without a write", "%.1f s", func(p probe.Report) float64 { return p.LongestGap.Seconds() }},
	} {
		for _, client := range clients {
			var hand, ours []float64
			for _, u := range r.rides {
				hand, ours = append(hand, fact.figure(client.report(u.hand))), append(ours, fact.figure(client.report(u.ours)))
			}
			row(w, fact.what+", "+client.name+": by hand", fact.format, hand)
			row(w, fact.what+", "+client.name+": by `upgrade`", fact.format, ours)
		}
	}
	r.eachRide(w)
}

// eachRide shows each upgrade, master by master.
func (r result) eachRide(w io.Writer) {
	fmt.Fprintln(w, "\n| round | way | masters, in their order | all three | new connections: failed | longest gap | long-lived: failed | longest gap | lost | busy before | load |\n|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for i, u := range r.rides {
		for side, ride := range []ride{u.hand, u.ours} {
			var masters []string
			for _, s := range ride.masters {
				masters = append(masters, s.name+" "+seconds(s.took))
			}
			fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s | %s | %s | %d | %.0f %% | %s |\n", i+1, []string{"by hand", "`upgrade`"}[side],
				strings.Join(masters, ", "), seconds(ride.span), failed(ride.fresh), seconds(ride.fresh.LongestGap),
				failed(ride.lasting), seconds(ride.lasting.LongestGap), ride.lost(), 100*ride.busy, ride.load)
		}
	}
}
