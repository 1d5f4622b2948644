package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
)

// Receiver takes copies of backups that other masters have made.
type Receiver struct {
	Cluster     string
	CASHA256    string   // of the cluster's CA set; "" where nobody can say
	Directories []string // a copy may lie in these
	Root        string   // before the directories; "" on a master
	Spare       int64    // stays free beside a copy, in bytes
	// Took is told of each copy that has been proved, for the retention.
	Took func(context.Context, backup.Store, backup.Entry) error
}

// most bounds a part: more than any database of etcd, whose own limit is 8 GiB.
const most = 64 << 30

// lingers is how long a sender that was refused is listened to, so that it hears why.
const lingers = 5 * time.Second

// Serve takes one backup from a connection. cfg has the certificate of this master,
// and in ClientCAs the only authority whose certificates may send.
func (r Receiver) Serve(ctx context.Context, raw net.Conn, cfg *tls.Config) error {
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	cfg = cfg.Clone()
	cfg.NextProtos, cfg.MinVersion, cfg.ClientAuth = []string{protocol}, tls.VersionTLS13, tls.RequireAndVerifyClientCert
	c := tls.Server(raw, cfg)
	if err := shake(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", raw.RemoteAddr(), err)
	}
	l := newLine(c)
	l.patience(silence)
	end, err := r.receive(ctx, l)
	a := answer{Kind: end}
	if err != nil {
		if a.Err = err.Error(); end != done {
			a.Kind = refused
		}
		a.Err = a.Err[:min(len(a.Err), mostAnswer/8)] // what JSON makes of it is longer
	}
	l.patience(silence)
	saying := l.say(a)
	if a.Kind == refused && saying == nil && c.CloseWrite() == nil {
		l.patience(lingers)
		_, _ = io.Copy(io.Discard, l.r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", raw.RemoteAddr(), err)
	}
	return saying
}

func (r Receiver) receive(ctx context.Context, l *line) (kind, error) {
	var h hello
	if err := l.hear(mostHello, &h); err != nil {
		return "", err
	}
	m, err := r.may(h)
	if err != nil {
		return "", err
	}
	store := backup.In(filepath.Join(r.Root, h.Directory), r.Cluster)
	if e, is := store.Named(backup.Name(m.Time)); is {
		if err := r.proved(ctx, e, m); err != nil {
			return "", err
		}
		return there, nil
	}
	if err := store.SweepOlder(abandoned); err != nil {
		return "", err
	}
	if err := store.Room(m.Bytes() + r.Spare); err != nil {
		return "", err
	}
	d, err := store.Receive(m)
	if err != nil {
		return "", err
	}
	defer d.Close()
	if err := l.say(answer{Kind: send}); err != nil {
		return "", err
	}
	for _, part := range m.Parts() {
		if part == backup.ManifestFile {
			err = d.TakeBytes(ctx, part, h.Manifest)
		} else {
			err = l.take(ctx, d, part, m.Size(part))
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", part, err)
		}
	}
	report, err := d.Accept(ctx, backup.Expected{Cluster: r.Cluster, CASHA256: r.CASHA256})
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return "", err
	}
	if r.Took != nil {
		err = r.Took(ctx, store, backup.Read(report.Path))
	}
	return done, err
}

// abandoned is the age at which nobody is at work any more on what is hidden: another
// machine may send into the same directory without a lock here.
const abandoned = 24 * time.Hour

// may reads the manifest and says whether such a copy may lie there. The names of the
// files, and of the directory, are made here of what it says; none is taken over.
func (r Receiver) may(h hello) (backup.Manifest, error) {
	m, err := backup.ParseManifest(h.Manifest)
	switch {
	case err != nil:
		return m, fmt.Errorf("its manifest: %w", err)
	case !slices.Contains(r.Directories, h.Directory):
		return m, fmt.Errorf("%q is no directory for copies here\nrun: ha-install backup schedule INVENTORY, so that all masters have the same", h.Directory)
	case m.Cluster != r.Cluster:
		return m, fmt.Errorf("it is of cluster %q, this master is of %s", m.Cluster, r.Cluster)
	case r.CASHA256 != "" && m.CASHA256 != r.CASHA256:
		return m, errors.New("it is of another cluster of this name: the CA is another")
	}
	if !backup.IsName(backup.Name(m.Time)) {
		return m, fmt.Errorf("%s is no time of a backup", m.Time)
	}
	for _, part := range m.Parts() {
		if n := m.Size(part); part != backup.ManifestFile && (n <= 0 || n > most) {
			return m, fmt.Errorf("%s of %d bytes: not possible", part, n)
		}
	}
	return m, nil
}

// proved wants what lies there to be the same, and whole.
func (r Receiver) proved(ctx context.Context, e backup.Entry, m backup.Manifest) error {
	if e.Err == nil && e.Manifest.Digest != m.Digest {
		return fmt.Errorf("%s: there is another backup; nothing was written over", e.Path)
	}
	report, err := backup.Verify(ctx, e.Path, backup.Expected{Cluster: r.Cluster, CASHA256: r.CASHA256})
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return fmt.Errorf("%w\nwhat lies there is damaged, and was left; remove %s there to have it sent again", err, e.Path)
	}
	return nil
}

func (l *line) take(ctx context.Context, d *backup.Draft, part string, size int64) error {
	return d.Take(ctx, part, &exactly{l: l, left: size})
}

// exactly reads so many bytes, and wants them to come without long pauses.
type exactly struct {
	l    *line
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.l.patience(silence)
	n, err := e.l.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
