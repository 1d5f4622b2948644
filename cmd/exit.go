package cmd

import (
	"context"
	"errors"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/preflight"
)

// The exit codes; scripts rely on them.
const (
	exitOK          = 0
	exitOther       = 1
	exitChanges     = 2
	exitInvalid     = 3
	exitPreflight   = 4
	exitUnreachable = 5
	exitStep        = 6
	exitLocked      = 7
	exitFenced      = 8
	exitMoved       = 9
	exitDegraded    = 10
	exitNoQuorum    = 11
	exitSplit       = 12
	exitUnknown     = 13
	exitDrill       = 14
	exitDamaged     = 15
	exitDrain       = 16
	exitExpiry      = 17
	exitCopies      = 18
	exitUsage       = 64
	exitInterrupted = 130
)

const exitCodeHelp = `Exit codes:
  0    done, or nothing to do
  1    another error
  2    plan: there is something to do; apply: it was not agreed to
  3    the inventory, or what would be made of it, is not valid, or contradicts the running cluster
  4    preflight found errors and nothing was changed, or an external balancer is not fit and no host has joined through it
  5    a host cannot be reached, or is not who it should be
  6    a command on a host (kubeadm, ...) ended with an error
  7    another operation holds the cluster; nothing was changed
  8    another operation has taken the cluster over; this one stopped
  9    apply --plan, or a plan that was agreed to: it does not hold any more; nothing was changed
  10   the cluster has quorum, but can lose no voter or is not well otherwise (DEGRADED), or a step was refused for it
  11   no quorum
  12   the members disagree about what the cluster is (SPLIT)
  13   quorum could not be proven (UNKNOWN)
  14   drill: a scenario did not pass
  15   backup verify, restore: a backup is not whole
  16   upgrade, remove: the pods of a node could not be moved away
  17   certs check: a certificate has expired, or expires within the time asked for
  18   backup: a copy at another place was not made, read or pruned; what lies here is whole
  64   the command line is wrong
  130  interrupted, or stopped at a safe point`

const interruptHelp = `The first interrupt (Ctrl-C, SIGTERM) stops at the next safe point: the change
that is under way is finished, and it is said where the run stands. The second
one stops waiting; commands that are under way on hosts go on there. The third
one ends the program at once. The same command goes on from whatever is there.`

// errChanges is the end of a plan in which there is something to do.
var errChanges = errors.New("there is something to do")

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// invalidError is an inventory whose results kubeadm would refuse.
type invalidError struct{ error }

func (e *invalidError) Unwrap() error { return e.error }

// saidError is an error that was already shown in full, in its own form.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

// verdictError carries a verdict to the exit code.
type verdictError struct{ state etcd.State }

func (e *verdictError) Error() string { return "verdict: " + string(e.state) }

// codeOf is the exit code of a run that ended with err.
func codeOf(ctx context.Context, err error) int {
	if interrupted(ctx, err) {
		return exitInterrupted
	}
	return exitCode(err)
}

// interrupted says that err is only what the end of ctx has caused.
func interrupted(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && ctx.Err() != nil
}

func exitCode(err error) int {
	var (
		usage       *usageError
		bad         *inventory.Errors
		invalid     *invalidError
		failure     *preflight.Failure
		unreachable *provision.UnreachableError
		step        *kube.StepError
		quorum      *etcd.QuorumError
		conflict    *provision.ConflictError
		verdict     *verdictError
		locked      *provision.LockedError
		fenced      *host.FencedError
		unled       *provision.UnledError
		moved       *provision.MovedError
		stopped     *phase.StoppedError
		notWhole    *provision.NotWholeError
		balancer    *provision.BalancerError
		drain       *kube.DrainError
		alive       *provision.AliveError
		damaged     *backup.DamagedError
		copies      *provision.CopiesError
	)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &damaged):
		return exitDamaged
	case errors.As(err, &copies), errors.Is(err, errCopies):
		return exitCopies
	case errors.As(err, &locked):
		return exitLocked
	case errors.As(err, &fenced):
		return exitFenced
	case errors.As(err, &bad), errors.As(err, &invalid), errors.As(err, &conflict):
		return exitInvalid
	case errors.As(err, &failure), errors.As(err, &balancer):
		return exitPreflight
	case errors.As(err, &drain):
		return exitDrain
	case errors.As(err, &alive):
		return exitDegraded
	case errors.As(err, &unreachable), connection(err):
		return exitUnreachable
	case errors.As(err, &quorum):
		return verdictCode(quorum.Verdict.State)
	case errors.As(err, &verdict):
		return verdictCode(verdict.state)
	case errors.As(err, &notWhole):
		return verdictCode(notWhole.State)
	case errors.As(err, &unled):
		return exitDegraded
	case errors.As(err, &step), onHost(err):
		return exitStep
	case errors.Is(err, errChanges), errors.Is(err, errDeclined):
		return exitChanges
	case errors.As(err, &moved):
		return exitMoved
	case errors.Is(err, errDrill):
		return exitDrill
	case errors.Is(err, errDamaged):
		return exitDamaged
	case errors.Is(err, errExpiry):
		return exitExpiry
	case errors.Is(err, context.Canceled), errors.As(err, &stopped):
		return exitInterrupted
	default:
		return exitOther
	}
}

// connection says that a host was lost, or is not who it should be.
func connection(err error) bool {
	var (
		unreachable *host.UnreachableError
		key         *host.HostKeyError
		auth        *host.AuthError
		sudo        *host.SudoError
	)
	return errors.As(err, &unreachable) || errors.As(err, &key) || errors.As(err, &auth) || errors.As(err, &sudo) || errors.Is(err, host.ErrConnectionLost)
}

// onHost says that something on a host failed.
func onHost(err error) bool {
	var (
		run    *host.RunError
		reboot *host.RebootError
		lost   *host.StepLostError
		space  *host.NoSpaceError
		dead   *kube.KubeletError
	)
	return errors.As(err, &run) || errors.As(err, &reboot) || errors.As(err, &lost) || errors.As(err, &space) || errors.As(err, &dead)
}

func verdictCode(s etcd.State) int {
	switch s {
	case etcd.NoQuorum:
		return exitNoQuorum
	case etcd.Split:
		return exitSplit
	case etcd.Unknown:
		return exitUnknown
	default: // PASS too: a step was refused although all are healthy
		return exitDegraded
	}
}
