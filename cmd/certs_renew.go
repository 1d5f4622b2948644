package cmd

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

const renewHelp = `renew makes the certificates anew that expire within the time of --within (with
--all every one), with the CA set that every master holds: those that kubeadm made
for API servers, etcd, their clients and in kubeconfigs, and the client
certificates of kubelets. Every process that reads one is started anew, and has to
show it, or to have begun after it was written, before the next master has its
turn. A process that has not read what lies in its files is restarted, too, also
where nothing is due. The CA set is not renewed.

Each master leaves as in every planned restart: leadership handed on, no client
sent to it, quorum proven before and after. The old files are kept on each master
in /var/lib/ha-install/before.

It works without the API and without quorum: where certificates have expired, all
masters get their files first, which restarts nothing, and which is all that etcd's
members need to find each other again; members that do not are started anew, as
there is no quorum that could be lost. Then the masters are restarted one at a time
under the gate, those first that serve nobody.

Any failure stops before the next master. The same command goes on from there, and
changes nothing when all is done.`

// renewFlags are the renewal's own.
type renewFlags struct {
	run    runFlags
	agreed agreement
	only   bool // the plan
	within days
	all    bool
}

func newCertsRenew() *cobra.Command {
	flags := renewFlags{within: days(defaultWithin)}
	c := inventoryArg(&cobra.Command{
		Use:   "renew INVENTORY",
		Short: "Renew certificates that expire, or have, one master at a time",
		Long:  renewHelp + "\n\n" + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install certs renew --plan inventory.yaml
  ha-install certs renew inventory.yaml
  ha-install certs renew --within 90d --yes inventory.yaml`,
	})
	flags.run.add(c)
	c.Flags().Var(&flags.within, "within", "renew what expires within this time: 30d, 12h")
	c.Flags().BoolVar(&flags.all, "all", false, "renew every certificate, whenever it expires")
	c.MarkFlagsMutuallyExclusive("within", "all")
	c.Flags().BoolVar(&flags.only, "plan", false, "only say what would be done; nothing is changed")
	c.Flags().BoolVar(&flags.agreed.yes, "yes", false, "do not ask on a terminal either")
	c.MarkFlagsMutuallyExclusive("yes", "plan")
	c.RunE = func(c *cobra.Command, args []string) error { return flags.renew(c, args) }
	return c
}

func (f *renewFlags) options() provision.RenewOptions {
	return provision.RenewOptions{Within: time.Duration(f.within), All: f.all}
}

func (f *renewFlags) renew(c *cobra.Command, args []string) error {
	cluster, base, err := load(c, args[0])
	if err != nil {
		return err
	}
	if f.only {
		return planOnly(c, cluster, base, f.run, func(site *provision.Site, tell func(string)) (provision.Plan, error) {
			if err := site.RequireAll(); err != nil {
				return provision.Plan{}, err
			}
			return provision.PlanRenew(c.Context(), site, f.options(), tell)
		})
	}
	report, err := f.run.begin(c, cluster, "nothing to renew: no certificate expires within "+f.within.String()+", and every process uses what lies in its files")
	if err != nil {
		return err
	}
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operation = operation(c, cluster, args)
	f.agreed.make = func(c *cobra.Command, site *provision.Site) (provision.Plan, error) {
		return provision.PlanRenew(c.Context(), site, f.options(), nil)
	}
	return f.agreed.carryOut(c, site, f.run, report, func(plan *provision.Plan, run *phase.Runner) error {
		return provision.Renew(c.Context(), site, f.options(), plan, run)
	})
}
