package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

func newApply() *cobra.Command {
	var flags runFlags
	var agreed agreement
	c := inventoryArg(&cobra.Command{
		Use:   "apply INVENTORY",
		Short: "Bring the hosts to what the inventory says",
		Long: `apply brings up the cluster that the inventory describes: from bare hosts, from
where a broken run stopped, or from a running cluster with masters or workers
added to the inventory. On a finished cluster it changes nothing.

Every change of membership is made one master at a time; quorum is proven
before and after each, and its table is shown.

On a terminal the plan is shown and has to be agreed to; --yes agrees ahead.
Without a terminal nobody is asked. --plan FILE carries out a plan that
"ha-install plan --out FILE" has kept, and refuses when anything has moved since.

` + interruptHelp + `

` + eventHelp,
		Example: `  ha-install apply inventory.yaml
  ha-install apply --yes inventory.yaml
  ha-install apply --plan plan.json inventory.yaml`,
	})
	flags.add(c)
	c.Flags().BoolVar(&agreed.yes, "yes", false, "do not ask on a terminal either")
	c.Flags().StringVar(&agreed.file, "plan", "", "carry out this plan, and nothing if it does not hold any more")
	_ = c.MarkFlagFilename("plan", "json") // the flag was just made
	c.MarkFlagsMutuallyExclusive("yes", "plan")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := loadToApply(c, args[0])
		if err != nil {
			return err
		}
		report, err := flags.begin(c, cluster, "nothing to change: the cluster is as the inventory says")
		if err != nil {
			return err
		}
		site := provision.Connect(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		site.Operation = operation(c, cluster, args)
		agreed.make = func(c *cobra.Command, site *provision.Site) (provision.Plan, error) {
			return provision.MakePlan(c.Context(), site, nil)
		}
		err = agreed.carryOut(c, site, flags, report, func(plan *provision.Plan, run *phase.Runner) error {
			return provision.ApplyPlan(c.Context(), site, plan, run)
		})
		if err != nil {
			return err
		}
		if flags.output == "text" {
			fmt.Fprintf(c.OutOrStdout(), "\nkubeconfig:  ha-install kubeconfig %s\nstatus:      ha-install status %s\n", args[0], args[0])
		}
		return nil
	}
	return c
}
