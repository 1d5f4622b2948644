package cmd

import (
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

// whatNext says what the operator can do about an error that does not say so
// itself; "" where there is nothing to add.
func whatNext(err error) string {
	var (
		quorum      *etcd.QuorumError // has its own
		bad         *inventory.Errors // so has this
		failure     *preflight.Failure
		key         *host.HostKeyError
		sudo        *host.SudoError
		auth        *host.AuthError
		unreachable *host.UnreachableError
		space       *host.NoSpaceError
		step        *kube.StepError
		phased      *phase.Error
		full        *backup.SpaceError // has its own too
		alive       *provision.AliveError
		copies      *provision.CopiesError // so has this
	)
	switch {
	case errors.As(err, &quorum), errors.As(err, &bad), errors.As(err, &key), errors.As(err, &sudo), errors.As(err, &full), errors.As(err, &alive), errors.As(err, &copies):
		return ""
	case errors.As(err, &failure):
		return "mend what is named, or list it in spec.preflight.ignoreErrors, then run the same command again; nothing was changed"
	case errors.As(err, &auth):
		return "name a key that the host accepts in spec.ssh.identityFiles, or load it into the SSH agent"
	case errors.As(err, &unreachable):
		return "see that the host is up, and look at its address, port, bastion and firewall; `ha-install preflight` asks all hosts and changes nothing"
	case errors.As(err, &space):
		return "make room there, then run the same command again: it goes on from what is there"
	case errors.As(err, &step):
		return "the command's output is kept on the host, in /var/lib/ha-install/steps; when the cause is gone run the same command again: it goes on from what is there"
	case errors.As(err, &phased), onHost(err), connection(err):
		return "when the cause is gone run the same command again: it looks at what is there and goes on"
	}
	return ""
}
