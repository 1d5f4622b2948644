//go:build e2e

package e2e

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// onHost runs a command as root on a host, past its sshd.
func onHost(t *testing.T, host string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := theLab.Exec(ctx, host, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// shell runs a script as root on a host.
func shell(t *testing.T, host, script string) string {
	t.Helper()
	return onHost(t, host, "sh", "-c", script)
}

// onEach runs a script on all the hosts at once and returns the answers.
func onEach(t *testing.T, hosts []string, script string) map[string]string {
	t.Helper()
	answers, err := askHosts(hosts, script)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// askHosts is onEach for hosts of which some may be off: one that does not answer has
// an empty answer, and is named in the error.
func askHosts(hosts []string, script string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	answers := map[string]string{}
	for _, host := range hosts {
		wg.Go(func() {
			out, err := theLab.Exec(ctx, host, "sh", "-c", script)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			answers[host] = strings.TrimSpace(string(out))
		})
	}
	wg.Wait()
	return answers, failed
}

// bareFootprint is everything on a host that an installer could change:
// files by mode, size, owner and time of change, units, kernel settings and
// addresses. What logins and time itself change is left out, and so are the
// times of directories, which a file that came and went changes. The lock and
// the journal are there after a refusal, too.
const bareFootprint = `set -u
find /etc /opt /root /usr /var/lib /var/cache /home -xdev \
	\( -path /var/lib/ha-install/lock -o -path /var/lib/ha-install/journal -o -path /var/lib/systemd -o -path /var/lib/private -o -path /usr/share \) -prune -o \
	-path /var/lib/ha-install -o \
	\( -type d -printf '%p %m %u\n' -o -printf '%p %m %u %s %T@ %l\n' \) 2>/dev/null | sort
systemctl list-unit-files --no-legend --no-pager | sort
systemctl list-units --type=service --state=running --no-legend --no-pager --plain | awk '{print "running", $1}' | grep -v user@ | sort
sysctl -n net.ipv4.ip_forward net.ipv4.ip_nonlocal_bind 2>/dev/null
ip -oneline -4 address show | awk '{print $2, $4}'
exit 0
`

// clusterFootprint is what a second apply must find and leave as it is:
// configuration with its times, the steps that were run, containers and their
// processes.
const clusterFootprint = `set -u
find /etc/kubernetes /etc/haproxy /etc/keepalived /etc/containerd /etc/cni /etc/systemd /etc/sysctl.d /etc/modules-load.d /etc/crictl.yaml \
	/usr/local/bin /opt/cni /var/lib/ha-install /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env \
	-xdev \( -path /var/lib/ha-install/lock -o -path /var/lib/ha-install/journal \) -prune -o \
	-printf '%p %m %u %s %T@ %C@ %l\n' 2>/dev/null | sort
if [ -x /usr/local/bin/ctr ]; then ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" {print $1, $2}' | sort; fi
for unit in kubelet containerd haproxy keepalived; do
	echo "$unit $(systemctl show -p MainPID -p ActiveEnterTimestampMonotonic "$unit.service" | tr '\n' ' ')"
done
exit 0
`

// wantSame fails with the lines that differ.
func wantSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for _, host := range slices.Sorted(maps.Keys(before)) {
		if gone, come := difference(before[host], after[host]); len(gone)+len(come) > 0 {
			t.Errorf("%s: %s changed:\n- %s\n+ %s", what, host, strings.Join(gone, "\n- "), strings.Join(come, "\n+ "))
		}
	}
}

// difference compares two texts as sets of lines.
func difference(before, after string) (gone, come []string) {
	lines := func(s string) map[string]bool {
		set := map[string]bool{}
		for line := range strings.Lines(s) {
			set[strings.TrimRight(line, "\n")] = true
		}
		return set
	}
	a, b := lines(before), lines(after)
	for line := range a {
		if !b[line] {
			gone = append(gone, line)
		}
	}
	for line := range b {
		if !a[line] {
			come = append(come, line)
		}
	}
	slices.Sort(gone)
	slices.Sort(come)
	return gone, come
}

// recreate makes hosts bare.
func recreate(t *testing.T, hosts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := inject.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if err := theLab.Recreate(ctx, hosts...); err != nil {
		t.Fatal(err)
	}
}
