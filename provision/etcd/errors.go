package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// ErrCorruptSnapshot means that a snapshot's SHA-256 trailer does not match.
var ErrCorruptSnapshot = errors.New("snapshot is damaged")

// QuorumError is a refusal, with every number that led to it. Its text is
// three lines: what, why, what to run.
type QuorumError struct {
	What    string  // the operation or gate
	Reason  string  // why not
	Verdict Verdict // as last seen
	// Decision is nil when a gate without an operation refused.
	Decision *Decision
	Run      string
	// Err is what ended the wait, when waiting ended it.
	Err error
}

// Error implements error.
func (e *QuorumError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: refused: %s", e.What, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	fmt.Fprintf(&b, "\nwhy: %s: %s", e.Verdict.State, compact(e.Verdict.Numbers))
	if sick := e.Verdict.sick(); sick != "" {
		fmt.Fprintf(&b, " (%s)", sick)
	}
	if e.Decision != nil && e.Decision.After != e.Decision.Before {
		fmt.Fprintf(&b, "; after it: %s", compact(e.Decision.After))
	}
	fmt.Fprintf(&b, "\nrun: %s", cmp.Or(e.Run, seeStatus))
	if e.Decision != nil && e.Decision.Overrulable {
		b.WriteString("; --force overrules this")
	}
	return b.String()
}

// Unwrap returns what ended the wait.
func (e *QuorumError) Unwrap() error { return e.Err }

// compact is the arithmetic on one line, below zero included.
func compact(n Numbers) string {
	s := fmt.Sprintf("voters %d, quorum %d, healthy %d, can lose %d", n.Voters, n.Quorum, n.Healthy, max(n.CanLose, 0))
	if n.Learners > 0 {
		s += fmt.Sprintf(", learners %d", n.Learners)
	}
	return s
}

// refused makes the error of a decision.
func refused(v Verdict, d Decision) *QuorumError {
	return &QuorumError{What: d.Op.String(), Reason: d.Reason, Verdict: v, Decision: &d, Run: d.Run}
}

// Err is nil for an allowed decision, else a *QuorumError.
func (d Decision) Err(v Verdict) error {
	if d.Allowed {
		return nil
	}
	return refused(v, d)
}
