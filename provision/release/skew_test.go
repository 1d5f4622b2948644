package release

import (
	"slices"
	"strings"
	"testing"
)

// versions parses "v1.35.4 v1.36.3"; named ones are "cp-1=v1.35.4 w-1=v1.34.0".
func versions(t *testing.T, text string) []Version {
	t.Helper()
	var all []Version
	for _, word := range strings.Fields(text) {
		all = append(all, must(t, word))
	}
	return all
}

func named(t *testing.T, text string) map[string]Version {
	t.Helper()
	all := map[string]Version{}
	for _, word := range strings.Fields(text) {
		name, version, _ := strings.Cut(word, "=")
		all[name] = must(t, version)
	}
	return all
}

// wantProblems compares each problem with two parts of its text, "what: part".
func wantProblems(t *testing.T, got []Problem, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d problems, want %d: %+v", len(got), len(want), got)
	}
	for i, p := range got {
		what, part, _ := strings.Cut(want[i], " | ")
		if p.What != what || !strings.Contains(p.Why+"\n"+p.Run, part) {
			t.Errorf("problem %d is %+v, want %q", i, p, want[i])
		}
		if p.Why == "" || p.Run == "" {
			t.Errorf("problem %d does not say why, or what to run: %+v", i, p)
		}
	}
}

func TestSkew(t *testing.T) {
	for _, row := range []struct {
		name, apis, kubelets, to string
		want                     []string // "what | part of why or run"
	}{
		{"a cluster of one version, to the next minor", "v1.35.4 v1.35.4 v1.35.4", "cp-1=v1.35.4 w-1=v1.35.4", "v1.36.3", nil},
		{"a cluster of one version, to the next patch", "v1.36.1 v1.36.1 v1.36.1", "cp-1=v1.36.1", "v1.36.3", nil},
		{"nothing to do", "v1.36.3 v1.36.3", "cp-1=v1.36.3", "v1.36.3", nil},
		{"a minor upgrade that broke off after the first master", "v1.36.3 v1.35.4 v1.35.4", "cp-1=v1.36.3 cp-2=v1.35.4 w-1=v1.35.4", "v1.36.3", nil},
		{"a minor upgrade that broke off after two masters", "v1.36.3 v1.36.3 v1.35.4", "cp-1=v1.36.3 cp-2=v1.36.3 cp-3=v1.35.4 w-1=v1.35.4", "v1.36.3", nil},
		{"a minor upgrade that broke off among the workers", "v1.36.3 v1.36.3 v1.36.3", "w-1=v1.36.3 w-2=v1.35.4", "v1.36.3", nil},
		{"a patch upgrade that broke off", "v1.36.3 v1.36.1 v1.36.1", "cp-1=v1.36.3 cp-2=v1.36.1", "v1.36.3", nil},
		{"a kubelet a patch newer than its API servers", "v1.36.1", "w-1=v1.36.2", "v1.36.3", nil},
		{"a downgrade", "v1.36.3 v1.36.3", "", "v1.35.4", []string{"v1.35.4 cannot follow v1.36.3 | cannot go back"}},
		{"a downgrade by a patch", "v1.36.3", "", "v1.36.1", []string{"v1.36.1 cannot follow v1.36.3 | cannot go back"}},
		{"two minors at a time, said once", "v1.34.1 v1.34.1 v1.34.1", "", "v1.36.3", []string{"v1.36.3 cannot follow v1.34.1 | upgrade to a v1.35 first"}},
		{"another upgrade broke off", "v1.35.6 v1.35.4 v1.35.4", "", "v1.36.3", []string{"the API servers run v1.35.4 and v1.35.6 | --to v1.35.6"}},
		{"three versions", "v1.36.3 v1.35.6 v1.35.4", "", "v1.36.3", []string{"the API servers run v1.35.4, v1.35.6 and v1.36.3 | --to v1.35.6"}},
		{"an upgrade to another patch broke off", "v1.36.1 v1.35.4 v1.35.4", "", "v1.36.3", []string{"the API servers run v1.35.4 and v1.36.1 | --to v1.36.1"}},
		{"a newer one among them", "v1.36.3 v1.37.0", "", "v1.36.3", []string{"v1.36.3 cannot follow v1.37.0 | cannot go back"}},
		{"one is two minors behind the target", "v1.36.3 v1.34.1", "", "v1.36.3", []string{"v1.36.3 cannot follow v1.34.1 | v1.35 first"}},
		{"a kubelet three minors older than it will be", "v1.35.4", "w-1=v1.33.0", "v1.36.3", nil},
		{"a kubelet four minors older than it would be", "v1.35.4", "w-2=v1.32.9 w-1=v1.32.9 cp-1=v1.35.4", "v1.36.3", []string{"the kubelet of w-1, w-2 is v1.32.9 | at least first"}},
		{"a kubelet of a newer minor than the target", "v1.35.4", "w-1=v1.37.0", "v1.36.3", []string{"the kubelet of w-1 is v1.37.0 | kubelets do not go back"}},
		{"a kubelet of a newer patch than the target", "v1.36.1", "w-1=v1.36.4", "v1.36.3", []string{"the kubelet of w-1 is v1.36.4 | kubelets do not go back"}},
		{"a kubelet of a newer minor than every API server", "v1.35.4 v1.35.4", "w-1=v1.36.3", "v1.36.3", []string{"the kubelet of w-1 is v1.36.3 | newer minor than the API server with v1.35.4"}},
		{"a kubelet between the API servers and the target", "v1.36.3 v1.35.4", "w-1=v1.36.1", "v1.36.3", []string{"the kubelet of w-1 is v1.36.1 | newer minor"}},
		{"each kubelet with its own problem, oldest first", "v1.35.4", "a=v1.37.0 b=v1.31.0", "v1.36.3", []string{"the kubelet of b is v1.31.0 | 5 minors older", "the kubelet of a is v1.37.0 | go back"}},
		{"nothing is known", "", "", "v1.36.3", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			wantProblems(t, Skew(versions(t, row.apis), named(t, row.kubelets), must(t, row.to)), row.want...)
		})
	}
}

