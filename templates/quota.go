package templates

import (
	"fmt"
	"strconv"

	"github.com/ha-install/ha-install/inventory"
)

// EtcdQuota is the quota-backend-bytes that etcd is started with.
func EtcdQuota(c *inventory.Cluster) (int64, error) {
	doc, err := clusterConfiguration(c)
	if err != nil {
		return 0, err
	}
	etcd, _ := doc["etcd"].(map[string]any)
	local, _ := etcd["local"].(map[string]any)
	args, _ := local["extraArgs"].([]any)
	for _, arg := range args {
		a, _ := arg.(map[string]any)
		if a["name"] != "quota-backend-bytes" {
			continue
		}
		n, err := strconv.ParseInt(fmt.Sprint(a["value"]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("spec.kubeadm.clusterConfiguration: quota-backend-bytes of etcd: %w", err)
		}
		return n, nil
	}
	return 0, nil
}
