package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// An etcd that has seen no quorum since it started answers no client, whatever
// its data hold: so it is with the one master that came back after a power cut.
// What they hold a copy of them tells, when it is started as a cluster of one
// that nobody else can reach.

const (
	// readDir has the copy and what it gave, on the same disk as the data.
	readDir      = kube.EtcdDir + "/survivor"
	readSnapshot = readDir + "/snapshot.db"
	readStatus   = readDir + "/status.json"
)

// readDataScript takes a snapshot of a copy of a host's data. The data themselves
// are only read, with no etcd on them: it is ended, and stays so when the script
// has come to its end, as whatever it takes from then on is lost.
//
// The copy is started with etcd as it ran here, which a host has in its image
// only. It listens on sockets in a directory of root's: no API server, and none of
// the other members, finds it. Its quota is off, or entries of its log that come
// late would raise an alarm in the snapshot.
//
// etcd marks in its log what is committed with the entry that follows, so that in the
// moment of a power cut what was acknowledged last is there without a mark, and would
// be dropped. In the copy all of the log is marked: what nobody was told to be written
// may be written, what anybody was told is. Where that fails the copy is taken as it is.
//
//	$1 $2 arguments that tell this host's etcd and API server  $3 wholeLogScript
const readDataScript = `set -eu
umask 077
mkdir -p /var/lib/etcd/survivor
cd /var/lib/etcd/survivor
rm -rf -- data client.sock:0 peer.sock:0 snapshot.db snapshot.db.part status.json
command -v etcdctl >/dev/null || { echo "there is no etcdctl: install that of the etcd which runs here, in the PATH" >&2; exit 1; }
need=$((2 * $(du -sk ../member | cut -f 1) + ` + readSlack + `))
free=$(df -k --output=avail . | tail -n 1)
if [ "$free" -lt "$need" ]; then echo "/var/lib/etcd has $free KiB free, a copy of its data and their snapshot need $need: make room" >&2; exit 1; fi
` + endFunctions + `for p in $(processes etcd "$1"); do
	cp -- "/proc/$p/exe" program.part
	mv -f -- program.part program
done
if [ ! -x program ]; then echo "no etcd runs here whose program could read the data: see why its kubelet does not start it (journalctl -u kubelet)" >&2; exit 1; fi
trap 'systemctl start kubelet.service' EXIT
systemctl stop kubelet.service
ends kube-apiserver "$2" KILL 25
ends etcd "$1" TERM 50
ends etcd "$1" KILL 25
if [ -n "$(processes etcd "$1")" ]; then echo "its etcd does not end" >&2; exit 1; fi
ask() { etcdctl --endpoints unix://client.sock:0 "$@"; }
given() {
	most=$(($(date +%s) + 600))
	while [ -e "/proc/$copy/exe" ] && [ "$(date +%s)" -lt "$most" ]; do
		if ask --command-timeout 2s get nothing >/dev/null 2>&1; then
			ask endpoint status -w json >status.json && ask --command-timeout 30m snapshot save snapshot.db >>log 2>&1
			return
		fi
		sleep 0.1
	done
	return 1
}
tries() {
	rm -rf -- data client.sock:0 peer.sock:0
	mkdir data
	cp -a --reflink=auto -- ../member data/member
	if [ "$1" = whole ] && ! perl -e "$whole" data/member/wal; then return 1; fi
	./program --name survivor --data-dir data --force-new-cluster --quota-backend-bytes=-1 --log-level warn \
		--listen-client-urls unix://client.sock:0 --advertise-client-urls unix://client.sock:0 \
		--listen-peer-urls unix://peer.sock:0 --initial-advertise-peer-urls unix://peer.sock:0 \
		--initial-cluster survivor=unix://peer.sock:0 >log 2>&1 &
	copy=$!
	if given; then return; fi
	kill -s KILL "$copy" 2>/dev/null || true
	wait "$copy" || true
	tail -n 6 log >&2
	return 1
}
whole=$3
if ! tries whole; then
	echo "what its log does not mark as committed is left out, for that reason"
	if ! tries marked; then
		rm -rf -- data
		echo "etcd does not open a copy of the data" >&2
		exit 1
	fi
fi
kill -s TERM "$copy"
wait "$copy" || true
rm -rf -- data
sync -f .
trap - EXIT
`

