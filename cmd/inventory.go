package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
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
		Long: `validate says everything that is wrong with an inventory, each with its line:
its own fields, what kubeadm would say of the documents made of it, and the
files that it names (bundle, CA files, manifests, login keys). A file that is
not on this machine is a warning here, and an error for apply.`,
	})
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		data, err := readInventory(c, args[0])
		if err != nil {
			return err
		}
		cluster, v, err := check(args[0], data)
		if output == "json" {
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
		for _, issue := range v.Issues {
			if issue.Warning {
				fmt.Fprintln(c.ErrOrStderr(), issue)
			}
		}
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

// check finds everything that is wrong with an inventory; the error is all of
// it that is no warning.
func check(file string, data []byte) (*inventory.Cluster, validation, error) {
	v := validation{Issues: []inventory.Issue{}}
	cluster, warnings, err := inventory.Parse(file, data)
	v.Issues = append(v.Issues, warnings...)
	if err != nil {
		return nil, v, v.add(err)
	}
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, v, v.add(err)
	}
	site := provision.Site{Cluster: cluster, BaseDir: base}
	absent, wrong := site.Files()
	for _, issue := range absent {
		issue.Warning = true
		v.Issues = append(v.Issues, issue)
	}
	err = v.add(site.Render(), inventory.Join(wrong...))
	return cluster, v, err
}

// add takes errors up and returns them as one, what has a place in the file first.
func (v *validation) add(errs ...error) error {
	var issues []inventory.Issue
	var others []error
	for _, err := range provision.Flat(errs...) {
		if bad := (*inventory.Errors)(nil); errors.As(err, &bad) {
			issues = append(issues, bad.Issues...)
		} else {
			others = append(others, err)
		}
	}
	v.Issues = inventory.Sorted(append(v.Issues, issues...))
	if err := errors.Join(others...); err != nil {
		v.Error = err.Error()
	}
	v.Valid = len(issues)+len(others) == 0
	if v.Valid {
		return nil
	}
	return &invalidError{errors.Join(append([]error{inventory.Join(issues...)}, others...)...)}
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
