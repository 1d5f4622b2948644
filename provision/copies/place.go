// Package copies keeps backups on other machines: behind SFTP, in S3-compatible
// storage, on hosts of the cluster. What lies there has the form of what lies
// here, CLUSTER/NAME with a backup's files, and is read back before it counts.
package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/host"
)

// files are what a place can do. Paths have slashes and begin at the place.
type files interface {
	// list names the directories in one, sorted; one that is not there has none.
	list(ctx context.Context, dir string) ([]string, error)
	// open reads a file; one that is not there is fs.ErrNotExist.
	open(ctx context.Context, file string) (io.ReadCloser, error)
	// send puts the parts of a backup on this machine into dir, which appears as
	// a whole, or by its last part; check reads each back before that.
	send(ctx context.Context, from, dir string, parts []string, check func(part string, r io.Reader) error) error
	// remove deletes the parts in dir, and dir when nothing else is in it.
	remove(ctx context.Context, dir string, parts []string) error
}

// Place is somewhere that copies are kept.
type Place struct {
	name  string // its URL, and its host where there are several
	files files
	end   func()
}

// String is the place's URL, and the host's name where one URL means several.
func (p *Place) String() string { return p.name }

// Close ends what is open to the place.
func (p *Place) Close() { p.end() }

// Open connects to an SFTP server, or makes ready to ask an S3 storage, which
// is not asked yet. Relative paths start at baseDir.
func Open(ctx context.Context, c inventory.BackupCopy, baseDir string) (*Place, error) {
	at, err := c.Place()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.To, err)
	}
	p := &Place{name: c.To, end: func() {}}
	switch at.Scheme {
	case inventory.CopySFTP:
		config, err := ServerConfig(c, baseDir)
		if err != nil {
			return nil, err
		}
		return OnServer(ctx, c, config)
	case inventory.CopyS3:
		if p.files, err = newBucket(c, at, baseDir); err != nil {
			return nil, fmt.Errorf("%s: %w", c.To, err)
		}
	default:
		return nil, fmt.Errorf("%s: %s:// wants an inventory, for its hosts", c.To, at.Scheme)
	}
	return p, nil
}

// ServerConfig says how an SFTP server is reached from this machine.
func ServerConfig(c inventory.BackupCopy, baseDir string) (host.Config, error) {
	at, err := c.Place()
	if err != nil {
		return host.Config{}, fmt.Errorf("%s: %w", c.To, err)
	}
	ssh := c.SSH
	ssh.User, ssh.Port = at.User, at.Port
	// nothing of the cluster's own hosts: this machine is none of them
	return host.ConfigFor(&inventory.Cluster{}, inventory.Host{Name: c.To, Address: at.Host, SSH: ssh}, baseDir)
}

// OnServer is a place on an SFTP server that is reached as config says.
func OnServer(ctx context.Context, c inventory.BackupCopy, config host.Config) (*Place, error) {
	at, err := c.Place()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.To, err)
	}
	s, err := host.DialFiles(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Place{name: c.To, files: &server{s, at.Dir, c.To}, end: func() { s.Close() }}, nil
}

// OnHost is a directory on a host of the cluster.
func OnHost(ctx context.Context, c inventory.BackupCopy, h host.Host) (*Place, error) {
	at, err := c.Place()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.To, err)
	}
	name := fmt.Sprintf("%s on %s", c.To, h.Name())
	s, err := host.Files(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Place{name: name, files: &server{s, at.Dir, name}, end: func() { s.Close() }}, nil
}

// Copy is a backup at a place.
type Copy struct {
	Place    *Place
	Dir      string // in the place: CLUSTER/NAME
	Manifest backup.Manifest
	Err      error // why the manifest cannot be trusted; nil when it can
}

// Entry is the copy as backup.Decide takes it.
func (c Copy) Entry() backup.Entry {
	return backup.Entry{Path: c.Dir, Manifest: c.Manifest, Verified: c.Manifest.Time, Err: c.Err}
}

// read reads the manifest of one copy; its bytes come with it.
func (p *Place) read(ctx context.Context, dir string) (Copy, []byte, error) {
	r, err := p.files.open(ctx, path.Join(dir, backup.ManifestFile))
	if err != nil {
		return Copy{}, nil, err
	}
	defer r.Close()
	m, data, err := backup.ReadManifest(r, path.Base(dir))
	return Copy{Place: p, Dir: dir, Manifest: m, Err: err}, data, nil
}

// List are a cluster's copies at the place, the newest first. What has no
// manifest is no copy: it is on its way, or its sending broke off.
func (p *Place) List(ctx context.Context, cluster string) ([]Copy, error) {
	names, err := p.files.list(ctx, cluster)
	if err != nil {
		return nil, p.failed("list", err)
	}
	slices.Sort(names)
	var all []Copy
	for _, name := range slices.Backward(names) {
		if !backup.IsName(name) {
			continue
		}
		switch c, _, err := p.read(ctx, path.Join(cluster, name)); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, p.failed("list", err)
		default:
			all = append(all, c)
		}
	}
	return all, nil
}

