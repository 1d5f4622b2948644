package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/units"
)

// errCopies is the end of what did not go well at a place for copies.
var errCopies = errors.New("a place for copies")

const copiesHelp = `A finished backup is copied to the places of spec.backup.copies in the inventory
and of --copy-to, to all at once:

  sftp://user@host:port/dir   a machine that is reached as ssh reaches it; its host
                              key is verified
  s3://bucket/prefix          S3-compatible storage; ?endpoint=https://...&region=...
                              where it is not in the inventory. Keys come from the
                              environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)
                              or from a file, never from arguments
  masters:///dir              a directory on every control plane host, over the
                              connections that there are

A copy is read back before it counts. One that fails is told at the end, with exit
code 18 and what to run; the backup here stays as it is.`

// copyFlags say where copies are, beside the inventory.
type copyFlags struct {
	to   []string
	none bool
	ask  bool
}

// add adds the flags of what uses all places by itself.
func (f *copyFlags) add(c *cobra.Command) {
	f.addTo(c)
	c.Flags().BoolVar(&f.none, "no-copies", false, "leave the places of the inventory alone")
	c.MarkFlagsMutuallyExclusive("no-copies", "copy-to")
}

func (f *copyFlags) addTo(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.to, "copy-to", nil, "a place for copies beside those of the inventory (sftp://..., s3://..., masters:///dir); may be given several times")
}

// of are all places: the inventory's, then the command line's.
func (f *copyFlags) of(cluster *inventory.Cluster) (provision.CopyOptions, error) {
	var o provision.CopyOptions
	if f.none {
		return o, nil
	}
	o.To = append(o.To, cluster.Spec.Backup.Copies...)
	for _, text := range f.to {
		c, err := inventory.ParseCopyTo(text)
		if err != nil {
			return o, &usageError{fmt.Errorf("--copy-to: %w; nothing was done", err)}
		}
		o.To = append(o.To, c)
	}
	return o, nil
}

// copySite connects to hosts where copies are on them, and to none otherwise.
func copySite(ctx context.Context, cluster *inventory.Cluster, base string, o provision.CopyOptions) (*provision.Site, func()) {
	if !o.OnMasters() {
		return &provision.Site{Cluster: cluster, BaseDir: base}, func() {}
	}
	site := provision.ConnectSoon(ctx, cluster, base, provision.SSH)
	return site, func() { site.Close() }
}

func newBackupCopy() *cobra.Command {
	var output, directory string
	var places copyFlags
	c := &cobra.Command{
		Use:   "copy INVENTORY [NAME]",
		Short: "Send a backup to the places for copies that do not have it yet",
		Long: `copy verifies a backup, the newest or the named one, and sends it to the places
for copies that do not have it; where it is, it is read and compared.

` + copiesHelp,
		Example: `  ha-install backup copy inventory.yaml
  ha-install backup copy inventory.yaml 2026-11-23T04-26-01Z --copy-to sftp://backup@nas/srv/backups`,
		Args:              usage(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: inventoryThenNothing,
	}
	outputFlag(c, &output, "text", "json")
	directoryFlag(c, &directory)
	places.addTo(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := findBackups(c, args[0], directory)
		if err != nil {
			return err
		}
		if f.cluster == nil {
			return &usageError{fmt.Errorf("%s is a directory, want an inventory", args[0])}
		}
		e, err := f.named(args[1:])
		if err != nil {
			return err
		}
		o, err := places.of(f.cluster)
		if err == nil && len(o.To) == 0 {
			err = &usageError{errors.New("there is no place for copies: list some in spec.backup.copies, or give --copy-to")}
		}
		if err != nil {
			return err
		}
		r, err := backup.Verify(c.Context(), e.Path, backup.Expected{Cluster: f.cluster.Metadata.Name})
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return err
		}
		site, end := copySite(c.Context(), f.cluster, f.base, o)
		defer end()
		made, err := provision.CopyBackup(c.Context(), site, e.Path, o, func(made provision.Copied) {
			if output != "json" && made.Err == "" {
				fmt.Fprintln(c.OutOrStdout(), made)
			}
		})
		if output == "json" {
			err = errors.Join(writeJSON(c.OutOrStdout(), map[string]any{"backup": e.Path, "copies": made}), err)
		}
		return err
	}
	return c
}

