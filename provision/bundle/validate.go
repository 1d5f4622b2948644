package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/ha-install/ha-install/inventory"
)

var (
	versionPattern = regexp.MustCompile(`^v1\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
	sumPattern     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	digestPattern  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	imagePattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]|:[0-9]+/)*:[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

	architectures = []string{"amd64", "arm64"}
	kinds         = []Kind{KindBinary, KindCNIPlugin, KindImage, KindPackage}
	roles         = []inventory.Role{inventory.RoleControlPlane, inventory.RoleWorker, inventory.RoleLoadBalancer}
)

// decode reads a manifest strictly and validates it; every problem is in the error.
func decode(data []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w", ManifestName, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return m, fmt.Errorf("%s: more than one document", ManifestName)
	}
	return m, m.validate()
}

func (m Manifest) validate() error {
	var errs *multierror.Error
	bad := func(format string, args ...any) {
		errs = multierror.Append(errs, fmt.Errorf(ManifestName+": "+format, args...))
	}
	if m.APIVersion != APIVersion || m.Kind != ManifestKind {
		bad("apiVersion %q, kind %q: want %q, %q", m.APIVersion, m.Kind, APIVersion, ManifestKind)
	}
	if !versionPattern.MatchString(m.KubernetesVersion) {
		bad("kubernetesVersion %q: want a version like \"v1.36.3\"", m.KubernetesVersion)
	}
	if !slices.Contains(architectures, m.Arch) {
		bad("arch %q: want one of %q", m.Arch, architectures)
	}
	if len(m.Items) == 0 {
		bad("no items")
	}
	owners := map[string]string{}
	for i, item := range m.Items {
		for _, problem := range item.problems() {
			bad("items[%d] %q: %s", i, item.Path, problem)
		}
		for _, claim := range item.claims() {
			if owner, taken := owners[claim]; taken {
				bad("items[%d] %q: %s is also that of %q", i, item.Path, claim, owner)
			}
			owners[claim] = item.Path
		}
	}
	return errs.ErrorOrNil()
}

// claims are the things that no two items may have in common.
func (i Item) claims() []string {
	claims := []string{"path " + i.Path}
	for _, image := range i.Images {
		claims = append(claims, "image "+image)
	}
	for _, role := range i.Roles {
		if i.Dest != "" {
			claims = append(claims, fmt.Sprintf("dest %s (%s)", i.Dest, role))
		}
		if i.Package != nil {
			claims = append(claims, fmt.Sprintf("package %s (%s)", i.Package.Name, role))
		}
	}
	if i.Purpose != "" {
		claims = append(claims, "purpose "+i.Purpose)
	}
	return claims
}

// problems says what is wrong with the item on its own.
func (i Item) problems() []string {
	var found []string
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if !localPath(i.Path) || i.Path == ManifestName {
		bad("path: want a relative path that stays inside the archive")
	}
	if !slices.Contains(kinds, i.Kind) {
		bad("kind %q: want one of %q", i.Kind, kinds)
	}
	if len(i.Roles) == 0 {
		bad("no roles")
	}
	for n, role := range i.Roles {
		if !slices.Contains(roles, role) {
			bad("role %q: want one of %q", role, roles)
		}
		if slices.Contains(i.Roles[:n], role) {
			bad("role %q is listed twice", role)
		}
	}
	if i.Version == "" {
		bad("no version")
	}
	if !sumPattern.MatchString(i.SHA256) {
		bad("sha256 %q: want 64 lower-case hex digits", i.SHA256)
	}
	if i.Size < 0 {
		bad("size %d: want 0 or more", i.Size)
	}
	if i.Purpose != "" && (i.Purpose != PurposeProbe || i.Kind != KindImage) {
		bad("purpose %q: want %q, on an image", i.Purpose, PurposeProbe)
	}
	return append(found, i.kindProblems()...)
}

// kindProblems checks the fields that belong to one kind only.
func (i Item) kindProblems() []string {
	var found []string
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	file := i.Kind == KindBinary || i.Kind == KindCNIPlugin
	switch {
	case file && (!path.IsAbs(i.Dest) || path.Clean(i.Dest) != i.Dest || i.Dest == "/"):
		bad("dest %q: want an absolute path with no dots", i.Dest)
	case !file && i.Dest != "":
		bad("dest: only a binary or a CNI plugin has one")
	}
	switch {
	case i.Kind == KindImage && len(i.Images) == 0:
		bad("no images")
	case i.Kind != KindImage && len(i.Images)+len(i.Digests) > 0:
		bad("images: only an image has them")
	}
	for _, ref := range i.Images {
		if !imagePattern.MatchString(ref) {
			bad("image %q: want a reference with a tag", ref)
		}
	}
	for ref, digest := range i.Digests {
		if !slices.Contains(i.Images, ref) || !digestPattern.MatchString(digest) {
			bad("digest %q of %q: want sha256 and 64 hex digits, of one of the images", digest, ref)
		}
	}
	switch {
	case i.Kind == KindPackage && (i.Package == nil || !packagePattern.MatchString(i.Package.Name) || i.Package.Version == ""):
		bad("package: want a name and a version")
	case i.Kind != KindPackage && i.Package != nil:
		bad("package: only a package has one")
	}
	return found
}

// localPath reports whether p, cleaned already, stays inside the archive.
func localPath(p string) bool {
	return p != "" && p != "." && !path.IsAbs(p) && path.Clean(p) == p &&
		p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsAny(p, "\\\x00")
}
