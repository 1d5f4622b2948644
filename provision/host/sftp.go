package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// sftpSession is the SFTP client of a link, running as root.
type sftpSession struct {
	client *sftp.Client
	end    func()
}

// sftpClient is the link's client, made when first asked for.
func (h *SSH) sftpClient(ctx context.Context, l *link) (*sftp.Client, error) {
	l.sftpMu.Lock()
	defer l.sftpMu.Unlock()
	if l.sftp != nil {
		return l.sftp.client, nil
	}
	s, release, err := l.newSession(ctx)
	if err != nil {
		return nil, err
	}
	c, err := h.startSFTP(ctx, s)
	if err != nil {
		release()
		return nil, fmt.Errorf("start SFTP: %w", err)
	}
	unkept := l.sessions.keep()
	l.sftp = &sftpSession{client: c, end: func() { unkept(); release() }}
	return c, nil
}

// dropSFTP forgets a client whose server has gone, so that the next use makes a new one.
func (l *link) dropSFTP(c *sftp.Client) {
	l.sftpMu.Lock()
	defer l.sftpMu.Unlock()
	if l.sftp != nil && l.sftp.client == c {
		l.sftp.end()
		l.sftp = nil
	}
}

// startSFTP runs sftp-server as root, as a command and not as the subsystem,
// which would run as the user. Its umask keeps new files from everybody's eyes.
func (h *SSH) startSFTP(ctx context.Context, s *ssh.Session) (*sftp.Client, error) {
	w, err := s.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, err := s.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs := &tail{max: stderrKept}
	s.Stderr = errs
	switch {
	case h.facts.SFTPServer != "":
		line, err := h.commandLine([]string{h.facts.SFTPServer, "-u", "0077"}, nil)
		if err != nil {
			return nil, err
		}
		if err := s.Start(line); err != nil {
			return nil, err
		}
	case h.cfg.sudo():
		return nil, errors.New("the host has no sftp-server; install openssh-sftp-server")
	default:
		if err := s.RequestSubsystem("sftp"); err != nil {
			return nil, err
		}
	}
	type made struct {
		c   *sftp.Client
		err error
	}
	ch := make(chan made, 1)
	go func() {
		c, err := sftp.NewClientPipe(r, w, sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(sftpInFlight))
		ch <- made{c, err}
	}()
	select {
	case m := <-ch:
		return m.c, m.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sftpInFlight times 32 KiB is what may be under way unacknowledged: enough
// for 40 MB/s at a round trip of 100 ms.
const sftpInFlight = 128

// put writes the file's content to its temporary name.
func put(ctx context.Context, c *sftp.Client, f File) error {
	done := make(chan error, 1)
	go func() { done <- putNow(ctx, c, f) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err() // putNow ends with its reader, or with the connection
	}
}

func putNow(ctx context.Context, c *sftp.Client, f File) (err error) {
	src, err := f.open()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := c.OpenFile(partName(f.Path), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := dst.Chmod(0o600); err != nil { // for servers that know no umask option
		return err
	}
	_, err = dst.ReadFromWithConcurrency(&contextReader{ctx, src}, sftpInFlight)
	return err
}

// partName is where a file's content waits, beside its final place.
func partName(p string) string {
	return path.Join(path.Dir(p), "."+path.Base(p)+".ha-install-part")
}