func inventoryThenNothing(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// named is the backup of that name, or the newest.
func (f found) named(name []string) (backup.Entry, error) {
	if err := f.none(); err != nil {
		return backup.Entry{}, err
	}
	if len(name) == 0 {
		return f.all[0], nil
	}
	for _, e := range f.all {
		if filepath.Base(e.Path) == filepath.Base(name[0]) {
			return e, nil
		}
	}
	return backup.Entry{}, fmt.Errorf("%w of the name %s in %s; `ha-install backup list` shows those that there are", errNoBackup, name[0], f.where)
}

func newBackupFetch() *cobra.Command {
	var output, directory, identity, phrase string
	var places copyFlags
	c := &cobra.Command{
		Use:   "fetch INVENTORY NAME|URL",
		Short: "Bring a copy of a backup to this machine, and verify it",
		Long: `fetch looks for a copy of that name at the places of spec.backup.copies and of
--copy-to, one after the other, or takes it from its own URL (place/CLUSTER/NAME),
and makes all checks of "backup verify" before it appears in the directory of
backups. A copy that is not whole never appears; the next place is asked.

"restore --from URL" does the same first.`,
		Example: `  ha-install backup fetch inventory.yaml 2026-11-23T04-26-01Z
  ha-install backup fetch inventory.yaml sftp://backup@nas/srv/backups/prod/2026-11-23T04-26-01Z`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: inventoryThenNothing,
	}
	outputFlag(c, &output, "text", "json")
	directoryFlag(c, &directory)
	places.addTo(c)
	c.Flags().StringVar(&identity, "identity", "", "file with age identities (AGE-SECRET-KEY-1...) that open the keys, to check them, too")
	c.Flags().StringVar(&phrase, "passphrase-file", "", "file whose first line is the passphrase that opens the keys, to check them, too")
	c.RunE = func(c *cobra.Command, args []string) error {
		openers, err := backup.Openers(identity, phrase)
		if err != nil {
			return &usageError{err}
		}
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		r, err := places.fetch(c, cluster, base, args[1], backupsOf(base, directory), backup.Expected{Openers: openers})
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(c.OutOrStdout(), map[string]any{"backup": r})
		}
		renderVerified(c.OutOrStdout(), []backup.Report{r})
		return nil
	}
	return c
}

// fetch brings a copy by its name or URL.
func (f *copyFlags) fetch(c *cobra.Command, cluster *inventory.Cluster, base, from, directory string, want backup.Expected) (backup.Report, error) {
	want.Cluster = cluster.Metadata.Name
	o, err := f.of(cluster)
	if err != nil {
		return backup.Report{}, err
	}
	if strings.Contains(from, "://") {
		if o.To, from, err = placeOf(o.To, from, cluster.Metadata.Name); err != nil {
			return backup.Report{}, &usageError{err}
		}
	}
	if !backup.IsName(from) {
		return backup.Report{}, &usageError{fmt.Errorf("%s is not a backup's name, such as 2026-11-23T04-26-01Z", from)}
	}
	site, end := copySite(c.Context(), cluster, base, o)
	defer end()
	return provision.FetchBackup(c.Context(), site, o, from, directory, want)
}

// placeOf takes a copy's own URL apart; the place is the inventory's where that
// has it, with all that it says about it.
func placeOf(known []inventory.BackupCopy, from, cluster string) (to []inventory.BackupCopy, name string, err error) {
	bare, query, _ := strings.Cut(from, "?")
	name = path.Base(bare)
	at, ok := strings.CutSuffix(strings.TrimSuffix(bare, "/"), "/"+cluster+"/"+name)
	if !ok || !backup.IsName(name) {
		return nil, "", fmt.Errorf("not the URL of a copy of %s; want PLACE/%s/NAME, such as s3://bucket/prefix/%s/2026-11-23T04-26-01Z", cluster, cluster, cluster)
	}
	if query == "" {
		for _, k := range known {
			if strings.TrimSuffix(k.To, "/") == at {
				return []inventory.BackupCopy{k}, name, nil
			}
		}
	} else {
		at += "?" + query
	}
	c, err := inventory.ParseCopyTo(at)
	return []inventory.BackupCopy{c}, name, err
}

