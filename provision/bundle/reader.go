package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/ha-install/ha-install/inventory"
)

// manifestLimit bounds what is read into memory on the word of a tar header.
const manifestLimit = 16 << 20

// Bundle is an open bundle. Any number of goroutines may read from it at once.
type Bundle struct {
	path     string
	file     *os.File
	manifest Manifest
	offsets  map[string]int64 // of an item's first byte, by path
}

// Open reads the manifest and finds every item's place; it reads no item, so
// sums are Verify's to check. A bundle that is truncated, or whose entries are
// not exactly those of its manifest, is refused with every problem named.
func Open(path string) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	b := &Bundle{path: path, file: f, offsets: map[string]int64{}}
	if err := b.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("bundle %s: %w", path, err)
	}
	return b, nil
}

func (b *Bundle) load() error {
	info, err := b.file.Stat()
	if err != nil {
		return err
	}
	// A SectionReader counts from its own start and leaves the file's offset
	// alone; archive/tar reads headers without reading ahead, so after Next
	// its position is the entry's first byte.
	section := io.NewSectionReader(b.file, 0, info.Size())
	archive := tar.NewReader(section)
	head, err := archive.Next()
	if err != nil {
		return fmt.Errorf("not a bundle: first tar header: %w", unexpectedEOF(err))
	}
	if head.Name != ManifestName || head.Typeflag != tar.TypeReg {
		return fmt.Errorf("not a bundle: the first entry is %q, want the file %q", head.Name, ManifestName)
	}
	if head.Size > manifestLimit {
		return fmt.Errorf("%s: %d bytes, want %d at most", ManifestName, head.Size, manifestLimit)
	}
	data, err := io.ReadAll(archive)
	if err != nil {
		return fmt.Errorf("%s: truncated: %w", ManifestName, unexpectedEOF(err))
	}
	if b.manifest, err = decode(data); err != nil {
		return err
	}
	return b.index(archive, section)
}

// index notes where each entry begins and compares the entries with the manifest.
func (b *Bundle) index(archive *tar.Reader, section *io.SectionReader) error {
	var errs *multierror.Error
	wanted := map[string]Item{}
	for _, item := range b.manifest.Items {
		wanted[item.Path] = item
	}
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("after %d of %d items: truncated or damaged: %w",
				len(b.offsets), len(wanted), err))
			return errs
		}
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := b.admit(head, wanted, offset, section.Size()); err != nil {
			errs = multierror.Append(errs, err)
			continue
		}
		b.offsets[head.Name] = offset
	}
	for _, item := range b.manifest.Items {
		if _, ok := b.offsets[item.Path]; !ok && errs.ErrorOrNil() == nil {
			errs = multierror.Append(errs, fmt.Errorf("%s: in the manifest, but not in the archive", item.Path))
		}
	}
	return errs.ErrorOrNil()
}

// admit decides whether an entry may be in the archive.
func (b *Bundle) admit(head *tar.Header, wanted map[string]Item, offset, end int64) error {
	item, ok := wanted[head.Name]
	switch {
	case !localPath(head.Name):
		return fmt.Errorf("entry %q leaves the archive", head.Name)
	case !ok:
		return fmt.Errorf("%s: in the archive, but not in the manifest", head.Name)
	case head.Typeflag != tar.TypeReg:
		return fmt.Errorf("%s: not a regular file", head.Name)
	case head.Size != item.Size:
		return fmt.Errorf("%s: %d bytes in the archive, %d in the manifest", head.Name, head.Size, item.Size)
	case offset+head.Size > end:
		return fmt.Errorf("%s: truncated: %d of %d bytes", head.Name, end-offset, head.Size)
	}
	if _, twice := b.offsets[head.Name]; twice {
		return fmt.Errorf("%s: twice in the archive", head.Name)
	}
	return nil
}

// Close closes the file; no Reader may be used after it.
func (b *Bundle) Close() error { return b.file.Close() }

// Path is the file that Open was given.
func (b *Bundle) Path() string { return b.path }

// Manifest returns the table of contents.
func (b *Bundle) Manifest() Manifest { return b.manifest }

// For returns the items that a host with the roles needs, each once, in the
// manifest's order.
func (b *Bundle) For(roles ...inventory.Role) []Item {
	var items []Item
	for _, item := range b.manifest.Items {
		if slices.ContainsFunc(roles, item.For) {
			items = append(items, item)
		}
	}
	return items
}

// Images returns the image references that a host with the role gets, sorted.
func (b *Bundle) Images(role inventory.Role) []string {
	var refs []string
	for _, item := range b.For(role) {
		refs = append(refs, item.Images...)
	}
	slices.Sort(refs)
	return refs
}

// Probe returns the reference of the image with PurposeProbe; ok is false when
// the bundle has none.
func (b *Bundle) Probe() (ref string, ok bool) {
	for _, item := range b.manifest.Items {
		if item.Purpose == PurposeProbe {
			return item.Images[0], true
		}
	}
	return "", false
}

// Reader returns the item's bytes as they are in the archive, unverified: the
// sum is for whoever stores them to check.
func (b *Bundle) Reader(item Item) io.ReadCloser {
	offset, ok := b.offsets[item.Path]
	if !ok {
		return io.NopCloser(absent(item.Path))
	}
	return io.NopCloser(io.NewSectionReader(b.file, offset, item.Size))
}

// Verify reads every item and compares its sum; progress, if given, is told of
// each one in turn. The error names every item that is not what the manifest says.
func (b *Bundle) Verify(ctx context.Context, progress func(Item, error)) error {
	var errs *multierror.Error
	for _, item := range b.manifest.Items {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("verify bundle %s: %w", b.path, err)
		}
		err := b.verify(ctx, item)
		if progress != nil {
			progress(item, err)
		}
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("%s: %w", item.Path, err))
		}
	}
	return errs.ErrorOrNil()
}

func (b *Bundle) verify(ctx context.Context, item Item) error {
	r := b.Reader(item)
	defer r.Close()
	sum, size, err := digest(ctx, r)
	switch {
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case size != item.Size:
		return fmt.Errorf("truncated: %d of %d bytes", size, item.Size)
	case sum != item.SHA256:
		return fmt.Errorf("sha256 is %s, the manifest says %s", sum, item.SHA256)
	}
	return nil
}

// digest returns the SHA-256 sum in hex and the number of bytes read.
func digest(ctx context.Context, r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, contextReader{ctx, r}, make([]byte, 1<<20))
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// contextReader stops a long copy when the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// absent is the reader of an item that the bundle does not have.
type absent string

func (a absent) Read([]byte) (int, error) {
	return 0, fmt.Errorf("%s: not in this bundle", string(a))
}

// unexpectedEOF makes "EOF" say that something is missing.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
