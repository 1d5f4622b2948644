package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/units"
)

func newBackupList() *cobra.Command {
	var output, directory string
	var places copyFlags
	c := inventoryOrBackups(&cobra.Command{
		Use:   "list INVENTORY|DIRECTORY",
		Short: "List the backups on this machine, and their copies elsewhere",
		Long: `list shows the backups of the inventory's cluster, or those in a directory, the
newest first. VERIFIED is when all of a backup was last found whole: when it was
taken, or by "backup verify".

With --copies the places of spec.backup.copies and of --copy-to are asked what
they have, too; without, nobody is.`,
		Example: `  ha-install backup list inventory.yaml
  ha-install backup list --copies inventory.yaml
  ha-install backup list -o json /srv/backups`,
	})
	outputFlag(c, &output, "text", "json")
	directoryFlag(c, &directory)
	places.addTo(c)
	c.Flags().BoolVar(&places.ask, "copies", false, "ask the places for copies, too")
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := findBackups(c, args[0], directory)
		if err != nil {
			return err
		}
		kept, err := places.list(c, f)
		if err != nil {
			return err
		}
		rows := make([]backupRow, 0, len(f.all))
		for _, e := range f.all {
			rows = append(rows, rowOf(e, time.Now()))
		}
		if output == "json" {
			all := map[string]any{"directory": f.where, "backups": rows}
			if kept != nil {
				all["copies"] = kept
			}
			return errors.Join(writeJSON(c.OutOrStdout(), all), unheard(kept))
		}
		return errors.Join(renderBackups(c.OutOrStdout(), f.where, rows), renderKept(c.OutOrStdout(), kept), unheard(kept))
	}
	return c
}

// backupRow is one backup as `list -o json` tells it.
type backupRow struct {
	Path     string        `json:"path"`
	Cluster  string        `json:"cluster,omitempty"`
	Time     time.Time     `json:"time,omitzero"`
	Age      units.Seconds `json:"ageSeconds"`
	Bytes    int64         `json:"bytes"`
	Revision int64         `json:"revision"`
	Keys     int64         `json:"keys"`
	Quorum   bool          `json:"quorum"`
	// Secrets says that the CA set and the encryption key are in it.
	Secrets  bool      `json:"secrets"`
	Verified time.Time `json:"verified,omitzero"`
	Err      string    `json:"error,omitempty"` // why the manifest is not to be trusted
}

func rowOf(e backup.Entry, now time.Time) backupRow {
	m := e.Manifest
	if e.Err != nil {
		return backupRow{Path: e.Path, Err: e.Err.Error()}
	}
	return backupRow{
		Path: e.Path, Cluster: m.Cluster, Time: m.Time, Age: units.Seconds(now.Sub(m.Time).Truncate(time.Second)), Bytes: m.Snapshot.Bytes,
		Revision: m.Snapshot.Revision, Keys: m.Snapshot.Keys, Quorum: m.Quorum, Secrets: m.Keys != nil, Verified: e.Verified,
	}
}

func renderBackups(out io.Writer, where string, rows []backupRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintf(out, "no backup in %s\n", where)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tCLUSTER\tAGE\tSIZE\tREVISION\tKEYS\tQUORUM\tSECRETS\tVERIFIED")
	for _, r := range rows {
		if r.Err != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\t-\t-\tno: %s\n", filepath.Base(r.Path), r.Err)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", filepath.Base(r.Path), r.Cluster, age(r.Age.Duration()), units.Bytes(r.Bytes), r.Revision, r.Keys,
			yesNo(r.Quorum, "yes", "NO"), yesNo(r.Secrets, "sealed", "none"), r.Verified.Local().Format(time.DateTime))
	}
	return w.Flush()
}

