package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ha-install/ha-install/test/lab"
)

// Operator stands for the machine that runs the installer, as an end of a cut.
const Operator = "operator"

// chain holds this package's rules in a host's network namespace, apart from
// those that kube-proxy and the CNI write there.
const chain = "HA-LAB-FAULT"

// Cut drops, silently and in both directions, what two hosts send each other
// over TCP to or from the port; port 0 is everything, pod traffic included.
// Established connections hang as they do when a switch dies.
func (i *Injector) Cut(ctx context.Context, a, b string, port int) (Undo, error) {
	undoAB, err := i.CutOneWay(ctx, a, b, port)
	if err != nil {
		return nil, err
	}
	undoBA, err := i.CutOneWay(ctx, b, a, port)
	if err != nil {
		return nil, errors.Join(err, undoAB(ctx))
	}
	return func(ctx context.Context) error { return errors.Join(undoAB(ctx), undoBA(ctx)) }, nil
}

// CutOneWay is Cut for what one host sends to the other; the other's packets
// still arrive.
func (i *Injector) CutOneWay(ctx context.Context, from, to string, port int) (Undo, error) {
	return i.drop(ctx, from, to, port)
}

// Lose drops that share (0.3: 30 %) of what two hosts send each other over any
// port, each packet by its own throw of the dice and each way by itself.
func (i *Injector) Lose(ctx context.Context, a, b string, share float64) (Undo, error) {
	if share <= 0 || share >= 1 {
		return nil, fmt.Errorf("lose packets between %s and %s: a share of %g is not between 0 and 1", a, b, share)
	}
	dice := []string{"-m", "statistic", "--mode", "random", "--probability", strconv.FormatFloat(share, 'f', 3, 64)}
	undoAB, err := i.drop(ctx, a, b, 0, dice...)
	if err != nil {
		return nil, err
	}
	undoBA, err := i.drop(ctx, b, a, 0, dice...)
	if err != nil {
		return nil, errors.Join(err, undoAB(ctx))
	}
	return func(ctx context.Context) error { return errors.Join(undoAB(ctx), undoBA(ctx)) }, nil
}

// drop makes the rules that drop what one host sends to the other, where all
// the matches hold.
func (i *Injector) drop(ctx context.Context, from, to string, port int, matches ...string) (Undo, error) {
	rules, at, err := i.cutRules(from, to, port, matches)
	if err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error { return i.deleteRules(ctx, at, rules) }
	if err := i.ensureChain(ctx, at); err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if err := i.iptables(ctx, at, append([]string{"-A"}, rule...)...); err != nil {
			return nil, errors.Join(fmt.Errorf("cut %s from %s: %w", to, from, err), undo(ctx))
		}
	}
	return undo, nil
}

// cutRules returns the rules and the host that they belong to: the receiver,
// which sees the sender's address whatever address (the VIP, say) it was sent
// to; or the sender, where the receiver is the operator's machine.
func (i *Injector) cutRules(from, to string, port int, matches []string) (rules [][]string, at string, err error) {
	at, match, peer := to, "-s", from
	if to == Operator {
		at, match, peer = from, "-d", to
	}
	if at == Operator {
		return nil, "", errors.New("cut: one end must be a host")
	}
	address := i.lab.Gateway
	if peer != Operator {
		h, err := i.lab.Host(peer)
		if err != nil {
			return nil, "", err
		}
		address = h.Address
	}
	base := []string{chain, match, address}
	drop := append(slices.Clone(matches), "-j", "DROP")
	if port == 0 {
		return [][]string{append(base, drop...)}, at, nil
	}
	for _, side := range []string{"--dport", "--sport"} {
		rules = append(rules, slices.Concat(base, []string{"-p", "tcp", side, formatPort(port)}, drop))
	}
	return rules, at, nil
}

// ensureChain makes the chain and puts it before every other rule. Packets of
// a host's own pods to another host pass FORWARD, hence the third hook.
func (i *Injector) ensureChain(ctx context.Context, host string) error {
	if err := i.iptables(ctx, host, "-n", "-L", chain); err != nil {
		if err := i.iptables(ctx, host, "-N", chain); err != nil {
			return fmt.Errorf("make the fault chain: %w", err)
		}
	}
	for _, hook := range hooks {
		if i.iptables(ctx, host, "-C", hook, "-j", chain) == nil {
			continue
		}
		if err := i.iptables(ctx, host, "-I", hook, "1", "-j", chain); err != nil {
			return fmt.Errorf("hook the fault chain: %w", err)
		}
	}
	return nil
}

var hooks = []string{"INPUT", "OUTPUT", "FORWARD"}

// deleteRules takes rules back that may be gone already, or whose host is off.
func (i *Injector) deleteRules(ctx context.Context, host string, rules [][]string) error {
	state, err := i.lab.State(ctx, host)
	if err != nil || (state != lab.StateRunning && state != lab.StateFrozen) {
		return err
	}
	for _, rule := range rules {
		if i.iptables(ctx, host, append([]string{"-C"}, rule...)...) != nil {
			continue
		}
		if err := i.iptables(ctx, host, append([]string{"-D"}, rule...)...); err != nil {
			return fmt.Errorf("heal a cut: %w", err)
		}
	}
	return nil
}

func (i *Injector) removeChain(ctx context.Context, host string) error {
	if i.iptables(ctx, host, "-n", "-L", chain) != nil {
		return nil
	}
	for _, hook := range hooks {
		for i.iptables(ctx, host, "-D", hook, "-j", chain) == nil {
		}
	}
	if err := i.iptables(ctx, host, "-F", chain); err != nil {
		return err
	}
	return i.iptables(ctx, host, "-X", chain)
}

// iptables runs the machine's iptables in the host's network namespace: bare
// hosts have none, and a frozen host could not run its own.
func (i *Injector) iptables(ctx context.Context, host string, args ...string) error {
	pid, err := i.lab.PID(ctx, host)
	if err != nil {
		return err
	}
	argv := append([]string{"nsenter", "--target", pid, "--net", "iptables", "--wait"}, args...)
	if _, err := lab.Run(ctx, argv...); err != nil {
		return fmt.Errorf("%s: %w", host, err)
	}
	return nil
}
