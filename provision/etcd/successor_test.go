package etcd

import (
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

func TestSuccessor(t *testing.T) {
	voter := func(name string, fsync time.Duration, change func(*Member)) Member {
		m := Member{Name: name, Host: name, Role: Voter, Healthy: true, FsyncP99: units.Seconds(fsync)}
		if change != nil {
			change(&m)
		}
		return m
	}
	leads := func(m *Member) { m.Leader = true }
	for name, row := range map[string]struct {
		members []Member
		want    string // "" for none
	}{
		"the faster disk":                   {[]Member{voter("a", 1, leads), voter("b", 40*time.Millisecond, nil), voter("c", 2*time.Millisecond, nil)}, "c"},
		"as good as equal: the first":       {[]Member{voter("a", 1, leads), voter("b", 1900*time.Microsecond, nil), voter("c", 1100*time.Microsecond, nil)}, "b"},
		"a disk that is not known is last":  {[]Member{voter("a", 1, leads), voter("b", 0, nil), voter("c", time.Second, nil)}, "c"},
		"a sick one never":                  {[]Member{voter("a", 1, leads), voter("b", 1, func(m *Member) { m.Healthy = false }), voter("c", time.Second, nil)}, "c"},
		"a learner never":                   {[]Member{voter("a", 1, leads), voter("b", 1, func(m *Member) { m.Role = Learner })}, ""},
		"a ghost never":                     {[]Member{voter("a", 1, leads), voter("b", 1, func(m *Member) { m.Host = "" })}, ""},
		"one that is seen by others only":   {[]Member{voter("a", 1, leads), voter("b", 1, func(m *Member) { m.Via = "a" })}, ""},
		"nobody besides the one that leads": {[]Member{voter("a", 1, leads)}, ""},
	} {
		m, ok := Verdict{Members: row.members}.Successor()
		if m.Name != row.want || ok != (row.want != "") {
			t.Errorf("%s: %q, %t, want %q", name, m.Name, ok, row.want)
		}
	}
}