func yesNo(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func newBackupVerify() *cobra.Command {
	var output, directory, identity, phrase string
	var all, offline bool
	var boots bootFlags
	c := inventoryOrBackups(&cobra.Command{
		Use:   "verify INVENTORY|DIRECTORY",
		Short: "Prove that backups are whole",
		Long: `verify makes all checks of "create" again on what lies on this machine, and names
every damage: a manifest that is missing or was edited, a snapshot that is empty,
truncated, altered (down to one bit) or another one, a database that cannot be
read or holds something else than the manifest says, keys that are missing or
altered, a backup of another cluster.

With an inventory it takes the newest backup, or --all, and asks the masters for
their CA's fingerprint, as far as they answer; --offline asks nobody. With a
directory (a backup, or what has some in it) it takes all of them, and no host.

With --identity or --passphrase-file the keys are decrypted, in memory, and
checked: one complete CA set, of this cluster, and the key of the encryption at
rest. Without, only their sum is compared.

` + bootHelp + `

The exit code is 15 when a backup is not whole.`,
		Example: `  ha-install backup verify inventory.yaml
  ha-install backup verify --boot --identity key.txt inventory.yaml
  ha-install backup verify --identity key.txt /srv/backups/prod/2026-11-23T04-05-06Z`,
	})
	outputFlag(c, &output, "text", "json")
	directoryFlag(c, &directory)
	c.Flags().BoolVar(&all, "all", false, "verify all backups of the inventory's cluster, not only the newest")
	c.Flags().BoolVar(&offline, "offline", false, "ask no host of the inventory")
	c.Flags().StringVar(&identity, "identity", "", "file with age identities (AGE-SECRET-KEY-1...) that open the keys")
	c.Flags().StringVar(&phrase, "passphrase-file", "", "file whose first line is the passphrase that opens the keys")
	boots.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		openers, err := backup.Openers(identity, phrase)
		if err != nil {
			return &usageError{err}
		}
		f, err := findBackups(c, args[0], directory)
		if err == nil {
			err = f.none()
		}
		if err != nil {
			return err
		}
		bundle, err := boots.from(f.cluster, f.base)
		if err != nil {
			return err
		}
		want := backup.Expected{Openers: openers}
		if f.cluster != nil {
			want.Cluster = f.cluster.Metadata.Name
			if !all {
				f.all = f.all[:1]
			}
			if !offline {
				want.CASHA256 = fingerprint(c, f)
			}
		}
		reports, err := verifyAll(c.Context(), f.all, want)
		if err != nil {
			return err
		}
		told := map[string]any{"backups": reports}
		if output != "json" {
			renderVerified(c.OutOrStdout(), reports)
		}
		if boots.on && reports[0].Whole {
			r, err := boots.boots(c, f.all[0], bundle, openers)
			if err == nil && output != "json" {
				err = errors.Join(blank(c.OutOrStdout()), r.Write(c.OutOrStdout(), boots.namespaces))
			}
			if err != nil {
				return err
			}
			told["boot"] = r
		}
		if output == "json" {
			if err := writeJSON(c.OutOrStdout(), told); err != nil {
				return err
			}
		}
		for _, r := range reports {
			if !r.Whole {
				return &saidError{errDamaged}
			}
		}
		return nil
	}
	return c
}

func blank(out io.Writer) error {
	_, err := fmt.Fprintln(out)
	return err
}

// fingerprint asks the masters for that of their CA set; empty, and a warning,
// when none says.
func fingerprint(c *cobra.Command, f found) string {
	site := provision.ConnectSoon(c.Context(), f.cluster, f.base, provision.SSH)
	defer site.Close()
	sum := provision.CAFingerprint(c.Context(), site)
	if sum == "" {
		fmt.Fprintln(c.ErrOrStderr(), "warning: no master told its CA's fingerprint: whether the backup is of this very cluster is known by its name only")
	}
	return sum
}

