package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

const removeHelp = `remove takes a master or worker that is alive out of the cluster and leaves the
host bare. The host is still in the inventory when it begins; when it has ended,
its lines are to be deleted: an apply that still has them joins the host again.

Before anything is changed it is proven that the others hold quorum without the
host, and what the cluster could lose then is shown. A cluster that could lose no
master any more is refused unless --force is given; one that would lose its
quorum always. For a master a verified snapshot of etcd is taken to this machine
(see "ha-install backup").

Then the pods leave the host, as their disruption budgets allow, the balancers
forget it, its API server sends its clients to the others, etcd's leadership is
handed on and its member removed by its ID. Only after that anything on the host
is stopped: it is cleaned as by reset, its keys and data are moved aside and never
deleted, and its Node is deleted.

A host that is dead, or has lost its data, is a case for "ha-install replace".

Any failure stops where it is met. The same command goes on from there.`

// removeFlags are the removal's own.
type removeFlags struct {
	run     runFlags
	confirm string
	only    bool
	backups string
	who     sealFlags
	options provision.RemoveOptions
}

func newRemove() *cobra.Command {
	var f removeFlags
	c := hostArg(&cobra.Command{
		Use:   "remove INVENTORY HOST",
		Short: "Take a live master or worker out of the cluster, after its name is typed",
		Long:  removeHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install remove --plan inventory.yaml cp-4
  ha-install remove inventory.yaml cp-4
  ha-install remove --confirm w-2 --drain-timeout 10m inventory.yaml w-2`,
	}, inventory.RoleControlPlane, inventory.RoleWorker)
	f.run.add(c)
	flags := c.Flags()
	flags.BoolVar(&f.only, "plan", false, "only say what would be done; nothing is changed")
	flags.StringVar(&f.confirm, "confirm", "", "the host's name, instead of typing it")
	c.MarkFlagsMutuallyExclusive("confirm", "plan")
	flags.StringVar(&f.backups, "backup-directory", "", `where the snapshot from before goes (default "backups" beside the inventory)`)
	_ = c.MarkFlagDirname("backup-directory") // the flag was just made
	f.who.add(c)
	flags.DurationVar(&f.options.DrainTimeout, "drain-timeout", provision.DefaultDrainTimeout, "how long the pods of the host may take to leave it")
	flags.BoolVar(&f.options.DeleteUnmanaged, "delete-unmanaged-pods", false, "also let pods go that nobody will bring back elsewhere")
	flags.BoolVar(&f.options.Force, "force", false, "accept a cluster that can lose no master afterwards")
	c.RunE = func(c *cobra.Command, args []string) error { return f.remove(c, args) }
	return c
}

func (f *removeFlags) remove(c *cobra.Command, args []string) error {
	if f.options.DrainTimeout < time.Second {
		return &usageError{fmt.Errorf("--drain-timeout %s: want a second or more", f.options.DrainTimeout)}
	}
	cluster, base, err := load(c, args[0])
	if err != nil {
		return err
	}
	if f.options.Backup.Seal, err = f.who.seal(); err != nil {
		return err
	}
	f.options.Host, f.options.Backup.Directory = args[1], backupsOf(base, f.backups)
	plan := func(site *provision.Site, tell func(string)) (provision.Plan, error) {
		return provision.PlanRemove(c.Context(), site, f.options, tell)
	}
	verb := hostVerb{run: f.run, name: args[1], what: "takes " + args[1] + " out of the cluster", confirm: f.confirm, plan: plan,
		none: args[1] + " is no part of the cluster: there is nothing to take out"}
	if f.only {
		return planOnly(c, cluster, base, f.run, plan)
	}
	return verb.carryOut(c, args, cluster, base, func(site *provision.Site, plan *provision.Plan, run *phase.Runner) error {
		return provision.Remove(c.Context(), site, f.options, plan, run)
	})
}

// hostVerb is a verb that works on one host, whose name has to be typed.
type hostVerb struct {
	run     runFlags
	name    string // of the host
	what    string // "takes cp-4 out of the cluster"
	none    string // what it means that nothing was changed
	confirm string // the name, where it was given by a flag
	plan    func(site *provision.Site, tell func(string)) (provision.Plan, error)
}

// carryOut does it, after the host's name was typed or given. On a terminal the
// plan is shown before.
func (v hostVerb) carryOut(c *cobra.Command, args []string, cluster *inventory.Cluster, base string, do func(*provision.Site, *provision.Plan, *phase.Runner) error) error {
	if v.confirm == "" && !onTerminal(c) {
		if err := v.confirmed(c); err != nil {
			return err
		}
	} else if v.confirm != "" && v.confirm != v.name {
		return v.wrongName(v.confirm)
	}
	report, err := v.run.begin(c, cluster, v.none)
	if err != nil {
		return err
	}
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operation = operation(c, cluster, args)
	run := &phase.Runner{Events: report.event, Stop: stopIn(c.Context())}
	var agreed *provision.Plan
	if v.confirm == "" && onTerminal(c) {
		plan, err := v.agreed(c, site)
		var usage *usageError
		if errors.As(err, &usage) {
			return err
		}
		if err != nil {
			return report.end(c, err, run.Tally)
		}
		agreed = &plan
		report.goAhead()
	}
	return report.end(c, do(site, agreed, run), run.Tally)
}

// agreed shows the plan on the terminal and has the name typed, unless there is
// nothing to do.
func (v hostVerb) agreed(c *cobra.Command, site *provision.Site) (provision.Plan, error) {
	if err := awaitSteps(c, site); err != nil {
		return provision.Plan{}, err
	}
	plan, err := v.plan(site, nil)
	if err != nil {
		return plan, err
	}
	shown := io.Writer(c.OutOrStdout())
	if v.run.output == "json" {
		shown = c.ErrOrStderr()
	}
	renderPlan(shown, plan, v.run.verbose)
	if plan.Nothing() {
		return plan, nil
	}
	return plan, v.confirmed(c)
}

// confirmed has the host's name typed.
func (v hostVerb) confirmed(c *cobra.Command) error {
	fmt.Fprintf(c.ErrOrStderr(), "This %s. Type the host's name (%s) to go on: ", v.what, v.name)
	line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.ErrOrStderr())
		return &usageError{fmt.Errorf("no name was typed; without a terminal use --confirm %s", v.name)}
	}
	if typed := strings.TrimSpace(line); typed != v.name {
		return v.wrongName(typed)
	}
	return nil
}

func (v hostVerb) wrongName(given string) error {
	return &usageError{fmt.Errorf("%q is not the name of the host, %q; nothing was changed", given, v.name)}
}

// hostArg is inventoryArg for a verb that takes the name of one of its hosts
// after the inventory; names of the given roles are completed.
func hostArg(c *cobra.Command, roles ...inventory.Role) *cobra.Command {
	c.Args = usage(cobra.ExactArgs(2))
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		case 1:
			return hostNames(args[0], roles), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// hostNames are the names of an inventory's hosts of the roles, for completion:
// none where it cannot be read.
func hostNames(file string, roles []inventory.Role) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	cluster, _, err := inventory.Parse(file, data)
	if err != nil {
		return nil
	}
	var names []string
	for _, h := range cluster.Spec.Hosts {
		for _, role := range roles {
			if h.Role == role {
				names = append(names, h.Name)
			}
		}
	}
	return names
}
