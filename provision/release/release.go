// Package release knows which versions may follow which: the steps that an
// upgrade may take, the skew that upstream supports between API servers and
// kubelets, and what etcd wants of its members before a minor. It only decides;
// nothing here asks a host.
package release

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// Version is a released version of Kubernetes or etcd.
type Version struct{ Major, Minor, Patch int }

// released is "v1.36.3". Numbers have no leading zero, as in semver.
var released = regexp.MustCompile(`^v(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$`)

// Parse reads a version as Kubernetes writes it, "v1.36.3". Everything else is
// an error, a pre-release ("v1.37.0-rc.1") and a build of somebody's own
// ("v1.36.3+vendor.2") among it: nobody can say what may follow those.
func Parse(text string) (Version, error) {
	match := released.FindStringSubmatch(text)
	if match == nil {
		return Version{}, fmt.Errorf("%q is not the version of a release, like v1.36.3", text)
	}
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(match[i+1])
		if err != nil {
			return Version{}, err
		}
		numbers[i] = n
	}
	return Version{numbers[0], numbers[1], numbers[2]}, nil
}

// String is "v1.36.3".
func (v Version) String() string { return fmt.Sprintf("v%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare is negative when v is older than o, 0 when they are the same.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Major, o.Major), cmp.Compare(v.Minor, o.Minor), cmp.Compare(v.Patch, o.Patch))
}

// line is "v1.36".
func (v Version) line() string { return fmt.Sprintf("v%d.%d", v.Major, v.Minor) }

// behind is by how many minors v is older than o; negative when it is newer.
// Another major is further away than any rule allows.
func (v Version) behind(o Version) int {
	const major = 1000
	return (o.Major-v.Major)*major + o.Minor - v.Minor
}

// Problem is why an upgrade may not begin, or not as it is meant.
type Problem struct {
	What string `json:"what"` // "cp-1: etcd 3.5.21"
	Why  string `json:"why"`  // with the numbers
	Run  string `json:"run"`  // what to do next
}

// Error is the three lines of a refusal.
func (p *Problem) Error() string { return p.What + "\n  " + p.Why + "\n  " + p.Run }
