package cmd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision/bundle"
)

func newBundle() *cobra.Command {
	c := &cobra.Command{Use: "bundle", Short: "Look into the file that brings the software"}
	c.AddCommand(newBundleInspect(), newBundleVerify())
	group(c)
	return c
}

func newBundleInspect() *cobra.Command {
	var output string
	c := &cobra.Command{Use: "inspect BUNDLE", Short: "List what a bundle holds", Args: usage(cobra.ExactArgs(1))}
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		b, err := openBundle(args[0])
		if err != nil {
			return err
		}
		defer b.Close()
		m := b.Manifest()
		if output == "json" {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(m)
		}
		fmt.Fprintf(c.OutOrStdout(), "Kubernetes %s for linux/%s%s, %d items\n\n", m.KubernetesVersion, m.Arch, distribution(m), len(m.Items))
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "KIND\tNAME\tVERSION\tSIZE\tSHA-256\tROLES")
		for _, i := range m.Items {
			roles := make([]string, 0, len(i.Roles))
			for _, r := range i.Roles {
				roles = append(roles, string(r))
			}
			slices.Sort(roles)
			fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MB\t%.12s\t%s\n", i.Kind, i.Path, i.Version, float64(i.Size)/1e6, i.SHA256, strings.Join(roles, ","))
		}
		return w.Flush()
	}
	return c
}

func newBundleVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify BUNDLE", Short: "Check every item of a bundle against its SHA-256 sum", Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := openBundle(args[0])
			if err != nil {
				return err
			}
			defer b.Close()
			n := 0
			if err := b.Verify(c.Context(), func(_ bundle.Item, err error) {
				if err == nil {
					n++
				}
			}); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: all %d items have the sums that its manifest says\n", args[0], n)
			return nil
		},
	}
}

func openBundle(file string) (*bundle.Bundle, error) {
	b, err := bundle.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w; want the file that spec.software.bundle names", err)
	}
	return b, nil
}

// distribution is what a bundle's packages are made for, after a comma.
func distribution(m bundle.Manifest) string {
	if m.Distribution == "" {
		return ""
	}
	return ", " + m.Distribution
}
