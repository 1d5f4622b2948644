package inventory

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
)

// backupSource is a part of where the schema's descriptions come from.
//
//go:embed backup.go
var backupSource string

// Backup says how the masters back etcd up by themselves, and where backups go.
type Backup struct {
	// Schedule is how often a backup is made, by one master at a time: 6h, 24h.
	// Left out, masters make none by themselves.
	Schedule string `json:"schedule,omitempty"`
	// Keep is how many whole ones each master keeps; default 7. They take their
	// turns, so that three masters keep three times as many in all.
	Keep int `json:"keep,omitempty"`
	// Recipients of age (age1...) can open the cluster's keys in a backup. Left
	// out, backups have no keys.
	Recipients []string `json:"recipients,omitempty"`
	// Copies are places to which each finished backup is sent: by "backup create", and
	// by the master that made it on schedule, which is given the keys for that.
	Copies []BackupCopy `json:"copies,omitempty"`
}

const (
	// DefaultBackupKeep is how many scheduled backups a master keeps.
	DefaultBackupKeep = 7
	// A schedule is no shorter and no longer than these.
	shortestSchedule = time.Minute
	longestSchedule  = 31 * 24 * time.Hour
)

// Every is the time between two scheduled backups; 0 for none.
func (b Backup) Every() time.Duration {
	d, _ := time.ParseDuration(b.Schedule) // Parse has looked at it
	return d
}

// BetweenMasters reports whether masters send scheduled backups to each other.
func (b Backup) BetweenMasters() bool {
	return b.Schedule != "" && slices.ContainsFunc(b.Copies, func(c BackupCopy) bool {
		at, err := c.Place()
		return err == nil && at.Scheme == CopyMasters
	})
}

func (v *validator) backup() {
	b := v.c.Spec.Backup
	if v.given("spec.backup.schedule") {
		const want = "want a time between backups, such as 6h or 24h: from 1m to 744h, in whole seconds"
		switch d, err := time.ParseDuration(b.Schedule); {
		case err != nil:
			v.err("spec.backup.schedule", quote(b.Schedule)+" is not a duration", want)
		case d < shortestSchedule, d > longestSchedule, d%time.Second != 0:
			v.err("spec.backup.schedule", b.Schedule+" is not possible", want)
		}
	} else if v.given("spec.backup.keep") {
		v.err("spec.backup.keep", "nothing is made to be kept", "set spec.backup.schedule, too")
	}
	if v.given("spec.backup.keep") && b.Keep < 1 {
		v.err("spec.backup.keep", fmt.Sprintf("%d backups", b.Keep), "want 1 or more")
	}
	for i, r := range b.Recipients { // not quoted: it may be a secret key by mistake
		at := fmt.Sprintf("spec.backup.recipients[%d]", i)
		if strings.HasPrefix(r, "AGE-SECRET-KEY-") {
			v.err(at, "a secret key", "want the public half, age1...; the secret one has no place here")
		} else if _, err := age.ParseRecipients(strings.NewReader(r)); err != nil || strings.ContainsAny(r, "\n\r") {
			v.err(at, "not a recipient of age", "want what age-keygen calls the public key, age1...")
		}
	}
	if b.Schedule != "" {
		v.copiesByMasters()
	}
	if b.Schedule != "" && len(b.Recipients) == 0 {
		v.warn("spec.backup", "scheduled backups will hold no keys: neither the CA set nor the key of the encryption at rest", "list age recipients in spec.backup.recipients")
	}
}
