package templates

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	kubeadmconfig "k8s.io/kubernetes/cmd/kubeadm/app/util/config"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
)

// The component configurations that kubeadm keeps in ConfigMaps of kube-system.
const (
	KubeletGroup   = "kubelet.config.k8s.io"   // kubelet-config, key kubelet
	KubeProxyGroup = "kubeproxy.config.k8s.io" // kube-proxy, key config.conf
)

// systemdResolv is what kubeadm gives kubelets where systemd-resolved runs.
const systemdResolv = "/run/systemd/resolve/resolv.conf"

// Edits are the fields of a component configuration as it runs in the cluster
// that kubeadm would take back when it writes what it makes of the inventory:
// "mode: ipvs, will be unset" each, sorted by their paths. Fields that the cluster
// leaves at their zero value are none: there the inventory only has more.
func Edits(c *inventory.Cluster, group string, running []byte) ([]string, error) {
	documents, err := InitDocuments(c, c.ControlPlanes()[0], Init{EtcdExisting: true})
	if err != nil {
		return nil, err
	}
	config, err := kubeadmconfig.BytesToInitConfiguration(documents, true)
	if err != nil {
		return nil, err
	}
	wanted, err := config.ComponentConfigs[group].Marshal()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", group, err)
	}
	is, err := leavesOf(running)
	if err != nil {
		return nil, fmt.Errorf("%s in the cluster: %w", group, err)
	}
	will, err := leavesOf(wanted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", group, err)
	}
	var edits []string
	for _, path := range slices.Sorted(maps.Keys(is)) {
		switch {
		case unset(is[path]) || path == "apiVersion" || alike(is[path], will[path]):
		case path == "resolvConf" && is[path] == systemdResolv: // kubeadm asks the host
		case unset(will[path]):
			edits = append(edits, fmt.Sprintf("%s: %v, will be unset", path, is[path]))
		default:
			edits = append(edits, fmt.Sprintf("%s: %v, will be %v", path, is[path], will[path]))
		}
	}
	return edits, nil
}

// leavesOf are the values of a document by their paths, "conntrack.min"; a list is
// one value.
func leavesOf(document []byte) (map[string]any, error) {
	var m map[string]any
	if err := yaml.Unmarshal(document, &m); err != nil {
		return nil, err
	}
	leaves := map[string]any{}
	var walk func(prefix string, m map[string]any)
	walk = func(prefix string, m map[string]any) {
		for key, v := range m {
			if object, ok := v.(map[string]any); ok {
				walk(prefix+key+".", object)
			} else {
				leaves[prefix+key] = v
			}
		}
	}
	walk("", m)
	return leaves, nil
}

// unset says that a value is what nobody has set.
func unset(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == "" || v == "0" || v == "0s"
	case []any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}

// alike compares two values; "60s" and "1m0s" are the same.
func alike(a, b any) bool {
	x, ok := a.(string)
	y, ok2 := b.(string)
	if ok && ok2 && strings.ContainsAny(x, "smh") {
		m, err := time.ParseDuration(x)
		n, err2 := time.ParseDuration(y)
		if err == nil && err2 == nil {
			return m == n
		}
	}
	return reflect.DeepEqual(a, b)
}
