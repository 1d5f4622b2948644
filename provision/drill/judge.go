package drill

import (
	"fmt"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// Thresholds are what a scenario may cost. Acknowledged writes may never be
// lost, whatever they say.
type Thresholds struct {
	WriteGap     units.Seconds `json:"writeGapSeconds"`  // the longest time without an acknowledged write
	FailedWrites int           `json:"failedWrites"`     // of each client; below 0: any number
	Takeover     units.Seconds `json:"takeoverSeconds"`  // until another one leads
	Recovery     units.Seconds `json:"recoverySeconds"`  // from the repair until the cluster is whole
	Pod          units.Seconds `json:"podSeconds"`       // until a new pod runs, or one in a deleted one's place
	WorkloadLoss int           `json:"workloadFailures"` // requests to a running pod that may fail
}

// Defaults are what a cluster of three masters behind our own balancers holds
// with room to spare: a balancer needs 2 s to notice a host that is silent, a
// lease of the scheduler or the controller-manager runs out after 15 s.
func Defaults() Thresholds {
	return Thresholds{
		WriteGap: units.Seconds(5 * time.Second), FailedWrites: -1, Takeover: units.Seconds(25 * time.Second),
		Recovery: units.Seconds(5 * time.Minute), Pod: units.Seconds(45 * time.Second),
	}
}

// Judge gives a result its verdict and reasons.
func (t Thresholds) Judge(r Result) Result {
	if r.Verdict == LeftOut {
		return r
	}
	bad := func(format string, args ...any) { r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...)) }
	for _, c := range r.Clients {
		t.client(c, bad)
	}
	for _, o := range r.Takeovers {
		switch {
		case o.To == "":
			bad("nobody took %s over from %s", o.What, o.From)
		case o.After > t.Takeover:
			bad("%s led %s after %s, %s are allowed", o.To, o.What, tenths(o.After), tenths(t.Takeover))
		}
	}
	if r.Recovered > t.Recovery {
		bad("the cluster was whole %s after the repair, %s are allowed", tenths(r.Recovered), tenths(t.Recovery))
	}
	if w := r.Workload; w != nil {
		t.workload(*w, bad)
	}
	r.Verdict = Pass
	if len(r.Reasons) > 0 {
		r.Verdict = Fail
	}
	return r
}

func (t Thresholds) client(c Client, bad func(string, ...any)) {
	if c.Lost > 0 {
		bad("%d ACKNOWLEDGED WRITES LOST (client with %s)", c.Lost, c.Kind)
	}
	if !c.Verified {
		bad("what the client with %s has written could not be read back", c.Kind)
	}
	if c.Stale > 0 {
		bad("%d reads did not find what was acknowledged (client with %s)", c.Stale, c.Kind)
	}
	if c.Backwards > 0 {
		bad("the API went back in time at %d writes (client with %s)", c.Backwards, c.Kind)
	}
	if c.WriteGap > t.WriteGap {
		bad("no write for %s, %s are allowed (client with %s)", tenths(c.WriteGap), tenths(t.WriteGap), c.Kind)
	}
	if t.FailedWrites >= 0 && c.FailedWrites > t.FailedWrites {
		bad("%d writes failed, %d are allowed (client with %s)", c.FailedWrites, t.FailedWrites, c.Kind)
	}
}

func (t Thresholds) workload(w Workload, bad func(string, ...any)) {
	if w.Failed > t.WorkloadLoss {
		bad("%d of %d requests to a running pod failed, %d are allowed", w.Failed, w.Requests, t.WorkloadLoss)
	}
	pod := func(what string, took *units.Seconds) {
		switch {
		case took == nil:
			bad("%s did not run", what)
		case *took > t.Pod:
			bad("%s ran after %s, %s are allowed", what, tenths(*took), tenths(t.Pod))
		}
	}
	pod("a new pod", w.Scheduled)
	pod("a pod in a deleted one's place", w.Replaced)
}

// Conclude gives a report its verdict: the worst of its scenarios'. One in
// which nothing was played has shown nothing.
func (r *Report) Conclude() {
	r.Verdict = LeftOut
	for _, s := range r.Scenarios {
		if s.Verdict == Fail {
			r.Verdict = Fail
			return
		}
		if s.Verdict == Pass {
			r.Verdict = Pass
		}
	}
	if r.Error != "" {
		r.Verdict = Fail
	}
}

func tenths(s units.Seconds) string { return s.Duration().Round(100 * time.Millisecond).String() }
