package cmd

import (
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
)

func someMembers() provision.EtcdMembers {
	return provision.EtcdMembers{State: etcd.Degraded, Leader: "cp-1", Quorum: etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 2}, Members: []provision.EtcdMember{
		{ID: 0xabc, Name: "cp-1", Host: "cp-1", PeerURL: "https://198.51.100.21:2380", Role: etcd.Voter, Leader: true, State: etcd.MemberHealthy, Version: "3.6.8", DBSize: 38_000_000, DBInUse: 12_000_000, DBQuota: 8 << 30},
		{ID: 0xdef, Name: "cp-2", Host: "cp-2", PeerURL: "https://198.51.100.22:2380", Role: etcd.Voter, State: etcd.MemberAlarm, Version: "3.6.8", DBSize: 9 << 30, Behind: 7, Alarms: []string{"NOSPACE"}, Why: "NOSPACE alarm"},
		{Name: "cp-3", Host: "cp-3", PeerURL: "https://198.51.100.23:2380", State: etcd.MemberAbsent, Why: "not in the member list"},
	}, Alarms: []provision.EtcdAlarm{{Member: 0xdef, Host: "cp-2", Kind: "NOSPACE", Remedy: "make room"}}}
}

func TestRenderMembers(t *testing.T) {
	var out strings.Builder
	if err := renderMembers(&out, someMembers()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"cp-1 cp-1 abc https://198.51.100.21:2380 leader healthy 3.6.8 38 MB 12 MB 8.6 GB 0 -",
		"cp-2 cp-2 def https://198.51.100.22:2380 voter alarm 3.6.8 9.7 GB - - 7 NOSPACE",
		"cp-3 cp-3 - https://198.51.100.23:2380 - absent - - - - - -",
		"cp-3: not in the member list",
		"voters 3 quorum 2 healthy 2 can lose 0 DEGRADED leader cp-1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestRenderAlarms(t *testing.T) {
	all := someMembers()
	unknown := provision.EtcdMembers{State: etcd.Unknown}
	for name, row := range map[string]struct {
		all  provision.EtcdMembers
		want string
	}{
		"one":       {all, "NOSPACE cp-2 def 9.7 GB - - make room"},
		"none":      {provision.EtcdMembers{State: etcd.Pass}, "no alarm is raised (PASS)"},
		"not known": {unknown, "no alarm is known (UNKNOWN)"},
	} {
		var out strings.Builder
		if err := renderAlarms(&out, row.all); err != nil || !strings.Contains(strings.Join(strings.Fields(out.String()), " "), row.want) {
			t.Errorf("%s: %q is not in %q, %v", name, row.want, out.String(), err)
		}
	}
}

func TestEtcdOfHostsOutOfReach(t *testing.T) {
	file := writeInventory(t, nil)
	for _, args := range [][]string{{"etcd", "members", file}, {"etcd", "alarms", "list", file}} {
		if code, _, errOut := run(t, "", args...); code != exitUnknown {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
	for _, args := range [][]string{{"etcd", "move-leader", file}, {"etcd", "move-leader", "--plan", file, "cp-1"}} {
		if code, _, errOut := run(t, "", args...); code != exitUnreachable {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
	for _, args := range [][]string{{"etcd", "move-leader"}, {"etcd", "move-leader", file, "cp-1", "cp-2"}, {"etcd", "defrag", file}, {"etcd", "alarms", "list"}} {
		if code, _, errOut := run(t, "", args...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
}
