// Command lab runs the project's test hosts: lab up, down, status, recreate,
// ssh, exec, deps.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "lab", Short: "The project's test hosts", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(
		&cobra.Command{Use: "deps", Short: "Install the Debian packages that the lab needs", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return lab.Deps(cmd.Context(), cmd.ErrOrStderr())
			}},
		verb("up [HOST...]", "Bring the hosts up (default: all but the spares)", cobra.ArbitraryArgs, up),
		verb("down [HOST...]", "Remove the hosts named, or all of the lab: hosts, bridge, keys, inventory", cobra.ArbitraryArgs, down),
		verb("status", "Show the hosts", cobra.NoArgs, status),
		verb("recreate HOST...", "Make hosts bare again", cobra.MinimumNArgs(1),
			func(ctx context.Context, l *lab.Lab, hosts []string) error { return l.Recreate(ctx, hosts...) }),
		verb("ssh HOST [COMMAND...]", "Log in as the operator does", cobra.MinimumNArgs(1), ssh),
		verb("exec HOST COMMAND...", "Run a command as root inside a host, past its sshd", cobra.MinimumNArgs(2), execIn),
	)
	return root
}

func verb(use, short string, args cobra.PositionalArgs, do func(context.Context, *lab.Lab, []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		l, err := lab.Open()
		if err != nil {
			return err
		}
		return do(cmd.Context(), l, args)
	}}
	// Flags after the host belong to the command that runs there.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func up(ctx context.Context, l *lab.Lab, hosts []string) error {
	if err := l.Up(ctx, os.Stderr, hosts...); err != nil {
		return err
	}
	fmt.Printf("inventory    %s\nknown_hosts  %s\nkey          %s\n", l.Inventory(), l.KnownHosts(), l.Key())
	return nil
}

func down(ctx context.Context, l *lab.Lab, hosts []string) error {
	if len(hosts) > 0 {
		return l.Remove(ctx, hosts...)
	}
	return l.Down(ctx)
}

func status(ctx context.Context, l *lab.Lab, _ []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tROLE\tSTATE")
	for _, h := range l.Hosts {
		state, err := l.State(ctx, h.Name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", h.Name, h.Address, h.Role, state)
	}
	return w.Flush()
}

// ssh becomes ssh itself, so that the terminal is the user's.
func ssh(_ context.Context, l *lab.Lab, args []string) error {
	h, err := l.Host(args[0])
	if err != nil {
		return err
	}
	path, err := exec.LookPath("ssh")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	argv := append([]string{"ssh", "-F", "none", "-i", l.Key(), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + l.KnownHosts(), "vagrant@" + h.Address}, args[1:]...)
	return syscall.Exec(path, argv, os.Environ())
}

func execIn(ctx context.Context, l *lab.Lab, args []string) error {
	out, err := l.Exec(ctx, args[0], args[1:]...)
	os.Stdout.Write(out)
	return err
}
