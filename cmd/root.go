// Package cmd is the command line: one file for each verb, and rendering. It
// is the only place that knows cobra and the terminal.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// Version is set by the build.
var Version = "development"

// Execute runs one command line and returns the exit code.
func Execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	klog.SetOutput(io.Discard) // client-go's own log is no part of ours
	klog.LogToStderr(false)
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var said *saidError
	if interrupted(ctx, err) {
		fmt.Fprintf(errOut, "ha-install: interrupted: %s\n  a command that is under way on a host goes on to its end there\n  run the same command again: it looks at what is there and goes on\n", indent(err.Error()))
		return exitInterrupted
	}
	var bad *inventory.Errors
	var stopped *phase.StoppedError
	switch {
	case errors.As(err, &stopped):
		fmt.Fprintf(errOut, "ha-install: %s\n  run:     %s\n", indent(err.Error()), again(args))
	case errors.As(err, &said):
	case errors.As(err, &bad): // file:line:column first, as compilers do
		fmt.Fprintln(errOut, err)
	default:
		fmt.Fprintf(errOut, "ha-install: %s\n", indent(err.Error()))
		if next := whatNext(err); next != "" {
			fmt.Fprintf(errOut, "  next: %s\n", next)
		}
	}
	return exitCode(err)
}

// again is the command line that goes on from where this one was stopped. A
// plan that was carried out in part does not hold any more.
func again(args []string) string {
	kept := []string{"ha-install"}
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--plan":
			i++
		case !strings.HasPrefix(args[i], "--plan="):
			kept = append(kept, args[i])
		}
	}
	return host.Quote(kept)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ha-install",
		Short: "Install a highly available Kubernetes control plane on your own machines",
		Long: `ha-install turns bare Linux hosts into a Kubernetes control plane with stacked
etcd behind a load balancer that survives its own death, over SSH, and proves
quorum before and after every step.

` + exitCodeHelp,
		Version:       Version,
		SilenceUsage:  true,
		SilenceErrors: true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	// cobra asks for contradictions right after this, and says them as any error.
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := c.ValidateFlagGroups(); err != nil {
			return &usageError{fmt.Errorf("%s: %w; see %q", c.CommandPath(), err, c.CommandPath()+" --help")}
		}
		return nil
	}
	root.AddCommand(newInit(), newValidate(), newSchema(), newPreflight(), newPlan(), newApply(), newUpgrade(), newRemove(), newReplace(), newStatus(), newVersions(), newCerts(), newEtcd(), newHistory(), newKubeconfig(), newDrill(), newBackup(), newRestore(), newRecover(), newReset(), newBundle())
	group(root)
	return root
}

// group makes a command that only has others under it: alone it shows its
// help, and a verb that it does not know is a wrong command line.
func group(c *cobra.Command) {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := fmt.Sprintf("see %q", c.CommandPath()+" --help")
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return &usageError{fmt.Errorf("unknown command %q for %q; %s", args[0], c.CommandPath(), hint)}
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// usage makes what is wrong with the number of arguments a wrong command line.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{fmt.Errorf("%s: %w; see %q", c.CommandPath(), err, c.CommandPath()+" --help")}
		}
		return nil
	}
}

// indent lets the later lines of an error stand out from the next message.
func indent(s string) string { return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") }

// inventoryArg is the one argument of most verbs.
func inventoryArg(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{fmt.Errorf("%s takes one inventory file, got %d arguments; see %q", c.CommandPath(), len(args), c.CommandPath()+" --help")}
		}
		return nil
	}
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return c
}

// load reads and validates an inventory and everything that would be made of
// it; no host is touched. Warnings go to standard error.
func load(c *cobra.Command, file string) (*inventory.Cluster, string, error) {
	site, err := loadSite(c, file, nil)
	if err != nil {
		return nil, "", err
	}
	return site.Cluster, site.BaseDir, nil
}

// loadToApply is load for what makes use of the files that the inventory
// names: what is wrong with them is found before any host is touched.
func loadToApply(c *cobra.Command, file string) (*inventory.Cluster, string, error) {
	return loadChanged(c, file, nil)
}

// loadChanged is loadToApply of an inventory that is changed before it is checked.
func loadChanged(c *cobra.Command, file string, change func(*inventory.Cluster) error) (*inventory.Cluster, string, error) {
	site, err := loadSite(c, file, change)
	if err != nil {
		return nil, "", err
	}
	absent, wrong := site.Files()
	if err := inventory.Join(append(absent, wrong...)...); err != nil {
		return nil, "", &invalidError{err}
	}
	return site.Cluster, site.BaseDir, nil
}

func loadSite(c *cobra.Command, file string, change func(*inventory.Cluster) error) (*provision.Site, error) {
	data, err := readInventory(c, file)
	if err != nil {
		return nil, err
	}
	cluster, warnings, err := inventory.Parse(file, data)
	for _, w := range warnings {
		fmt.Fprintln(c.ErrOrStderr(), w)
	}
	if err != nil {
		return nil, err
	}
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	if change != nil {
		if err := change(cluster); err != nil {
			return nil, err
		}
	}
	site := &provision.Site{Cluster: cluster, BaseDir: base}
	if err := site.Render(); err != nil {
		return nil, &invalidError{err}
	}
	return site, nil
}

// outputFlag adds -o with the given formats, the first being the default.
func outputFlag(c *cobra.Command, into *string, formats ...string) {
	choiceFlag(c, into, "output", "o", "output format", formats...)
}

// choiceFlag adds a flag with the given values, the first being the default.
func choiceFlag(c *cobra.Command, into *string, name, short, usage string, values ...string) {
	c.Flags().StringVarP(into, name, short, values[0], usage+": "+strings.Join(values, " or "))
	_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag was just made
	spelt := "--" + name
	if short != "" {
		spelt = "-" + short
	}
	previous := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(values, *into) {
			return &usageError{fmt.Errorf("%s %s: want %s", spelt, *into, strings.Join(values, " or "))}
		}
		if previous != nil {
			return previous(c, args)
		}
		return nil
	}
}