// readSlack is what is left free besides, in KiB: etcd writes its log 64 MB at a time.
const readSlack = "196608"

// dataRead is what the data of a host's etcd have told.
type dataRead struct {
	host     string
	revision int64
	cluster  etcd.MemberID
	member   etcd.MemberID
	version  string
	size     int64 // of the snapshot's file
}

// parseDataRead reads what etcdctl says of the copy.
func parseDataRead(host string, text []byte) (dataRead, error) {
	var all []struct {
		Status struct {
			Header struct {
				Cluster  uint64 `json:"cluster_id"`
				Member   uint64 `json:"member_id"`
				Revision int64  `json:"revision"`
			} `json:"header"`
			Version string `json:"version"`
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return dataRead{}, fmt.Errorf("%s: %w", readStatus, err)
	}
	if len(all) != 1 || all[0].Status.Header.Revision < 1 || all[0].Status.Header.Cluster == 0 {
		return dataRead{}, fmt.Errorf("%s: it tells no revision: %.200s", readStatus, text)
	}
	s := all[0].Status
	return dataRead{host: host, revision: s.Header.Revision, cluster: etcd.MemberID(s.Header.Cluster), member: etcd.MemberID(s.Header.Member), version: s.Version}, nil
}

// silent are the masters whose data are there, and whose etcd answers nobody.
func (rc *recovery) silent() []inventory.Host {
	var all []inventory.Host
	for i, ih := range rc.whole.ControlPlanes() {
		if m := rc.facts.masters[i]; slices.Contains(rc.facts.ours(), m.name) && !m.answers {
			all = append(all, ih)
		}
	}
	return all
}

// readAll reads the data of every survivor that answers nobody: only then is known
// which of them has most. One that cannot be read keeps nobody from being it.
func (rc *recovery) readAll() []phase.Stage {
	if len(rc.silent()) == 0 {
		return nil
	}
	return []phase.Stage{phase.AtOnce(rc.silent(), func(ih inventory.Host) phase.Phase {
		return phase.Phase{
			Name: "read-data", Host: ih.Name,
			Do: func(ctx context.Context) error {
				d, err := rc.readData(ctx, ih)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				rc.mu.Lock()
				defer rc.mu.Unlock()
				if err != nil {
					rc.unread = append(rc.unread, onHost(ih.Name, err))
					phase.Tell(ctx, fmt.Sprintf("%s: its data cannot be read: %v", ih.Name, err))
					return nil
				}
				rc.read = append(rc.read, d)
				return nil
			},
			Explain: func(context.Context) ([]phase.Change, error) {
				return []phase.Change{{Kind: changeRun, Name: "etcd", Text: "ended; a copy of its data, which stay as they are, is started alone for a snapshot"}}, nil
			},
		}
	})}
}

func (rc *recovery) readData(ctx context.Context, ih inventory.Host) (dataRead, error) {
	h, err := rc.host(ih.Name)
	if err != nil {
		return dataRead{}, err
	}
	if err := kube.RunStep(ctx, h, "recover-read", sayIn(ctx), "sh", "-c", readDataScript, "sh", etcdArgument(ih), apiArgument(ih), wholeLogScript); err != nil {
		return dataRead{}, err
	}
	text, err := h.ReadFile(ctx, readStatus)
	if err != nil {
		return dataRead{}, err
	}
	d, err := parseDataRead(ih.Name, text)
	if err != nil {
		return dataRead{}, err
	}
	there, err := h.Stat(ctx, readSnapshot)
	d.size = there[readSnapshot].Size
	return d, err
}

// mostRead is what has told the highest revision of those that answer nobody;
// nil when one that answers has as much.
func (rc *recovery) mostRead() *dataRead {
	if len(rc.read) == 0 {
		return nil
	}
	most := slices.MaxFunc(rc.read, func(a, b dataRead) int { return cmp.Compare(a.revision, b.revision) })
	for _, m := range rc.facts.masters {
		if m.answers && !m.returned && m.revision >= most.revision {
			return nil
		}
	}
	return &most
}

// backupOfRead makes a backup of a snapshot that lies on a host.
func (rc *recovery) backupOfRead(ctx context.Context, d dataRead) (Backed, error) {
	b := rc.newBacking(rc.Backup)
	defer b.close()
	b.given = func(ctx context.Context) error { return rc.fetchRead(ctx, b, d) }
	for _, step := range b.steps() {
		if err := step.do(ctx); err != nil {
			return Backed{}, err
		}
	}
	return b.done, nil
}

// fetchRead takes the snapshot into the backup's draft, which proves it.
func (rc *recovery) fetchRead(ctx context.Context, b *backing, d dataRead) error {
	if err := b.hasRoom(d.size); err != nil {
		return err
	}
	h, err := rc.host(d.host)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := h.Run(ctx, host.Command{Argv: []string{"sh", "-c", fetchScript, "sh", readSnapshot}, Stdout: w})
		w.CloseWithError(err) // nil is the end of it
	}()
	phase.Expect(ctx, d.size)
	counted := phase.Count(ctx, r)
	b.m.Snapshot, err = b.draft.WriteSnapshot(ctx, counted, nil)
	counted.Close()
	<-ended
	if err != nil {
		return onHost(d.host, err)
	}
	b.m.ClusterID, b.m.Member, b.m.EtcdVersion, b.m.From = d.cluster, d.member, d.version, d.host
	b.m.Verdict, b.m.Members = rc.now.State, listMembers(rc.now)
	phase.Tell(ctx, fmt.Sprintf("warning: the etcd of %s answered nobody, and the snapshot is of a copy of its data: what was acknowledged last may be missing in it; it is labelled so", d.host))
	return nil
}

