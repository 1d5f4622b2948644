package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/test/sshd"
)

func TestUploadPutsAFileInPlaceOnce(t *testing.T) {
	for _, user := range []string{"root", "ops"} {
		t.Run(user, func(t *testing.T) {
			ctx := testContext(t)
			h, _ := dial(t, sshd.Options{}, user)
			name := filepath.Join(t.TempDir(), "new", "dir's", "file \"x\"")
			f := File{Path: name, Mode: 0o640, Content: []byte("content\n")}
			if changed, err := h.Upload(ctx, f); err != nil || !changed {
				t.Fatalf("first upload: changed %v, %v", changed, err)
			}
			wantFile(t, name, "content\n", 0o640)
			wantMode(t, filepath.Dir(name), fs.ModeDir|0o755)
			if changed, err := h.Upload(ctx, f); err != nil || changed {
				t.Fatalf("second upload: changed %v, %v", changed, err)
			}
			f.Mode = 0o600
			if changed, err := h.Upload(ctx, f); err != nil || !changed {
				t.Fatalf("upload with another mode: changed %v, %v", changed, err)
			}
			wantFile(t, name, "content\n", 0o600)
			f.Content = []byte("other")
			if changed, err := h.Upload(ctx, f); err != nil || !changed {
				t.Fatalf("upload of other content: changed %v, %v", changed, err)
			}
			wantFile(t, name, "other", 0o600)
			wantNoParts(t, filepath.Dir(name))
		})
	}
}

func TestUploadAllTakesFewRoundTrips(t *testing.T) {
	ctx := testContext(t)
	h, s := dial(t, sshd.Options{}, "root")
	dir := t.TempDir()
	var files []File
	for i := range 40 {
		files = append(files, File{Path: fmt.Sprintf("%s/d%d/f%d", dir, i%3, i), Mode: 0o600, Content: fmt.Appendf(nil, "file %d", i)})
	}
	before := len(s.Commands())
	changed, err := h.UploadAll(ctx, files)
	if err != nil || len(changed) != 40 {
		t.Fatalf("changed %d files, %v", len(changed), err)
	}
	if n := len(s.Commands()) - before; n > 3 { // compare, sftp-server, commit
		t.Errorf("%d commands for 40 files", n)
	}
	files[7].Content = []byte("changed")
	changed, err = h.UploadAll(ctx, files)
	if err != nil || len(changed) != 1 || changed[0] != files[7].Path {
		t.Fatalf("changed %v, %v; wanted only %s", changed, err, files[7].Path)
	}
}

