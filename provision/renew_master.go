package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// How a master's certificates are renewed; the fifth argument of renewScript.
const (
	renewFiles = "files" // nothing is restarted
	renewNow   = "now"   // its API server serves nobody
	renewLeave = "leave" // its API server says goodbye
)

// renewScript has kubeadm make certificates anew with the CA set on the host's
// disk, which needs no API, and starts all four static pods anew. kubeadm writes
// over the old files: there has to be room.
//
//	$1 kubeadm's configuration   $2 the node's name
//	$3 $4 arguments that tell this host's etcd and API server from others
//	$5 how   $6... what kubeadm calls the certificates
const renewScript = `set -eu
config=$1 node=$2 etcd=$3 api=$4 how=$5
shift 5
` + roomFunction + `room /etc/kubernetes
for name; do kubeadm certs renew "$name" --config "$config"; done
case $how in
files) exit 0 ;;
leave) grace=150 ;;
*) grace=0 ;;
esac
` + endColumn

// kubeletScript gives a kubelet another client certificate, beside those that it
// had, and starts it anew: $1 is the certificate with its key, $2 the kubelet's
// directory, $3 the time in its name.
const kubeletScript = `set -eu
umask 077
mkdir -p -- "$2"
mv -f -- "$1" "$2/kubelet-client-$3.pem"
ln -sfn -- "$2/kubelet-client-$3.pem" "$2/kubelet-client-current.pem.ha-install"
mv -fT -- "$2/kubelet-client-current.pem.ha-install" "$2/kubelet-client-current.pem"
systemctl restart kubelet.service
`

// Names of the steps under which their output is kept on the host.
const (
	stepRenew   = "column-renew"
	stepKubelet = "kubelet-renew"
)

// stagedKubelet is where a kubelet's new certificate waits.
const stagedKubelet = stateDir + "/kubelet-client.pem"

// kubeletLifetime is how long a kubelet's certificate is good for, as one that the
// controller-manager signs.
const kubeletLifetime = 365 * 24 * time.Hour

// keepFiles copies a master's keys and kubeconfigs before they are renewed.
func (r *renewal) keepFiles(ih inventory.Host) phase.Phase {
	kept := path.Join(beforeUpgrade, "certs-"+r.hosts[ih.Name].serial)
	return phase.Phase{
		Name: "keep", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := r.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, kept)
			return len(seen) > 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			return runAll(ctx, h, []string{"sh", "-c", keepScript, "sh", "/etc/kubernetes", kept})
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: kept, New: true, Withheld: withheldSecret, Text: "a copy of /etc/kubernetes of " + ih.Name}}, nil
		},
	}
}

// certificates renews the files of a master on which some have expired, and
// restarts nothing.
func (r *renewal) certificates(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "certificates", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			due, _, err := r.fresh(ctx, ih)
			return len(due) == 0, err
		},
		Do:      func(ctx context.Context) error { return r.renewColumn(ctx, ih, renewFiles) },
		Explain: func(context.Context) ([]phase.Change, error) { return explainRenewed(r.hosts[ih.Name]), nil },
	}
}

// renewColumn renews what is due on a master now.
func (r *renewal) renewColumn(ctx context.Context, ih inventory.Host, how string) error {
	due, _, err := r.fresh(ctx, ih)
	if err != nil {
		return err
	}
	address := ih.IP().String()
	args := append([]string{ih.Name, "--advertise-client-urls=https://" + net.JoinHostPort(address, "2379"), "--advertise-address=" + address, how}, due...)
	h, err := r.host(ih.Name)
	if err != nil {
		return err
	}
	if err := wake(ctx, h, r.columnStep(ctx, ih, stepRenew, renewScript, templates.Init{EtcdExisting: true}, args...)); err != nil {
		return err
	}
	r.nowMade("certificates", ih)
	r.reread(ih)
	return nil
}

// kubelet signs a client certificate for a kubelet, which cannot ask for one with
// a certificate that has expired, nor while there is no API.
func (r *renewal) kubelet(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "kubelet", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			if r.isMade("kubelet", ih) {
				return true, nil
			}
			all, _, err := r.hostCertificates(ctx, ih, r.Within)
			return !r.needs(all).kubelet, err
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			now := time.Now()
			cert, key, err := r.secrets.ca.ClientCertificate(now, "system:node:"+ih.Name, []string{"system:nodes"}, kubeletLifetime)
			if err != nil {
				return err
			}
			if _, err := h.Upload(ctx, host.File{Path: stagedKubelet, Mode: 0o600, Content: append(cert, key...)}); err != nil {
				return err
			}
			if err := kube.RunStep(ctx, h, stepKubelet, sayIn(ctx), "sh", "-c", kubeletScript, "sh", stagedKubelet, certs.KubeletDir, now.UTC().Format("2006-01-02-15-04-05")); err != nil {
				return err
			}
			r.nowMade("kubelet", ih)
			return nil
		},
		Gate: []phase.Check{r.kubeletHealthy(ih)},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeCertificate, Name: certs.KubeletClient, Text: "renewed, signed with the cluster's CA", Withheld: withheldSecret}, {Kind: changeRestart, Name: "kubelet"}}, nil
		},
	}
}

