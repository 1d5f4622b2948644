package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision/host"
)

func TestDecideConnection(t *testing.T) {
	known := []host.KnownKey{{Type: "ssh-ed25519", Fingerprint: "SHA256:old", Where: "known_hosts:3"}}
	rows := []struct {
		name  string
		err   error
		check string
		seen  string
		fix   string
	}{
		{"no reader and no reason", nil, CheckConnection, "no connection", ""},
		{"an unknown host key shows the line to add",
			&host.HostKeyError{Host: "cp-1", Address: "10.0.0.21:22", Type: "ssh-ed25519", Fingerprint: "SHA256:new", Line: "10.0.0.21 ssh-ed25519 AAAA"},
			CheckHostKey, "SHA256:new", "10.0.0.21 ssh-ed25519 AAAA"},
		{"a changed host key shows both", fmt.Errorf("connect: %w",
			&host.HostKeyError{Host: "cp-1", Address: "10.0.0.21:22", Type: "ssh-ed25519", Fingerprint: "SHA256:new", Known: known}),
			CheckHostKey, "SHA256:new", "compare the fingerprint"},
		{"no key was accepted", &host.AuthError{Host: "cp-1", User: "admin", Address: "10.0.0.21:22", Tried: []string{"id_ed25519"}},
			CheckLogin, "log in to 10.0.0.21:22 as admin", "~admin/.ssh/authorized_keys"},
		{"sudo asks for a password", &host.SudoError{Host: "cp-1", User: "admin", Reason: host.SudoPassword},
			CheckSudo, "sudo asks for a password (user admin)", "NOPASSWD"},
		{"the host is down", &host.UnreachableError{Host: "cp-1", Address: "10.0.0.21:22", Err: errors.New("i/o timeout")},
			CheckConnection, "no answer from 10.0.0.21:22: i/o timeout", "is up"},
		{"anything else loses the name that has a column", errors.New("cp-1: odd\nthing"), CheckConnection, "odd thing", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := decideConnection("cp-1", row.err)
			if f.Check != row.check || !strings.Contains(f.Seen, row.seen) || !strings.Contains(f.Fix, row.fix) ||
				f.Severity != Error || strings.Contains(f.Seen, "cp-1: ") || strings.Contains(f.Seen, "\n") {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestBriefQuotesNoScript(t *testing.T) {
	err := fmt.Errorf("cp-1: %w", &host.RunError{Host: "cp-1", Argv: []string{"sh", "-c", factsScript}, Code: 2, Stderr: "sh: 1:\n" + strings.Repeat("é", 300)})
	if got := brief(err); strings.Contains(got, "clock_begin") || len(got) > 210 || strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	if got := brief(fmt.Errorf("cp-1: %w", context.DeadlineExceeded)); got != "no answer in time" {
		t.Error(got)
	}
}
