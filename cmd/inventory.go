package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
)

// readInventory reads the file, or standard input for "-".
func readInventory(c *cobra.Command, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(c.InOrStdin())
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &invalidError{fmt.Errorf("%w; `ha-install init %s` writes one to start from", err, file)}
	}
	return data, err
}

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented inventory to start from",
		Long:  "init writes a commented inventory to FILE, or to standard output. It never overwrites a file.",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := c.OutOrStdout().Write(inventory.Example())
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_, err = f.Write(inventory.Example())
			return errors.Join(err, f.Close())
		},
	}
}

func newValidate() *cobra.Command {
	var output string
	c := inventoryArg(&cobra.Command{
		Use:   "validate INVENTORY",
		Short: "Check an inventory and all that would be made of it; no host is touched",
	})
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if output == "json" {
			return validateJSON(c, args[0])
		}
		cluster, _, err := load(c, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is valid: cluster %s, Kubernetes %s, %d masters, %d workers, %d balancers\n", args[0],
			cluster.Metadata.Name, cluster.Spec.Kubernetes.Version, len(cluster.ControlPlanes()), len(cluster.Workers()), len(cluster.Balancers()))
		return nil
	}
	return c
}

// validation is what `validate -o json` prints.
type validation struct {
	Valid  bool              `json:"valid"`
	Issues []inventory.Issue `json:"issues"`          // in the order of the file, warnings among them
	Error  string            `json:"error,omitempty"` // what has no place in the file
}

func validateJSON(c *cobra.Command, file string) error {
	data, err := readInventory(c, file)
	if err != nil {
		return err
	}
	_, warnings, err := inventory.Parse(file, data)
	v := validation{Issues: append([]inventory.Issue{}, warnings...)}
	if err == nil {
		c.SetErr(io.Discard) // the warnings are in the document
		_, _, err = load(c, file)
	}
	var bad *inventory.Errors
	switch {
	case errors.As(err, &bad):
		v.Issues = append(v.Issues, bad.Issues...)
		if text := err.Error(); text != bad.Error() { // beside what has no place
			v.Error = text
		}
	case err != nil:
		v.Error = err.Error()
	default:
		v.Valid = true
	}
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetIndent("", "  ")
	if encoding := enc.Encode(v); encoding != nil {
		return encoding
	}
	if err != nil {
		return &saidError{err}
	}
	return nil
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the inventory, from which editors complete",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			schema, err := inventory.Schema()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(schema)
			return err
		},
	}
}
