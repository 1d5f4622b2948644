package probe

import (
	"fmt"
	"strings"
	"time"
)

// attempt is one write and what became of it.
type attempt struct {
	number       int
	began, ended time.Time
	version      uint64 // resourceVersion of an acknowledged write
	err          error
}

// record is what the probe remembers while it runs.
type record struct {
	started      time.Time
	attempts     int
	acknowledged []attempt
	failures     []Failure
}

func (r *record) add(a attempt) {
	r.attempts++
	if a.err != nil {
		r.failures = append(r.failures, Failure{Number: a.number, At: a.began, Took: a.ended.Sub(a.began), Err: a.err})
		return
	}
	r.acknowledged = append(r.acknowledged, a)
}

// Failure is a write that was not acknowledged. It may have been stored.
type Failure struct {
	Number int
	At     time.Time // when it was sent
	Took   time.Duration
	Err    error
}

func (f Failure) Error() string {
	return fmt.Sprintf("write %d at %s after %s: %v", f.Number, f.At.UTC().Format("15:04:05.000"), f.Took.Round(time.Millisecond), f.Err)
}

// Unwrap gives the client's own error.
func (f Failure) Unwrap() error { return f.Err }

// Report is what a probe saw.
type Report struct {
	Kind         Kind
	Duration     time.Duration
	Attempts     int
	Acknowledged int
	Failures     []Failure
	// LongestGap is the longest time without an acknowledgement, from one to
	// the next, or from the start to the first, or from the last to the end.
	LongestGap   time.Duration
	LongestGapAt time.Time // its beginning
	Slowest      time.Duration
	// Lost are the acknowledged writes that are not there any more.
	Lost []int
	// Backwards are the acknowledged writes whose resourceVersion is not above
	// that of the one acknowledged before: the API went back in time.
	Backwards []int
	// Verified says that Lost was found out by reading everything back.
	Verified bool
}

// report sums the record up; it is called when no write is under way.
func (r *record) report(kind Kind, ended time.Time) Report {
	out := Report{
		Kind: kind, Duration: ended.Sub(r.started), Attempts: r.attempts,
		Acknowledged: len(r.acknowledged), Failures: r.failures,
	}
	last, version := r.started, uint64(0)
	gap := func(until time.Time) {
		if d := until.Sub(last); d > out.LongestGap {
			out.LongestGap, out.LongestGapAt = d, last
		}
		last = until
	}
	for _, a := range r.acknowledged {
		gap(a.ended)
		out.Slowest = max(out.Slowest, a.ended.Sub(a.began))
		if a.version <= version {
			out.Backwards = append(out.Backwards, a.number)
		}
		version = a.version
	}
	gap(ended)
	return out
}

// judge compares what was acknowledged with what is there.
func (r *Report) judge(acknowledged []attempt, present map[int]bool) {
	r.Verified = true
	for _, a := range acknowledged {
		if !present[a.number] {
			r.Lost = append(r.Lost, a.number)
		}
	}
}

// String is the report for a test's log: the numbers, then every failure.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "probe with %s: %d of %d writes acknowledged in %s, %d failed; longest gap %s (from %s), slowest write %s; ",
		r.Kind, r.Acknowledged, r.Attempts, r.Duration.Round(time.Millisecond), len(r.Failures),
		r.LongestGap.Round(time.Millisecond), r.LongestGapAt.UTC().Format("15:04:05.000"), r.Slowest.Round(time.Millisecond))
	switch {
	case !r.Verified:
		b.WriteString("not read back")
	case len(r.Lost) > 0:
		fmt.Fprintf(&b, "LOST acknowledged writes %v", r.Lost)
	default:
		b.WriteString("no acknowledged write lost")
	}
	if len(r.Backwards) > 0 {
		fmt.Fprintf(&b, "; the API WENT BACK IN TIME at writes %v", r.Backwards)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\n  %s", f.Error())
	}
	return b.String()
}
