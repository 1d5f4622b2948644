package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/host"
)

// server keeps copies in a directory behind SFTP, as backup.Store does here: a
// copy is filled under a hidden name, and appears whole.
type server struct {
	*host.FileServer
	root string
	name string // for errors
}

const partSuffix = ".part"

func (s *server) at(name string) string { return path.Join(s.root, name) }

func (s *server) list(ctx context.Context, dir string) ([]string, error) {
	found, err := s.ReadDirContext(ctx, s.at(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, info := range found {
		if info.IsDir() {
			names = append(names, info.Name())
		}
	}
	return names, err
}

func (s *server) open(_ context.Context, file string) (io.ReadCloser, error) {
	f, err := s.Open(s.at(file))
	if err != nil {
		return nil, err
	}
	return ahead(f), nil
}

// ahead reads a file with many requests under way: one at a time would wait for
// a round trip every 32 KiB.
func ahead(f *sftp.File) io.ReadCloser {
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := f.WriteTo(w)
		w.CloseWithError(err)
	}()
	return &reading{PipeReader: r, f: f, ended: ended}
}

type reading struct {
	*io.PipeReader
	f     *sftp.File
	ended chan struct{}
}

func (r *reading) Close() error {
	r.PipeReader.Close()
	<-r.ended // its writes fail now, or the connection has
	return r.f.Close()
}

func (s *server) send(ctx context.Context, from, dir string, parts []string, check func(string, io.Reader) error) error {
	if err := s.MkdirAll(s.at(path.Dir(dir))); err != nil {
		return fmt.Errorf("make %s: %w", s.at(path.Dir(dir)), err)
	}
	draft := path.Join(path.Dir(dir), "."+path.Base(dir)+partSuffix)
	if err := s.clear(draft); err != nil {
		return err
	}
	if err := s.Mkdir(s.at(draft)); err != nil {
		return fmt.Errorf("make %s: %w", s.at(draft), err)
	}
	err := s.fill(ctx, from, draft, parts, check)
	if err == nil {
		err = s.Rename(s.at(draft), s.at(dir))
	}
	if err != nil {
		_ = s.clear(draft) // else the next one does
		return err
	}
	s.sweep(path.Dir(dir), dir)
	return nil
}

func (s *server) fill(ctx context.Context, from, draft string, parts []string, check func(string, io.Reader) error) error {
	if err := s.Chmod(s.at(draft), 0o700); err != nil {
		return err
	}
	if err := s.room(from, draft, parts); err != nil {
		return err
	}
	for _, part := range parts {
		if err := s.upload(ctx, from, draft, part); err != nil {
			return err
		}
		r, err := s.open(ctx, path.Join(draft, part))
		if err != nil {
			return err
		}
		err = check(part, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// room asks, where the server can tell, whether all parts will fit.
func (s *server) room(from, draft string, parts []string) error {
	var need int64
	for _, part := range parts {
		f, size, err := opened(from, part)
		if err != nil {
			return err
		}
		f.Close()
		need += size
	}
	return s.full(draft, need)
}

// full is a *host.NoSpaceError where so many bytes do not fit; nil when the
// server does not tell.
func (s *server) full(dir string, need int64) error {
	vfs, err := s.StatVFS(s.at(dir))
	if err != nil {
		return nil
	}
	if free := vfs.Bavail * vfs.Frsize; free < uint64(need) || vfs.Ffree == 0 && vfs.Files > 0 {
		return &host.NoSpaceError{Host: s.name, Path: s.at(dir), Need: need, Free: free}
	}
	return nil
}

func (s *server) upload(ctx context.Context, from, draft, part string) (err error) {
	src, size, err := opened(from, part)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := s.OpenFile(s.at(path.Join(draft, part)), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	sent := &counted{ctx: ctx, r: src}
	_, err = dst.ReadFromWithConcurrency(sent, s.InFlight)
	if _, syncs := s.HasExtension("fsync@openssh.com"); err == nil && syncs {
		err = dst.Sync()
	}
	if closing := dst.Close(); err == nil {
		err = closing
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, sftp.ErrSSHFxConnectionLost), errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the connection was lost on the way: %w", part, err)
	}
	if full := s.full(draft, max(size-sent.n, 1<<20)); full != nil { // SFTP itself only says "failure"
		return full
	}
	return fmt.Errorf("%s: %w", part, err)
}

// counted ends with its context, and knows how much was read.
type counted struct {
	ctx context.Context
	r   io.Reader
	n   int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// clear removes a directory with files of a backup in it, and nothing where it has
// something else.
func (s *server) clear(dir string) error {
	found, err := s.ReadDir(s.at(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range found {
		if !slices.Contains(backup.Files(), info.Name()) || !info.Mode().IsRegular() {
			return fmt.Errorf("%s: %s in it is no file of a backup; it was left", s.at(dir), info.Name())
		}
	}
	for _, part := range backup.Files() {
		if err := s.Client.Remove(s.at(path.Join(dir, part))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.RemoveDirectory(s.at(dir))
}

func (s *server) remove(_ context.Context, dir string, _ []string) error {
	hidden := path.Join(path.Dir(dir), "."+path.Base(dir)+partSuffix)
	if err := s.clear(hidden); err != nil {
		return err
	}
	if err := s.Rename(s.at(dir), s.at(hidden)); err != nil { // no half of it is ever taken for a backup
		return err
	}
	if err := s.clear(hidden); err != nil {
		return errors.Join(err, s.Rename(s.at(hidden), s.at(dir)))
	}
	return nil
}

// abandoned is the age at which nobody is at work any more on what is hidden.
const abandoned = 24 * time.Hour

// sweep removes what other runs have begun and left, by the server's own clock:
// newest was made just now. What cannot be removed stays.
func (s *server) sweep(dir, newest string) {
	now, err := s.Stat(s.at(newest))
	if err != nil {
		return
	}
	found, err := s.ReadDir(s.at(dir))
	if err != nil {
		return
	}
	for _, info := range found {
		name, hidden := strings.CutPrefix(strings.TrimSuffix(info.Name(), partSuffix), ".")
		if hidden && info.IsDir() && backup.IsName(name) && now.ModTime().Sub(info.ModTime()) > abandoned {
			_ = s.clear(path.Join(dir, info.Name()))
		}
	}
}
