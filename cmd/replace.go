package cmd

import (
	"errors"
	"net"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

const replaceHelp = `replace puts a host in the place of a master that is lost for good, be it the
first one, the one that held the virtual IP or the one that led etcd.

With --with NEWHOST it is another host, which is in the inventory as one more
master beside the lost one. The lost one has to be dead, and is never asked
anything: for two minutes its ports are tried from this machine and from every
host of the cluster, and etcd and its Node's lease are watched. Who is seen by
anybody, slow or hanging as it may be, is not dead, and nothing is changed; a
port that refuses is an answer too. Typing the host's name says that it stays
off. Afterwards delete its lines from the inventory.

Without --with it is a host under the same name and addresses: installed anew, or
one whose etcd data are gone. What is left of the cluster on it is moved aside,
never deleted, before its member is removed. A host that was installed anew shows
another SSH host key, which has to be put into the inventory first.

In every case quorum of the others is proven, a verified snapshot of etcd is taken
to this machine (see "ha-install backup"), the lost member is removed by its ID,
its Node is deleted, and then the host joins by all phases of apply: the balancers
learn of it and forget the lost one, a learner is added, and promoted when it has
caught up. Without quorum nothing is changed: that is a recovery.

Any failure stops where it is met. The same command goes on from there.`

// replaceFlags are the replacement's own.
type replaceFlags struct {
	run     runFlags
	confirm string
	with    string
	only    bool
	backups string
	who     sealFlags
}

func newReplace() *cobra.Command {
	var f replaceFlags
	c := hostArg(&cobra.Command{
		Use:   "replace INVENTORY HOST",
		Short: "Put a host in the place of a master that is lost, after its name is typed",
		Long:  replaceHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install replace --plan --with cp-4 inventory.yaml cp-2
  ha-install replace --with cp-4 inventory.yaml cp-2
  ha-install replace --confirm cp-2 inventory.yaml cp-2`,
	}, inventory.RoleControlPlane)
	f.run.add(c)
	flags := c.Flags()
	flags.StringVar(&f.with, "with", "", "the host that comes in its place; without it the same one, installed anew or without its data")
	_ = c.RegisterFlagCompletionFunc("with", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return hostNames(args[0], []inventory.Role{inventory.RoleControlPlane}), cobra.ShellCompDirectiveNoFileComp
	}) // the flag was just made
	flags.BoolVar(&f.only, "plan", false, "only say what would be done; nothing is changed")
	flags.StringVar(&f.confirm, "confirm", "", "the lost host's name, instead of typing it")
	c.MarkFlagsMutuallyExclusive("confirm", "plan")
	flags.StringVar(&f.backups, "backup-directory", "", `where the snapshot from before goes (default "backups" beside the inventory)`)
	_ = c.MarkFlagDirname("backup-directory") // the flag was just made
	f.who.add(c)
	c.RunE = func(c *cobra.Command, args []string) error { return f.replace(c, args) }
	return c
}

func (f *replaceFlags) replace(c *cobra.Command, args []string) error {
	if f.with == args[1] {
		return &usageError{errors.New("--with names the lost host itself; leave it out where that one comes back under its name")}
	}
	cluster, base, err := loadToApply(c, args[0])
	if err != nil {
		return err
	}
	target, options, err := provision.ReplaceTarget(cluster, args[1], f.with)
	if err != nil {
		return err
	}
	if options.Backup.Seal, err = f.who.seal(); err != nil {
		return err
	}
	options.Backup.Directory = backupsOf(base, f.backups)
	what := "replaces " + args[1] + " by itself, which has lost its data"
	if f.with != "" {
		what = "replaces " + args[1] + ", which is off and stays off, by " + f.with
	}
	plan := func(site *provision.Site, tell func(string)) (provision.Plan, error) {
		site.Operator = &net.Dialer{}
		return provision.PlanReplace(c.Context(), site, options, tell)
	}
	verb := hostVerb{run: f.run, name: args[1], what: what, confirm: f.confirm, plan: plan,
		none: "nothing to replace: " + options.With + " is in the place of " + args[1]}
	if f.only {
		return planOnly(c, target, base, f.run, plan)
	}
	return verb.carryOut(c, args, target, base, func(site *provision.Site, plan *provision.Plan, run *phase.Runner) error {
		site.Operator = &net.Dialer{}
		return provision.Replace(c.Context(), site, options, plan, run)
	})
}
