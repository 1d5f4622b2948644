package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/pki"
)

// Files looks at what the inventory names on the operator's own machine: the
// bundle, CA files, manifests and login keys. wrong are those that apply could
// not use, absent those that are not there but may lie with who will apply;
// each has its place in the inventory. No host is touched.
func (s *Site) Files() (absent, wrong []inventory.Issue) {
	f := &fileCheck{site: s}
	f.bundle()
	f.ca()
	f.manifests()
	f.identities("spec.ssh", s.Cluster.Spec.SSH)
	for i, h := range s.Cluster.Spec.Hosts {
		f.identities(fmt.Sprintf("spec.hosts[%d].ssh", i), h.SSH)
	}
	return f.absent, f.wrong
}

type fileCheck struct {
	site          *Site
	absent, wrong []inventory.Issue
}

// add takes what is wrong with a file that the field names.
func (f *fileCheck) add(field string, err error, hint string) {
	issue := f.site.Cluster.Issue(field, err.Error(), hint)
	if errors.Is(err, fs.ErrNotExist) {
		f.absent = append(f.absent, issue)
	} else {
		f.wrong = append(f.wrong, issue)
	}
}

func (f *fileCheck) bundle() {
	b, err := OpenBundle(f.site)
	if err != nil {
		f.add("spec.software.bundle", err, "want the path of a bundle; a relative one starts at the inventory's directory")
	}
	if b != nil {
		b.Close()
	}
}

func (f *fileCheck) ca() {
	const field = "spec.pki.directory"
	dir := f.site.Cluster.Spec.PKI.Directory
	if dir == "" {
		return
	}
	_, err := f.site.givenCA()
	for _, err := range Flat(err) {
		var missing *pki.MissingError
		switch {
		case !errors.As(err, &missing):
			f.add(field, fmt.Errorf("%s: %w", dir, err), "")
		case missing.None():
			f.add(field, fmt.Errorf("%s: %w", dir, err), "want the eight files of "+kube.PKIDir+"; the masters of a finished cluster hold them: there the field may go")
		default: // what is there will not do
			f.add(field, fmt.Errorf("%s: %s", dir, missing), "")
		}
	}
}

func (f *fileCheck) manifests() {
	cni := f.site.Cluster.Spec.Network.CNI
	if cni.Plugin != inventory.CNIManifests {
		return
	}
	for i, name := range cni.Manifests {
		if _, err := f.site.manifest(name); err != nil { // it belongs to the inventory: absent is wrong, too
			f.wrong = append(f.wrong, f.site.Cluster.Issue(fmt.Sprintf("spec.network.cni.manifests[%d]", i), err.Error(),
				"want a file of Kubernetes objects in YAML; a relative path starts at the inventory's directory"))
		}
	}
}

func (f *fileCheck) identities(at string, ssh inventory.SSH) {
	f.keys(at+".identityFiles", ssh.IdentityFiles)
	if ssh.Bastion != nil {
		f.keys(at+".bastion.identityFiles", ssh.Bastion.IdentityFiles)
	}
}

// keys may lie in an agent, with only the public half on the disk.
func (f *fileCheck) keys(field string, files []string) {
	for i, name := range files {
		file := name
		if rest, ok := strings.CutPrefix(name, "~/"); ok {
			if home, err := os.UserHomeDir(); err == nil {
				file = filepath.Join(home, rest)
			}
		}
		file = f.site.path(file)
		if _, err := os.Stat(file + ".pub"); err == nil {
			continue
		}
		key, err := os.Open(file)
		if err != nil {
			f.add(fmt.Sprintf("%s[%d]", field, i), err, "want a private key; a relative path starts at the inventory's directory")
			continue
		}
		key.Close()
	}
}

// givenCA loads the CA set of spec.pki.directory.
func (s *Site) givenCA() (*pki.CASet, error) {
	dir := s.path(s.Cluster.Spec.PKI.Directory)
	return pki.Load(func(name string) ([]byte, error) { return os.ReadFile(path.Join(dir, name)) }, time.Now())
}
