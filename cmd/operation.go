package cmd

import (
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
)

// operation says who runs what, for other operators and the journal.
func operation(c *cobra.Command, cluster *inventory.Cluster, args []string) provision.Operation {
	return provision.Operation{
		Command:  strings.Join(append([]string{c.CommandPath()}, args...), " "),
		Operator: operator(), Version: Version, InventorySHA256: cluster.SHA256(),
		ExitCode: func(err error) int { return codeOf(c.Context(), err) },
	}
}

// operator is "user@machine", as far as the machine says.
func operator() string {
	name, machine := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		machine = h
	}
	return name + "@" + machine
}
