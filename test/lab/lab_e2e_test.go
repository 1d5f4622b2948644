//go:build e2e

package lab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// spare keeps these tests off the hosts of a cluster that may be running.
const spare = "w-2"

// theLab is the lab with the spare up; TestMain takes it down again.
var theLab *lab.Lab

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	l, err := lab.Open()
	if err == nil {
		err = l.Up(ctx, os.Stderr, spare)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	theLab = l
	defer l.Remove(ctx, spare)
	return m.Run()
}

func inside(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := theLab.Exec(t.Context(), spare, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestAHostIsBareDebianAndReachesNothingOutside(t *testing.T) {
	if got := inside(t, "systemctl", "is-system-running", "--wait"); got != "running" {
		t.Errorf("systemd is %q, want running", got)
	}
	for _, tool := range []string{"kubelet", "containerd", "runc", "haproxy", "keepalived", "iptables", "conntrack"} {
		if out, err := theLab.Exec(t.Context(), spare, "which", tool); err == nil {
			t.Errorf("the bare host has %s", strings.TrimSpace(string(out)))
		}
	}
	forwarding, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + theLab.Bridge + "/forwarding")
	if err != nil || strings.TrimSpace(string(forwarding)) != "0" {
		t.Errorf("the bridge's forwarding is %q, %v; want 0", forwarding, err)
	}
}

func TestRecreateMakesAHostBareAndKeepsItsIdentity(t *testing.T) {
	machineID := inside(t, "cat", "/etc/machine-id")
	inside(t, "sh", "-c", "mkdir -p /etc/kubernetes /var/lib/etcd && echo old >/etc/kubernetes/admin.conf && rm /usr/bin/sudo && systemctl disable ssh")
	if err := theLab.Recreate(t.Context(), spare); err != nil { // it ends with a login against known_hosts, and sudo
		t.Fatal(err)
	}
	if out, err := theLab.Exec(t.Context(), spare, "ls", "-d", "/etc/kubernetes", "/var/lib/etcd"); err == nil {
		t.Errorf("left over: %s", out)
	}
	if now := inside(t, "cat", "/etc/machine-id"); now != machineID || len(now) != 32 {
		t.Errorf("machine ID %s became %s", machineID, now)
	}
}

func TestASecondUpChangesNothingAndIsQuick(t *testing.T) {
	boot := inside(t, "cat", "/proc/sys/kernel/random/boot_id")
	began := time.Now()
	if err := theLab.Up(t.Context(), os.Stderr, spare); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if now := inside(t, "cat", "/proc/sys/kernel/random/boot_id"); now != boot {
		t.Errorf("the host was booted again")
	}
}
