package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/copies"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/relay"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
)

const (
	// copyBudget is for all copies of a backup: what has not ended by then is told
	// before systemd ends the program.
	copyBudget = 100 * time.Minute
	// A copy that was not made is tried again after a quarter of the period, or this.
	longestRetry = time.Hour
)

// copying sends one backup of this master to the places of the configuration.
type copying struct {
	Turn
	view schedule.View
	cfg  *tls.Config // with this master's certificate for etcd
	made backup.Manifest

	mu     sync.Mutex
	untidy []error // copies were made, and older ones are left
}

// copy sends a backup to the places that do not have it yet, as far as is known, and
// keeps in s what became of it. The turn is over by then: another master makes no
// backup of the same period, as that is on record.
func (t Turn) copy(ctx context.Context, view schedule.View, cfg *tls.Config, records *schedule.Records, s *schedule.State, dir string) error {
	e := backup.Read(dir)
	if e.Err != nil {
		return fmt.Errorf("%s: %w", dir, e.Err)
	}
	c := &copying{Turn: t, view: view, cfg: cfg, made: e.Manifest}
	all, name := c.sendings(), filepath.Base(dir)
	var missing []sending
	for _, to := range all {
		if !s.Sent.At(name, to.name) {
			missing = append(missing, to)
		}
	}
	within, cancel := context.WithTimeout(ctx, copyBudget)
	defer cancel()
	made, failed := sendTo(within, e, missing, func(one Copied) { phase.Tell(ctx, one.String()) })
	s.Sent = sent(s.Sent, name, all, made, t.Now())
	if s.Last != nil && s.Last.Path == dir && s.Last.Host == view.Self.Name {
		s.Last.Copies = s.Sent.Copies
	}
	recording := records.Amend(ctx, schedule.Note{Host: view.Self.Name, Path: dir, Copies: s.Sent.Copies})
	if failed != nil {
		failed.Run = "nothing: it is tried again; ha-install status shows when it is there"
		return errors.Join(append(c.untidy, failed, recording)...)
	}
	return errors.Join(append(c.untidy, recording)...)
}

// sent is what is known of all places, after some were sent to.
func sent(before *schedule.Sent, name string, all []sending, made []Copied, now time.Time) *schedule.Sent {
	after := &schedule.Sent{Backup: name, Tried: now.UTC()}
	for _, to := range all {
		c := schedule.Copy{Place: to.name}
		for _, m := range made {
			if m.Place == to.name && !before.At(name, to.name) {
				c.Err = m.Err
			}
		}
		after.Copies = append(after.Copies, c)
	}
	return after
}

// copyMissing tries again what failed, or was never begun, with this master's newest
// backup: a server may be back, a master on again.
func (t Turn) copyMissing(ctx context.Context, view schedule.View, cfg *tls.Config, records *schedule.Records, s *schedule.State, own []backup.Entry) error {
	if len(own) == 0 || len(t.Config.Copies) == 0 {
		s.Sent = nil
		return nil
	}
	name := filepath.Base(own[0].Path)
	if s.Sent != nil && s.Sent.Backup == name {
		c := copying{Turn: t, view: view}
		all := c.sendings()
		s.Sent.Copies = slices.DeleteFunc(s.Sent.Copies, func(at schedule.Copy) bool { // of places that are none any more
			return !slices.ContainsFunc(all, func(to sending) bool { return to.name == at.Place })
		})
		there := func(to sending) bool { return s.Sent.At(name, to.name) }
		if !slices.ContainsFunc(all, func(to sending) bool { return !there(to) }) || t.Now().Sub(s.Sent.Tried) < min(t.Config.Every/4, longestRetry) {
			return nil
		}
	}
	return t.copy(ctx, view, cfg, records, s, own[0].Path)
}

// sendings are the places, those on other masters one for each voter: etcd says who
// they are, through quorum.
func (c *copying) sendings() []sending {
	var all []sending
	for _, to := range c.Config.Copies {
		at, err := to.Place()
		if err == nil && at.Scheme == inventory.CopyMasters {
			for _, v := range c.view.Voters {
				if v.ID != c.view.Self.ID {
					all = append(all, sending{to.To + " on " + v.Name, func(ctx context.Context, e backup.Entry) (bool, error) {
						return c.toMaster(ctx, v, to.To+" on "+v.Name, at.Dir, e)
					}})
				}
			}
			continue
		}
		place := opening{to.To, func(ctx context.Context) (*copies.Place, error) { return openFromMaster(ctx, to) }}
		all = append(all, sending{to.To, func(ctx context.Context, e backup.Entry) (there bool, err error) {
			err = place.at(ctx, func(p *copies.Place) (err error) {
				if there, err = p.Send(ctx, e); err == nil {
					c.prunePlace(ctx, p, filepath.Base(e.Path))
				}
				return err
			})
			return there, err
		}})
	}
	return all
}

