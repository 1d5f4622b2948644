package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

func newReset() *cobra.Command {
	var flags runFlags
	var confirm string
	c := inventoryArg(&cobra.Command{
		Use:   "reset INVENTORY",
		Short: "Take the cluster off its hosts, after its name is typed",
		Long: `reset stops the cluster and takes it off all hosts of the inventory. etcd's data
and /etc/kubernetes are moved aside on each host, never deleted. Afterwards
apply works again.

` + interruptHelp,
	})
	flags.add(c)
	c.Flags().StringVar(&confirm, "confirm", "", "the cluster's name, instead of typing it")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		if err := confirmName(c, cluster.Metadata.Name, confirm, "takes the cluster off all its hosts"); err != nil {
			return err
		}
		report, err := flags.begin(c, cluster, "nothing was taken down: no host of the inventory bears the marker of cluster "+cluster.Metadata.Name)
		if err != nil {
			return err
		}
		site := provision.Connect(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		site.Operation = operation(c, cluster, args)
		run := &phase.Runner{Events: report.event, Stop: stopIn(c.Context())}
		return report.end(c, provision.Reset(c.Context(), site, run), run.Tally)
	}
	return c
}

// confirmName has the cluster's name given, by flag or by hand.
func confirmName(c *cobra.Command, name, given, what string) error {
	if given == "" {
		fmt.Fprintf(c.ErrOrStderr(), "This %s. Type the cluster's name (%s) to go on: ", what, name)
		line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
		if err != nil {
			fmt.Fprintln(c.ErrOrStderr())
			return &usageError{errors.New("no name was typed; without a terminal use --confirm NAME")}
		}
		given = strings.TrimSpace(line)
	}
	if given != name {
		return &usageError{fmt.Errorf("%q is not the name of the cluster, %q; nothing was changed", given, name)}
	}
	return nil
}
