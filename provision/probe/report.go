package probe

import (
	"fmt"
	"slices"
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
	acknowledged []attempt // in the order in which they ended, but for races
	failures     []Failure
	reads        Reads
	readWorked   time.Time // when the last read that worked was answered
	readFailed   time.Time // since when reads have failed; zero: the last one worked
	samples      []Sample
	unsampled    int
}

// mostSamples bounds what is kept for a chart: half an hour of twenty writes
// and as many reads a second.
const mostSamples = 72_000

// Sample is one request, for a chart.
type Sample struct {
	At     time.Time // when it was sent
	Took   time.Duration
	Read   bool
	Failed bool
}

func (r *record) sample(s Sample) {
	if len(r.samples) == mostSamples {
		r.unsampled++
		return
	}
	r.samples = append(r.samples, s)
}

// Reads are what became of the reads of the newest acknowledged write.
type Reads struct {
	Attempts int
	Failures int
	// LongestOutage is the longest time without an answer around reads that
	// failed: from the sending of the first one, or the last answer if that came
	// later, to the next answer, or to the end.
	LongestOutage time.Duration
	// Stale are the reads that did not find a write that was acknowledged
	// before they were sent: 404, or another content.
	Stale int
	First error // of the failures
}

func (r *record) addRead(s Sample, err error, stale bool) {
	r.sample(s)
	r.reads.Attempts++
	if stale {
		r.reads.Stale++
	}
	ended := s.At.Add(s.Took)
	switch {
	case err != nil:
		r.reads.Failures++
		if r.reads.First == nil {
			r.reads.First = err
		}
		if r.readFailed.IsZero() {
			r.readFailed = later(s.At, r.readWorked)
		}
	default:
		r.readWorked = later(r.readWorked, ended)
		if !r.readFailed.IsZero() {
			r.reads.LongestOutage = max(r.reads.LongestOutage, ended.Sub(r.readFailed))
			r.readFailed = time.Time{}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (r *record) add(a attempt) {
	r.attempts++
	r.sample(Sample{At: a.began, Took: a.ended.Sub(a.began), Failed: a.err != nil})
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
	// that of one acknowledged before they were sent: the API went back in time.
	Backwards []int
	// Verified says that Lost was found out by reading everything back.
	Verified bool
	Reads    Reads
	// Samples are the requests in the order in which they ended; Unsampled is
	// how many more there were than are kept.
	Samples   []Sample
	Unsampled int
}

// report sums the record up; it is called when no write is under way.
func (r *record) report(kind Kind, ended time.Time) Report {
	out := Report{
		Kind: kind, Duration: ended.Sub(r.started), Attempts: r.attempts,
		Acknowledged: len(r.acknowledged), Failures: r.failures,
		Reads: r.reads, Samples: r.samples, Unsampled: r.unsampled,
	}
	if !r.readFailed.IsZero() {
		out.Reads.LongestOutage = max(out.Reads.LongestOutage, ended.Sub(r.readFailed))
	}
	last := r.started
	gap := func(until time.Time) {
		if d := until.Sub(last); d > out.LongestGap {
			out.LongestGap, out.LongestGapAt = d, last
		}
		last = until
	}
	slices.SortFunc(r.acknowledged, func(a, b attempt) int { return a.ended.Compare(b.ended) })
	for _, a := range r.acknowledged {
		gap(a.ended)
		out.Slowest = max(out.Slowest, a.ended.Sub(a.began))
	}
	gap(ended)
	out.Backwards = backwards(r.acknowledged)
	return out
}

// backwards compares each write with those that had been acknowledged when it
// was sent; those under way at the same time may overtake each other.
func backwards(inOrderOfEnd []attempt) []int {
	inOrderOfBegin := slices.SortedFunc(slices.Values(inOrderOfEnd), func(a, b attempt) int { return a.began.Compare(b.began) })
	var out []int
	ended, highest := 0, uint64(0)
	for _, a := range inOrderOfBegin {
		for ; ended < len(inOrderOfEnd) && inOrderOfEnd[ended].ended.Before(a.began); ended++ {
			highest = max(highest, inOrderOfEnd[ended].version)
		}
		if a.version <= highest {
			out = append(out, a.number)
		}
	}
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

// mostTold bounds the failures in a report's text.
const mostTold = 12

// String is the report for a log: the numbers, then the first failures.
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
	if r.Reads.Attempts > 0 {
		fmt.Fprintf(&b, "; %d of %d reads failed, longest outage %s", r.Reads.Failures, r.Reads.Attempts, r.Reads.LongestOutage.Round(time.Millisecond))
	}
	if r.Reads.Stale > 0 {
		fmt.Fprintf(&b, "; %d READS DID NOT FIND an acknowledged write", r.Reads.Stale)
	}
	told := r.Failures[:min(len(r.Failures), mostTold)]
	for _, f := range told {
		fmt.Fprintf(&b, "\n  %s", f.Error())
	}
	if more := len(r.Failures) - len(told); more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}
