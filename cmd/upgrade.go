package cmd

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
)

const upgradeHelp = `upgrade takes a running cluster to the version that the inventory names
(spec.kubernetes.version, spec.software.bundle), or that --to and --bundle name:
one patch or one minor further, one master at a time, its workers after.

Before anything is changed: the version steps that are supported, all masters
whole, no disruption budget that would hold a Node up, no use of an API that
goes away, kubeadm-config as the inventory has it. Then the new binaries are
sent and the images imported on every host, beside what runs; a verified
snapshot of etcd is taken to this machine (see "ha-install backup"), and each
master keeps a copy of its /etc/kubernetes.

Each master leaves the balancers and hands etcd's leadership on, its clients are
sent to the others, and everything that it runs is exchanged at once; the next
one has its turn when quorum, versions and health are proven and it is back
behind the balancers. Where the minor version changes its Node is drained first;
what pods keep in emptyDir volumes is deleted with them, as in every drain.
What leads etcd goes last.

Any failure stops before the next host. The same command goes on from there.`

// upgradeFlags are the upgrade's own.
type upgradeFlags struct {
	run           runFlags
	agreed        agreement
	to, bundle    string
	before, after string // programs of the operator's
	only          bool   // the plan
	backups       string // the directory
	who           sealFlags
	options       provision.UpgradeOptions
}

func newUpgrade() *cobra.Command {
	var flags upgradeFlags
	c := inventoryArg(&cobra.Command{
		Use:   "upgrade INVENTORY",
		Short: "Take a running cluster to another version, one master at a time",
		Long:  upgradeHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install upgrade --plan inventory.yaml
  ha-install upgrade inventory.yaml
  ha-install upgrade --to v1.36.3 --bundle ha-install-bundle-v1.36.3-amd64.tar inventory.yaml`,
	})
	flags.add(c)
	c.RunE = func(c *cobra.Command, args []string) error { return flags.upgrade(c, args) }
	return c
}

func (f *upgradeFlags) add(c *cobra.Command) {
	f.run.add(c)
	flags := c.Flags()
	flags.StringVar(&f.to, "to", "", "the version to reach, instead of the inventory's: v1.36.3")
	flags.StringVar(&f.bundle, "bundle", "", "the bundle of that version, instead of the inventory's")
	_ = c.MarkFlagFilename("bundle", "tar") // the flag was just made
	flags.BoolVar(&f.only, "plan", false, "only say what would be done; nothing is changed")
	flags.BoolVar(&f.agreed.yes, "yes", false, "do not ask on a terminal either")
	c.MarkFlagsMutuallyExclusive("yes", "plan")
	flags.StringVar(&f.backups, "backup-directory", "", `where the snapshot from before goes (default "backups" beside the inventory)`)
	_ = c.MarkFlagDirname("backup-directory") // the flag was just made
	f.who.add(c)
	flags.DurationVar(&f.options.DrainTimeout, "drain-timeout", provision.DefaultDrainTimeout, "how long the pods of a Node may take to leave it")
	flags.BoolVar(&f.options.DeleteUnmanaged, "delete-unmanaged-pods", false, "also let pods go that nobody will bring back elsewhere")
	flags.BoolVar(&f.options.AcceptConfig, "accept-config", false, "let the inventory win over what the cluster's ConfigMaps hold: kubeadm-config, kubelet-config, kube-proxy")
	flags.BoolVar(&f.options.AcceptRemoved, "accept-removed-apis", false, "go on although clients ask for what the version does not serve any more")
	flags.IntVar(&f.options.WorkersAtOnce, "workers-at-once", 1, "how many workers are upgraded at a time")
	flags.StringVar(&f.before, "before-host", "", "a program that is called with a host's name before the host is changed")
	flags.StringVar(&f.after, "after-host", "", "a program that is called with a host's name when it is back")
}

func (f *upgradeFlags) upgrade(c *cobra.Command, args []string) error {
	if err := f.check(); err != nil {
		return &usageError{err}
	}
	cluster, base, err := loadChanged(c, args[0], f.target)
	if err != nil {
		return err
	}
	if f.options.Backup.Seal, err = f.who.seal(); err != nil {
		return err
	}
	f.options.Backup.Directory = backupsOf(base, f.backups)
	if f.only {
		return planOnly(c, cluster, base, f.run, func(site *provision.Site, tell func(string)) (provision.Plan, error) {
			if err := site.RequireAll(); err != nil {
				return provision.Plan{}, err
			}
			return provision.PlanUpgrade(c.Context(), site, f.options, tell)
		})
	}
	report, err := f.run.begin(c, cluster, "nothing to upgrade: everything runs "+cluster.Spec.Kubernetes.Version)
	if err != nil {
		return err
	}
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operation = operation(c, cluster, args)
	f.agreed.make = func(c *cobra.Command, site *provision.Site) (provision.Plan, error) {
		return provision.PlanUpgrade(c.Context(), site, f.options, nil)
	}
	err = f.agreed.carryOut(c, site, f.run, report, func(plan *provision.Plan, run *phase.Runner) error {
		return provision.Upgrade(c.Context(), site, f.options, plan, run)
	})
	if err != nil {
		return err
	}
	if f.run.output == "text" && f.to != "" {
		fmt.Fprintf(c.OutOrStdout(), "\nset spec.kubernetes.version: %s (and spec.software.bundle) in %s: it still has the version before\n", f.to, args[0])
	}
	return nil
}

// check is what is wrong with the flags by themselves.
func (f *upgradeFlags) check() (err error) {
	if f.to != "" {
		if _, err := release.Parse(f.to); err != nil {
			return fmt.Errorf("--to: %w", err)
		}
	}
	if f.options.DrainTimeout < time.Second {
		return fmt.Errorf("--drain-timeout %s: want a second or more", f.options.DrainTimeout)
	}
	if f.options.WorkersAtOnce < 1 {
		return fmt.Errorf("--workers-at-once %d: want one or more", f.options.WorkersAtOnce)
	}
	if f.before != "" {
		if f.options.Before, err = hook(f.before); err != nil {
			return fmt.Errorf("--before-host: %w", err)
		}
	}
	if f.after != "" {
		if f.options.After, err = hook(f.after); err != nil {
			return fmt.Errorf("--after-host: %w", err)
		}
	}
	return nil
}

// target has the inventory want what the flags name.
func (f *upgradeFlags) target(cluster *inventory.Cluster) error {
	if f.to != "" {
		cluster.Spec.Kubernetes.Version = f.to
	}
	if f.bundle == "" {
		return nil
	}
	at, err := filepath.Abs(f.bundle)
	cluster.Spec.Software.Bundle = at
	return err
}
