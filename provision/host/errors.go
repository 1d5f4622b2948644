package host

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrConnectionLost means that the connection died while a command that may
// change the host was under way: it may or may not have had its effect.
var ErrConnectionLost = errors.New("connection lost")

// RunError is a command that ran on a host and did not exit with 0.
type RunError struct {
	Host   string
	Argv   []string
	Code   int    // exit code; -1 when ended by a signal or without a status
	Signal string // "KILL", without SIG
	Stderr string // the last part of standard error
}

func (e *RunError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case e.Signal != "":
		how = "ended by signal " + e.Signal
	case e.Code < 0:
		how = "ended without an exit status"
	}
	msg := fmt.Sprintf("%s: %s: %s", e.Host, Quote(e.Argv), how)
	if s := strings.TrimSpace(e.Stderr); s != "" {
		msg += ": " + s
	}
	return msg
}

// HostKeyError means that a host could not be told from an impostor; no
// command was sent. It covers a key that is not known and one that differs
// from what is known.
type HostKeyError struct {
	Host    string // name in the inventory
	Address string // as dialled, "198.51.100.11:22"
	// Type and Fingerprint are of the key that the host showed:
	// "ssh-ed25519", "SHA256:...".
	Type        string
	Fingerprint string
	// Line is what to add to known_hosts once the fingerprint has been
	// compared with the host's own.
	Line string
	// Known is what was expected instead; empty for an unknown key.
	Known []KnownKey
	// Revoked is set when the key is marked @revoked in known_hosts.
	Revoked bool
}

// KnownKey is a key that is on record for a host.
type KnownKey struct {
	Type        string
	Fingerprint string
	Where       string // "file:line", or "inventory"
}

// Changed tells a key that differs from the known ones from one that is new.
func (e *HostKeyError) Changed() bool { return len(e.Known) > 0 }

func (e *HostKeyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: host key of %s ", e.Host, e.Address)
	switch {
	case e.Revoked:
		fmt.Fprintf(&b, "is revoked: %s %s, at %s", e.Type, e.Fingerprint, e.Known[0].Where)
		return b.String()
	case e.Changed():
		fmt.Fprintf(&b, "has changed: the host shows %s %s, known is", e.Type, e.Fingerprint)
		for i, k := range e.Known {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %s %s (%s)", k.Type, k.Fingerprint, k.Where)
		}
		b.WriteString("; if the host was installed anew, compare the fingerprint on its console and replace the known key")
	default:
		fmt.Fprintf(&b, "is not known: %s %s; compare it with `ssh-keygen -lf` on the host's console, then add to known_hosts: %s",
			e.Type, e.Fingerprint, e.Line)
	}
	return b.String()
}

// AuthError means that the host accepted none of the keys that were offered.
type AuthError struct {
	Host    string
	User    string
	Address string
	Tried   []string // what was offered, one phrase each
	Skipped []string // what could not be offered, and why
	Err     error
}

func (e *AuthError) Error() string {
	msg := fmt.Sprintf("%s: log in to %s as %s: no key was accepted; offered: ", e.Host, e.Address, e.User)
	if len(e.Tried) == 0 {
		msg += "none"
	} else {
		msg += strings.Join(e.Tried, ", ")
	}
	if len(e.Skipped) > 0 {
		msg += "; not offered: " + strings.Join(e.Skipped, ", ")
	}
	return msg
}

func (e *AuthError) Unwrap() error { return e.Err }

