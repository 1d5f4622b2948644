package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/kube"
)

// A certificate cannot be taken back: what it is worth to a thief ends with it.
const (
	defaultUserTTL = 12 * time.Hour
	mostUserTTL    = 7 * 24 * time.Hour
)

func newKubeconfigUser() *cobra.Command {
	var file string
	var groups []string
	var overwrite bool
	ttl := days(defaultUserTTL)
	c := &cobra.Command{
		Use:   "user NAME INVENTORY",
		Short: "Write a kubeconfig for a user, with a certificate that lives for hours",
		Long: `user has the cluster sign a client certificate for a user, in the groups given,
and writes it as a kubeconfig, mode 0600. What the user may do is for the
cluster's role bindings to say: no right is given here. A certificate cannot be
taken back: let it be short.

The request goes through the certificates API with the administrator's
credentials of a master, so that the CA's key stays on the masters and the audit
log has who asked; it is deleted when it is signed. The user's key is made on this
machine and is in the file alone. Before that is written, the endpoint has to know
the user by it. A file that is there already is only written over when that is
agreed to.

Names that begin with "system:" or "kubeadm:" are the cluster's own and refused:
the administrator's kubeconfig is what "ha-install kubeconfig" writes.`,
		Example: `  ha-install kubeconfig user jane --group developers --ttl 8h inventory.yaml
  ha-install kubeconfig user ci --file - inventory.yaml`,
		Args: usage(cobra.ExactArgs(2)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	c.Flags().StringArrayVar(&groups, "group", nil, "a group of the user; may be given several times")
	c.Flags().Var(&ttl, "ttl", "how long the certificate is good for, 10m to 7d")
	c.Flags().StringVarP(&file, "file", "f", "", `file to write; "-" for standard output (default CLUSTER-NAME.kubeconfig)`)
	c.Flags().BoolVar(&overwrite, "overwrite", false, "write over a file that is there already, without asking")
	c.RunE = func(c *cobra.Command, args []string) error {
		user := args[0]
		if err := checkUser(user, groups, time.Duration(ttl)); err != nil {
			return &usageError{err}
		}
		cluster, base, err := load(c, args[1])
		if err != nil {
			return err
		}
		if file == "" {
			file = cluster.Metadata.Name + "-" + strings.ReplaceAll(user, "/", "_") + ".kubeconfig"
		}
		if file != "-" && !overwrite {
			if overwrite, err = mayOverwrite(c, file); err != nil {
				return err
			}
		}
		site := provision.ConnectSoon(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		issued, err := provision.UserKubeconfig(c.Context(), site, user, groups, time.Duration(ttl))
		if err != nil {
			return err
		}
		data, err := clientcmd.Write(*issued.Config)
		if err != nil {
			return err
		}
		if file == "-" {
			_, err = c.OutOrStdout().Write(data)
			return err
		}
		write := writeNewFile
		if overwrite {
			write = writeFile
		}
		if err := write(file, data); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: user %s until %s\n", file, user, issued.NotAfter.Local().Format(time.DateTime))
		return nil
	}
	return c
}

// mayOverwrite asks on a terminal whether a file that is there may be written over;
// without one it may not. false, without an error: there is none.
func mayOverwrite(c *cobra.Command, file string) (bool, error) {
	_, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !onTerminal(c):
		return false, &usageError{fmt.Errorf("%s is there already; name another one with --file, or agree to its loss with --overwrite", file)}
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s is there already. Type yes to write over it: ", file)
	answer, err := readLine(c.Context(), c.InOrStdin())
	if err == nil && answer != "yes" {
		err = errDeclined
	}
	return err == nil, err
}

// checkUser refuses the names that belong to the cluster's own components.
func checkUser(user string, groups []string, ttl time.Duration) error {
	for _, name := range append([]string{user}, groups...) {
		if name == "" {
			return fmt.Errorf("a user and a group need a name")
		}
		if strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "kubeadm:") {
			return fmt.Errorf("%s is a name of the cluster's own; the administrator's kubeconfig is what `ha-install kubeconfig` writes", name)
		}
	}
	if ttl < kube.MinUserTTL || ttl > mostUserTTL {
		return fmt.Errorf("--ttl %s: want %s to %s", spanOf(ttl), kube.MinUserTTL, spanOf(mostUserTTL))
	}
	return nil
}
