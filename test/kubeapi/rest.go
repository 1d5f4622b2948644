package kubeapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// kind describes a resource for discovery.
type kind struct {
	kind, version string
	namespaced    bool
}

// kinds are the resources that the installer and its manifests use.
var kinds = map[string]kind{
	"namespaces":           {"Namespace", "v1", false},
	"nodes":                {"Node", "v1", false},
	"pods":                 {"Pod", "v1", true},
	"secrets":              {"Secret", "v1", true},
	"configmaps":           {"ConfigMap", "v1", true},
	"services":             {"Service", "v1", true},
	"serviceaccounts":      {"ServiceAccount", "v1", true},
	"daemonsets":           {"DaemonSet", "apps/v1", true},
	"deployments":          {"Deployment", "apps/v1", true},
	"leases":               {"Lease", "coordination.k8s.io/v1", true},
	"poddisruptionbudgets": {"PodDisruptionBudget", "policy/v1", true},
	"csinodes":             {"CSINode", "storage.k8s.io/v1", false},
	"volumeattachments":    {"VolumeAttachment", "storage.k8s.io/v1", false},
	"clusterroles":         {"ClusterRole", "rbac.authorization.k8s.io/v1", false},
	"clusterrolebindings":  {"ClusterRoleBinding", "rbac.authorization.k8s.io/v1", false},
}

// discover answers the discovery paths, in the form that is not aggregated.
func (s *Server) discover(w http.ResponseWriter, path string) bool {
	switch path {
	case "/api":
		reply(w, http.StatusOK, Object{"kind": "APIVersions", "versions": []string{"v1"}})
		return true
	case "/apis":
		var groups []Object
		seen := map[string]bool{}
		for _, k := range kinds {
			group, version, ok := strings.Cut(k.version, "/")
			if !ok || seen[group] {
				continue
			}
			seen[group] = true
			v := Object{"groupVersion": k.version, "version": version}
			groups = append(groups, Object{"name": group, "versions": []Object{v}, "preferredVersion": v})
		}
		reply(w, http.StatusOK, Object{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
		return true
	}
	group, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		if group, ok = strings.CutPrefix(path, "/api/"); !ok {
			return false
		}
	}
	var resources []Object
	for name, k := range kinds {
		if k.version == group {
			resources = append(resources, Object{"name": name, "kind": k.kind, "namespaced": k.namespaced, "verbs": []string{"get", "patch"}})
		}
	}
	if resources == nil {
		return false
	}
	reply(w, http.StatusOK, Object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources})
	return true
}

// list selects by label and field.
func (s *Server) list(r *http.Request, at key) Object {
	var names []key
	for k := range s.objects {
		if k.resource == at.resource && (at.namespace == "" || k.namespace == at.namespace) {
			names = append(names, k)
		}
	}
	slices.SortFunc(names, func(a, b key) int { return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name) })
	items := []Object{}
	for _, k := range names {
		o := s.objects[k]
		if selects(r.URL.Query().Get("labelSelector"), func(label string) string {
			labels, _ := o["metadata"].(Object)["labels"].(Object)
			value, _ := labels[label].(string)
			return value
		}) && selects(r.URL.Query().Get("fieldSelector"), func(path string) string { return field(o, path) }) {
			items = append(items, o)
		}
	}
	k := kinds[at.resource]
	return Object{"kind": k.kind + "List", "apiVersion": k.version, "metadata": Object{"resourceVersion": "1"}, "items": items}
}

func selects(selector string, value func(string) string) bool {
	for _, term := range strings.FieldsFunc(selector, func(r rune) bool { return r == ',' }) {
		name, want, _ := strings.Cut(term, "=")
		if value(name) != want {
			return false
		}
	}
	return true
}

// field reads a string by its path.
func field(o Object, path string) string {
	var v any = o
	for _, step := range strings.Split(path, ".") {
		m, _ := v.(Object)
		v = m[step]
	}
	text, _ := v.(string)
	return text
}

// plainSecret folds stringData into data, as the API server does.
func plainSecret(o Object) {
	text, _ := o["stringData"].(Object)
	data, _ := o["data"].(Object)
	if data == nil {
		data = Object{}
	}
	for k, v := range text {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v.(string)))
	}
	delete(o, "stringData")
	o["data"] = data
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a client that went away
}

func status(w http.ResponseWriter, code int, reason, message string) {
	reply(w, code, Object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}
