package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

const (
	// restoreDir has the snapshot on each master while it is restored.
	restoreDir = stateDir + "/restore"
	// keptManifests has the static pods while nothing of them may run. It lies
	// beside the kubelet's directory: what moves there moves at once.
	keptManifests = "/etc/kubernetes/ha-install-restore"
)

// unpackScript makes a new member's data of the snapshot, beside those of now:
// what is wrong with it shows while everything still runs. The mark is written
// last, and goes with the data wherever they are moved.
//
//	$1 the snapshot  $2 token  $3 member's name  $4 initial cluster
//	$5 its own peer URL  $6 by how much revisions are raised
const unpackScript = `set -eu
mkdir -p /var/lib/etcd
chmod 0700 /var/lib/etcd
cd /var/lib/etcd
rm -rf -- restore-*
etcdutl snapshot restore "$1" --name "$3" --initial-cluster "$4" --initial-cluster-token "$2" --initial-advertise-peer-urls "$5" \
	--data-dir "restore-$2.part" --bump-revision "$6" --mark-compacted
printf '%s\n' "$2" >"restore-$2.part/member/` + restoreMark + `"
mv -T -- "restore-$2.part" "restore-$2"
sync -f .
`

// stopScript ends a master's control plane and keeps it from coming back: not
// by its kubelet, not after a reboot. Clients first, so that etcd's last entry
// is as old on all masters as can be.
//
//	$1 where manifests are kept  $2 $3 arguments that tell this host's etcd and API server
const stopScript = `set -eu
systemctl stop kubelet.service
mkdir -p -m 0700 "$1"
for c in kube-apiserver kube-controller-manager kube-scheduler etcd; do
	if [ -e "/etc/kubernetes/manifests/$c.yaml" ]; then mv -f -- "/etc/kubernetes/manifests/$c.yaml" "$1/$c.yaml"; fi
done
` + endFunctions + `ends kube-apiserver "$3" KILL 25
ends kube-controller --kubeconfig=/etc/kubernetes/controller-manager.conf KILL 25
ends kube-scheduler --kubeconfig=/etc/kubernetes/scheduler.conf KILL 25
ends etcd "$2" TERM 50
ends etcd "$2" KILL 25
`

// exchangeScript gives the new data their place, where the old ones are gone
// from already.
//
//	$1 token
const exchangeScript = `set -eu
cd /var/lib/etcd
if [ -e member ]; then echo "/var/lib/etcd/member is still there" >&2; exit 1; fi
mv -T -- "restore-$1/member" member
rm -rf -- "restore-$1"
sync -f .
`

// startEtcdScript writes etcd's static pod, and starts the kubelet with it alone. An
// etcd that runs already, with less than it may have by now, is ended before.
//
//	$1 kubeadm's configuration  $2 an argument that tells this host's etcd
const startEtcdScript = `set -eu
systemctl stop kubelet.service
kubeadm init phase etcd local --config "$1"
` + endFunctions + `ends etcd "$2" TERM 50
ends etcd "$2" KILL 25
systemctl start kubelet.service
`

// placeScript brings static pods back that were kept, or has kubeadm write them.
//
//	$1 kubeadm's configuration  $2 where manifests are kept  $3... kubeadm's names of them
const placeScript = `set -eu
config=$1 kept=$2
shift 2
for name in "$@"; do
	c=kube-$name
	if [ -e "/etc/kubernetes/manifests/$c.yaml" ]; then continue; fi
	if [ -e "$kept/$c.yaml" ]; then
		mv -f -- "$kept/$c.yaml" "/etc/kubernetes/manifests/$c.yaml"
	else
		kubeadm init phase control-plane "$name" --config "$config"
	fi
done
`

// has says that a master's data are those of this restore already.
func (r *restore) has(ih inventory.Host) bool { return r.seen[ih.Name].token == r.note.Token }

// stands says that a master has them, and that no etcd runs there with others.
func (r *restore) stands(ih inventory.Host) bool {
	return r.seen[ih.Name].renewed(r.note.Token) == nil
}

// push sends the snapshot to a master.
func (r *restore) push(ih inventory.Host) phase.Phase {
	file := host.File{Path: r.source.onHosts(), Mode: 0o600, Sum: r.source.sum, Size: r.source.size, Secret: true}
	return phase.Phase{
		Name: "push", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			if r.has(ih) || r.seen[ih.Name].unpacked == r.note.Token {
				return true, nil
			}
			h, err := r.host(ih.Name)
			if err != nil {
				return false, err
			}
			there, err := h.Stat(ctx, file.Path)
			return file.Sum != "" && there[file.Path].Sum == file.Sum, err // a snapshot that is still to be taken has none
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			file := file
			file.Open = func() (io.ReadCloser, error) { return r.openSnapshot(ctx) }
			_, err = h.Upload(ctx, file)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: file.Path, Mode: "0600", Bytes: file.Size, Withheld: withheldSecret}}, nil
		},
	}
}

