// Package host is one machine over SSH: commands as root, files, tunnels and
// steps that outlive the connection. It knows nothing of Kubernetes.
package host

import (
	"context"
	"io"
	"io/fs"
	"net"
	"time"
)

// Reader is what can be asked of a host without changing it. A plan gets only this.
type Reader interface {
	// Name is the host's name in the inventory.
	Name() string
	// Query runs a command that changes nothing, as root, and returns its
	// standard output. A non-zero exit is a *RunError.
	Query(ctx context.Context, argv ...string) ([]byte, error)
	// ReadFile returns a file's bytes, read as root; a missing file is fs.ErrNotExist.
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// Stat describes the paths in one round trip; a missing path has no entry.
	// Sum is filled for regular files only.
	Stat(ctx context.Context, paths ...string) (map[string]FileInfo, error)
	// DialContext opens a TCP connection from the host (direct-tcpip).
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Writer is what changes a host.
type Writer interface {
	// Run runs a command as root and returns its standard output. A non-zero
	// exit is a *RunError.
	Run(ctx context.Context, cmd Command) ([]byte, error)
	// Upload puts the file in place atomically (temporary name, sum, fsync,
	// rename), making missing directories 0755. It changes nothing and
	// reports false when content and mode are already so.
	Upload(ctx context.Context, f File) (changed bool, err error)
	// MoveAside renames path to "<path>.ha-install-<UTC time>" and returns the
	// new name; a missing path is no error and returns "".
	MoveAside(ctx context.Context, path string) (string, error)
	// Step runs a long command as a transient systemd unit that outlives the
	// connection, and waits for it. See Step.
	Step(ctx context.Context, s Step) (StepResult, error)
}

// Host is one machine.
type Host interface {
	Reader
	Writer
	Locker
	io.Closer
}

// Command is an argv to run as root; nothing in it is interpreted by a shell.
type Command struct {
	Argv  []string
	Stdin io.Reader // secrets travel here, never in Argv
	// Stdout gets what the command prints, as it comes, instead of Run's result:
	// with Stdin, for a conversation. nil: Run returns it.
	Stdout io.Writer
	Env    map[string]string // set by env(1)
}

// File is what a path on a host should hold. Exactly one of Content and Open
// is set; with Open, Sum and Size are required, so that an equal file is never sent.
type File struct {
	Path    string      // clean and absolute
	Mode    fs.FileMode // must be given
	Content []byte
	Open    func() (io.ReadCloser, error)
	Sum     string // SHA-256, lower-case hex
	Size    int64
	// Secret keeps the content out of diffs, logs and errors.
	Secret bool
}

// FileInfo describes a path on a host.
type FileInfo struct {
	Mode  fs.FileMode
	Size  int64
	MTime time.Time
	Sum   string // SHA-256, lower-case hex; "" for what is not a regular file
}

// Step is a command that must finish once begun, whatever becomes of the
// connection. It runs as the transient unit "ha-install-<ID>.service"; output
// and exit code are kept on the host under /var/lib/ha-install/steps/<ID>/.
// Calling Step again with an ID that is running attaches to it; with an ID
// that has ended returns its result without running again. A reboot in between
// (another boot ID) is reported as *RebootError.
type Step struct {
	ID     string // unique per attempt: "join-cp-2-1"
	Argv   []string
	Env    map[string]string
	Output func(line string) // live lines, may be nil
}

// StepResult is how a step ended.
type StepResult struct {
	Output   []byte // standard output and error, interleaved
	Code     int
	Began    time.Time
	Ended    time.Time
	Attached bool // an earlier run of the same ID was picked up
}
