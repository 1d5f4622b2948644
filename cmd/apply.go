package cmd

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

func newApply() *cobra.Command {
	var output string
	var verbose bool
	c := inventoryArg(&cobra.Command{
		Use:   "apply INVENTORY",
		Short: "Bring the hosts to what the inventory says",
		Long: `apply brings up the cluster that the inventory describes: from bare hosts, from
where a broken run stopped, or from a running cluster with masters or workers
added to the inventory. On a finished cluster it changes nothing.

Every change of membership is made one master at a time; quorum is proven
before and after each, and its table is shown.`,
		Example: "  ha-install apply inventory.yaml",
	})
	outputFlag(c, &output, "text", "json")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the output of long commands too (kubeadm)")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := loadToApply(c, args[0])
		if err != nil {
			return err
		}
		began := time.Now()
		site := provision.Connect(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		report := newReporter(c.OutOrStdout(), output, verbose, "nothing to change: the cluster is as the inventory says")
		run := &phase.Runner{Events: report.event}
		if err := provision.Apply(c.Context(), site, run); err != nil {
			return err
		}
		report.summary(run.Tally(), time.Since(began))
		if output == "text" {
			fmt.Fprintf(c.OutOrStdout(), "\nkubeconfig:  ha-install kubeconfig %s\nstatus:      ha-install status %s\n", args[0], args[0])
		}
		return nil
	}
	return c
}
