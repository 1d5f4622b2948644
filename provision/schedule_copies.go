package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/copies"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// copyKeys are what masters need for the places of the inventory, read on this machine;
// what cannot work on a master is refused.
func (s *Site) copyKeys() ([]templates.CopyKeys, error) {
	b := s.Cluster.Spec.Backup
	keys := make([]templates.CopyKeys, len(b.Copies))
	for i, c := range b.Copies {
		at, err := c.Place()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.To, err)
		}
		refused := func(err error, run string) error {
			return &ConflictError{What: c.To + ": masters cannot send scheduled backups there", Why: err.Error(), Run: run}
		}
		k := &keys[i]
		switch at.Scheme {
		case inventory.CopySFTP:
			config, err := copies.ServerConfig(c, s.BaseDir)
			if err != nil {
				return nil, err
			}
			p, err := host.Carry(config)
			if err != nil {
				return nil, refused(err, fmt.Sprintf("name a key without a passphrase in spec.backup.copies[%d].ssh.identityFiles, and log in there once with ssh, so that its host key is known; then the same command again", i))
			}
			k.Address, k.Port, k.User, k.Identities, k.KnownHosts = config.Address, config.Port, config.User, p.Identities, p.KnownHosts
		case inventory.CopyS3:
			if k.Credentials, k.From, k.CA, err = copies.BucketKeys(c, s.BaseDir); err != nil {
				return nil, refused(err, fmt.Sprintf("name a file with lasting keys in spec.backup.copies[%d].credentialsFile, then the same command again", i))
			}
		}
	}
	return keys, nil
}

// schedulable refuses, before anything else, what would fail at the end: keys for
// masters that this machine does not have.
func (s *Site) schedulable() error {
	if s.Cluster.Spec.Backup.Schedule == "" {
		return nil
	}
	_, err := s.copyKeys()
	return err
}

// tellKeys adds to what a plan shows of secret files where they come from.
func (s *Site) tellKeys(changes []phase.Change, keys []templates.CopyKeys) {
	for i, c := range s.Cluster.Spec.Backup.Copies {
		from := "identity file of the inventory"
		if keys[i].From != "" {
			from = "from " + keys[i].From
		}
		for n := range changes {
			if change := &changes[n]; change.Withheld == withheldSecret && templates.IsCopyFile(change.Name, i) {
				change.Text = fmt.Sprintf("the keys of %s, %s", c.To, from)
			}
		}
	}
}

// staleCopies are the files of an earlier configuration that the one to come does not
// have: keys above all, which nobody needs any more.
func staleCopies(ctx context.Context, h host.Reader, files []host.File) ([]string, error) {
	var stale []string
	wanted := func(path string) bool {
		return slices.ContainsFunc(files, func(f host.File) bool { return f.Path == path })
	}
	data, err := h.ReadFile(ctx, templates.BackupConfigPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var before templates.BackupConfig
	if err == nil && json.Unmarshal(data, &before) == nil {
		for _, path := range before.KeyFiles() {
			if !wanted(path) && templates.IsCopyFile(path, -1) {
				stale = append(stale, path)
			}
		}
	}
	if wanted(templates.ReceiveUnits()[0]) {
		return stale, nil
	}
	seen, err := h.Stat(ctx, templates.ReceiveUnits()...)
	for _, path := range templates.ReceiveUnits() {
		if _, there := seen[path]; there {
			stale = append(stale, path)
		}
	}
	return stale, err
}

// endReceiving takes the socket off a host; its unit files stay until others have been
// removed with them.
func endReceiving(ctx context.Context, h host.Host) error {
	return endUnits(ctx, h, []string{"systemctl", "disable", "--now"}, templates.ReceiveSocket)
}