func verifyAll(ctx context.Context, all []backup.Entry, want backup.Expected) ([]backup.Report, error) {
	reports := make([]backup.Report, 0, len(all))
	for _, e := range all {
		r, err := backup.Verify(ctx, e.Path, want)
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func renderVerified(out io.Writer, reports []backup.Report) {
	for _, r := range reports {
		if r.Whole {
			fmt.Fprintf(out, "whole    %s  %s\n", r.Path, proven(r))
			continue
		}
		fmt.Fprintf(out, "DAMAGED  %s\n", r.Path)
		for _, d := range r.Damage {
			fmt.Fprintf(out, "         %-18s  %s\n", d.Kind, d.What)
		}
	}
}

// proven says what was found whole.
func proven(r backup.Report) string {
	s := r.Manifest.Snapshot
	text := fmt.Sprintf("%s, revision %d, %d keys", units.Bytes(s.Bytes), s.Revision, s.Keys)
	if s.Hash != nil {
		text += ", as the members had it"
	}
	switch {
	case r.Manifest.Keys == nil:
		text += "; holds no secrets"
	case r.Opened:
		text += "; secrets opened, of this CA"
	default:
		text += "; secrets sealed, not opened"
	}
	return fmt.Sprintf("%s (%s)", text, short(r.Took))
}

func newBackupPrune() *cobra.Command {
	var output, directory string
	var keep, days int
	var dry bool
	var places copyFlags
	c := inventoryArg(&cobra.Command{
		Use:   "prune INVENTORY",
		Short: "Delete old backups of the cluster, never the last that is whole",
		Long: `prune deletes the backups of the inventory's cluster that neither --keep nor
--keep-days keeps, and says of each what becomes of it and why.

A backup counts as kept only when it is verified, now, to be whole; a damaged one
goes only when it is older than those that are kept. The newest whole one stays
whatever the flags say, and with none that is whole all stay. Only a directory
whose manifest proves it to be a backup of this cluster, with nothing else in it,
is deleted.

The copies at each place of spec.backup.copies and of --copy-to are held against
the same rule, each place for itself: of each, the newest copy is read to its end
before it counts as whole, and stays.`,
		Example: `  ha-install backup prune --keep 7 --keep-days 30 inventory.yaml
  ha-install backup prune --keep 3 --dry-run inventory.yaml`,
	})
	outputFlag(c, &output, "text", "json")
	directoryFlag(c, &directory)
	c.Flags().IntVar(&keep, "keep", 0, "keep this many of the newest")
	c.Flags().IntVar(&days, "keep-days", 0, "keep those that are younger than so many days")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be deleted")
	c.MarkFlagsOneRequired("keep", "keep-days")
	places.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if keep < 0 || days < 0 || keep+days == 0 {
			return &usageError{errors.New("--keep and --keep-days: want a number above 0; nothing was deleted")}
		}
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		store := backup.In(backupsOf(base, directory), cluster.Metadata.Name)
		rule := backup.Rule{Keep: keep, Younger: time.Duration(days) * 24 * time.Hour}
		fates, err := store.Fates(c.Context(), cluster.Metadata.Name, rule, time.Now())
		if err != nil {
			return err
		}
		elsewhere, err := places.of(cluster)
		if err != nil {
			return err
		}
		rows, err := prune(store, fates, dry)
		copied, failed := pruneCopies(c, cluster, base, elsewhere, rule, dry)
		err = errors.Join(err, failed)
		if output == "json" {
			return errors.Join(err, writeJSON(c.OutOrStdout(), map[string]any{"directory": store.Dir(), "dryRun": dry, "backups": rows, "copies": copied}))
		}
		return errors.Join(err, renderPruned(c.OutOrStdout(), store.Dir(), rows), renderPrunedCopies(c.OutOrStdout(), copied))
	}
	return c
}

// prunedRow is what became of one backup.
type prunedRow struct {
	Path string `json:"path"`
	Fate string `json:"fate"` // "kept", "deleted" or "would be deleted"; "left" when deleting failed
	Why  string `json:"why"`
}

// prune deletes what is to go, the oldest first, so that one that breaks off
// has kept the newer ones.
func prune(store backup.Store, fates []backup.Fate, dry bool) ([]prunedRow, error) {
	rows := make([]prunedRow, len(fates))
	var failed error
	for i := len(fates) - 1; i >= 0; i-- {
		f := fates[i]
		rows[i] = prunedRow{Path: f.Path, Fate: "kept", Why: f.Why}
		switch {
		case !f.Remove:
		case dry:
			rows[i].Fate = "would be deleted"
		default:
			rows[i].Fate = "deleted"
			if err := store.Remove(f.Entry); err != nil {
				rows[i].Fate, rows[i].Why = "left", err.Error()
				failed = errors.Join(failed, err)
			}
		}
	}
	return rows, failed
}

func renderPruned(out io.Writer, where string, rows []prunedRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintf(out, "no backup in %s\n", where)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tFATE\tWHY")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", filepath.Base(r.Path), r.Fate, r.Why)
	}
	return w.Flush()
}