// reviveBudget is how long etcd's members may take to find each other with their
// new certificates: they try several times a second.
const reviveBudget = 20 * time.Second

// revive proves quorum after certificates had expired. Members that do not find
// each other are started anew: where there is no quorum none can be lost.
func (r *renewal) revive() phase.Phase {
	quorate := func(ctx context.Context) error {
		if v := r.members.Look(ctx, etcd.Options{ReadOnly: true}); !v.State.HasQuorum() {
			return fmt.Errorf("etcd: %s", v.State)
		}
		return nil
	}
	return phase.Phase{
		Name: "revive",
		Done: func(ctx context.Context) (bool, error) {
			if r.readOnly { // a plan does not wait
				return quorate(ctx) == nil, nil
			}
			waiting, cancel := context.WithTimeout(ctx, reviveBudget)
			defer cancel()
			return phase.Wait(waiting, phase.Check{Name: "etcd's members to find each other", Run: quorate}) == nil, ctx.Err()
		},
		Do: func(ctx context.Context) error {
			for _, ih := range r.Cluster.ControlPlanes() {
				if err := r.renewColumn(ctx, ih, renewNow); err != nil {
					return err
				}
			}
			return nil
		},
		Gate:        []phase.Check{{Name: "quorum", Run: quorate}},
		GateTimeout: restartGate,
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRestart, Name: "etcd", Text: "on all masters, one after the other, unless its members find each other with their new certificates by themselves: there is no quorum now that could be lost"}}, nil
		},
	}
}

// master renews what is due on a master and restarts all that has not read it.
func (r *renewal) master(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "renew", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			due, stale, err := r.fresh(ctx, ih)
			return len(due) == 0 && stale == "", err
		},
		Do:          func(ctx context.Context) error { return r.restart(ctx, ih) },
		Undo:        func(ctx context.Context) error { return r.comeBack(ctx, ih) },
		Gate:        []phase.Check{r.quorum("renew " + ih.Name), r.columnRuns(ih), r.uses(ih)},
		GateTimeout: restartGate,
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return r.explainMaster(ctx, ih) },
	}
}

// restart is a planned one where the master serves anybody: it leaves the
// balancers before. One whose API server does not even answer has nobody to lose.
func (r *renewal) restart(ctx context.Context, ih inventory.Host) error {
	how := renewNow
	if r.apiReady(ih).Run(ctx) == nil {
		how = renewLeave
		needs, cancel := context.WithTimeout(ctx, phase.DefaultGateTimeout)
		err := r.othersCarry(ih).Run(needs)
		cancel()
		if err == nil {
			err = r.leave(ctx, ih)
		}
		if err != nil {
			return err
		}
	}
	if _, err := r.allowed(ctx, etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)}, etcd.PreGateBudget); err != nil {
		return err
	}
	return r.renewColumn(ctx, ih, how)
}

// uses wants every process of a master to show, or to have read, what lies in its
// files.
func (r *renewal) uses(ih inventory.Host) phase.Check {
	return phase.Check{Name: ih.Name + " to use its new certificates", Run: func(ctx context.Context) error {
		due, stale, err := r.fresh(ctx, ih)
		switch {
		case err != nil:
			return err
		case len(due) > 0:
			return fmt.Errorf("%s: not renewed: %q", ih.Name, due)
		case stale != "":
			return errors.New(ih.Name + ": " + stale)
		}
		return nil
	}}
}

func (r *renewal) explainMaster(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	n := r.hosts[ih.Name]
	var changes []phase.Change
	if !n.expired { // else they come first, in a phase of their own
		changes = explainRenewed(n)
	}
	if names := r.balancerNames(); names != "" && n.serves {
		changes = append(changes, phase.Change{Kind: changeRun, Name: "HAProxy of " + names, Text: "sends nobody new to " + ih.Name + " until it is ready again"})
	}
	d := etcd.Project(r.members.Look(ctx, etcd.Options{ReadOnly: true}), etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)})
	for _, component := range kube.Components {
		c := phase.Change{Kind: changeRestart, Name: component}
		if component == certs.Etcd {
			c.Text, c.Figures = "one member; the others hold quorum meanwhile", figures(d.Before, d.After)
		}
		changes = append(changes, c)
	}
	return changes, nil
}
