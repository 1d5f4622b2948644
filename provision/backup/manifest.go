// Package backup is what lies on the operator's machine: the directories of a
// cluster's backups, what is in them, and the proof that it is whole. It knows
// nothing of hosts.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
)

// What a manifest says of its own form.
const (
	APIVersion = "ha-install.io/v1alpha1"
	Kind       = "Backup"
)

// The files of a backup, each in the backup's own directory.
const (
	SnapshotFile = "snapshot.db"   // as etcd streams it: a database and its SHA-256
	KeysFile     = "keys.tar.age"  // the CA set and the key of the encryption at rest
	ManifestFile = "manifest.json" // the Manifest
	verifiedFile = "verified.json" // when Verify found all whole last; of later than the backup
	nameLayout   = "2006-01-02T15-04-05Z"
)

// Manifest says what a backup is of, and what must be found in it.
type Manifest struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Cluster    string        `json:"cluster"`
	ClusterID  etcd.MemberID `json:"clusterID"`
	// CASHA256 tells clusters of the same name apart: pki.CASet.Fingerprint.
	// Empty when no master could say.
	CASHA256 string        `json:"caSHA256"`
	Time     time.Time     `json:"time"` // when it was begun; the directory's name, too
	Took     units.Seconds `json:"tookSeconds"`
	Program  string        `json:"program"` // its version
	// Scheduled says that a master made it in its turn: where copies of such are kept
	// the masters remove them again, and no others.
	Scheduled bool `json:"scheduled,omitempty"`

	From   string        `json:"from"` // the host whose member gave the snapshot
	Member etcd.MemberID `json:"member"`
	Leader bool          `json:"leader"`
	// Quorum says that quorum was proven when the snapshot was taken. Without
	// it the latest acknowledged writes may be missing.
	Quorum  bool       `json:"quorum"`
	Verdict etcd.State `json:"verdict"`
	Members []Member   `json:"members"`

	EtcdVersion       string `json:"etcdVersion"`
	KubernetesVersion string `json:"kubernetesVersion,omitempty"` // empty when no master could say

	Snapshot Snapshot `json:"snapshot"`
	Keys     *Keys    `json:"keys,omitempty"` // nil: the archive was left out
	// Digest is the SHA-256 of this file with these 64 digits left out.
	Digest string `json:"manifestSHA256"`
}

// Member is an entry of etcd's member list when the snapshot was taken.
type Member struct {
	ID      etcd.MemberID    `json:"id"`
	Name    string           `json:"name"`
	PeerURL string           `json:"peerURL"`
	Role    etcd.Role        `json:"role"`
	State   etcd.MemberState `json:"state"`
}

// Snapshot is what was proved of the database.
type Snapshot struct {
	Bytes    int64  `json:"bytes"`  // of the file, etcd's trailer included
	SHA256   string `json:"sha256"` // of the database: what the trailer says
	Contents `json:"contents"`
	// Hash is the HashKV on which all voters agreed before the snapshot was
	// taken, and which the snapshot was found to have at that revision; nil when
	// nobody could be asked, or the data were compacted in between.
	Hash *etcd.Hash `json:"hash,omitempty"`
}

// Keys is the archive with the keys of the cluster.
type Keys struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // of the encrypted file
	// SealedFor are age recipients, or "passphrase".
	SealedFor []string `json:"sealedFor"`
}

// Name is the directory of a backup that was begun at t.
func Name(t time.Time) string { return t.UTC().Format(nameLayout) }

// digestField finds the digest in the file. It is looked for in the bytes, so
// that a later program's fields are covered too.
var digestField = regexp.MustCompile(`"manifestSHA256": "([0-9a-f]{0,64})"`)

// encode fills in the digest.
func (m Manifest) encode() ([]byte, error) {
	m.APIVersion, m.Kind, m.Digest = APIVersion, Kind, ""
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	data = append(data, '\n')
	at := digestField.FindSubmatchIndex(data)
	sum := sha256.Sum256(data)
	return append(append(bytes.Clone(data[:at[2]]), hex.EncodeToString(sum[:])...), data[at[2]:]...), nil
}

// errEdited means that a manifest is not as it was written.
var errEdited = errors.New("it was changed after it was written: its own SHA-256 does not fit")

// decode reads a manifest and checks its digest; what could be read comes with
// errEdited, too.
func decode(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("it cannot be read: %w", err)
	}
	if m.APIVersion != APIVersion || m.Kind != Kind {
		return m, fmt.Errorf("it is a %s of %s, want a %s of %s", m.Kind, m.APIVersion, Kind, APIVersion)
	}
	at := digestField.FindSubmatchIndex(data)
	if at == nil {
		return m, errEdited
	}
	sum := sha256.Sum256(append(bytes.Clone(data[:at[2]]), data[at[3]:]...))
	if hex.EncodeToString(sum[:]) != string(data[at[2]:at[3]]) {
		return m, errEdited
	}
	return m, nil
}