// failed names the place before an error that does not.
func (p *Place) failed(verb string, err error) error {
	if strings.HasPrefix(err.Error(), p.name) {
		return err
	}
	return fmt.Errorf("%s: %s: %w", p.name, verb, err)
}

// Check reads all of a copy, and wants it to be what its manifest was made with.
func (c Copy) Check(ctx context.Context) error {
	if c.Err != nil {
		return c.Err
	}
	for _, part := range c.Manifest.Parts() {
		if err := c.check(ctx, part); err != nil {
			return c.Place.failed("read "+path.Join(c.Dir, part), err)
		}
	}
	return nil
}

func (c Copy) check(ctx context.Context, part string) error {
	r, err := c.Place.files.open(ctx, path.Join(c.Dir, part))
	if errors.Is(err, fs.ErrNotExist) {
		return &damageError{err}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	w := &watched{r: r}
	err = c.Manifest.Check(ctx, part, w)
	if err != nil && w.err == nil && ctx.Err() == nil {
		err = &damageError{err}
	}
	return err
}

// watched knows whether reading failed.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// Send puts a copy of a whole backup on this machine into the place, and reads
// it back. One that is there already is read, not sent; there says so.
func (p *Place) Send(ctx context.Context, e backup.Entry) (there bool, err error) {
	m := e.Manifest
	dir := path.Join(m.Cluster, filepath.Base(e.Path))
	switch c, _, err := p.read(ctx, dir); {
	case err == nil && c.Err == nil && c.Manifest.Digest != m.Digest:
		return false, p.failed("send", fmt.Errorf("%s there is another backup; nothing was written over", dir))
	case err == nil:
		if err := c.Check(ctx); err != nil {
			return true, fmt.Errorf("%w\nwhat lies there is damaged, and was left; remove %s there to have it sent again", p.failed("send", err), dir)
		}
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, p.failed("send", err)
	}
	err = p.files.send(ctx, e.Path, dir, m.Parts(), func(part string, r io.Reader) error {
		if err := m.Check(ctx, part, r); err != nil {
			return fmt.Errorf("%s is not there what it is here, read back: %w", part, err)
		}
		return nil
	})
	if err != nil {
		return false, p.failed("send", err)
	}
	return false, nil
}

// Remove deletes the copy.
func (c Copy) Remove(ctx context.Context) error {
	if c.Err != nil {
		return c.Place.failed("remove", c.Err)
	}
	if err := c.Place.files.remove(ctx, c.Dir, c.Manifest.Parts()); err != nil {
		return c.Place.failed("remove", err)
	}
	return nil
}

// Fetch brings a copy to this machine, into the cluster's store in directory,
// where it appears after all checks of backup.Verify. One that lies there
// already is only verified. What is not whole is a *backup.DamagedError.
func (p *Place) Fetch(ctx context.Context, dir, directory string, want backup.Expected) (backup.Report, error) {
	c, data, err := p.read(ctx, dir)
	if err == nil {
		err = c.Err
	}
	if err != nil {
		return backup.Report{}, p.failed("fetch "+dir, err)
	}
	store := backup.In(directory, c.Manifest.Cluster)
	here := filepath.Join(store.Dir(), path.Base(dir))
	if e := backup.Read(here); e.Err == nil && e.Manifest.Digest == c.Manifest.Digest {
		r, err := backup.Verify(ctx, here, want)
		if err == nil {
			err = r.Err()
		}
		return r, err
	}
	if err := store.Room(c.Manifest.Bytes()); err != nil {
		return backup.Report{}, err
	}
	d, err := store.Receive(c.Manifest)
	if err != nil {
		return backup.Report{}, err
	}
	defer d.Close()
	for _, part := range c.Manifest.Parts() {
		if part == backup.ManifestFile {
			err = d.TakeBytes(ctx, part, data)
		} else {
			err = p.take(ctx, d, path.Join(dir, part))
		}
		if err != nil {
			return backup.Report{}, p.failed("fetch", err)
		}
	}
	r, err := d.Accept(ctx, want)
	if err == nil && !r.Whole {
		r.Path = p.name + "/" + dir
		err = r.Err()
	}
	return r, err
}

func (p *Place) take(ctx context.Context, d *backup.Draft, file string) error {
	r, err := p.files.open(ctx, file)
	if err != nil {
		return err
	}
	defer r.Close()
	return d.Take(ctx, path.Base(file), r)
}

// opened is a part on this machine with its size.
func opened(from, part string) (*os.File, int64, error) {
	f, err := os.Open(filepath.Join(from, part))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// damageError is a copy that was read, and is not what was sent.
type damageError struct{ error }

func (e *damageError) Unwrap() error { return e.error }

// IsDamage tells a copy that is not what was sent from one that could not be read.
func IsDamage(err error) bool {
	var damage *damageError
	return errors.As(err, &damage)
}
