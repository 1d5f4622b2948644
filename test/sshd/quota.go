package sshd

import (
	"io"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/pkg/sftp"
)

// quota are the machine's own files on a file system that takes only so many
// bytes more; what is removed gives none back. One that rots keeps a bit of each
// write other than it was told, and says nothing.
type quota struct {
	left atomic.Int64
	rots bool
}

func (q *quota) handlers() sftp.Handlers {
	return sftp.Handlers{FileGet: q, FilePut: q, FileCmd: q, FileList: q}
}

// Fileread is sftp.FileReader's.
func (q *quota) Fileread(r *sftp.Request) (io.ReaderAt, error) { return os.Open(r.Filepath) }

// Filewrite is sftp.FileWriter's.
func (q *quota) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	flags := os.O_WRONLY | os.O_CREATE
	if r.Pflags().Excl {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(r.Filepath, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &limited{f, q}, nil
}

type limited struct {
	*os.File
	q *quota
}

func (l *limited) WriteAt(p []byte, off int64) (int, error) {
	if l.q.left.Add(-int64(len(p))) < 0 {
		return 0, syscall.ENOSPC
	}
	if l.q.rots {
		p = slices.Clone(p)
		p[len(p)/2] ^= 1
	}
	return l.File.WriteAt(p, off)
}

// Filecmd is sftp.FileCmder's.
func (q *quota) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		return os.Chmod(r.Filepath, r.Attributes().FileMode().Perm())
	case "Rename":
		return os.Rename(r.Filepath, r.Target)
	case "Mkdir":
		return os.Mkdir(r.Filepath, 0o700)
	case "Rmdir", "Remove":
		return os.Remove(r.Filepath)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// Filelist is sftp.FileLister's.
func (q *quota) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "Stat" {
		info, err := os.Stat(r.Filepath)
		return listing{info}, err
	}
	entries, err := os.ReadDir(r.Filepath)
	var all listing
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, err
}

type listing []os.FileInfo

func (l listing) ListAt(into []os.FileInfo, from int64) (int, error) {
	if from >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(into, l[from:])
	if n < len(into) {
		return n, io.EOF
	}
	return n, nil
}
