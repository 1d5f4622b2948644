package inventory

import (
	"crypto/sha256"
	"encoding/hex"
)

// Parse reads one inventory: strictly decoded, with defaults filled in, and
// valid. The error is an *Errors with everything that is wrong, each with its
// place; file is the name used there, and what relative paths are relative to.
// Warnings are returned also when there are errors.
func Parse(file string, data []byte) (*Cluster, []Issue, error) {
	s := newSource(file)
	sum := sha256.Sum256(data)
	c := &Cluster{source: s, sum: hex.EncodeToString(sum[:])}
	if readable(s, data) {
		if root := document(s, data); root != nil {
			if decode(s, root, c) && !foreign(s, c) {
				setDefaults(s, c)
				validate(s, c)
			}
		}
	}
	var problems, warnings []Issue
	for _, issue := range s.issues {
		if issue.Warning {
			warnings = append(warnings, issue)
		} else {
			problems = append(problems, issue)
		}
	}
	warnings = Sorted(warnings)
	if err := Join(problems...); err != nil {
		return nil, warnings, err
	}
	return c, warnings, nil
}

// foreign reports a document of another kind, about whose content nothing
// useful can be said.
func foreign(s *source, c *Cluster) bool {
	wrong := false
	expect := func(path, got, want string) {
		switch {
		case s.spoilt(path):
		case got == "":
			s.issues = append(s.issues, s.issue(path, "missing", "write "+path+": "+want))
		case got != want:
			s.issues = append(s.issues, s.issue(path, quote(got)+" is not an inventory of this program", "want "+want))
			wrong = true
		}
	}
	expect("apiVersion", c.APIVersion, APIVersion)
	expect("kind", c.Kind, Kind)
	if wrong {
		kept := s.issues[:0]
		for _, issue := range s.issues {
			if issue.Path == "apiVersion" || issue.Path == "kind" || issue.Path == "" {
				kept = append(kept, issue)
			}
		}
		s.issues = kept
	}
	return wrong
}
