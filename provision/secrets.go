package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

// secrets are what all masters hold in common: the CA set and the key of the
// encryption at rest. They are made once, by this process or by the user, and
// never leave memory but for the masters' disks.
type secrets struct {
	ca         *pki.CASet
	encryption []byte // the EncryptionConfiguration document
	// drawn says that the CA set was drawn by this run: no plan shows of it
	// what the next one would draw anew.
	drawn bool
}

func (s *secrets) files() []host.File {
	files := hostFiles(s.ca.Files())
	return append(files, hostFiles([]templates.File{templates.EncryptionFile(s.encryption)})...)
}

// makeSecrets finds the CA set: on a master that belongs to this cluster, else
// in the inventory's directory, else it is made.
func (a *apply) makeSecrets() phase.Phase {
	return phase.Phase{
		Name:  "secrets",
		Local: true,
		Done: func(ctx context.Context) (bool, error) {
			found, err := a.findSecrets(ctx)
			a.secrets = found
			return found != nil, err
		},
		Do: func(ctx context.Context) error {
			if a.exists {
				return fmt.Errorf("a master has etcd data, but no master has the cluster's CA set: restore %s on one of them first", kube.PKIDir)
			}
			ca, err := a.givenOrNewCA()
			if err != nil {
				return err
			}
			key, err := pki.NewEncryptionKey()
			if err != nil {
				return err
			}
			a.secrets = &secrets{ca: ca, encryption: templates.EncryptionConfig(key), drawn: a.Cluster.Spec.PKI.Directory == ""}
			return nil
		},
		Explain: a.explainSecrets,
	}
}

func (a *apply) givenOrNewCA() (*pki.CASet, error) {
	if a.Cluster.Spec.PKI.Directory == "" {
		return pki.New(time.Now())
	}
	return a.givenCA()
}

// findSecrets reads the CA set from the masters that bear this cluster's
// marker. nil without an error: none has a whole set yet.
func (a *apply) findSecrets(ctx context.Context) (*secrets, error) {
	var found *secrets
	var at string
	for _, ih := range a.Cluster.ControlPlanes() {
		h, err := a.host(ih.Name)
		if err != nil {
			return nil, err
		}
		s, err := readSecrets(ctx, h, a.Cluster.Metadata.Name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotOurs) {
			continue
		}
		if err != nil {
			return nil, onHost(ih.Name, err)
		}
		if found != nil {
			if err := sameSecrets(at, ih.Name, found, s); err != nil {
				return nil, err
			}
		}
		if found == nil {
			found, at = s, ih.Name
		}
	}
	if a.onto != nil { // nothing is drawn: what is in the backup can be read with its own keys only
		if found != nil {
			if err := sameSecrets("the backup", at, a.onto.keys, found); err != nil {
				return nil, err
			}
		}
		return a.onto.keys, nil
	}
	return found, a.givenAgrees(ctx, found)
}

// sameSecrets refuses to choose between two masters: whichever were
// overwritten, something could no longer be read.
func sameSecrets(one, other string, a, b *secrets) error {
	switch {
	case a.ca.Fingerprint() != b.ca.Fingerprint():
		return &ConflictError{
			What: fmt.Sprintf("%s and %s have different CA sets", one, other),
			Why:  "one of them belongs to another cluster, or its keys were changed by hand",
			Run:  "put the cluster's own files into " + kube.PKIDir + " on both, then apply again",
		}
	case !bytes.Equal(a.encryption, b.encryption):
		return &ConflictError{
			What: fmt.Sprintf("%s and %s encrypt Secrets with different keys", one, other),
			Why:  "what one of them writes, the other cannot read; apply overwrites neither",
			Run:  "make " + templates.EncryptionConfigPath + " equal on all masters, then apply again",
		}
	}
	return nil
}

// givenAgrees refuses a CA set in the inventory that is not the one in force:
// apply does not exchange the CA of a cluster.
func (a *apply) givenAgrees(ctx context.Context, found *secrets) error {
	if found == nil || a.Cluster.Spec.PKI.Directory == "" {
		return nil
	}
	given, err := a.givenCA()
	if err != nil {
		return err
	}
	switch {
	case given.Fingerprint() == found.ca.Fingerprint():
		return nil
	case !a.established: // half made: what an earlier run has put on the masters counts
		phase.Tell(ctx, "the masters hold another CA set than "+a.Cluster.Spec.PKI.Directory+", from an earlier run; it is kept")
		return nil
	default:
		return &ConflictError{
			What: "the CA set in " + a.Cluster.Spec.PKI.Directory + " is not the one of the cluster",
			Why:  fmt.Sprintf("the masters have %.12s, spec.pki.directory has %.12s", found.ca.Fingerprint(), given.Fingerprint()),
			Run:  "take spec.pki.directory out of the inventory, or give the cluster's own files",
		}
	}
}

// fileReader is whoever can read a master's files: a connection to it, or the
// program on the master itself.
type fileReader interface {
	ReadFile(ctx context.Context, path string) ([]byte, error)
}

func readSecrets(ctx context.Context, h fileReader, cluster string) (*secrets, error) {
	m, err := readMarker(ctx, h)
	if err != nil {
		return nil, err
	}
	if m.Cluster != cluster {
		return nil, errNotOurs
	}
	ca, err := pki.Load(func(name string) ([]byte, error) { return h.ReadFile(ctx, path.Join(kube.PKIDir, name)) }, time.Now())
	if err != nil {
		return nil, err
	}
	encryption, err := h.ReadFile(ctx, templates.EncryptionConfigPath)
	return &secrets{ca: ca, encryption: encryption}, err
}

// pushSecrets puts the CA set and the encryption key on a master.
func (a *apply) pushSecrets(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "certificates", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			differ, err := differing(ctx, h, a.secrets.files())
			return len(differ) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			return putFiles(ctx, h, a.secrets.files())
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return nil, err
			}
			return a.explainFiles(ctx, h, a.secrets.files())
		},
	}
}
