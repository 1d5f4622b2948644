package cmd

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/host"
)

func newHistory() *cobra.Command {
	var output string
	c := inventoryArg(&cobra.Command{
		Use:   "history INVENTORY",
		Short: "List past operations: when, who, what, and how each ended",
		Long: `history lists what was done to the cluster, the newest first, as the journals on
the masters tell it; those that do not answer are left out. Each master keeps
the last 50 operations in ` + host.JournalDir + `.

An operation that "broke off" has no end: its program, its machine or its
connections died. The next apply goes on from what is there.`,
		Example: `  ha-install history inventory.yaml
  ha-install history show inventory.yaml          # the newest one
  ha-install history show inventory.yaml 20261122t171500z-3f9a2c`,
	})
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		site, err := connectToLook(c, args[0])
		if err != nil {
			return err
		}
		defer site.Close()
		all, err := provision.History(c.Context(), site)
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(c.OutOrStdout(), map[string]any{"operations": append([]provision.Past{}, all...)})
		}
		return renderHistory(c.OutOrStdout(), all)
	}
	c.AddCommand(newHistoryShow())
	return c
}

func newHistoryShow() *cobra.Command {
	var output string
	var verbose bool
	c := inventoryArg(&cobra.Command{
		Use:   "show INVENTORY [ID]",
		Short: "Show one operation step by step; without an ID the newest",
	})
	complete := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, to)
	}
	c.Args = usage(cobra.RangeArgs(1, 2))
	outputFlag(c, &output, "text", "json")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the output of long commands too (kubeadm)")
	c.RunE = func(c *cobra.Command, args []string) error {
		site, err := connectToLook(c, args[0])
		if err != nil {
			return err
		}
		defer site.Close()
		id, err := whichOperation(c.Context(), site, args[1:])
		if err != nil {
			return err
		}
		p, err := provision.HistoryOf(c.Context(), site, id)
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(c.OutOrStdout(), p)
		}
		renderOperation(c.OutOrStdout(), p, verbose)
		return nil
	}
	return c
}

// whichOperation is the one that is named, or the newest.
func whichOperation(ctx context.Context, site *provision.Site, named []string) (string, error) {
	if len(named) > 0 {
		return named[0], nil
	}
	all, err := provision.History(ctx, site)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", provision.ErrNoOperation
	}
	return all[0].ID, nil
}

func renderHistory(out io.Writer, all []provision.Past) error {
	if len(all) == 0 {
		fmt.Fprintln(out, "no operation is on record")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tBEGAN\tTOOK\tBY\tCHANGED\tRESULT\tCOMMAND")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", p.ID, p.Began.Local().Format(time.DateTime), short(p.Took), dash(p.Operator), p.Changed, outcome(p), dash(p.Command))
	}
	return w.Flush()
}

// outcome is how an operation ended, and where if it did not come to its end.
func outcome(p provision.Past) string {
	text := string(p.Result)
	if at := p.Where(); at != "" && p.Result != provision.ResultDone {
		text += " at " + at
	}
	return text
}

// renderOperation shows an operation as its run was shown.
func renderOperation(out io.Writer, p provision.Past, verbose bool) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"operation", p.ID}, {"command", dash(p.Command)}, {"by", dash(p.Operator)}, {"cluster", dash(p.Cluster)},
		{"program", dash(p.Version)}, {"inventory", dash(p.Inventory)}, {"began", p.Began.Local().Format(time.DateTime)},
		{"took", short(p.Took)}, {"result", outcome(p)}, {"changed", fmt.Sprintf("%d steps, %d found all as it should be", p.Changed, p.Unchanged)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	w.Flush()
	fmt.Fprintln(out)
	shown := &plain{out: out, lines: verbose}
	shown.begin(runHead{})
	for _, e := range p.Entries {
		shown.event(e.Event)
	}
	if p.Error != "" {
		fmt.Fprintf(out, "\nended with exit code %d: %s\n", p.ExitCode, indent(p.Error))
	}
}
