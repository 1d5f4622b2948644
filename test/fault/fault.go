// Package fault breaks the lab's hosts in the ways that real ones break, from
// the outside: nothing is installed on a host, and nothing of a fault stays
// when its Undo has run.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/ha-install/ha-install/test/lab"
)

// Undo takes a fault back. Calling it again is no error.
type Undo func(context.Context) error

// Injector injects faults into the hosts of one lab.
type Injector struct{ lab *lab.Lab }

// New returns an injector for the lab.
func New(l *lab.Lab) *Injector { return &Injector{lab: l} }

// PowerOff ends a host at once. Its network outlives its processes by an
// instant, in which its kernel closes their connections: others hear of it.
// Undo boots it and waits for a login.
func (i *Injector) PowerOff(ctx context.Context, host string) (Undo, error) {
	if err := i.lab.PowerOff(ctx, host); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return i.lab.PowerOn(ctx, host) }, nil
}

// Unplug ends a host as a pulled plug does: nobody hears of it, connections
// just go silent. Undo boots it and waits for a login.
func (i *Injector) Unplug(ctx context.Context, host string) (Undo, error) {
	if err := i.ensureChain(ctx, host); err != nil {
		return nil, err
	}
	if err := i.iptables(ctx, host, "-A", chain, "-j", "DROP"); err != nil {
		return nil, errors.Join(fmt.Errorf("unplug: %w", err), i.removeChain(ctx, host))
	}
	undo, err := i.PowerOff(ctx, host) // the rule goes with its network
	if err != nil {
		return nil, errors.Join(err, i.removeChain(ctx, host))
	}
	return undo, nil
}

// Hang stops every process of a host at once; its kernel goes on answering
// SYNs, so ports stay open and connections stay established. Undo thaws it.
func (i *Injector) Hang(ctx context.Context, host string) (Undo, error) {
	h, err := i.lab.Host(host)
	if err != nil {
		return nil, err
	}
	if _, err := lab.Run(ctx, "lxc-freeze", "--name", h.Container()); err != nil {
		return nil, fmt.Errorf("%s: hang: %w", host, err)
	}
	return func(ctx context.Context) error { return i.thaw(ctx, host) }, nil
}

func (i *Injector) thaw(ctx context.Context, host string) error {
	state, err := i.lab.State(ctx, host)
	if err != nil || state != lab.StateFrozen {
		return err
	}
	h, err := i.lab.Host(host)
	if err != nil {
		return err
	}
	if _, err := lab.Run(ctx, "lxc-unfreeze", "--name", h.Container()); err != nil {
		return fmt.Errorf("%s: thaw: %w", host, err)
	}
	return nil
}

// Kill sends the signal ("KILL", "STOP", "TERM") to every process of the host,
// those in its pods too, whose command line matches the pattern (a regular
// expression, as pgrep -f takes it), and returns how many they were. None is
// an error: a fault that hit nothing proves nothing.
func (i *Injector) Kill(ctx context.Context, host, signal, pattern string) (int, error) {
	out, err := i.lab.Exec(ctx, host, "pkill", "--echo", "--signal", signal, "--full", pattern)
	var exit *lab.RunError
	if errors.As(err, &exit) && exit.Code == 1 {
		return 0, fmt.Errorf("%s: send %s: no process matches %q", host, signal, pattern)
	}
	if err != nil {
		return 0, fmt.Errorf("send %s to %q: %w", signal, pattern, err)
	}
	return strings.Count(string(out), "\n"), nil
}

// DropSSH ends every SSH session on the host at once and returns how many
// server processes it killed; sshd goes on listening. What the sessions had
// started is left to itself, as after a cut line. No session is an error.
func (i *Injector) DropSSH(ctx context.Context, host string) (int, error) {
	return i.Kill(ctx, host, "KILL", `^sshd: [^/]`) // the listener is "sshd: /usr/sbin/sshd ..."
}

// Heal takes back, on every host that exists, whatever a killed test left:
// frozen processes, cut connections, powered-off hosts, small file systems.
func (i *Injector) Heal(ctx context.Context) error {
	var problems *multierror.Error
	for _, h := range i.lab.Hosts {
		if err := i.heal(ctx, h); err != nil {
			problems = multierror.Append(problems, fmt.Errorf("%s: heal: %w", h.Name, err))
		}
	}
	return problems.ErrorOrNil()
}

func (i *Injector) heal(ctx context.Context, h lab.Host) error {
	state, err := i.lab.State(ctx, h.Name)
	if err != nil || state == lab.StateAbsent {
		return err
	}
	if state == lab.StateStopped { // no rule and no mount outlives a power-off
		return i.lab.PowerOn(ctx, h.Name)
	}
	if err := i.thaw(ctx, h.Name); err != nil {
		return err
	}
	if err := i.removeChain(ctx, h.Name); err != nil {
		return err
	}
	return i.unmountAll(ctx, h.Name)
}

func formatPort(port int) string { return strconv.Itoa(port) }
