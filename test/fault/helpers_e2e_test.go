//go:build e2e

package fault_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/fault"
	"github.com/ha-install/ha-install/test/lab"
)

func must(undo fault.Undo, err error) func(*testing.T) fault.Undo {
	return func(t *testing.T) fault.Undo {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { undo(context.Background()) })
		return undo
	}
}

func undoNow(t *testing.T, undo fault.Undo) {
	t.Helper()
	if err := undo(t.Context()); err != nil {
		t.Fatalf("undo: %v", err)
	}
}

func exec1(t *testing.T, host string, argv ...string) string {
	t.Helper()
	out, err := theLab.Exec(t.Context(), host, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func address(t *testing.T, host string) string {
	t.Helper()
	h, err := theLab.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	return h.Address
}

// only is the lab with its table cut down to some hosts.
func only(t *testing.T, hosts ...string) *lab.Lab {
	t.Helper()
	l := *theLab
	l.Hosts = slices.DeleteFunc(slices.Clone(l.Hosts), func(h lab.Host) bool { return !slices.Contains(hosts, h.Name) })
	return &l
}

func wantState(t *testing.T, host string, want lab.State) {
	t.Helper()
	if got, err := theLab.State(t.Context(), host); got != want || err != nil {
		t.Fatalf("%s is %s, %v; want %s", host, got, err, want)
	}
}

func wantLogin(t *testing.T, host string) {
	t.Helper()
	if err := theLab.AwaitLogin(t.Context(), host, 5*time.Second); err != nil {
		t.Errorf("want a login: %v", err)
	}
}

func wantNoLogin(t *testing.T, host string) {
	t.Helper()
	if err := theLab.AwaitLogin(t.Context(), host, time.Second); err == nil {
		t.Errorf("%s took a login", host)
	}
}

// wantBanner asks one host to read the SSH banner of another.
func wantBanner(t *testing.T, from, to string, want bool) {
	t.Helper()
	script := fmt.Sprintf("exec 3<>/dev/tcp/%s/22 && head -c 3 <&3", address(t, to))
	out, err := theLab.Exec(t.Context(), from, "timeout", "1", "bash", "-c", script)
	if got := err == nil && string(out) == "SSH"; got != want {
		t.Errorf("%s reaches port 22 of %s: %v, want %v (%v)", from, to, got, want, err)
	}
}

func wantPing(t *testing.T, from, to string, want bool) {
	t.Helper()
	_, err := theLab.Exec(t.Context(), from, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", address(t, to))
	if got := err == nil; got != want {
		t.Errorf("%s pings %s: %v, want %v", from, to, got, want)
	}
}

// received counts the echo requests that a host's kernel has taken in.
func received(t *testing.T, host string) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(exec1(t, host, "cat", "/proc/net/snmp")) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Icmp:" {
			continue
		}
		if names == nil { // a line of names, then one of values
			names = f
			continue
		}
		n, err := strconv.Atoi(f[slices.Index(names, "InEchos")])
		if err != nil {
			t.Fatalf("count echo requests: %v", err)
		}
		return n
	}
	t.Fatalf("%s counts no ICMP", host)
	return 0
}
