package cmd

import (
	"errors"
	"fmt"
	"path/filepath"

	agelib "filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/boot"
)

const bootHelp = `With --boot the newest of them is restored as well, here and not on any host: into
a scratch directory, where etcd and kube-apiserver of a bundle are started on it,
on loopback and with keys of their own. When /readyz says so, all objects are
counted, by kind (--namespaces: and by namespace), and everything is stopped and
removed again. Nothing of it outlives this command, also when that is killed.
Secrets are read with the key of the encryption at rest, which --identity or
--passphrase-file opens. The bundle is the inventory's, unless --bundle names one
of the backup's release or of a newer one.`

// bootFlags are those of a restore drill on this machine.
type bootFlags struct {
	on         bool
	bundle     string
	namespaces bool
}

func (f *bootFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.on, "boot", false, "restore the newest in a scratch directory, start etcd and an API server on it here, and count the objects")
	c.Flags().StringVar(&f.bundle, "bundle", "", "with --boot: the bundle with their programs (default: the inventory's)")
	_ = c.MarkFlagFilename("bundle") // the flag was just made
	c.Flags().BoolVar(&f.namespaces, "namespaces", false, "with --boot: count by namespace, too")
}

// from is the bundle to boot from; "" without --boot.
func (f *bootFlags) from(cluster *inventory.Cluster, base string) (string, error) {
	switch {
	case !f.on && (f.bundle != "" || f.namespaces):
		return "", &usageError{errors.New("--bundle and --namespaces go with --boot")}
	case !f.on:
		return "", nil
	case f.bundle != "":
		return f.bundle, nil
	case cluster == nil || cluster.Spec.Software.Bundle == "":
		return "", &usageError{errors.New("--boot wants a bundle with etcd and kube-apiserver; name it with --bundle")}
	case filepath.IsAbs(cluster.Spec.Software.Bundle):
		return cluster.Spec.Software.Bundle, nil
	}
	return filepath.Join(base, cluster.Spec.Software.Bundle), nil
}

// boots does it, and tells on standard error how far it is.
func (f *bootFlags) boots(c *cobra.Command, e backup.Entry, bundle string, openers []agelib.Identity) (boot.Result, error) {
	r, err := boot.Boot(c.Context(), boot.Options{Backup: e, Bundle: bundle, Openers: openers, Tell: func(text string) {
		fmt.Fprintln(c.ErrOrStderr(), text)
	}})
	if err != nil {
		return r, fmt.Errorf("boot %s: %w", e.Path, err)
	}
	return r, nil
}
