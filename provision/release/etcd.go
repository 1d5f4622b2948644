package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// crossing is the first 3.5 whose members may meet a 3.6 one: older ones can
// leave a learner in the store of 3.6 that has been promoted long ago (upstream's
// upgrade notes of etcd 3.6).
var crossing = Version{3, 5, 24}

// ParseEtcd reads a version as etcd says it ("3.6.8") or as the tag of
// kubeadm's image has it ("3.6.8-0": the build of the image, which is left out).
func ParseEtcd(text string) (Version, error) {
	number, build, tagged := strings.Cut(text, "-")
	v, err := Parse("v" + number)
	if err != nil || tagged && strings.Trim(build, "0123456789") != "" || tagged && build == "" {
		return Version{}, fmt.Errorf("%q is not the version of an etcd release, like 3.6.8", text)
	}
	return v, nil
}

// EtcdCrossing says what stands against etcd's members going to a version: by
// name the version that each member runs, as etcd or the image's tag says it. A
// member goes to the next minor at most, never to an older one, and from 3.5 to
// 3.6 only when all that are still 3.5 have 3.5.24 or later; 3.6 beside them is
// an upgrade that broke off. Patches of one minor may follow each other either
// way: a newer Kubernetes may bring an older patch of etcd. A version that
// cannot be read is a problem.
func EtcdCrossing(members map[string]string, to string) []Problem {
	target, err := ParseEtcd(to)
	if err != nil {
		return []Problem{{"etcd", err.Error(), "look into the bundle: `ha-install bundle inspect`"}}
	}
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(members)) {
		what := fmt.Sprintf("%s: etcd %s", name, members[name])
		v, err := ParseEtcd(members[name])
		switch {
		case err != nil:
			problems = append(problems, Problem{name + ": etcd", err.Error(), "ask the members: `ha-install status INVENTORY`"})
		case v.behind(target) < 0:
			problems = append(problems, Problem{what, fmt.Sprintf("%s is an older minor, and etcd does not go back", plain(target)),
				"take a Kubernetes whose bundle brings this minor of etcd or a newer one"})
		case v.behind(target) > 1:
			problems = append(problems, Problem{what, fmt.Sprintf("%s is more than one minor ahead, and etcd crosses one at a time", plain(target)),
				fmt.Sprintf("upgrade to a Kubernetes that brings etcd %d.%d first", v.Major, v.Minor+1)})
		case v.behind(target) == 1 && v.line() == crossing.line() && v.Compare(crossing) < 0:
			problems = append(problems, Problem{what, fmt.Sprintf("every member needs %s or later before the first one gets %s", plain(crossing), plain(target)),
				fmt.Sprintf("upgrade to a patch of the same Kubernetes minor that brings etcd %s or later first", plain(crossing))})
		}
	}
	return problems
}

// plain is the version as etcd says it, without the v.
func plain(v Version) string { return strings.TrimPrefix(v.String(), "v") }
