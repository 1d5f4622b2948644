//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// restartBalancers starts both balancers anew, one after the other, that with
// the VIP first: it has to move twice.
func restartBalancers(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	kubeconfig := kubeconfigOf(t, path)
	first := vipHolder(t, path)
	order := []string{first, "lb-1"}
	if first == "lb-1" {
		order[1] = "lb-2"
	}
	ps := startProbes(t, kubeconfig)
	for _, host := range order {
		if now := vipHolder(t, path); now != host {
			t.Errorf("before %s starts anew, %s holds the VIP", host, now)
		}
		power(t, host, false)
		power(t, host, true)
		awaitFaultless(t, path, 2*time.Minute)
	}
	ps.await(t, 40, time.Minute)
	ps.stop(t, "both balancers started anew, one after the other")
	if now := vipHolder(t, path); now != first {
		t.Errorf("the VIP is held by %q, want it back on %s", now, first)
	}
}

// badConfiguration makes HAProxy refuse what apply would give it: the user that
// it shall run as is called otherwise on this host. What runs has to go on.
func badConfiguration(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	holder := vipHolder(t, path)
	const (
		byHand = "# by hand"
		serves = `systemctl show -p MainPID --value haproxy.service; tail -n 1 /etc/haproxy/haproxy.cfg`
	)
	rename := func(from, to string) {
		shell(t, holder, "sed -i 's/^"+from+":/"+to+":/' /etc/passwd")
	}
	shell(t, holder, "echo '"+byHand+"' >>/etc/haproxy/haproxy.cfg")
	rename("haproxy", "haproxy-renamed")
	t.Cleanup(func() { rename("haproxy-renamed", "haproxy") })
	before := shell(t, holder, serves)
	ps := startProbes(t, kubeconfigOf(t, path), asTheyAre)

	r := ha(t, "apply", path)
	r.want(t, 6, holder, "HAProxy refuses its new configuration", "cannot find user id")
	if now := shell(t, holder, serves); now != before || !strings.Contains(now, byHand) {
		t.Errorf("HAProxy's process and its file were\n%s, and are now\n%s", before, now)
	}
	rename("haproxy-renamed", "haproxy")
	ha(t, "apply", path).want(t, 0)
	if now := shell(t, holder, serves); strings.Contains(now, byHand) {
		t.Errorf("the file is as it was, with HAProxy's user back:\n%s", now)
	}
	ps.await(t, 40, time.Minute)
	for _, report := range ps.stop(t, "a configuration that HAProxy refuses") {
		if n := len(report.Failures); n > 0 {
			t.Errorf("%d requests failed, want none", n)
		}
	}
	awaitFaultless(t, path, time.Minute)
}
