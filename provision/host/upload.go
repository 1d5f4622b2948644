package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
)

var (
	//go:embed scripts/prepare.sh
	prepareScript string
	//go:embed scripts/commit.sh
	commitScript string
)

const exitSumDiffers = 45

// Upload puts the file in place atomically (temporary name, sum, fsync,
// rename), making missing directories 0755. It changes nothing and reports
// false when content and mode are already so. One writer for each path.
func (h *SSH) Upload(ctx context.Context, f File) (bool, error) {
	changed, err := h.UploadAll(ctx, []File{f})
	return len(changed) > 0, err
}

// UploadAll is Upload for many files with few round trips: one to compare,
// one to put all in place. It returns the paths that were changed; none is
// replaced before all have arrived whole.
func (h *SSH) UploadAll(ctx context.Context, files []File) (changed []string, err error) {
	files = append([]File(nil), files...)
	for i := range files {
		if err := files[i].complete(); err != nil {
			return nil, fmt.Errorf("%s: upload %s: %w", h.cfg.Name, files[i].Path, err)
		}
	}
	for range reconnects {
		var again bool
		if changed, again, err = h.uploadOnce(ctx, files, changed); !again || ctx.Err() != nil {
			break
		}
	}
	return changed, err
}

// UploadAll uploads files in as few round trips as the host can.
func UploadAll(ctx context.Context, w Writer, files []File) (changed []string, err error) {
	if b, ok := w.(interface {
		UploadAll(context.Context, []File) ([]string, error)
	}); ok {
		return b.UploadAll(ctx, files)
	}
	for _, f := range files {
		did, err := w.Upload(ctx, f)
		if err != nil {
			return changed, err
		}
		if did {
			changed = append(changed, f.Path)
		}
	}
	return changed, nil
}

// uploadOnce is one attempt on one connection; again says that the attempt
// fell to a lost connection. before are paths that an earlier attempt changed.
func (h *SSH) uploadOnce(ctx context.Context, files []File, before []string) (changed []string, again bool, err error) {
	changed = before
	todo, err := h.differing(ctx, files)
	if err != nil || len(todo) == 0 {
		return changed, false, err
	}
	l, err := h.link(ctx)
	if err != nil {
		return changed, false, err
	}
	if err := h.send(ctx, l, todo); err != nil {
		return changed, lost(l, err), err
	}
	for len(todo) > 0 {
		n := max(1, chunk(commitArgs(todo))/commitFields)
		_, err := h.exec(ctx, l, execution{argv: script(commitScript, "commit", commitArgs(todo[:n])...), fenced: fencedWork})
		again := err != nil && lost(l, err)
		if err != nil && !again {
			return changed, false, h.commitError(todo[0], err)
		}
		for _, f := range todo[:n] {
			// when the connection was lost they may be in place already: then
			// the next attempt finds them so, and it was we who changed them
			if !slices.Contains(changed, f.Path) {
				changed = append(changed, f.Path)
			}
		}
		if again {
			return changed, true, fmt.Errorf("%s: upload %s: %w", h.cfg.Name, todo[0].Path, err)
		}
		todo = todo[n:]
	}
	return changed, false, nil
}

// differing makes ready for an upload and returns the files that are not so yet.
func (h *SSH) differing(ctx context.Context, files []File) ([]File, error) {
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	found := map[string]FileInfo{}
	for len(paths) > 0 {
		n := chunk(paths)
		if err := h.statSome(ctx, prepareScript+statScript, fencedWork, paths[:n], found); err != nil {
			return nil, h.spaceError(files[0], err)
		}
		paths = paths[n:]
	}
	var todo []File
	for _, f := range files {
		have, ok := found[f.Path]
		if ok && !have.Mode.IsRegular() {
			return nil, fmt.Errorf("%s: upload %s: there is something else: %s", h.cfg.Name, f.Path, have.Mode)
		}
		if !ok || have.Sum != f.Sum || unixMode(have.Mode) != unixMode(f.Mode) {
			todo = append(todo, f)
		}
	}
	return todo, nil
}

// filesAtOnce share the SFTP client: small files wait for round trips, not for bytes.
const filesAtOnce = 8

func (h *SSH) send(ctx context.Context, l *link, files []File) error {
	c, err := h.sftpClient(ctx, l)
	if err != nil {
		return fmt.Errorf("%s: upload %s: %w", h.cfg.Name, files[0].Path, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(filesAtOnce)
	for _, f := range files {
		g.Go(func() error {
			began := time.Now()
			err := put(gctx, c, f)
			h.tracedPut(ctx, f, began, err)
			if err != nil {
				return h.putError(ctx, l, c, f, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// putError cleans up and finds out why; SFTP itself only says "failure".
func (h *SSH) putError(ctx context.Context, l *link, c *sftp.Client, f File, err error) error {
	if ctx.Err() != nil || l.dead() || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: upload %s: %w", h.cfg.Name, f.Path, err)
	}
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) {
		l.dropSFTP(c)
		return fmt.Errorf("%s: upload %s: %w: %w", h.cfg.Name, f.Path, io.EOF, err)
	}
	_ = c.Remove(partName(f.Path)) // the next upload would remove it too
	if vfs, e := c.StatVFS(path.Dir(f.Path)); e == nil {
		free := vfs.Bavail * vfs.Frsize
		if free < uint64(f.Size) || vfs.Ffree == 0 && vfs.Files > 0 {
			return &NoSpaceError{Host: h.cfg.Name, Path: f.Path, Need: f.Size, Free: free}
		}
	}
	return fmt.Errorf("%s: upload %s: %w", h.cfg.Name, f.Path, err)
}

const commitFields = 4

func commitArgs(files []File) []string {
	var args []string
	for _, f := range files {
		kind := ""
		if f.Secret {
			kind = "secret"
		}
		args = append(args, f.Path, f.Sum, fmt.Sprintf("%04o", unixMode(f.Mode)), kind)
	}
	return args
}

func (h *SSH) commitError(f File, err error) error {
	var run *RunError
	if errors.As(err, &run) && run.Code == exitSumDiffers {
		return fmt.Errorf("%s: upload: content differs from its sum: %s", h.cfg.Name, strings.TrimSpace(run.Stderr))
	}
	return h.spaceError(f, h.named([]string{"upload", f.Path}, h.fileError("upload", f.Path, err)))
}

// spaceError recognises a full file system in what a command said.
func (h *SSH) spaceError(f File, err error) error {
	var run *RunError
	if errors.As(err, &run) && strings.Contains(run.Stderr, "No space left on device") {
		return &NoSpaceError{Host: h.cfg.Name, Path: f.Path, Need: f.Size}
	}
	return err
}

// complete checks the file's description and fills in Sum and Size.
func (f *File) complete() error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
		return errors.New("not a clean absolute path")
	}
	if unixMode(f.Mode) == 0 {
		return errors.New("no mode is given")
	}
	if f.Open == nil {
		sum := sha256.Sum256(f.Content)
		f.Sum, f.Size = hex.EncodeToString(sum[:]), int64(len(f.Content))
		return nil
	}
	if f.Content != nil {
		return errors.New("both Content and Open are set")
	}
	if len(f.Sum) != 64 || !isHex(f.Sum) {
		return fmt.Errorf("its sum %q is not SHA-256 in lower-case hex", f.Sum)
	}
	return nil
}

func (f *File) open() (io.ReadCloser, error) {
	if f.Open != nil {
		return f.Open()
	}
	return io.NopCloser(bytes.NewReader(f.Content)), nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
