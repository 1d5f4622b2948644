package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
)

func newPreflight() *cobra.Command {
	var output string
	c := inventoryArg(&cobra.Command{
		Use:   "preflight INVENTORY",
		Short: "Ask all hosts whether the cluster can be built on them; nothing is changed",
	})
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		site := provision.Connect(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		site.ReadOnly()
		software, err := provision.OpenBundle(site)
		if err != nil { // the hosts can be asked all the same
			fmt.Fprintln(c.ErrOrStderr(), "warning: what the bundle asks of the hosts is not checked:", err)
		}
		if software != nil {
			defer software.Close()
		}
		report := provision.Preflight(c.Context(), site, software)
		if output == "json" {
			if err := json.NewEncoder(c.OutOrStdout()).Encode(report); err != nil {
				return err
			}
		} else if err := report.Render(c.OutOrStdout()); err != nil {
			return err
		}
		if err := report.Err(); err != nil {
			return &saidError{err}
		}
		return nil
	}
	return c
}
