package inventory

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// entry is one key of a mapping with its value.
type entry struct {
	name       string
	key, value *yaml.Node
}

// entries lists a mapping's keys in order, those that merge keys ("<<") bring
// in last, and reports keys that are there twice or are no text.
func (d *decoder) entries(n *yaml.Node, path string) []entry {
	d.nodes += len(n.Content) / 2 // merged into many places, keys alone add up
	first := map[string]*yaml.Node{}
	var own, merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		target := resolve(key)
		if target.Kind != yaml.ScalarNode || target.ShortTag() != "!!str" && target.ShortTag() != "!!merge" {
			d.add(key.Line, key.Column, path, "want text as a key, found "+found(target), "quote it")
			continue
		}
		if at, twice := first[target.Value]; twice {
			d.add(key.Line, key.Column, child(path, target.Value), "duplicate key",
				fmt.Sprintf("remove one: the first is on line %d", at.Line))
			continue
		}
		first[target.Value] = key
		if target.ShortTag() == "!!merge" {
			merged = d.merge(value, path)
			continue
		}
		own = append(own, entry{name: target.Value, key: key, value: value})
	}
	for _, e := range merged {
		if first[e.name] == nil {
			first[e.name] = e.key
			own = append(own, e)
		}
	}
	return own
}

// merge lists what a merge key brings in; of a list of mappings, the earlier wins.
func (d *decoder) merge(n *yaml.Node, path string) []entry {
	if !d.enter(n, path) {
		return nil
	}
	defer d.leave()
	target := resolve(n)
	switch target.Kind {
	case yaml.MappingNode:
		return d.entries(target, path)
	case yaml.SequenceNode:
		var all []entry
		for _, item := range target.Content {
			all = append(all, d.merge(item, path)...)
		}
		return all
	}
	d.at(n.Line, n.Column, child(path, "<<"), "want a section to merge in, found "+found(target), "write <<: *name")
	return nil
}

// fieldsOf maps the names in a document to a struct's field numbers.
func fieldsOf(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = i
		}
	}
	return fields
}

// fieldNames lists the names of a struct in the order of the Go source.
func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// some names a few fields, for a message.
func some(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// nearest returns the name that a misspelt one was probably meant to be, or "".
func nearest(name string, names []string) string {
	best, limit := "", max(len(name)/3, 1)
	for _, candidate := range names {
		if distance := edits(fold(name), fold(candidate)); distance <= limit {
			best, limit = candidate, distance-1
		}
	}
	return best
}

// fold makes pod_cidr, pod-cidr and podCIDR one.
func fold(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// edits counts the insertions, deletions, changes and swaps of neighbours
// between two names of sensible length.
func edits(a, b string) int {
	const tooLong = 64
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
