package host

import (
	"context"
	"errors"

	"github.com/pkg/sftp"
)

// FileServer is SFTP on a machine that files are kept on.
type FileServer struct {
	*sftp.Client
	// InFlight is how many requests of a file may be under way at once.
	InFlight int
	end      func()
}

// Close ends the session and, where it was made for it alone, the connection.
func (f *FileServer) Close() error {
	f.end()
	return nil
}

// DialFiles logs in to a machine for files only: as the user of cfg, by sshd's
// SFTP subsystem, without a command, so that one who may do nothing else will
// do. The machine is verified as every host is. When ctx ends, or the machine
// falls silent, so does the connection. Its errors are Dial's.
func DialFiles(ctx context.Context, cfg Config) (*FileServer, error) {
	cfg.Sudo = new(bool)
	h := &SSH{cfg: cfg.withDefaults()}
	l, err := h.link(ctx)
	if err != nil {
		return nil, err
	}
	c, err := h.sftpClient(ctx, l)
	if err != nil {
		h.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	return &FileServer{Client: c, InFlight: sftpInFlight, end: func() { stop(); h.Close() }}, nil
}

// errNoFiles means that a host gives no SFTP, as a simulated one.
var errNoFiles = errors.New("it gives no SFTP")

// Files is SFTP as root over the host's own connection, which stays open when it
// is closed. What is done through it is not fenced by the lock, and a host that is
// opened for reading gives it, too: it is for files that belong to no operation, and
// change nothing of the cluster.
func Files(ctx context.Context, h Host) (*FileServer, error) {
	f, ok := h.(interface {
		files(context.Context) (*FileServer, error)
	})
	if !ok {
		return nil, errNoFiles
	}
	return f.files(ctx)
}

func (r readOnly) files(ctx context.Context) (*FileServer, error) { return Files(ctx, r.Host) }

func (h *SSH) files(ctx context.Context) (*FileServer, error) {
	l, err := h.link(ctx)
	if err != nil {
		return nil, err
	}
	c, err := h.sftpClient(ctx, l)
	if err != nil {
		return nil, err
	}
	return &FileServer{Client: c, InFlight: sftpInFlight, end: func() {}}, nil
}