// openSnapshot opens the snapshot on this machine; where it is not, a run that
// another machine began is finished, and some master has it.
func (r *restore) openSnapshot(ctx context.Context) (io.ReadCloser, error) {
	f, err := os.Open(r.source.file)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	for _, ih := range r.Cluster.ControlPlanes() {
		if !r.seen[ih.Name].pushed {
			continue
		}
		h, err := r.host(ih.Name)
		if err != nil {
			return nil, err
		}
		data, err := h.ReadFile(ctx, r.source.onHosts())
		return io.NopCloser(bytes.NewReader(data)), err
	}
	return nil, err
}

// unpack makes the new member's data beside those of now.
func (r *restore) unpack(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "unpack", Host: ih.Name,
		Done: func(context.Context) (bool, error) {
			return r.has(ih) || r.seen[ih.Name].unpacked == r.note.Token, nil
		},
		Do: func(ctx context.Context) error {
			return r.step(ctx, ih, "restore-unpack", unpackScript, r.source.onHosts(), r.note.Token, ih.Name, r.note.Cluster, peerURL(ih), strconv.FormatInt(r.note.Bump, 10))
		},
		Gate: []phase.Check{r.look(ih, "the new data of "+ih.Name, func(f restoreFacts) error {
			if f.token != r.note.Token && f.unpacked != r.note.Token {
				return fmt.Errorf("there are none of this restore")
			}
			return nil
		})},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "etcdutl", Text: "makes the data of a new member beside those of now; nothing has stopped until then"}}, nil
		},
	}
}

// stop ends what a master's control plane runs. The next stage begins when none
// of the masters runs any: no member of the old cluster serves beside the new.
func (r *restore) stop(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "stop", Host: ih.Name,
		Done: func(context.Context) (bool, error) {
			m := r.seen[ih.Name]
			return r.stands(ih) || m.stopped() == nil && !m.kubelet, nil
		},
		Do: func(ctx context.Context) error {
			return r.step(ctx, ih, "restore-stop", stopScript, keptManifests, etcdArgument(ih), apiArgument(ih))
		},
		Gate: []phase.Check{r.oldIsStopped(ih)},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "kubelet, API server, controller-manager, scheduler, etcd", Text: "stopped, and kept from coming back; pods go on"}}, nil
		},
	}
}

// oldIsStopped wants that nothing of the cluster before runs on a master.
func (r *restore) oldIsStopped(ih inventory.Host) phase.Check {
	return r.look(ih, "the control plane of "+ih.Name+" to be stopped", func(f restoreFacts) error {
		if f.token == r.note.Token { // what runs there is of the new cluster
			return f.renewed(r.note.Token)
		}
		return f.stopped()
	})
}

// exchange moves the old data aside and the new ones into their place.
func (r *restore) exchange(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "exchange", Host: ih.Name,
		Done:  func(context.Context) (bool, error) { return r.has(ih), nil },
		Needs: []phase.Check{r.oldIsStopped(ih)},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			if err := keep(ctx, h, etcdMember); err != nil {
				return err
			}
			return runAll(ctx, h, []string{"sh", "-c", exchangeScript, "sh", r.note.Token})
		},
		Gate: []phase.Check{r.isNew(ih)},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: etcdMember, Text: "those of now are moved aside, never deleted; the new ones take their place"}}, nil
		},
	}
}

// isNew wants a master's data to be those of this restore, and no etcd with others.
func (r *restore) isNew(ih inventory.Host) phase.Check {
	return r.look(ih, "the new data of "+ih.Name+" in their place", func(f restoreFacts) error {
		return f.renewed(r.note.Token)
	})
}

