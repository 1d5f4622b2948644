package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
)

const restoreHelp = `restore takes a cluster back to what it was in a backup: on the same masters or,
where all masters of the inventory are bare, on them. All that was written since is
lost: it says how much, and asks for the cluster's name.

On the same masters, before anything stops: the backup is proved, all of it (as "backup verify" does);
its cluster, CA, members and versions are held against the inventory and the
hosts; every master has to be reachable, whole, and to have room; a backup of
what is there now is taken where a member can give one; the snapshot is sent to
all masters, and the new members' data are made of it beside those of now.

Then kubelet, API server, controllers and etcd are stopped on all masters; the
old data are moved aside, never deleted; and all masters start etcd from the same
snapshot, as a cluster of its own that no member of the one before can join, with
revisions above all that were ever seen. API servers follow when all members vote
and hold the same data, controllers after them, and the kubelets of the workers
are restarted. A Deployment is made, scaled and deleted at the end, and the
cluster is verified as after apply.

On bare hosts, which may have other names, addresses and another endpoint: the
backup's keys have to be opened (--identity or --passphrase-file), for the hosts get
its CA and the key of its Secrets; its networks are held against the inventory's, and
no master of before may still serve. Then everything is done as by apply, but that
the first master's etcd starts with the backup's data, as a cluster of its own. The
Nodes of the backup are taken out of the API before anything joins, so that their
pods are made anew on the new hosts. What pods kept on the disks of lost hosts is in
no backup.

A run that breaks off anywhere is finished by the same command; until then every
other verb refuses.`

// remakeFlags are those of the verbs that make etcd anew.
type remakeFlags struct {
	run      runFlags
	only     bool   // the plan
	confirm  string // the cluster's name
	backups  string // the directory
	who      sealFlags
	identity string
}

func (f *remakeFlags) add(c *cobra.Command) {
	f.run.add(c)
	c.Flags().BoolVar(&f.only, "plan", false, "only say what would be done and lost; nothing is changed")
	c.Flags().StringVar(&f.confirm, "confirm", "", "the cluster's name, instead of typing it")
	c.MarkFlagsMutuallyExclusive("plan", "confirm")
	c.Flags().StringVar(&f.backups, "backup-directory", "", `where backups lie, and what is there now is put (default "backups" beside the inventory)`)
	_ = c.MarkFlagDirname("backup-directory") // the flag was just made
	c.Flags().StringVar(&f.identity, "identity", "", "a file with the age identity that opens the backup's keys: to check them, and needed on bare hosts")
	_ = c.MarkFlagFilename("identity") // the flag was just made
	f.who.add(c)
}

func newRestore() *cobra.Command {
	var flags remakeFlags
	var from string
	var again bool
	var places copyFlags
	c := inventoryArg(&cobra.Command{
		Use:   "restore INVENTORY --from BACKUP",
		Short: "Take etcd back to a backup, on the same masters or on bare ones",
		Long:  restoreHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install restore --plan --from 2026-11-23T04-26-01Z inventory.yaml
  ha-install restore --from backups/prod/2026-11-23T04-26-01Z inventory.yaml
  ha-install restore --from s3://bucket/backups/prod/2026-11-23T04-26-01Z inventory.yaml
  ha-install restore --from 2026-11-23T04-26-01Z --identity key.txt new-hosts.yaml`,
	})
	flags.add(c)
	c.Flags().StringVar(&from, "from", "", "the backup: its directory, its name among those of the cluster, or the URL of a copy, which is fetched and verified first")
	_ = c.MarkFlagDirname("from") // the flag was just made
	c.Flags().BoolVar(&again, "again", false, "although this backup was restored already")
	c.RunE = func(c *cobra.Command, args []string) error {
		if from == "" {
			return &usageError{errors.New("--from is missing: the backup to restore; `ha-install backup list` shows those that there are")}
		}
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		o := provision.RestoreOptions{Again: again}
		if o.Backup, o.Expected, err = flags.backup(base); err != nil {
			return err
		}
		if o.Openers, err = backup.Openers(flags.identity, flags.who.passphraseFile); err != nil {
			return &usageError{err}
		}
		o.From = chosen(o.Backup.Directory, cluster.Metadata.Name, from)
		if strings.Contains(from, "://") {
			r, err := places.fetch(c, cluster, base, from, o.Backup.Directory, o.Expected)
			if err != nil {
				return fmt.Errorf("%w; nothing was changed", err)
			}
			o.From = r.Path
		}
		return flags.remake(c, cluster, base, args, "throws away what was written to the cluster since the backup",
			func(site *provision.Site, tell func(string)) (provision.Plan, error) {
				return provision.PlanRestore(c.Context(), site, o, tell)
			},
			func(site *provision.Site, run *phase.Runner) error {
				return provision.Restore(c.Context(), site, o, run)
			})
	}
	return c
}

// backup is where a backup of now goes, and what one is held against.
func (f *remakeFlags) backup(base string) (o provision.BackupOptions, want backup.Expected, err error) {
	if o.Seal, err = f.who.seal(); err != nil {
		return o, want, err
	}
	o.Directory = backupsOf(base, f.backups)
	if want.Openers, err = backup.Openers(f.identity, ""); err != nil {
		err = &usageError{err}
	}
	return o, want, err
}

// chosen is the directory of the backup that --from names. There is no word for
// the newest: a restore takes a backup of what is there itself, and the run that
// goes on would take that one.
func chosen(directory, cluster, from string) string {
	named := filepath.Join(backup.In(directory, cluster).Dir(), from)
	if filepath.Base(from) == from && isDir(named) && !isDir(from) {
		return named
	}
	return from
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// remake shows what would be done and lost, has the cluster's name given, and
// does it.
func (f *remakeFlags) remake(c *cobra.Command, cluster *inventory.Cluster, base string, args []string, what string,
	plan func(*provision.Site, func(string)) (provision.Plan, error), do func(*provision.Site, *phase.Runner) error) error {
	if f.confirm != "" {
		if err := confirmName(c, cluster.Metadata.Name, f.confirm, what); err != nil {
			return err
		}
	}
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operation = operation(c, cluster, args)
	shown := c.ErrOrStderr()
	if f.only && f.run.output != "json" {
		shown = c.OutOrStdout()
	}
	p, err := plan(site, func(text string) { fmt.Fprintf(shown, "%s\n\n", text) })
	if err != nil {
		return err
	}
	if f.only {
		return showPlan(c, p, f.run.output, f.run.verbose)
	}
	if !p.Nothing() {
		if err := confirmName(c, cluster.Metadata.Name, f.confirm, what); err != nil {
			return err
		}
	}
	report, err := f.run.begin(c, cluster, "nothing was changed")
	if err != nil {
		return err
	}
	run := &phase.Runner{Events: report.event, Stop: stopIn(c.Context())}
	return report.end(c, do(site, run), run.Tally)
}
