package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
)

// errDamaged is the end of a verification that found damage.
var errDamaged = errors.New("a backup is not whole")

// errNoBackup means that there is nothing to look at.
var errNoBackup = errors.New("there is no backup")

const backupHelp = `A backup is a snapshot of etcd with what it takes to use it, in a directory of
its own on this machine: DIR/CLUSTER/2026-11-23T04-05-06Z, which appears under
that name only when all in it is whole.

  snapshot.db     the database as etcd sends it, with its SHA-256
  manifest.json   cluster, revision, members, versions, the CA's fingerprint,
                  whether there was quorum, and the sums of the other files
  keys.tar.age    the CA set and the key of the encryption at rest, encrypted

DIR is "backups" beside the inventory, unless --directory names another one.`

func newBackup() *cobra.Command {
	c := &cobra.Command{Use: "backup", Short: "Take backups of etcd and the cluster's keys, and prove that they are whole", Long: backupHelp}
	c.AddCommand(newBackupCreate(), newBackupList(), newBackupVerify(), newBackupPrune(), newBackupCopy(), newBackupFetch(), newBackupSchedule(), newBackupTurn(), newBackupReceive())
	group(c)
	return c
}

// directoryFlag adds the flag for where backups lie.
func directoryFlag(c *cobra.Command, into *string) {
	c.Flags().StringVar(into, "directory", "", `directory of the backups (default "backups" beside the inventory)`)
	_ = c.MarkFlagDirname("directory") // the flag was just made
}

// backupsOf is where an inventory's backups lie.
func backupsOf(base, directory string) string {
	return cmp.Or(directory, filepath.Join(base, "backups"))
}

// sealFlags say who can open the keys.
type sealFlags struct {
	recipients     []string
	recipientsFile string
	passphraseFile string
}

func (f *sealFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.recipients, "recipient", nil, "encrypt the keys for this age recipient (age1...); may be given several times")
	c.Flags().StringVar(&f.recipientsFile, "recipients-file", "", "encrypt the keys for the age recipients in this file, one a line")
	c.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "encrypt the keys with the passphrase in the first line of this file")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "recipient")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "recipients-file")
}

// seal is found out before any host is touched.
func (f *sealFlags) seal() (backup.Seal, error) {
	s, err := backup.SealFor(f.recipients, f.recipientsFile, f.passphraseFile)
	if err != nil {
		return s, &usageError{fmt.Errorf("%w; nothing was backed up", err)}
	}
	return s, nil
}

func newBackupCreate() *cobra.Command {
	var flags runFlags
	var who sealFlags
	var directory string
	var places copyFlags
	c := inventoryArg(&cobra.Command{
		Use:   "create INVENTORY",
		Short: "Take a backup; no host is changed",
		Long: `create takes a snapshot from a healthy follower, or from the leader when no
follower is healthy, through the host's own SSH connection, and proves it before
it is called a backup: its SHA-256, read back from this machine's disk, is the
one that etcd sent; its database is opened and read to the end; and the hash of
its data is the one that the running members tell. When a member dies on the
way, another one is asked.

Without quorum it works as well, from the most advanced member that answers. Such
a backup is labelled: the writes that were acknowledged last may be missing.

The CA set and the key of the encryption at rest are put beside it only
encrypted (age), for recipients or with a passphrase; without any of these three
flags they are left out, and the command says what that means.

No lock is taken, and nothing is written on any host but copies that are asked for.

` + copiesHelp + `

` + backupHelp + `

` + eventHelp,
		Example: `  ha-install backup create --recipients-file admins.txt inventory.yaml
  ha-install backup create --passphrase-file ~/.backup-passphrase --directory /srv/backups inventory.yaml
  ha-install backup create --recipients-file admins.txt --copy-to sftp://backup@nas/srv/backups inventory.yaml`,
	})
	flags.add(c)
	who.add(c)
	directoryFlag(c, &directory)
	places.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		seal, err := who.seal()
		if err != nil {
			return err
		}
		copies, err := places.of(cluster)
		if err != nil {
			return err
		}
		report, err := flags.begin(c, cluster, "nothing was backed up")
		if err != nil {
			return err
		}
		site := provision.ConnectSoon(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		site.Operation = operation(c, cluster, args)
		run := &phase.Runner{Events: report.event}
		_, err = provision.Backup(c.Context(), site, provision.BackupOptions{Directory: backupsOf(base, directory), Seal: seal, Copies: copies}, run)
		return report.end(c, err, run.Tally)
	}
	return c
}

// inventoryOrBackups lets a verb take an inventory, or a directory in which
// backups lie.
func inventoryOrBackups(c *cobra.Command) *cobra.Command {
	c.Args = usage(cobra.ExactArgs(1))
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return c
}

// found are the backups that a command is about.
type found struct {
	where   string
	all     []backup.Entry
	cluster *inventory.Cluster // nil for a directory
	base    string
}

// findBackups takes an inventory, or a directory in which backups lie.
func findBackups(c *cobra.Command, arg, directory string) (found, error) {
	if info, err := os.Stat(arg); err == nil && info.IsDir() {
		if directory != "" {
			return found{}, &usageError{fmt.Errorf("%s is a directory already; --directory goes with an inventory", arg)}
		}
		all, err := backup.Find(arg)
		return found{where: arg, all: all}, err
	}
	cluster, base, err := load(c, arg)
	if err != nil {
		return found{}, err
	}
	store := backup.In(backupsOf(base, directory), cluster.Metadata.Name)
	all, err := store.List()
	return found{where: store.Dir(), all: all, cluster: cluster, base: base}, err
}

// none is an error where nothing was found.
func (f found) none() error {
	if len(f.all) > 0 {
		return nil
	}
	return fmt.Errorf("%w in %s; `ha-install backup create` makes one", errNoBackup, f.where)
}