func TestUploadStreamsWithAGivenSum(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	sum := sha256.Sum256(content)
	opened := 0
	f := File{
		Path: filepath.Join(t.TempDir(), "big"), Mode: 0o755, Size: int64(len(content)), Sum: hex.EncodeToString(sum[:]),
		Open: func() (io.ReadCloser, error) { opened++; return io.NopCloser(bytes.NewReader(content)), nil },
	}
	for range 2 {
		if _, err := h.Upload(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	wantFile(t, f.Path, string(content), 0o755)
	if opened != 1 {
		t.Errorf("the content was opened %d times; an equal file must not be sent", opened)
	}
}

func TestUploadRefusesContentThatDiffersFromItsSum(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	dir := t.TempDir()
	good := File{Path: dir + "/good", Mode: 0o644, Content: []byte("good")}
	bad := File{
		Path: dir + "/bad", Mode: 0o644, Size: 3, Sum: strings.Repeat("0", 64),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("bad")), nil },
	}
	changed, err := h.UploadAll(ctx, []File{good, bad})
	if err == nil || !strings.Contains(err.Error(), bad.Path) || len(changed) != 0 {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	for _, f := range []File{good, bad} {
		if _, err := os.Stat(f.Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there although the upload was refused", f.Path)
		}
	}
}

func TestUploadCutOffIsFinishedOnANewConnection(t *testing.T) {
	ctx := testContext(t)
	h, s := dial(t, sshd.Options{}, "root")
	content := bytes.Repeat([]byte("x"), 4<<20)
	name := filepath.Join(t.TempDir(), "ca.key")
	s.DropAfter(1 << 20)
	changed, err := h.Upload(ctx, File{Path: name, Mode: 0o600, Content: content})
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	wantFile(t, name, string(content), 0o600)
	if n := s.Connections(); n != 2 {
		t.Errorf("%d connections, wanted 2", n)
	}
	wantNoParts(t, filepath.Dir(name))
}

func TestUploadReplacesWhatAnInterruptedOneLeft(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(partName(name), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	must[bool](t)(h.Upload(ctx, File{Path: name, Mode: 0o644, Content: []byte("whole")}))
	wantFile(t, name, "whole", 0o644)
	wantNoParts(t, filepath.Dir(name))
}

func TestUploadReportsACommitThatMayHaveHappenedAsChanged(t *testing.T) {
	ctx := testContext(t)
	h, s := dial(t, sshd.Options{}, "root")
	name := filepath.Join(t.TempDir(), "f")
	cut := false
	s.OnRun(func(line string) {
		if !cut && strings.Contains(line, "each place") {
			cut = true
			go func() { // the file is placed, the answer is lost
				for {
					if _, err := os.Stat(name); err == nil {
						s.Drop()
						return
					}
				}
			}()
		}
	})
	changed, err := h.Upload(ctx, File{Path: name, Mode: 0o644, Content: []byte("x")})
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
}

func TestUploadErrorsNeverShowContent(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	ctx := testContext(t)
	dir := t.TempDir()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for _, f := range []File{
		{Path: "relative", Mode: 0o600},
		{Path: dir, Mode: 0o600},
		{Path: "/proc/none/file", Mode: 0o600},
		{Path: dir + "/f"},
	} {
		f.Secret, f.Content = true, []byte("hunter2")
		for _, c := range []context.Context{ctx, cancelled} {
			_, err := h.Upload(c, f)
			if err == nil {
				t.Errorf("%s: no error", f.Path)
			} else if s := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(s, "hunter2") || !strings.Contains(s, f.Path) {
				t.Errorf("%s: error %s", f.Path, s)
			}
		}
	}
}

func TestReadFile(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	content := []byte("a\x00b\n\xff")
	name := filepath.Join(t.TempDir(), "-f")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := must[[]byte](t)(h.ReadFile(ctx, name)); !bytes.Equal(got, content) {
		t.Errorf("read %q, wanted %q", got, content)
	}
	for _, missing := range []string{name + "x", name + "/x"} {
		_, err := h.ReadFile(ctx, missing)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "cp-1") {
			t.Errorf("missing file: %v", err)
		}
	}
	if _, err := h.ReadFile(ctx, filepath.Dir(name)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was read: %v", err)
	}
}

func TestStatDescribesWhatIsThere(t *testing.T) {
	ctx := testContext(t)
	h, s := dial(t, sshd.Options{}, "root")
	dir := t.TempDir()
	file, odd, link, dangling := dir+"/file", dir+"/odd\nname", dir+"/link", dir+"/dangling"
	for _, err := range []error{
		os.WriteFile(file, []byte("abc"), 0o640), os.WriteFile(odd, nil, 0o4755),
		os.Chmod(odd, 0o755|fs.ModeSetuid), os.Symlink(file, link), os.Symlink("/nowhere", dangling),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := len(s.Commands())
	got := must[map[string]FileInfo](t)(h.Stat(ctx, file, dir+"/none", odd, link, dangling, dir))
	if n := len(s.Commands()) - before; n != 1 {
		t.Errorf("%d commands", n)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for name, want := range map[string]FileInfo{
		file:     {Mode: 0o640, Size: 3, Sum: abc},
		odd:      {Mode: 0o755 | fs.ModeSetuid, Sum: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		link:     {Mode: 0o640, Size: 3, Sum: abc},
		dangling: {Mode: fs.ModeSymlink | 0o777, Size: 8},
	} {
		info := got[name]
		if info.Mode != want.Mode || info.Size != want.Size || info.Sum != want.Sum || info.MTime.IsZero() {
			t.Errorf("%q: %+v, wanted %+v", name, info, want)
		}
	}
	if !got[dir].Mode.IsDir() || got[dir].Sum != "" {
		t.Errorf("directory: %+v", got[dir])
	}
	if len(got) != 5 {
		t.Errorf("%d entries, wanted 5", len(got))
	}
}

func TestStatOfThousandsOfPaths(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	dir := t.TempDir()
	var paths []string
	for i := range 3000 {
		paths = append(paths, fmt.Sprintf("%s/%0100d", dir, i))
	}
	for _, i := range []int{0, 1234, 2999} {
		if err := os.WriteFile(paths[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := must[map[string]FileInfo](t)(h.Stat(testContext(t), paths...)); len(got) != 3 {
		t.Errorf("%d entries, wanted 3", len(got))
	}
}

func TestOnlyMissingLetsNoOtherComplaintPass(t *testing.T) {
	for stderr, ok := range map[string]bool{
		"": true,
		"stat: cannot statx '/a': No such file or directory\nstat: cannot statx '/b/c': Not a directory\n": true,
		"stat: cannot statx '/a': No such file or directory\nsha256sum: /b: Input/output error\n":          false,
		"stat: cannot statx '/No such file or directory': Input/output error\n":                            false,
	} {
		if err := onlyMissing(stderr); (err == nil) != ok {
			t.Errorf("%q: %v", stderr, err)
		}
	}
}

func TestMoveAside(t *testing.T) {
	ctx := testContext(t)
	h, _ := dial(t, sshd.Options{}, "root")
	name := filepath.Join(t.TempDir(), "etcd")
	if to, err := h.MoveAside(ctx, name); to != "" || err != nil {
		t.Fatalf("missing path: %q, %v", to, err)
	}
	if err := os.MkdirAll(name+"/member", 0o700); err != nil {
		t.Fatal(err)
	}
	to := must[string](t)(h.MoveAside(ctx, name+"/"))
	if !strings.HasPrefix(to, name+".ha-install-2") {
		t.Errorf("moved to %q", to)
	}
	wantMode(t, to+"/member", fs.ModeDir|0o700)
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func wantFile(t *testing.T, name, content string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content {
		t.Errorf("%s holds %.40q, wanted %.40q", name, got, content)
	}
	wantMode(t, name, mode)
}

func wantMode(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != mode {
		t.Errorf("%s has mode %s, wanted %s", name, info.Mode(), mode)
	}
}

func wantNoParts(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v %v", dir, left, err)
	}
}
