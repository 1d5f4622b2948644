package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Issue is one thing in an inventory that is wrong, or that deserves a warning.
type Issue struct {
	File    string `json:"file"`
	Line    int    `json:"line"`           // from 1
	Column  int    `json:"column"`         // from 1, in characters
	Path    string `json:"path,omitempty"` // "spec.hosts[2].address"; "" for the document as a whole
	Message string `json:"message"`        // what is wrong
	Hint    string `json:"hint,omitempty"` // what would be right; may be ""
	Warning bool   `json:"warning"`
}

// String is one line: "file:line:column: path: message; hint".
func (i Issue) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", i.File, i.Line, i.Column)
	if i.Warning {
		b.WriteString("warning: ")
	}
	if i.Path != "" {
		b.WriteString(i.Path + ": ")
	}
	b.WriteString(i.Message)
	if i.Hint != "" {
		b.WriteString("; " + i.Hint)
	}
	return b.String()
}

// Errors is everything that is wrong with one inventory, in the order of the file.
type Errors struct {
	Issues []Issue
}

// Error prints one issue a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Issues))
	for i, issue := range e.Issues {
		lines[i] = issue.String()
	}
	return strings.Join(lines, "\n")
}

// Join sorts issues into an *Errors; nil when there are none. It is for those
// who check a parsed Cluster further, see Cluster.Issue.
func Join(issues ...Issue) error {
	if len(issues) == 0 {
		return nil
	}
	return &Errors{Issues: Sorted(issues)}
}

// Sorted orders issues as a reader meets them. An anchor used twice has the
// same fault at the same place twice; it is told once, for the first use.
func Sorted(issues []Issue) []Issue {
	out := slices.Clone(issues)
	slices.SortStableFunc(out, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(out, func(a, b Issue) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message && a.Hint == b.Hint &&
			strings.TrimPrefix(a.Path, parent(a.Path)) == strings.TrimPrefix(b.Path, parent(b.Path))
	})
}
