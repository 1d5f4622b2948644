package bundle

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
)

// Source is an item with the bytes to write; Create fills SHA256 and Size.
// Open is called twice and must give the same bytes both times.
type Source struct {
	Item
	Open func() (io.ReadCloser, error)
}

// FromFile returns a Source that reads a local file.
func FromFile(item Item, path string) Source {
	return Source{Item: item, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

// Create writes a bundle with the items in the order given, under a temporary
// name that becomes path only when all of it is on disk. The header's items are
// ignored. A bundle that is already there with an equal manifest is left alone,
// and changed is false. The same sources give the same bytes.
func Create(ctx context.Context, path string, header Manifest, sources []Source) (changed bool, err error) {
	m := header
	m.APIVersion, m.Kind, m.Items = APIVersion, ManifestKind, nil
	for _, s := range sources {
		item, err := s.measure(ctx)
		if err != nil {
			return false, fmt.Errorf("create bundle: %s: %w", s.Path, err)
		}
		m.Items = append(m.Items, item)
	}
	if err := m.validate(); err != nil {
		return false, fmt.Errorf("create bundle: %w", err)
	}
	if old, err := Open(path); err == nil {
		same := reflect.DeepEqual(old.manifest, m)
		old.Close()
		if same {
			return false, nil
		}
	}
	if err := write(ctx, path, m, sources); err != nil {
		return false, fmt.Errorf("create bundle %s: %w", path, err)
	}
	return true, nil
}

func (s Source) measure(ctx context.Context) (Item, error) {
	item := s.Item
	r, err := s.Open()
	if err != nil {
		return item, err
	}
	defer r.Close()
	item.SHA256, item.Size, err = digest(ctx, r)
	return item, err
}

func write(ctx context.Context, path string, m Manifest, sources []Source) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	archive := tar.NewWriter(f)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(header(ManifestName, int64(len(data)), 0o644)); err != nil {
		return err
	}
	if _, err := archive.Write(data); err != nil {
		return err
	}
	for i, s := range sources {
		if err := s.copy(ctx, archive, m.Items[i]); err != nil {
			return fmt.Errorf("%s: %w", s.Path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return install(f, path)
}

// install makes the temporary file the one at path, durably.
func install(f *os.File, path string) error {
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// copy writes the item's header and bytes; a source that changed since it was
// measured is an error.
func (s Source) copy(ctx context.Context, archive *tar.Writer, item Item) error {
	r, err := s.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := archive.WriteHeader(header(item.Path, item.Size, int64(item.Mode))); err != nil {
		return err
	}
	sum, size, err := digest(ctx, io.TeeReader(r, archive))
	if err != nil {
		return err
	}
	if sum != item.SHA256 || size != item.Size {
		return fmt.Errorf("changed while the bundle was written")
	}
	return nil
}

// header has no owner and no time, so that equal contents give equal bundles.
func header(name string, size, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode}
}
