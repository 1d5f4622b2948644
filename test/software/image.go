package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ha-install/ha-install/inventory"
)

// imageFormat is part of every image's key: raise it when this file changes
// what it writes.
const imageFormat = "1"

// image is a container image made of a few files.
type image struct {
	ref        string
	version    string
	roles      []inventory.Role
	purpose    string
	iptables   bool              // on top of the iptables root
	files      map[string]string // path in the image -> local file
	from       []built           // where the files come from, for the key
	entrypoint []string
	user       string
}

// archive returns the cached OCI archive of the image and its manifest's
// digest, made now if need be. root is the iptables root's tar.
func (w *workshop) archive(ctx context.Context, img image, root string) (file, digest string, err error) {
	h := sha256.New()
	fmt.Fprintln(h, imageFormat, w.arch, img.ref, img.entrypoint, img.user)
	for _, b := range img.from {
		fmt.Fprintln(h, b.key)
	}
	for _, p := range sortedKeys(img.files) {
		fmt.Fprintln(h, p, filepath.Base(img.files[p]))
	}
	if img.iptables {
		fmt.Fprintln(h, filepath.Base(root)) // its name has its key
	}
	key := hex.EncodeToString(h.Sum(nil))[:12]
	file = filepath.Join(w.cache, "images", fmt.Sprintf("%s-%s-%s.tar", path.Base(strings.Split(img.ref, ":")[0]), img.version, key))
	if _, err := os.Stat(file); err != nil {
		w.say("image %s", img.ref)
		made, err := w.makeImage(img, root)
		if err != nil {
			return "", "", fmt.Errorf("image %s: %w", img.ref, err)
		}
		if err := writeFile(file, func(out io.Writer) error { return writeArchive(out, made, img.ref) }); err != nil {
			return "", "", fmt.Errorf("image %s: %w", img.ref, err)
		}
	}
	digest, err = archiveDigest(file)
	return file, digest, err
}

func (w *workshop) makeImage(img image, root string) (v1.Image, error) {
	made := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	made = mutate.ConfigMediaType(made, types.OCIConfigJSON)
	made, err := mutate.ConfigFile(made, &v1.ConfigFile{
		OS: "linux", Architecture: w.arch, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: img.entrypoint, User: img.user,
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
	})
	if err != nil {
		return nil, err
	}
	var tars [][]byte
	if img.iptables {
		data, err := os.ReadFile(root)
		if err != nil {
			return nil, err
		}
		tars = append(tars, data)
	}
	data, err := tarFiles(img.files)
	if err != nil {
		return nil, err
	}
	for _, data := range append(tars, data) {
		// zstd: gzip's decompression is most of what an import costs a host.
		layer, err := tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd),
			tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if made, err = mutate.AppendLayers(made, layer); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// tarFiles packs executables, with the directories above them.
func tarFiles(files map[string]string) ([]byte, error) {
	var buf bytes.Buffer
	t := tar.NewWriter(&buf)
	made := map[string]bool{"tmp": true}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return nil, err
	}
	for _, p := range sortedKeys(files) {
		name := strings.TrimPrefix(p, "/")
		for i, c := range name {
			if dir := name[:i]; c == '/' && !made[dir] {
				made[dir] = true
				if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
					return nil, err
				}
			}
		}
		data, err := os.ReadFile(files[p])
		if err != nil {
			return nil, err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := t.Write(data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), t.Close()
}

// writeArchive writes an OCI image layout as a tar, with the annotation from
// which containerd takes the image's name.
func writeArchive(out io.Writer, img v1.Image, ref string) error {
	descriptor, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	descriptor.Annotations = map[string]string{"io.containerd.image.name": ref}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{*descriptor}})
	if err != nil {
		return err
	}
	t := tar.NewWriter(out)
	put := func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := put("index.json", index); err != nil {
		return err
	}
	if err := putBlobs(img, put); err != nil {
		return err
	}
	return t.Close()
}

func putBlobs(img v1.Image, put func(string, []byte) error) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		r, err := layer.Compressed()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err := r.Close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if err := put("blobs/sha256/"+digest.Hex, data); err != nil {
			return err
		}
	}
	for _, raw := range []func() ([]byte, error){img.RawConfigFile, img.RawManifest} {
		data, err := raw()
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		if err := put("blobs/sha256/"+hex.EncodeToString(sum[:]), data); err != nil {
			return err
		}
	}
	return nil
}

// archiveDigest returns the digest of an archive's only manifest.
func archiveDigest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	t := tar.NewReader(f)
	for {
		head, err := t.Next()
		if err != nil {
			return "", fmt.Errorf("%s: no index.json: %w", file, err)
		}
		if head.Name != "index.json" {
			continue
		}
		var index v1.IndexManifest
		if err := json.NewDecoder(t).Decode(&index); err != nil || len(index.Manifests) != 1 {
			return "", fmt.Errorf("%s: index.json: want one manifest: %v", file, err)
		}
		return index.Manifests[0].Digest.String(), nil
	}
}
