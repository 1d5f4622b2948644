// Package bundle reads and writes the one file that brings the software to the
// hosts: a plain tar whose first entry, manifest.json, lists every other entry
// with its SHA-256 sum, the roles that need it and where it goes. The archive
// itself is not compressed, so that many hosts can be fed from it at once.
package bundle

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/ha-install/ha-install/inventory"
)

// The identity of a bundle's manifest.
const (
	APIVersion   = "ha-install.io/v1alpha1"
	ManifestKind = "Bundle"
	ManifestName = "manifest.json" // always the first entry
)

// Manifest is the table of contents of a bundle.
type Manifest struct {
	APIVersion        string `json:"apiVersion"`
	Kind              string `json:"kind"`
	KubernetesVersion string `json:"kubernetesVersion"` // "v1.36.3"
	Arch              string `json:"arch"`              // as Go names it: "amd64"
	// Distribution is what the packages were made for, as ID and VERSION_ID of
	// os-release: "debian 12"; "" when that is not known.
	Distribution string `json:"distribution,omitempty"`
	Items        []Item `json:"items"`
}

// Kind says what an item is and so how it is installed.
type Kind string

const (
	KindBinary    Kind = "binary"     // an executable, copied to Dest
	KindCNIPlugin Kind = "cni-plugin" // the same, only for hosts that use the plugin
	KindImage     Kind = "image"      // an OCI archive for "ctr images import"
	KindPackage   Kind = "package"    // a .deb
)

// PurposeProbe marks the image that the final check of the data path runs: it
// serves its host name on port 8080, and understands "get URL" and "lookup NAME".
const PurposeProbe = "probe"

// Item is one entry of the archive.
type Item struct {
	Path    string           `json:"path"` // in the archive
	Kind    Kind             `json:"kind"`
	Roles   []inventory.Role `json:"roles"` // the hosts that need it
	Version string           `json:"version"`
	SHA256  string           `json:"sha256"` // lower-case hex
	Size    int64            `json:"size"`   // bytes
	Mode    Mode             `json:"mode"`
	Dest    string           `json:"dest,omitempty"` // absolute path on the host; binary and cni-plugin
	// Images are the references that an import brings; Digests has the digest
	// of each one's manifest, which is what "ctr images ls" shows afterwards.
	Images  []string          `json:"images,omitempty"`
	Digests map[string]string `json:"digests,omitempty"`
	Package *Package          `json:"package,omitempty"`
	Purpose string            `json:"purpose,omitempty"` // PurposeProbe or nothing
}

// Package identifies a .deb as dpkg does.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// For reports whether a host with the role needs the item.
func (i Item) For(role inventory.Role) bool { return slices.Contains(i.Roles, role) }

// Mode is a file's permission bits; JSON has them as an octal string, "0755".
type Mode fs.FileMode

// MarshalJSON writes the octal string.
func (m Mode) MarshalJSON() ([]byte, error) {
	return json.Marshal(fmt.Sprintf("%04o", uint32(m)))
}

// UnmarshalJSON reads the octal string and accepts permission bits only.
func (m *Mode) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("mode %s: want an octal string like \"0755\"", data)
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || fs.FileMode(n)&^fs.ModePerm != 0 {
		return fmt.Errorf("mode %q: want an octal string from \"0000\" to \"0777\"", s)
	}
	*m = Mode(n)
	return nil
}
