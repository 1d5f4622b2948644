package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

func newApply() *cobra.Command {
	var flags runFlags
	c := inventoryArg(&cobra.Command{
		Use:   "apply INVENTORY",
		Short: "Bring the hosts to what the inventory says",
		Long: `apply brings up the cluster that the inventory describes: from bare hosts, from
where a broken run stopped, or from a running cluster with masters or workers
added to the inventory. On a finished cluster it changes nothing.

Every change of membership is made one master at a time; quorum is proven
before and after each, and its table is shown.

` + eventHelp,
		Example: "  ha-install apply inventory.yaml",
	})
	flags.add(c)
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
		run := &phase.Runner{Events: report.event}
		if err := report.end(c, provision.Apply(c.Context(), site, run), run.Tally); err != nil {
			return err
		}
		if flags.output == "text" {
			fmt.Fprintf(c.OutOrStdout(), "\nkubeconfig:  ha-install kubeconfig %s\nstatus:      ha-install status %s\n", args[0], args[0])
		}
		return nil
	}
	return c
}
