package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/units"
)

// Severity says what a finding means for the run.
type Severity int

// OK findings are kept for the machine-readable report; only Error stops a run.
const (
	OK Severity = iota
	Warning
	Error
)

var severityNames = [...]string{"ok", "warning", "error"}

func (s Severity) String() string {
	if s < OK || s > Error {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText writes the lower-case name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(text []byte) error {
	i := slices.Index(severityNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("severity %q is none of %s", text, strings.Join(severityNames[:], ", "))
	}
	*s = Severity(i)
	return nil
}

// Finding is one check's word on one host.
type Finding struct {
	Host     string   `json:"host"` // "" when it is of the cluster as a whole
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Seen     string   `json:"seen,omitempty"`
	Wanted   string   `json:"wanted,omitempty"`
	Fix      string   `json:"fix,omitempty"`
	// Ignored is set on an error that the inventory turned into a warning.
	Ignored bool `json:"ignored,omitempty"`
}

// Report is everything that preflight found, in the inventory's order of
// hosts and, within a host, the order of the checks.
type Report struct {
	Findings []Finding     `json:"findings"`
	Hosts    int           `json:"hosts"`
	Took     units.Seconds `json:"tookSeconds"`
}

// Count returns how many findings have the severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Err returns a *Failure with every error of the report, or nil.
func (r Report) Err() error {
	var errs []Finding
	for _, f := range r.Findings {
		if f.Severity == Error {
			errs = append(errs, f)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &Failure{Findings: errs}
}

// Failure is a preflight that found errors: no host was changed.
type Failure struct{ Findings []Finding }

func (e *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "preflight: %s", count(len(e.Findings), "error"))
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n  %s: %s: %s", hostName(f.Host), f.Check, f.Seen)
		if f.Wanted != "" {
			fmt.Fprintf(&b, "; wanted: %s", f.Wanted)
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "; fix: %s", f.Fix)
		}
	}
	return b.String()
}

func hostName(h string) string {
	if h == "" {
		return "cluster"
	}
	return h
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// demote turns the errors that the inventory ignores by name into warnings. A
// host that cannot be asked stays an error: nothing can be done with it.
func demote(findings []Finding, ignore []string) {
	for i, f := range findings {
		if f.Severity != Error || slices.Contains(unignorable, f.Check) {
			continue
		}
		if slices.ContainsFunc(ignore, func(name string) bool { return strings.EqualFold(name, f.Check) }) {
			findings[i].Severity, findings[i].Ignored = Warning, true
		}
	}
}
