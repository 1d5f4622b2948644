package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
)

// decideConnection says why a host could not be asked. What to do about it
// stands apart from what was seen.
func decideConnection(name string, err error) Finding {
	f := Finding{Host: name, Check: CheckConnection, Severity: Error, Wanted: "a root shell over SSH"}
	var (
		key    *host.HostKeyError
		login  *host.AuthError
		sudo   *host.SudoError
		beyond *host.UnreachableError
	)
	switch {
	case err == nil:
		f.Seen = "no connection"
	case errors.As(err, &key):
		f.Check = CheckHostKey
		decideHostKey(&f, key)
	case errors.As(err, &login):
		f.Check, f.Seen = CheckLogin, withoutHost(login.Error(), name)
		f.Fix = fmt.Sprintf("put one of the keys into ~%s/.ssh/authorized_keys on the host, or name another key or user in the inventory", login.User)
	case errors.As(err, &sudo):
		f.Check, f.Seen, f.Fix = CheckSudo, fmt.Sprintf("%s (user %s)", sudo.Reason, sudo.User), sudo.Remedy()
		if sudo.Detail != "" {
			f.Seen += ": " + oneLine(sudo.Detail)
		}
	case errors.As(err, &beyond):
		f.Seen = "no answer from " + beyond.Address + ": " + oneLine(beyond.Err.Error())
		f.Fix = "check the address and port in the inventory, and that the host is up"
	default:
		f.Seen = oneLine(withoutHost(err.Error(), name))
	}
	return f
}

func decideHostKey(f *Finding, key *host.HostKeyError) {
	f.Seen = fmt.Sprintf("%s shows %s %s", key.Address, key.Type, key.Fingerprint)
	var known []string
	for _, k := range key.Known {
		known = append(known, fmt.Sprintf("%s %s (%s)", k.Type, k.Fingerprint, k.Where))
	}
	switch {
	case key.Revoked:
		f.Wanted, f.Fix = "a key that is not revoked", "give the host a new key; this one is revoked: "+strings.Join(known, ", ")
	case key.Changed():
		f.Wanted = strings.Join(known, ", ")
		f.Fix = "if the host was installed anew, compare the fingerprint on its console and replace the known key"
	default:
		f.Wanted = "a key that is known"
		f.Fix = "compare it with ssh-keygen -lf on the host's console, then add to known_hosts: " + key.Line
	}
}

// withoutHost drops the host's name, which has a column of its own.
func withoutHost(text, name string) string { return strings.TrimPrefix(text, name+": ") }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// brief is an error in one line of a table, without the script that it may quote.
func brief(err error) string {
	const longest = 200
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	text := err.Error()
	var run *host.RunError
	if errors.As(err, &run) {
		text = fmt.Sprintf("exit code %d: %s", run.Code, run.Stderr)
	}
	if text = oneLine(text); len(text) > longest {
		text = "... " + strings.ToValidUTF8(text[len(text)-longest:], "")
	}
	return text
}
