package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/ha-install/ha-install/provision/phase"
)

// run is one run of the program.
type run struct {
	took   time.Duration // from its start to its end, as its user waits
	memory int64         // bytes: the most that was resident
	events []phase.Event
}

// span is one phase over all hosts of one kind.
type span struct {
	name    string
	took    time.Duration // while it ran on at least one host
	hosts   int
	changed int
	running int       // hosts that it runs on now
	since   time.Time // when the first of those began
}

// runProgram runs ha-install with JSON output, which it copies to log.
func runProgram(ctx context.Context, binary string, log io.Writer, args ...string) (run, error) {
	cmd := exec.CommandContext(ctx, binary, append(args, "--output", "json")...)
	var events, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&events, log), io.MultiWriter(&complaints, log)
	cmd.WaitDelay = time.Second
	began := time.Now()
	err := cmd.Run()
	r := run{took: time.Since(began)}
	if err != nil {
		return r, fmt.Errorf("ha-install %s: %w: %s", args[0], err, bytes.TrimSpace(complaints.Bytes()))
	}
	// Linux counts in KiB. What a process had before its exec counts too, which
	// is this program's own memory: much less than the installer's.
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.memory = usage.Maxrss << 10
	}
	r.events, err = readEvents(&events)
	return r, err
}

// readEvents decodes one event a line and leaves out what is of no phase.
func readEvents(output io.Reader) ([]phase.Event, error) {
	var events []phase.Event
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e phase.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("event %q: %w", lines.Text(), err)
		}
		if e.Phase != "" {
			events = append(events, e)
		}
	}
	return events, lines.Err()
}

// cluster is the cluster phase: from when the first master's init or another's
// preparation began, whichever was first, to the end of the last master's join.
type cluster struct {
	whole time.Duration
	steps []step
	// secrets is what apply does ahead of it and kubeadm init within: making
	// the CA set and taking it to the masters.
	secrets time.Duration
}

// clusterPhase finds the cluster phase in a run that made all the masters.
func clusterPhase(events []phase.Event, masters []string) (cluster, error) {
	var c cluster
	var from, to time.Time
	joined := 0
	for _, e := range events {
		switch {
		case e.Kind == phase.Started && (e.Phase == "init" || e.Phase == "prepare") && from.IsZero():
			from = e.Time
		case e.Kind != phase.Finished:
		case e.Phase == "init":
			c.steps = append(c.steps, step{"init " + e.Host, e.Elapsed.Duration()})
		case e.Phase == "join" && slices.Contains(masters, e.Host):
			c.steps = append(c.steps, step{"join " + e.Host, e.Elapsed.Duration()})
			to, joined = e.Time, joined+1
		}
	}
	if from.IsZero() || joined != len(masters)-1 || len(c.steps) != len(masters) {
		return c, errors.New("this run of apply did not make every master")
	}
	c.whole = to.Sub(from)
	for _, s := range spans(events, masters) {
		if s.name == "secrets" || s.name == "certificates" {
			c.secrets += s.took
		}
	}
	return c, nil
}

// spans are the phases in the order in which they began. Masters and workers
// both join; theirs are two.
func spans(events []phase.Event, masters []string) []span {
	var all []span
	for _, e := range events {
		name := e.Phase
		if name == "join" && !slices.Contains(masters, e.Host) {
			name = "join (workers)"
		}
		i := slices.IndexFunc(all, func(s span) bool { return s.name == name })
		if i < 0 {
			all = append(all, span{name: name})
			i = len(all) - 1
		}
		all[i].count(e)
	}
	return all
}

func (s *span) count(e phase.Event) {
	switch e.Kind {
	case phase.Started:
		if s.running == 0 {
			s.since = e.Time
		}
		s.running++
		s.hosts++
	case phase.Finished, phase.Skipped, phase.Failed, phase.Stopped:
		s.running--
		if s.running == 0 {
			s.took += e.Time.Sub(s.since)
		}
		if e.Kind == phase.Finished {
			s.changed++
		}
	}
}
