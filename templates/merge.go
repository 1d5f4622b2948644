package templates

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// toMap renders v as JSON would and drops what is unset: kubeadm's own types
// print every zero field, and a zero that is written down stops being a default.
func toMap(v any) (map[string]any, error) {
	data, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	m := map[string]any{}
	if err := yaml.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decode %T: %w", v, err)
	}
	prune(m)
	return m, nil
}

// prune removes nulls, empty strings, empty objects and zero durations. Empty
// lists, false and 0 stay: `taints: []` says something.
func prune(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case string:
			if v == "" || v == "0s" {
				delete(m, k)
			}
		case map[string]any:
			prune(v)
			if len(v) == 0 {
				delete(m, k)
			}
		case []any:
			for _, item := range v {
				if object, ok := item.(map[string]any); ok {
					pruneItem(object)
				}
			}
		}
	}
}

// sparse removes false, 0 and "0" as well, for a document none of whose
// fields is set to one of them on purpose: in the component configurations
// these are fields without omitempty that nobody has set.
func sparse(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			sparse(v)
			if len(v) == 0 {
				delete(m, k)
			}
		case bool:
			if !v {
				delete(m, k)
			}
		case float64, int64, string:
			if fmt.Sprint(v) == "0" {
				delete(m, k)
			}
		}
	}
}

// pruneItem prunes an element of a list, whose empty strings can be meant:
// `{name: feature-gates, value: ""}`.
func pruneItem(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			prune(v)
			if len(v) == 0 {
				delete(m, k)
			}
		}
	}
}

// merge lays raw over base, key by key, and returns a new map: objects are
// merged, a null removes the key, lists of named things (extraArgs,
// extraVolumes) are merged by name, lists of strings named in unions are
// joined, anything else is replaced.
func merge(base, raw map[string]any) map[string]any {
	out := make(map[string]any, len(base)+len(raw))
	for k, v := range base {
		out[k] = v
	}
	for k, v := range raw {
		out[k] = mergeValue(k, out[k], v)
		if out[k] == nil {
			delete(out, k)
		}
	}
	return out
}

// unions are lists that a user adds to; nobody means to lose ours.
var unions = []string{"certSANs", "serverCertSANs", "peerCertSANs"}

func mergeValue(key string, base, raw any) any {
	switch raw := raw.(type) {
	case map[string]any:
		object, _ := base.(map[string]any)
		return merge(object, raw)
	case []any:
		list, _ := base.([]any)
		switch {
		case slices.Contains(unions, key) && allStrings(list) && allStrings(raw):
			return union(list, raw)
		case named(list) && named(raw):
			return mergeNamed(list, raw)
		}
	}
	return raw
}

func union(base, raw []any) []any {
	out := slices.Clone(base)
	for _, v := range raw {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// allStrings reports whether every element is a string.
func allStrings(list []any) bool {
	return !slices.ContainsFunc(list, func(v any) bool { _, ok := v.(string); return !ok })
}

// named reports whether every element is an object with a string name.
func named(list []any) bool {
	for _, item := range list {
		object, _ := item.(map[string]any)
		if _, ok := object["name"].(string); !ok {
			return false
		}
	}
	return len(list) > 0
}

// mergeNamed replaces all elements of base whose name occurs in raw. A name
// may occur several times in raw (kubeadm allows repeated flags).
func mergeNamed(base, raw []any) []any {
	name := func(item any) string { return item.(map[string]any)["name"].(string) }
	var out []any
	for _, item := range base {
		given := func(r any) bool { return name(r) == name(item) }
		if !slices.ContainsFunc(raw, given) {
			out = append(out, item)
		}
	}
	return append(out, raw...)
}

// strict decodes m into the typed object and names every unknown field and
// wrong type under at, the path in the inventory.
func strict(at string, m map[string]any, into any) error {
	data, err := yaml.Marshal(m)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if data, err = yaml.YAMLToJSON(data); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	unknown, err := kjson.UnmarshalStrict(data, into)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %s is a %s, want %s", at, wrong.Field, wrong.Value, wrong.Type)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	var all *multierror.Error
	for _, err := range unknown {
		all = multierror.Append(all, fmt.Errorf("%s: %w", at, err))
	}
	return all.ErrorOrNil()
}

// yamlDocuments joins objects to one YAML stream.
func yamlDocuments(objects ...map[string]any) ([]byte, error) {
	docs := make([][]byte, 0, len(objects))
	for _, o := range objects {
		doc, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode %v: %w", o["kind"], err)
		}
		docs = append(docs, doc)
	}
	return bytes.Join(docs, []byte("---\n")), nil
}

// has reports whether the path leads to something in m.
func has(m map[string]any, path []string) bool {
	v, ok := m[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	object, ok := v.(map[string]any)
	return ok && has(object, path[1:])
}
