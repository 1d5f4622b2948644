package cmd

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/provision"
)

func newKubeconfig() *cobra.Command {
	var file string
	c := inventoryArg(&cobra.Command{
		Use:   "kubeconfig INVENTORY",
		Short: "Write the administrator's kubeconfig, or merge it into an existing one",
		Long: `kubeconfig fetches the administrator's credentials from a master and merges them
into a kubeconfig file under the cluster's name, mode 0600. Other entries of the
file are kept. "--file -" prints it instead.`,
	})
	c.AddCommand(newKubeconfigUser())
	c.Flags().StringVarP(&file, "file", "f", "", `file to merge into; "-" for standard output (default: what kubectl would use)`)
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		site := provision.Connect(c.Context(), cluster, base, provision.SSH)
		defer site.Close()
		site.ReadOnly()
		config, err := provision.Kubeconfig(c.Context(), site)
		if err != nil {
			return err
		}
		if file == "-" {
			data, err := clientcmd.Write(*config)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(data)
			return err
		}
		if file == "" {
			file = clientcmd.NewDefaultPathOptions().GetDefaultFilename()
		}
		if err := mergeKubeconfig(file, config); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "context %s is now the current one in %s\n", config.CurrentContext, file)
		return nil
	}
	return c
}

// mergeKubeconfig adds config's entries to the file and makes its context the
// current one. The file is replaced as a whole, so that no reader sees half.
func mergeKubeconfig(file string, config *clientcmdapi.Config) error {
	merged := clientcmdapi.NewConfig()
	if _, err := os.Stat(file); err == nil {
		if merged, err = clientcmd.LoadFromFile(file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for name, v := range config.Clusters {
		merged.Clusters[name] = v
	}
	for name, v := range config.AuthInfos {
		merged.AuthInfos[name] = v
	}
	for name, v := range config.Contexts {
		merged.Contexts[name] = v
	}
	merged.CurrentContext = config.CurrentContext
	data, err := clientcmd.Write(*merged)
	if err != nil {
		return err
	}
	return writeFile(file, data)
}

// writeFile replaces a local file atomically, mode 0600.
func writeFile(file string, data []byte) error { return writeAnd(file, data, os.Rename) }

// writeNewFile makes a local file, whole or not at all, mode 0600. One that is
// there is an error.
func writeNewFile(file string, data []byte) error { return writeAnd(file, data, os.Link) }

// writeAnd writes a file beside the one that is meant and has put give it its name.
func writeAnd(file string, data []byte, put func(from, to string) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".ha-install-*") // made 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(data); err == nil {
		err = tmp.Sync()
	}
	if closing := tmp.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return put(tmp.Name(), file)
}