func TestSkewLeavesItsArgumentsAlone(t *testing.T) {
	apis := versions(t, "v1.36.3 v1.35.4 v1.36.3")
	before := slices.Clone(apis)
	Skew(apis, nil, must(t, "v1.36.3"))
	if !slices.Equal(apis, before) {
		t.Errorf("%v became %v", before, apis)
	}
}

func TestEtcdCrossing(t *testing.T) {
	for _, row := range []struct {
		name    string
		members map[string]string
		to      string
		want    []string
	}{
		{"a patch", map[string]string{"cp-1": "3.6.6", "cp-2": "3.6.6"}, "3.6.8-0", nil},
		{"nothing to do", map[string]string{"cp-1": "3.6.8"}, "3.6.8-0", nil},
		{"an older patch of the same minor", map[string]string{"cp-1": "3.6.9"}, "3.6.8-0", nil},
		{"all old enough to cross", map[string]string{"cp-1": "3.5.24", "cp-2": "3.5.30-0"}, "3.6.8-0", nil},
		{"crossing broke off", map[string]string{"cp-1": "3.6.8", "cp-2": "3.5.24"}, "3.6.8-0", nil},
		{"one is a patch too old", map[string]string{"cp-1": "3.5.24", "cp-2": "3.5.23"}, "3.6.8-0", []string{"cp-2: etcd 3.5.23 | 3.5.24 or later"}},
		{"two are too old, and one has crossed", map[string]string{"cp-3": "3.5.21-0", "cp-1": "3.6.8", "cp-2": "3.5.0"}, "3.6.8-0", []string{"cp-2: etcd 3.5.0 | 3.5.24", "cp-3: etcd 3.5.21-0 | 3.5.24"}},
		{"old patches may stay within 3.5", map[string]string{"cp-1": "3.5.15"}, "3.5.21-0", nil},
		{"the crossing before has no rule of its own", map[string]string{"cp-1": "3.4.30"}, "3.5.24-0", nil},
		{"another crossing has no rule of its own", map[string]string{"cp-1": "3.6.0"}, "3.7.1", nil},
		{"two minors", map[string]string{"cp-1": "3.4.30"}, "3.6.8", []string{"cp-1: etcd 3.4.30 | brings etcd 3.5 first"}},
		{"back", map[string]string{"cp-1": "3.6.8"}, "3.5.24-0", []string{"cp-1: etcd 3.6.8 | does not go back"}},
		{"what cannot be read", map[string]string{"cp-1": "latest", "cp-2": ""}, "3.6.8", []string{"cp-1: etcd | \"latest\"", "cp-2: etcd | \"\""}},
		{"a target that cannot be read", map[string]string{"cp-1": "3.6.8"}, "new", []string{"etcd | bundle inspect"}},
	} {
		t.Run(row.name, func(t *testing.T) { wantProblems(t, EtcdCrossing(row.members, row.to), row.want...) })
	}
}