// fetchScript sends a file.
const fetchScript = `exec cat -- "$1"`

// forget removes what was read, when it is a backup here: the restore needs the room.
func (rc *recovery) forget() []phase.Stage {
	if len(rc.silent()) == 0 {
		return nil
	}
	return []phase.Stage{phase.AtOnce(rc.silent(), func(ih inventory.Host) phase.Phase {
		return phase.Phase{
			Name: "forget-read", Host: ih.Name,
			Do: func(ctx context.Context) error {
				h, err := rc.host(ih.Name)
				if err != nil {
					return err
				}
				return runAll(ctx, h, []string{"rm", "-rf", readDir})
			},
			Explain: func(context.Context) ([]phase.Change, error) {
				return []phase.Change{{Kind: changeClean, Name: readDir, Text: "the copy's snapshot, which is here by then"}}, nil
			},
		}
	})}
}

// upOrWaits waits until a host's etcd answers. One that could answer alone does so at
// once; one that runs and does not waits for a quorum.
func (rc *recovery) upOrWaits(ih inventory.Host) phase.Check {
	serves := rc.etcdServes(ih)
	var since time.Time
	return phase.Check{Name: serves.Name, Run: func(ctx context.Context) error {
		err := serves.Run(ctx)
		if err == nil || rc.way != WaySurvivor {
			return err
		}
		h, failed := rc.host(ih.Name)
		if failed != nil {
			return failed
		}
		f, failed := lookAtRestore(ctx, ih, h)
		switch {
		case failed != nil:
			return failed
		case !f.runs["etcd"]:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > aloneBudget:
			return phase.Final(errors.New("it runs, and answers nobody: it has seen no quorum since it started"))
		}
		return err
	}}
}

// aloneBudget is how long an etcd that needs nobody may take to answer.
const aloneBudget = 10 * time.Second
