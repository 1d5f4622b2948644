package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Figures are worth nothing on a busy machine, so that each run waits for it
// to be calm, for so long at most.
const (
	calm         = 0.25 // of all cores
	calmPatience = 30 * time.Second
)

// machine says what the figures were taken on.
func machine() string {
	model := "unknown processor"
	if v := field("/proc/cpuinfo", "model name"); v != "" {
		model = v
	}
	memory := "unknown memory"
	if kib, err := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		memory = fmt.Sprintf("%d GiB", (kib+1<<19)>>20)
	}
	return fmt.Sprintf("%d cores (%s), %s", runtime.NumCPU(), model, memory)
}

// field reads "KEY : VALUE" from a file of /proc; "" when it is not there.
func field(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// load is the machine's load average over one minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// settle waits until the machine is calm and returns which part of it was busy
// in the last second; above calm when patience ran out.
func settle(ctx context.Context) (float64, error) {
	deadline := time.Now().Add(calmPatience)
	before, err := processor()
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		now, err := processor()
		if err != nil {
			return 0, err
		}
		busy := now.busySince(before)
		if busy <= calm || time.Now().After(deadline) {
			return busy, nil
		}
		before = now
	}
}

// ticks is the time that all cores have spent since the machine started.
type ticks struct{ all, idle uint64 }

func (t ticks) busySince(before ticks) float64 {
	if t.all == before.all {
		return 0
	}
	return 1 - float64(t.idle-before.idle)/float64(t.all-before.all)
}

func processor() (ticks, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return ticks{}, err
	}
	return parseTicks(string(text))
}

// parseTicks reads the first line of /proc/stat; waiting for a disk is idle.
func parseTicks(stat string) (ticks, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return ticks{}, fmt.Errorf("/proc/stat: cannot understand %q", line)
	}
	var t ticks
	for i, f := range fields[1:9] { // what follows is counted in the first two
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return ticks{}, fmt.Errorf("/proc/stat: %w", err)
		}
		t.all += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, nil
}
