package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/golden"
)

func TestLossesTable(t *testing.T) {
	r := result{masters: masters, losses: &losses{
		replace: run{took: 90 * time.Second, events: events(t, "0 started join cp-2", "40 finished join cp-2", "40 started labels cp-2", "40.5 finished labels cp-2")},
		backup:  run{took: 5 * time.Second}, bytes: 500 << 20,
		quiet:   []time.Duration{time.Second, 3 * time.Second, 2 * time.Second},
		during:  []time.Duration{3 * time.Second, 2 * time.Second, 9 * time.Second},
		restore: run{took: 60 * time.Second, events: events(t, "0 started push cp-1", "0 started push cp-2", "10 finished push cp-1", "12 finished push cp-2")},
		busy:    0.1,
	}}
	if got := r.losses.slower(); got != 1.5 {
		t.Errorf("status is %.2f times as slow, want the ratio of the medians, 1.5", got)
	}
	var got bytes.Buffer
	r.losing(&got)
	golden.Check(t, "losses.md", got.Bytes())
}
