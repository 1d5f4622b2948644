package cmd

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
)

// looking makes a verb that asks the hosts of an inventory for something, shows it
// as text or JSON, and ends as it deserves. Nothing is changed, and hosts that do
// not answer soon are done without.
func looking[T any](c *cobra.Command, take func(context.Context, *provision.Site) T, render func(io.Writer, T) error, verdict func(T) error) *cobra.Command {
	var output string
	inventoryArg(c)
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		site, err := connectToLook(c, args[0])
		if err != nil {
			return err
		}
		defer site.Close()
		seen := take(c.Context(), site)
		if output == "json" {
			err = writeJSON(c.OutOrStdout(), seen)
		} else {
			err = render(c.OutOrStdout(), seen)
		}
		if err != nil {
			return err
		}
		return verdict(seen)
	}
	return c
}

// connectToLook connects to all hosts that answer soon, for reading only.
func connectToLook(c *cobra.Command, file string) (*provision.Site, error) {
	cluster, base, err := load(c, file)
	if err != nil {
		return nil, err
	}
	return provision.ConnectSoon(c.Context(), cluster, base, provision.SSH), nil
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
