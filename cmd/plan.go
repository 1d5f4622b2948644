package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
)

func newPlan() *cobra.Command {
	var output, out string
	var verbose bool
	c := inventoryArg(&cobra.Command{
		Use:   "plan INVENTORY",
		Short: "Say what apply would do; nothing is changed",
		Long: `plan asks all hosts what apply would do, by the same list of steps: files with
their differences, packages, binaries and images, changes of membership with
the quorum before and after each, restarts in their order, and what cannot be
known before an earlier step has run. Secrets are never shown.

Hosts, etcd and the API refuse every change while a plan is made.

It ends with 0 when there is nothing to do, with 2 when there is, and with what
apply would end with when that would be refused.`,
		Example: `  ha-install plan inventory.yaml
  ha-install plan --out plan.json inventory.yaml
  ha-install apply --plan plan.json inventory.yaml`,
	})
	outputFlag(c, &output, "text", "json")
	c.Flags().StringVar(&out, "out", "", "also keep the plan in this file, for apply --plan")
	_ = c.MarkFlagFilename("out", "json") // the flag was just made
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the content of new files, and the steps that are done, too")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := loadToApply(c, args[0])
		if err != nil {
			return err
		}
		return planOnly(c, cluster, base, runFlags{output: output, verbose: verbose}, func(site *provision.Site, tell func(string)) (provision.Plan, error) {
			plan, err := provision.MakePlan(c.Context(), site, tell)
			if err != nil || out == "" {
				return plan, err
			}
			data, err := json.MarshalIndent(plan, "", "  ")
			if err != nil {
				return plan, err
			}
			return plan, writeFile(out, append(data, '\n'))
		})
	}
	return c
}

// planOnly connects, has a verb's plan made, told as it is found, and shows it.
// What an earlier run has left under way is waited for before.
func planOnly(c *cobra.Command, cluster *inventory.Cluster, base string, run runFlags, make func(*provision.Site, func(string)) (provision.Plan, error)) error {
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	if err := awaitSteps(c, site); err != nil {
		return err
	}
	tell := func(text string) { fmt.Fprintln(c.OutOrStdout(), indentBlock(text)) }
	if run.output == "json" {
		tell = nil
	}
	plan, err := make(site, tell)
	if err != nil {
		return err
	}
	return showPlan(c, plan, run.output, run.verbose)
}

// showPlan shows a plan; its end says whether there is something to do.
func showPlan(c *cobra.Command, plan provision.Plan, output string, verbose bool) error {
	if output == "json" {
		if err := json.NewEncoder(c.OutOrStdout()).Encode(plan); err != nil {
			return err
		}
	} else {
		renderPlan(c.OutOrStdout(), plan, verbose)
	}
	if !plan.Nothing() {
		return &saidError{errChanges}
	}
	return nil
}
