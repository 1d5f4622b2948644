package release

import "fmt"

// Kind is how far a step goes.
type Kind string

const (
	Same  Kind = "same"
	Patch Kind = "patch" // within a minor; kubelets need no drain
	Minor Kind = "minor" // to the next minor; kubelets are upgraded on drained nodes
)

// Step is an upgrade of one control plane.
type Step struct{ From, To Version }

// Kind tells the kind of the step. The error is a *Problem for one that must
// not be made: back, or past a minor.
func (s Step) Kind() (Kind, error) {
	ahead := s.From.behind(s.To)
	switch {
	case s.From == s.To:
		return Same, nil
	case s.To.Compare(s.From) < 0:
		return "", &Problem{
			What: fmt.Sprintf("%s cannot follow %s", s.To, s.From),
			Why:  "Kubernetes and etcd cannot go back: what the newer one has stored the older one may not read",
			Run:  fmt.Sprintf("name a version of %s or newer in the inventory, or with --to", s.From),
		}
	case ahead > 1:
		return "", &Problem{
			What: fmt.Sprintf("%s cannot follow %s", s.To, s.From),
			Why:  "an upgrade goes one minor at a time, as upstream tests no other",
			Run:  fmt.Sprintf("upgrade to a %s first, with its bundle", Version{s.From.Major, s.From.Minor + 1, 0}.line()),
		}
	case ahead == 1:
		return Minor, nil
	default:
		return Patch, nil
	}
}
