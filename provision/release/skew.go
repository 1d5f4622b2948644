package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// oldestKubelet is how many minors a kubelet may be older than an API server.
const oldestKubelet = 3

// Skew says what stands against an upgrade of a cluster to a version, by
// upstream's version skew policy and by one rule of our own. None is good.
//
//   - Each API server may go to it: not back, and one minor at most. With that
//     they are within one minor of each other before, during and after.
//   - API servers have one version, or two of which one is the target: that is an
//     upgrade to it that broke off, and is finished. Anything else is another
//     upgrade that broke off, whose own end comes first (our rule).
//   - A kubelet may be three minors older than the API servers will be; it may not
//     be newer than the target, not by a patch either: it would have to go back.
//   - A kubelet may not be of a newer minor than the oldest API server, unless it
//     has the target's version and an API server has it already: an upgrade that
//     broke off leaves a master's kubelet so, beside its own API server.
//
// kubelets are those of the hosts (or Nodes) by name. Nothing of an empty list
// or map is assumed: a host that was not seen has to be refused by the caller.
// The kubeadm that writes the manifests has to be of the target's version too;
// a bundle brings both, and found software is refused for another one before.
func Skew(apiServers []Version, kubelets map[string]Version, to Version) []Problem {
	have := distinct(apiServers)
	problems := steps(have, to)
	older := slices.DeleteFunc(slices.Clone(have), func(v Version) bool { return v == to })
	if len(older) > 1 {
		problems = append(problems, Problem{
			What: fmt.Sprintf("the API servers run %s", list(have)),
			Why:  fmt.Sprintf("an upgrade to %s begins with one version on all masters, or goes on where an upgrade to %[1]s broke off", to),
			Run:  fmt.Sprintf("finish the upgrade to %s first: `ha-install upgrade INVENTORY --to %[1]s`", older[len(older)-1]),
		})
	}
	return append(problems, kubeletSkew(have, kubelets, to)...)
}

// steps are the refusals of single steps.
func steps(have []Version, to Version) []Problem {
	var problems []Problem
	for _, from := range have {
		if _, err := (Step{from, to}).Kind(); err != nil {
			problems = append(problems, *err.(*Problem))
		}
	}
	return problems
}

func kubeletSkew(have []Version, kubelets map[string]Version, to Version) []Problem {
	var problems []Problem
	names := map[Version][]string{}
	for name, v := range kubelets {
		names[v] = append(names[v], name)
	}
	for _, v := range distinct(slices.Collect(maps.Keys(names))) {
		slices.Sort(names[v])
		what := fmt.Sprintf("the kubelet of %s is %s", strings.Join(names[v], ", "), v)
		switch {
		case v.Compare(to) > 0:
			problems = append(problems, Problem{what,
				fmt.Sprintf("it is newer than %s, and kubelets do not go back", to),
				fmt.Sprintf("name %s or newer in the inventory, or with --to", v)})
		case v.behind(to) > oldestKubelet:
			problems = append(problems, Problem{what,
				fmt.Sprintf("it would be %d minors older than the API servers with %s; %d are supported", v.behind(to), to, oldestKubelet),
				fmt.Sprintf("upgrade it to %s at least first", Version{to.Major, to.Minor - oldestKubelet, 0}.line())})
		case len(have) > 0 && have[0].behind(v) > 0 && !(v == to && slices.Contains(have, to)):
			problems = append(problems, Problem{what,
				fmt.Sprintf("it is of a newer minor than the API server with %s, which is not supported", have[0]),
				fmt.Sprintf("take the Node out of the cluster until the API servers have %s", v.line())})
		}
	}
	return problems
}

// distinct are the versions without repeats, oldest first.
func distinct(versions []Version) []Version {
	sorted := slices.SortedFunc(slices.Values(versions), Version.Compare)
	return slices.Compact(sorted)
}

// list is "v1.35.4 and v1.36.3".
func list(versions []Version) string {
	texts := make([]string, 0, len(versions))
	for _, v := range versions {
		texts = append(texts, v.String())
	}
	last := len(texts) - 1
	if last < 1 {
		return strings.Join(texts, "")
	}
	return strings.Join(texts[:last], ", ") + " and " + texts[last]
}