// keptRow is what `list --copies -o json` tells of one place.
type keptRow struct {
	Place   string      `json:"place"`
	Err     string      `json:"error,omitempty"`
	Backups []backupRow `json:"backups"`
}

// list asks the places; nil when nobody wants that.
func (f *copyFlags) list(c *cobra.Command, of found) ([]keptRow, error) {
	if !f.ask && len(f.to) == 0 {
		return nil, nil
	}
	if of.cluster == nil {
		return nil, &usageError{errors.New("--copies and --copy-to go with an inventory, not with a directory")}
	}
	o, err := f.of(of.cluster)
	if err != nil {
		return nil, err
	}
	site, end := copySite(c.Context(), of.cluster, of.base, o)
	defer end()
	rows := []keptRow{}
	for _, k := range provision.ListCopies(c.Context(), site, o) {
		row := keptRow{Place: k.Place, Backups: []backupRow{}}
		if k.Err != nil {
			row.Err = k.Err.Error()
		}
		for _, copied := range k.Copies {
			row.Backups = append(row.Backups, rowOf(copied.Entry(), time.Now()))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// unheard is an error where a place did not answer.
func unheard(rows []keptRow) error {
	var failed error
	for _, r := range rows {
		if r.Err != "" {
			failed = errors.Join(failed, fmt.Errorf("%w was not heard: %s", errCopies, r.Err))
		}
	}
	return failed
}

func renderKept(out io.Writer, rows []keptRow) error {
	for _, r := range rows {
		if r.Err != "" {
			continue
		}
		fmt.Fprintf(out, "\nCOPIES %s\n", r.Place)
		if err := renderCopies(out, r.Backups); err != nil {
			return err
		}
	}
	return nil
}

func renderCopies(out io.Writer, rows []backupRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, "none")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tAGE\tSIZE\tREVISION\tKEYS\tQUORUM\tSECRETS")
	for _, r := range rows {
		if r.Err != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\tno: %s\n", path.Base(r.Path), r.Err)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", path.Base(r.Path), age(r.Age.Duration()), units.Bytes(r.Bytes), r.Revision, r.Keys,
			yesNo(r.Quorum, "yes", "NO"), yesNo(r.Secrets, "sealed", "none"))
	}
	return w.Flush()
}

// prunedCopyRow is what became of one copy.
type prunedCopyRow struct {
	Place string `json:"place"`
	prunedRow
}

// pruneCopies holds the copies of all places against the rule.
func pruneCopies(c *cobra.Command, cluster *inventory.Cluster, base string, o provision.CopyOptions, rule backup.Rule, dry bool) ([]prunedCopyRow, error) {
	site, end := copySite(c.Context(), cluster, base, o)
	defer end()
	rows := []prunedCopyRow{}
	var failed error
	for _, p := range provision.PruneCopies(c.Context(), site, o, rule, time.Now(), dry) {
		if p.Err != nil {
			failed = errors.Join(failed, fmt.Errorf("%w was not pruned: %w", errCopies, p.Err))
		}
		if p.Path == "" {
			continue
		}
		row := prunedCopyRow{p.Place, prunedRow{Path: p.Path, Fate: "kept", Why: p.Why}}
		switch {
		case p.Err != nil:
			row.Fate, row.Why = "left", p.Err.Error()
		case p.Remove && dry:
			row.Fate = "would be deleted"
		case p.Remove:
			row.Fate = "deleted"
		}
		rows = append(rows, row)
	}
	return rows, failed
}

func renderPrunedCopies(out io.Writer, rows []prunedCopyRow) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nCOPY\tFATE\tWHY\tAT")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", path.Base(r.Path), r.Fate, r.Why, r.Place)
	}
	return w.Flush()
}
