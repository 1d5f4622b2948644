package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/test/golden"
	"github.com/ha-install/ha-install/test/lab"
)

func TestCalledDead(t *testing.T) {
	const (
		other  = "1795392120.5 lb-1 haproxy[7]: Server kube-apiserver/cp-2 is DOWN, reason: Layer4 timeout\n"
		before = "1795392121.25 lb-1 haproxy[7]: Server kube-apiserver/cp-1 is DOWN, reason: Layer4 connection problem\n"
		up     = "1795392122.5 lb-1 haproxy[7]: Server kube-apiserver/cp-1 is UP, reason: Layer7 check passed\n"
		dead   = "1795392125.750 lb-1 haproxy[7]: [WARNING]  (7) : Server kube-apiserver/cp-1 is DOWN, reason: Layer4 timeout\n"
		again  = "1795392126.5 lb-1 haproxy[7]: Server kube-apiserver/cp-1 is DOWN, reason: Layer4 timeout\n"
	)
	for name, row := range map[string]struct {
		journal string
		want    string // after 1795392124, or of the error
	}{
		"another one's death, and an earlier one, do not count": {other + before + up + dead, "1.75s"},
		"it is said twice":            {dead + again, "1.75s"},
		"it was never called dead":    {other + before + up, "is not in it"},
		"an empty journal":            {"", "is not in it"},
		"a line that has no time":     {"-- " + dead, "cannot understand"},
		"one whose name begins alike": {strings.ReplaceAll(dead, "cp-1 ", "cp-11 "), "is not in it"},
	} {
		t.Run(name, func(t *testing.T) {
			after := time.Unix(1795392124, 0)
			at, err := calledDead(row.journal, "cp-1", after)
			got := at.Sub(after).Round(time.Millisecond).String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, row.want) {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestDeath(t *testing.T) {
	for name, row := range map[string]struct{ lastWrite, want float64 }{
		"the last write came through while the plug was pulled":   {10.3, 10.3},
		"it came through just before":                             {9.9, 10},
		"the longest gap was another one, before":                 {3, 10},
		"the longest gap was another one, after":                  {12, 10},
		"the last write came through when the host was just dead": {10.5, 10.5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := death(at(10), at(10.5), at(row.lastWrite)); !got.Equal(at(row.want)) {
				t.Errorf("it died at %s, want %s", got, at(row.want))
			}
		})
	}
}

// aWhole is what status says of a whole cluster, as far as it is read here.
const aWhole = `{
	"quorum": {"state": "PASS", "leader": "cp-2", "numbers": {"voters": 3, "healthy": 3}},
	"hosts": [
		{"name": "lb-1", "backend": {"servers": [{"name": "cp-1", "state": "UP"}, {"name": "cp-2", "state": "UP"}, {"name": "cp-3", "state": "UP"}]}},
		{"name": "cp-1", "apiserver": "ok"}, {"name": "cp-2", "apiserver": "ok"}, {"name": "cp-3", "apiserver": "ok"},
		{"name": "lb-2", "holdsVIP": true, "backend": {"servers": [{"name": "cp-1", "state": "UP"}, {"name": "cp-2", "state": "UP"}, {"name": "cp-3", "state": "UP"}]}}
	]}`

func TestWhole(t *testing.T) {
	for name, row := range map[string]struct{ old, new, missing string }{
		"nothing is missing":                {"", "", ""},
		"a voter is sick":                   {`"healthy": 3`, `"healthy": 2`, "2 healthy voters of 3"},
		"a master is no member":             {`"voters": 3, "healthy": 3`, `"voters": 2, "healthy": 2`, "2 healthy voters of 2"},
		"the verdict is another":            {"PASS", "UNKNOWN", "etcd is UNKNOWN"},
		"nobody leads":                      {`"leader": "cp-2"`, `"leader": ""`, `the leader ""`},
		"an API server is not ready":        {`{"name": "cp-3", "apiserver": "ok"}`, `{"name": "cp-3", "apiserver": "not ready"}`, `the API server of cp-3 is "not ready"`},
		"a host says nothing":               {`{"name": "cp-3", "apiserver": "ok"}`, `{"name": "cp-3"}`, `the API server of cp-3 is ""`},
		"a balancer does not see a master":  {`{"name": "cp-2", "state": "UP"}`, `{"name": "cp-2", "state": "DOWN"}`, "lb-1 does not send clients to cp-2"},
		"a balancer does not know a master": {`, {"name": "cp-3", "state": "UP"}`, "", "lb-1 does not send clients to cp-3"},
		"a balancer was not asked":          {`"holdsVIP": true, "backend"`, `"holdsVIP": true, "other"`, "lb-2 does not send clients to cp-1"},
		"the VIP is on no balancer":         {`"holdsVIP": true`, `"holdsVIP": false`, "no balancer holds the VIP"},
	} {
		t.Run(name, func(t *testing.T) {
			var s standing
			if err := json.Unmarshal([]byte(strings.Replace(aWhole, row.old, row.new, 1)), &s); err != nil {
				t.Fatal(err)
			}
			err := s.whole(masters, []string{"lb-1", "lb-2"})
			if row.missing == "" && err != nil || row.missing != "" && (err == nil || !strings.Contains(err.Error(), row.missing)) {
				t.Errorf("missing: %v, want %q", err, row.missing)
			}
			if row.missing == "" && s.holder() != "lb-2" {
				t.Errorf("the holder is %q", s.holder())
			}
		})
	}
}

func TestPlainHAProxy(t *testing.T) {
	config, err := plainHAProxy([]lab.Host{{Name: "cp-1", Address: "198.51.100.21"}, {Name: "cp-2", Address: "198.51.100.22"}})
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "haproxy.cfg", []byte(config))
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		return // the golden file was seen by one
	}
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), haproxy, "-c", "-f", path).CombinedOutput(); err != nil {
		t.Errorf("HAProxy refuses it: %v\n%s", err, out)
	}
}

// TestAnswering: two servers differ by their certificates alone.
func TestAnswering(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	seen := &answering{}
	client := server.Client()
	client.Transport = seen.wrap(client.Transport)
	if seen.last() != nil {
		t.Error("it knows who answers before anybody was asked")
	}
	response, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	want := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if !bytes.Equal(seen.last(), want) {
		t.Errorf("the certificate is\n%swant\n%s", seen.last(), want)
	}
}

func TestLost(t *testing.T) {
	for name, row := range map[string]struct {
		off  failover
		want string
	}{
		"nothing is lost, whatever failed":      {failover{fresh: probe.Report{Failures: make([]probe.Failure, 3)}}, ""},
		"one with new connections":              {failover{master: "cp-2", fresh: probe.Report{Lost: []int{7}}}, "round 2: the cluster made by apply lost 1 acknowledged writes when cp-2"},
		"two of the long-lived client":          {failover{lasting: probe.Report{Lost: []int{7, 8}}}, "lost 2"},
		"one that was not to be seen meanwhile": {failover{lasting: probe.Report{Backwards: []int{7}}}, "lost 1"},
	} {
		t.Run(name, func(t *testing.T) {
			err := result{pairs: []pair{{}, {off: [2]failover{{}, row.off}}}}.lost()
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
