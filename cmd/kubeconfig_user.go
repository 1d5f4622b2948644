package cmd

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/kube"
)

const defaultUserTTL = 24 * time.Hour

func newKubeconfigUser() *cobra.Command {
	var file string
	var groups []string
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
machine and is in the file alone.`,
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
	c.Flags().Var(&ttl, "ttl", "how long the certificate is good for: 8h, 7d")
	c.Flags().StringVarP(&file, "file", "f", "", `file to write; "-" for standard output (default CLUSTER-NAME.kubeconfig)`)
	c.RunE = func(c *cobra.Command, args []string) error {
		user := args[0]
		if err := checkUser(user, groups, time.Duration(ttl)); err != nil {
			return &usageError{err}
		}
		site, err := connectToLook(c, args[1])
		if err != nil {
			return err
		}
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
		file := cmp.Or(file, site.Cluster.Metadata.Name+"-"+strings.ReplaceAll(user, "/", "_")+".kubeconfig")
		if err := writeFile(file, data); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: user %s until %s\n", file, user, issued.NotAfter.Local().Format(time.DateTime))
		return nil
	}
	return c
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
	if ttl < kube.MinUserTTL || ttl > 365*24*time.Hour {
		return fmt.Errorf("--ttl %s: want %s to 365d", spanOf(ttl), kube.MinUserTTL)
	}
	return nil
}
