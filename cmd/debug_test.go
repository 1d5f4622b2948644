package cmd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/host"
)

func TestDebugLinesShowSizesAndNoContent(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	rows := []struct {
		name  string
		trace host.Trace
		want  string
	}{
		{"a command", host.Trace{Host: "cp-1", Argv: []string{"systemctl", "is-active", "kubelet.service"}, Took: 42 * time.Millisecond, Out: 7},
			"14:00:01.000  debug    cp-1         42ms  exit 0   in 0 B     out 7 B      systemctl is-active kubelet.service"},
		{"one that fails", host.Trace{Host: "lb-1", Argv: []string{"dpkg", "--install", "/a b"}, Took: 3 * time.Second, Code: 2, In: 9_036_624},
			"14:00:01.000  debug    lb-1           3s  exit 2   in 9.0 MB  out 0 B      dpkg --install '/a b'"},
		{"one that was lost", host.Trace{Host: "cp-1", Argv: []string{"true"}, Code: -1, Err: errors.New("connection lost\nmore")},
			"14:00:01.000  debug    cp-1           0s  no end   in 0 B     out 0 B      true: connection lost"},
		{"a script goes by its name", host.Trace{Host: "cp-1", Argv: []string{"sh", "-c", "set -eu\necho secret", "commit", "/etc/kubernetes/pki/ca.key", sum, "0600", "secret"}},
			"14:00:01.000  debug    cp-1           0s  exit 0   in 0 B     out 0 B      script: commit /etc/kubernetes/pki/ca.key <sha256> 0600 secret"},
	}
	for _, row := range rows {
		row.trace.Began = at(1)
		if got := debugLine(row.trace); got != row.want {
			t.Errorf("%s:\n%q, wanted\n%q", row.name, got, row.want)
		}
	}
	long := debugLine(host.Trace{Argv: []string{strings.Repeat("x", 1000)}})
	if len(long) > 400 || !strings.HasSuffix(long, "...") {
		t.Errorf("%d characters", len(long))
	}
}