// UnreachableError means that no SSH connection came about.
type UnreachableError struct {
	Host    string
	Address string
	Err     error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s: connect to %s: %v", e.Host, e.Address, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// BastionError means that a host is not reached because the bastion before it
// is not, or is not who it should be.
type BastionError struct {
	Host string // or several, with ", " between them
	Err  error  // names the bastion first; the same for all hosts behind it
}

func (e *BastionError) Error() string { return e.Host + ": " + e.Err.Error() }

func (e *BastionError) Unwrap() error { return e.Err }

// SudoReason says why there is no root on a host.
type SudoReason string

// The reasons; each is said in words by SudoError.
const (
	SudoMissing  SudoReason = "sudo is not installed"
	SudoPassword SudoReason = "sudo asks for a password"
	SudoDenied   SudoReason = "sudo is denied to the user"
	SudoTTY      SudoReason = "sudo wants a terminal"
	SudoOff      SudoReason = "the user is not root and sudo is switched off"
	SudoOther    SudoReason = "sudo did not give root"
)

// SudoError means that commands cannot run as root on a host.
type SudoError struct {
	Host   string
	User   string
	Reason SudoReason
	Detail string // what sudo said
}

func (e *SudoError) Error() string {
	msg := fmt.Sprintf("%s: %s (user %s)", e.Host, e.Reason, e.User)
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg + "; " + e.Remedy()
}

// Remedy is what the host's administrator has to do.
func (e *SudoError) Remedy() string {
	rule := fmt.Sprintf("'%s ALL=(ALL) NOPASSWD: ALL'", e.User)
	file := "/etc/sudoers.d/" + strings.ReplaceAll(e.User, ".", "_") // sudo ignores names with a dot
	switch e.Reason {
	case SudoMissing:
		return fmt.Sprintf("install sudo and put %s into %s, or log in as root", rule, file)
	case SudoTTY:
		return fmt.Sprintf("put 'Defaults:%s !requiretty' into %s", e.User, file)
	case SudoOff:
		return "set ssh.sudo to true, or ssh.user to root"
	default:
		return fmt.Sprintf("put %s into %s (with visudo -f; a later rule for a group of the user wins)", rule, file)
	}
}

// withoutNoise drops what sudo says although it goes on to run the command.
func withoutNoise(stderr string) string {
	for strings.HasPrefix(stderr, "sudo: unable to resolve host ") {
		_, stderr, _ = strings.Cut(stderr, "\n")
	}
	return stderr
}

// sudoError recognises sudo's own complaints; nil when stderr is not one.
func sudoError(host, user, stderr string) *SudoError {
	line := strings.TrimSpace(withoutNoise(stderr))
	if i := strings.Index(line, "sudo: "); i > 0 && strings.HasPrefix(line, "We trust you") {
		line = line[i:] // the lecture comes first
	}
	first, _, _ := strings.Cut(line, "\n")
	e := &SudoError{Host: host, User: user, Detail: first}
	switch {
	case strings.Contains(line, "sudo: command not found"), strings.Contains(line, "sudo: not found"),
		strings.Contains(line, "Unknown command: sudo"), strings.Contains(line, "Unknown command 'sudo'"):
		e.Reason = SudoMissing
	case strings.Contains(line, "sudo: a password is required"), strings.Contains(line, "sudo: interactive authentication is required"):
		e.Reason = SudoPassword
	case strings.Contains(line, "you must have a tty"), strings.Contains(line, "sudo: a terminal is required"):
		e.Reason = SudoTTY
	case strings.Contains(line, "is not in the sudoers file"), strings.Contains(line, "is not allowed to execute"),
		strings.Contains(line, "may not run sudo"):
		e.Reason = SudoDenied
		e.Detail, _, _ = strings.Cut(first, " '/") // the command is long and ours
	default:
		return nil
	}
	return e
}

// RebootError means that the host was started anew while a step ran, so that
// the step is dead and what it did is unknown.
type RebootError struct {
	Host   string
	Step   string
	Before string // boot IDs
	After  string
}

func (e *RebootError) Error() string {
	return fmt.Sprintf("%s: step %s: the host rebooted while it ran (boot ID %s, now %s)", e.Host, e.Step, e.Before, e.After)
}

// StepLostError means that a step began, is running no more, and left no
// result: its disk was full or broken, or its files were removed.
type StepLostError struct {
	Host string
	Step string
	Dir  string
}

func (e *StepLostError) Error() string {
	return fmt.Sprintf("%s: step %s: it runs no more and left no result; its output is in %s", e.Host, e.Step, e.Dir)
}

// NoSpaceError means that a file did not fit; what was there is untouched.
type NoSpaceError struct {
	Host string
	Path string
	Need int64  // bytes of the file
	Free uint64 // bytes free on its file system
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("%s: upload %s: no space left on its file system: %d bytes needed, %d free", e.Host, e.Path, e.Need, e.Free)
}

// ReadOnlyError means that a plan tried to change a host: a defect of ours.
type ReadOnlyError struct {
	Host string
	What string
}

func (e *ReadOnlyError) Error() string {
	return fmt.Sprintf("%s: %s: refused, the host is opened for reading only", e.Host, e.What)
}

// stepWaitError adds to the reason for which waiting for a step ended that the step goes on.
func stepWaitError(host, id string, waited time.Duration, err error) error {
	return fmt.Errorf("%s: step %s: stopped waiting after %s, it goes on as unit %s: %w",
		host, id, waited.Round(time.Second), unitName(id), err)
}

// tail keeps the last part of what is written to it.
type tail struct {
	max int
	buf bytes.Buffer
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - t.max; over > 0 {
		t.buf.Next(over)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
	if t.cut {
		return "..." + t.buf.String()
	}
	return t.buf.String()
}
