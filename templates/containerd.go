package templates

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"github.com/ha-install/ha-install/inventory"
)

// containerdConfig returns config.toml in its version 3 layout (containerd 2),
// with the user's own keys laid over it.
func containerdConfig(c *inventory.Cluster) ([]byte, error) {
	pause, err := PauseImage(c)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	// kubelet and containerd must agree on who owns the cgroups.
	systemd := c.Spec.Kubeadm.KubeletConfiguration["cgroupDriver"] != "cgroupfs"
	base := object{
		"version": 3,
		"plugins": object{
			"io.containerd.cri.v1.images": object{
				"pinned_images": object{"sandbox": pause},
				"registry":      object{"config_path": RegistryConfigDir},
			},
			"io.containerd.cri.v1.runtime": object{
				"containerd": object{
					"default_runtime_name": "runc",
					"runtimes": object{
						"runc": object{
							"runtime_type": "io.containerd.runc.v2",
							"options":      object{"SystemdCgroup": systemd},
						},
					},
				},
			},
		},
	}
	if v, ok := c.Spec.Containerd["version"]; ok && fmt.Sprint(v) != "3" {
		return nil, fmt.Errorf("spec.containerd: version is %v, want 3", v)
	}
	config := merge(base, c.Spec.Containerd)
	config["version"] = 3
	data, err := toml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("spec.containerd: %w", err)
	}
	return data, nil
}