// openFromMaster opens a place with what a master was given for it, and nothing else
// that may lie there.
func openFromMaster(ctx context.Context, to templates.ScheduledCopy) (*copies.Place, error) {
	c := inventory.BackupCopy{To: to.To, Endpoint: to.Endpoint, Region: to.Region, CredentialsFile: to.CredentialsFile, CAFile: to.CAFile}
	s := to.Server
	if s == nil {
		return copies.Open(ctx, c, "/")
	}
	config := host.Config{Name: to.To, Address: s.Address, Port: s.Port, User: s.User, IdentitiesOnly: true, KnownHosts: []string{s.KnownHosts}}
	for _, file := range s.IdentityFiles {
		config.IdentityFiles = append(config.IdentityFiles, host.Identity{Path: file, Required: true})
	}
	return copies.OnServer(ctx, c, config)
}

// alike says which copies at a place the retention is of: those that this cluster's
// masters made in their turns. What an operator sent there stays.
func alike(made backup.Manifest) func(backup.Manifest) bool {
	return func(m backup.Manifest) bool { return m.Scheduled && m.CASHA256 == made.CASHA256 }
}

// prunePlace removes what is beyond the number to keep at a place that has taken a
// copy just now, and read it back.
func (c *copying) prunePlace(ctx context.Context, p *copies.Place, name string) {
	pruned, err := pruneAt(ctx, p, c.Config.Cluster, pruning{rule: backup.Rule{Keep: c.Config.Keep}, now: c.Now(), only: alike(c.made), sure: name})
	for _, one := range pruned {
		err = errors.Join(err, one.Err)
	}
	if err != nil {
		c.leftAt(p.String(), err)
	}
}

func (c *copying) leftAt(place string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untidy = append(c.untidy, fmt.Errorf("%s: prune: %w", place, err))
}

// toMaster hands the backup to another master, which proves it and keeps so many.
func (c *copying) toMaster(ctx context.Context, v schedule.Voter, name, dir string, e backup.Entry) (bool, error) {
	address, err := receiverOf(v)
	if c.Receiver != nil {
		address, err = c.Receiver(v.Name), nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	there, err := relay.Send(ctx, address, c.cfg, dir, e)
	var untidy *relay.UntidyError
	if errors.As(err, &untidy) {
		c.leftAt(name, errors.New(untidy.Why))
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return there, err
}

// receiverOf is where a master takes copies: at the address of its etcd.
func receiverOf(v schedule.Voter) (string, error) {
	u, err := url.Parse(v.ClientURL)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("etcd says that it is at %q", v.ClientURL)
	}
	return net.JoinHostPort(u.Hostname(), strconv.Itoa(templates.ReceivePort)), nil
}

// Receive takes a copy of another master's backup from a connection, when this one is
// to keep such.
func (t Turn) Receive(ctx context.Context, conn net.Conn) error {
	cfg, err := t.receiverTLS(ctx)
	if err != nil {
		conn.Close()
		return err
	}
	if t.Now == nil {
		t.Now = time.Now
	}
	return relay.Receiver{
		Cluster: t.Config.Cluster, CASHA256: t.master().caFingerprint(ctx), Directories: t.Config.ReceivesIn(), Root: t.Root, Spare: backupSpare,
		Took: func(ctx context.Context, store backup.Store, e backup.Entry) error {
			return t.pruneStore(ctx, store, e.Path, alike(e.Manifest))
		},
	}.Serve(ctx, conn, cfg)
}

// receiverTLS is etcd's own: its certificate for the master's addresses, and its CA for
// who may send.
func (t Turn) receiverTLS(ctx context.Context) (*tls.Config, error) {
	cfg, err := etcdClientTLS(ctx, t.master())
	if err != nil {
		return nil, err
	}
	var pem [2][]byte
	for i, name := range []string{"etcd/server.crt", "etcd/server.key"} {
		if pem[i], err = t.master().ReadFile(ctx, path.Join(kube.PKIDir, name)); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		return nil, fmt.Errorf("etcd's own certificate: %w", err)
	}
	return &tls.Config{ClientCAs: cfg.RootCAs, Certificates: []tls.Certificate{pair}}, nil
}

// checkCopies proves that what the places need lies here; nobody is asked.
func (t Turn) checkCopies(ctx context.Context) error {
	for _, file := range t.Config.KeyFiles() {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	if len(t.Config.ReceivesIn()) == 0 {
		return nil
	}
	_, err := t.receiverTLS(ctx)
	return err
}
