package haproxy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/test/golden"
)

// show is what HAProxy 2.6 said of servers in each of their states.
func show(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/show-2.6.txt")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseRealOutput(t *testing.T) {
	v, err := Parse(show(t), "kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "show-2.6.golden", append(text, '\n'))
	var states []string
	for _, s := range v.Servers {
		states = append(states, s.Name+" "+s.String())
	}
	want := []string{"cp-1 UP for 5s", "cp-2 DRAINED for 3s", "cp-3 DOWN for 2s (L7STS 500: Internal Server Error)",
		"cp-4 LEAVING for 3s", "cp-5 STOPPED for 3s", "cp-6 DOWN for 6s (L4CON: Connection refused)"}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}

func TestParseComplains(t *testing.T) {
	whole := string(show(t))
	for _, row := range []struct{ name, out, backend, want string }{
		{"nothing", "", "kube-apiserver", "0 answers"},
		{"an order that it does not know", "Unknown command: 'show servers state'\n", "kube-apiserver", "cannot understand"},
		{"cut off after the first answer", whole[:strings.Index(whole, "\n\n")], "kube-apiserver", "1 answers"},
		{"another backend", whole, "web", `no backend "web"`},
		{"a column is gone", strings.Replace(whole, ",check_status,", ",other,", 1), "kube-apiserver", "has no check_status"},
		{"a state that is no number", strings.Replace(whole, "cp-2 127.0.0.1 2 8 ", "cp-2 127.0.0.1 2 x ", 1), "kube-apiserver", "the state of cp-2"},
	} {
		if _, err := Parse([]byte(row.out), row.backend); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, wanted %q", row.name, err, row.want)
		}
	}
}

func TestState(t *testing.T) {
	for _, row := range []struct {
		name, status string
		order        int64
		want         State
		well         bool
	}{
		{"checks pass", "UP", 0, Up, true},
		{"one check has failed, one more is wanted", "UP 1/2", 0, Up, true},
		{"one check has passed, one more is wanted", "DOWN 1/2", 0, Down, false},
		{"it is not checked", "no check", 0, Up, true},
		{"it has announced its end", "NOLB", 0, Leaving, true},
		{"drained, and its checks pass", "DRAIN", 8, Drained, true},
		{"drained, and it has announced its end", "NOLB", 8, Drained, true},
		{"drained, and down", "DOWN", 8, Drained, false},
		{"drained by its agent", "DRAIN (agent)", 0, Drained, true},
		{"disabled", "MAINT", 1, Stopped, false},
		{"disabled, because another one is", "MAINT (via a/b)", 2, Stopped, false},
		{"disabled while it was drained", "MAINT", 9, Stopped, false},
	} {
		if got, well := state(row.status, row.order); got != row.want || well != row.well {
			t.Errorf("%s: %s, %t; want %s, %t", row.name, got, well, row.want, row.well)
		}
	}
}
func TestMayDrain(t *testing.T) {
	view := func(states ...State) View {
		var v View
		for i, s := range states {
			v.Servers = append(v.Servers, Server{Name: []string{"cp-1", "cp-2", "cp-3"}[i], State: s})
		}
		return v
	}
	for _, row := range []struct {
		name   string
		one    View
		other  View
		denied string
	}{
		{"all are up everywhere", view(Up, Up, Up), view(Up, Up, Up), ""},
		{"it is drained already, and down", view(Drained, Up, Up), view(Down, Up, Up), ""},
		{"another one is down on one balancer", view(Up, Up, Up), view(Up, Down, Up), "on lb-2, cp-2 is DOWN"},
		{"another one is drained", view(Up, Up, Drained), view(Up, Up, Drained), "on lb-1, cp-3 is DRAINED for 0s; on lb-2, cp-3"},
		{"another one leaves", view(Up, Up, Leaving), view(Up, Up, Up), "on lb-1, cp-3 is LEAVING"},
		{"another one is disabled", view(Up, Stopped, Up), view(Up, Up, Up), "cp-2 is STOPPED"},
		{"it is the only one", view(Up), view(Up), "no other server"},
		{"a balancer does not have it", View{Servers: view(Up, Up, Up).Servers[1:]}, view(Up, Up, Up), "lb-1 does not know cp-1"},
	} {
		err := MayDrain(map[string]View{"lb-1": row.one, "lb-2": row.other}, "cp-1")
		if (err == nil) != (row.denied == "") || err != nil && !strings.Contains(err.Error(), row.denied) {
			t.Errorf("%s: %v, wanted %q", row.name, err, row.denied)
		}
	}
}

// TestTheScriptSurvivesATimer: systemd expands some signs in the command of a
// unit.
func TestTheScriptSurvivesATimer(t *testing.T) {
	if strings.ContainsAny(askScript, "$%") {
		t.Errorf("systemd would expand what is in it: %s", askScript)
	}
}