// startEtcd starts a master's new member, when all masters have theirs and no etcd
// of the cluster before runs anywhere. Whatever stopped them may be long ago, so
// that all are looked at again in the last moment; one that starts beside us, with
// the new data, has a moment to open them.
func (r *restore) startEtcd(ih inventory.Host) phase.Phase {
	p := phase.Phase{
		Name: "start-etcd", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			m := r.seen[ih.Name]
			if !r.stands(ih) || !m.manifest["etcd"] || !m.kubelet {
				return false, nil
			}
			more, err := r.mayHaveMore(ctx, ih)
			return !more, err
		},
		Do: func(ctx context.Context) error {
			return r.columnStep(ctx, ih, "restore-etcd", startEtcdScript, templates.Init{EtcdExisting: true}, etcdArgument(ih)) // its data know the others; naming them here would let an emptied directory join under its old ID
		},
		Gate:        []phase.Check{r.etcdServes(ih)},
		GateTimeout: restartGate,
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeStart, Name: "etcd", Text: "a member of a new cluster: " + r.note.Cluster}}, nil
		},
	}
	for _, other := range r.Cluster.ControlPlanes() {
		fence := r.isNew(other)
		p.Needs = append(p.Needs, phase.Check{Name: fence.Name, Run: func(ctx context.Context) error { return phase.Wait(ctx, fence) }})
	}
	return p
}

// startAPI brings a master's API server back, when etcd has its quorum.
func (r *restore) startAPI(ih inventory.Host) phase.Phase {
	return r.place("start-api", ih, r.apiReady(ih), "apiserver")
}

// noLeaders takes away what the backup knows of leaders: none runs before the stage
// that follows, and each would be waited for, 15 s.
func (r *restore) noLeaders() phase.Phase {
	return phase.Phase{
		Name: "no-leaders",
		Done: func(context.Context) (bool, error) {
			return slices.ContainsFunc(r.Cluster.ControlPlanes(), func(ih inventory.Host) bool {
				m := r.seen[ih.Name].manifest
				return r.stands(ih) && (m["kube-controller-manager"] || m["kube-scheduler"])
			}), nil
		},
		Do: func(ctx context.Context) error {
			client, err := r.anyAPI(ctx)
			if err != nil {
				return err
			}
			return client.ForgetLeaders(ctx)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeClean, Name: "leases", Text: "of the controller-manager and the scheduler that led when the backup was made"}}, nil
		},
	}
}

// startControllers brings back what acts on the API.
func (r *restore) startControllers(ih inventory.Host) phase.Phase {
	return r.place("start-controllers", ih, r.columnRuns(ih), "controller-manager", "scheduler")
}

func (r *restore) place(name string, ih inventory.Host, gate phase.Check, components ...string) phase.Phase {
	return phase.Phase{
		Name: name, Host: ih.Name,
		Done: func(context.Context) (bool, error) {
			m := r.seen[ih.Name]
			done := r.stands(ih) && m.kubelet
			for _, c := range components {
				done = done && m.manifest["kube-"+c]
			}
			return done, nil
		},
		Do: func(ctx context.Context) error {
			return r.columnStep(ctx, ih, "restore-place", placeScript, templates.Init{EtcdExisting: true}, append([]string{keptManifests}, components...)...)
		},
		Gate:        []phase.Check{gate},
		GateTimeout: restartGate,
		Explain: func(context.Context) ([]phase.Change, error) {
			var changes []phase.Change
			for _, c := range components {
				changes = append(changes, phase.Change{Kind: changeStart, Name: "kube-" + c})
			}
			return changes, nil
		},
	}
}

// restartKubelet has a worker's kubelet ask for everything anew: what it knows
// is of a history that is gone. One whose Node is in no backup registers it.
func (r *restore) restartKubelet(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "restart-kubelet", Host: ih.Name,
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			return runAll(ctx, h, []string{"systemctl", "restart", "kubelet.service"})
		},
		Gate: []phase.Check{r.kubeletHealthy(ih)},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRestart, Name: "kubelet", Text: "what it knows is of a history that is gone; pods go on"}}, nil
		},
	}
}

// step runs a script on a master that goes on without us.
func (r *restore) step(ctx context.Context, ih inventory.Host, name, script string, args ...string) error {
	h, err := r.host(ih.Name)
	if err != nil {
		return err
	}
	return kube.RunStep(ctx, h, name, sayIn(ctx), append([]string{"sh", "-c", script, "sh"}, args...)...)
}

// look is a check of what a master says now.
func (r *restore) look(ih inventory.Host, name string, judge func(restoreFacts) error) phase.Check {
	return phase.Check{Name: name, Run: func(ctx context.Context) error {
		h, err := r.host(ih.Name)
		if err != nil {
			return err
		}
		f, err := lookAtRestore(ctx, ih, h)
		if err != nil {
			return err
		}
		return onHost(ih.Name, judge(f))
	}}
}
