package cmd

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

const recoverHelp = `recover brings a cluster back that lost its quorum: two of three masters are gone
for good, or etcd's data are, on some masters or on all. It looks at every master
that can be reached, says what it sees, and takes the way that loses least:

  bring-back  enough masters have their data: they are started. Nothing is lost
  survivor    a snapshot of the most advanced member becomes a cluster of its own
              on the masters that are left. What had reached it is not lost
  backup      nobody has data any more, or the backup has more of the same cluster:
              the one that is whole and of the highest revision

A cluster that has its quorum is never made anew.

The last two are done as "restore" does: everything is checked before anything
stops, old data are moved aside, never deleted, and no member of the cluster
before can join. A master that can be reached and does not take part (a file of its
own is missing, say) has its control plane stopped before. What cannot be reached
cannot be stopped: --lost names it, which is your word that it is off and stays off,
and it is refused where any host sees it on any of its ports. The balancers leave
out the masters that are gone. Bare masters (set up anew) join at the end, as by
apply, also in a later run.

Members that come back later cannot merge. They may serve what they had among
themselves; no balancer sends clients there. The same command sees them, moves
their data aside, takes the cluster off their hosts, and has them join.

--plan changes nothing. If masters are only off, power them on instead.`

// ways are what --way takes.
var ways = []provision.RecoverWay{provision.WayBringBack, provision.WaySurvivor, provision.WayBackup}

func newRecover() *cobra.Command {
	var flags remakeFlags
	var way string
	var lost []string
	c := inventoryArg(&cobra.Command{
		Use:   "recover INVENTORY",
		Short: "Bring a cluster back that lost its quorum, losing the least",
		Long:  recoverHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install recover --plan inventory.yaml
  ha-install recover inventory.yaml
  ha-install recover --lost cp-2,cp-3 --confirm prod inventory.yaml`,
	})
	flags.add(c)
	var names []string
	for _, w := range ways {
		names = append(names, string(w))
	}
	c.Flags().StringVar(&way, "way", "", "instead of the way that loses least: "+strings.Join(names, ", "))
	_ = c.RegisterFlagCompletionFunc("way", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)) // the flag was just made
	c.Flags().StringSliceVar(&lost, "lost", nil, "masters and balancers that cannot be reached: your word that they are off and stay off")
	_ = c.RegisterFlagCompletionFunc("lost", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return hostNames(args[0], []inventory.Role{inventory.RoleControlPlane, inventory.RoleLoadBalancer}), cobra.ShellCompDirectiveNoFileComp
	}) // the flag was just made
	c.RunE = func(c *cobra.Command, args []string) error {
		if way != "" && !slices.Contains(names, way) {
			return &usageError{fmt.Errorf("--way %q: want one of %s", way, strings.Join(names, ", "))}
		}
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		o := provision.RecoverOptions{Way: provision.RecoverWay(way), Lost: lost}
		if o.Backup, o.Expected, err = flags.backup(base); err != nil {
			return err
		}
		return flags.remake(c, cluster, base, args, "makes etcd anew on the masters that are left, or takes the cluster before off masters that came back",
			func(site *provision.Site, tell func(string)) (provision.Plan, error) {
				site.Operator = &net.Dialer{}
				plan, chosen, err := provision.PlanRecover(c.Context(), site, o, tell)
				o.Agreed = &chosen
				return plan, err
			},
			func(site *provision.Site, run *phase.Runner) error {
				return provision.Recover(c.Context(), site, o, run)
			})
	}
	return c
}
