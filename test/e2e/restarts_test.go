//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/test/lab"
)

// plannedRestarts has apply restart the etcd and the API server of each master
// in turn, under both probes: no client may notice.
func plannedRestarts(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	kubeconfig, ids := kubeconfigOf(t, path), memberIDs(t, masters)
	for _, host := range masters {
		t.Run(host, func(t *testing.T) { plannedRestart(t, path, kubeconfig, host) })
		if t.Failed() {
			t.FailNow()
		}
	}
	wantExisting(t, masters)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// asTheyAre has the probes be no harder than clients are: one that keeps its
// connection may send a request just before it hears that it has to go, and is
// answered "shutting down, retry after 1 s", which client-go does by itself. One
// with a new connection never meets an API server that leaves. 3 s is for the
// operator's machine, which is all hosts here.
func asTheyAre(c *probe.Config) {
	c.Patient = c.Kind == probe.LongLived
	c.Timeout = 3 * time.Second
}

// unnoticed wants the probes to have seen nothing; else it shows what the
// balancers thought of the masters.
func (ps probes) unnoticed(t *testing.T, what string) {
	t.Helper()
	ps.await(t, 40, time.Minute)
	failures := 0
	for _, report := range ps.stop(t, what) {
		failures += len(report.Failures)
	}
	if failures == 0 {
		return
	}
	t.Errorf("%s: %d requests failed, want none", what, failures)
	for _, host := range []string{"lb-1", "lb-2"} {
		t.Logf("%s:\n%s", host, shell(t, host, `journalctl --unit haproxy.service --since -15min --quiet --no-pager | grep -E ' is (UP|DOWN)|NOLB' | tail -n 40`))
	}
}

func plannedRestart(t *testing.T, path, kubeconfig, host string) {
	soften(t, host)
	awaitSoft(t, path, host)
	what := "planned restart of " + host
	if s, _ := statusOf(t, path); s.Quorum.Leader == host {
		what += ", etcd's leader"
	}
	ps := startProbes(t, kubeconfig, asTheyAre)
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	ps.unnoticed(t, what)
	for _, span := range spansOf(t, r) {
		if span.host == host && (span.phase == "harden-etcd" || span.phase == "readmit") {
			t.Logf("%s: %s took %s", what, span.phase, span.took().Round(100*time.Millisecond))
		}
	}
	awaitFaultless(t, path, time.Minute)
}

// awaitSoft waits until the kubelet has put the softened manifest into force.
func awaitSoft(t *testing.T, path, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err := lab.Await(ctx, "etcd on "+host+" to run without "+existing, 3*time.Minute, func(context.Context) error {
		commands := shell(t, host, `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = etcd ] && tr '\0' ' ' <$p/cmdline; done; exit 0`)
		switch {
		case commands == "":
			return errors.New("it does not run")
		case strings.Contains(commands, existing):
			return fmt.Errorf("it runs as %s", commands)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitFaultless(t, path, 3*time.Minute)
}
