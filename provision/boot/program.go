package boot

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/ha-install/ha-install/provision/bundle"
)

// program writes a program of the bundle to a file: a binary of that name, or
// what bears it in the image of that name. Its version is the item's.
func program(ctx context.Context, b *bundle.Bundle, name, to string) (string, error) {
	for _, item := range b.Manifest().Items {
		switch {
		case item.Kind == bundle.KindBinary && path.Base(item.Path) == name:
			return item.Version, whole(ctx, b, item, func(r io.Reader) error { return writeProgram(to, r) })
		case item.Kind == bundle.KindImage && imageNamed(item, name):
			dir := to + ".image"
			defer os.RemoveAll(dir)
			if err := whole(ctx, b, item, func(r io.Reader) error { return untar(r, dir) }); err != nil {
				return "", err
			}
			return item.Version, fromImage(dir, name, to)
		}
	}
	return "", errors.New("it is not in there")
}

// imageNamed says whether an item is the image REGISTRY/.../name:TAG.
func imageNamed(item bundle.Item, name string) bool {
	for _, ref := range item.Images {
		if base, _, _ := strings.Cut(path.Base(ref), ":"); base == name {
			return true
		}
	}
	return false
}

// whole has an item read, and compares its sum.
func whole(ctx context.Context, b *bundle.Bundle, item bundle.Item, read func(io.Reader) error) error {
	r := b.Reader(item)
	defer r.Close()
	h := sha256.New()
	tee := io.TeeReader(r, h)
	if err := read(tee); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil { // what is behind the end of a tar
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != item.SHA256 {
		return fmt.Errorf("%s: sha256 is %s, the manifest says %s; `ha-install bundle verify` says what else is damaged", item.Path, sum, item.SHA256)
	}
	return ctx.Err()
}

func writeProgram(to string, r io.Reader) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// untar unpacks the regular files of an OCI archive.
func untar(r io.Reader, dir string) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("entry %q leaves the archive", h.Name)
		}
		to := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := writeProgram(to, archive); err != nil {
			return err
		}
	}
}

// fromImage takes one program out of the layers of an unpacked image.
func fromImage(dir, name, to string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	image, err := firstImage(index)
	if err != nil {
		return err
	}
	files := mutate.Extract(image)
	defer files.Close()
	archive := tar.NewReader(files)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the image has no file of that name")
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg && path.Base(h.Name) == name {
			return writeProgram(to, archive)
		}
	}
}

// firstImage is the image of an index, or of the index in it. A bundle is of one
// architecture.
func firstImage(index v1.ImageIndex) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		switch {
		case d.MediaType.IsImage():
			return index.Image(d.Digest)
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return firstImage(inner)
		}
	}
	return nil, errors.New("no image is in the archive")
}
