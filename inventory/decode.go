package inventory

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds on what aliases can blow a small file up to. An alias that contains
// itself runs into the first.
const (
	maxDepth = 64
	maxNodes = 200_000
)

// decoder fills Go values from YAML nodes, strictly, and goes on after a fault.
type decoder struct {
	*source
	nodes int
	depth int
	full  bool // a bound was met, and said
}

// decode fills c; false means that there is nothing in it worth a look.
func decode(s *source, root *yaml.Node, c *Cluster) bool {
	d := &decoder{source: s}
	d.marks[""] = mark{line: root.Line, column: root.Column}
	d.value(root, reflect.ValueOf(c).Elem(), "")
	return root.Kind == yaml.MappingNode && !d.full
}

// enter counts a node in; false means that a bound is met and the node must be left alone.
func (d *decoder) enter(n *yaml.Node, path string) bool {
	d.nodes++
	d.depth++
	if d.full {
		return false
	}
	if d.depth > maxDepth || d.nodes > maxNodes {
		d.full = true
		d.at(n.Line, n.Column, "", "too deep or too large once aliases are written out",
			"does an alias (*name) contain itself?")
	}
	return !d.full
}

func (d *decoder) leave() { d.depth-- }

// value decodes n into v. A null leaves v unset.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if !d.enter(n, path) {
		return
	}
	defer d.leave()
	n = resolve(n)
	if n.ShortTag() == "!!null" {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(n, p.Elem(), path)
		if !d.spoilt(path) {
			v.Set(p)
		}
	case reflect.Struct:
		d.object(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.String:
		d.text(n, v, path)
	case reflect.Int:
		d.number(n, v, path)
	case reflect.Bool:
		d.boolean(n, v, path)
	default:
		panic("inventory: no decoding into " + v.Type().String())
	}
}

// resolve follows an alias to what it names.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (d *decoder) object(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a section with "+some(fieldNames(v.Type())), "")
		return
	}
	fields := fieldsOf(v.Type())
	names := fieldNames(v.Type())
	entries := d.entries(n, path)
	for _, e := range entries {
		at := child(path, e.name)
		index, known := fields[e.name]
		if !known {
			d.unknown(e, path, names, entries)
			continue
		}
		d.note(e, at)
		d.value(e.value, v.Field(index), at)
	}
}

// unknown reports a key that the section does not have. The field that was
// probably meant is then not reported missing as well.
func (d *decoder) unknown(e entry, path string, names []string, all []entry) {
	hint := "known here: " + strings.Join(names, ", ")
	if near := nearest(e.name, names); near != "" {
		hint = "did you mean " + near + "?"
		if !slices.ContainsFunc(all, func(e entry) bool { return e.name == near }) {
			d.broken[child(path, near)] = true
		}
	}
	d.at(e.key.Line, e.key.Column, child(path, e.name), "unknown field", hint)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.ScalarNode {
			hint = "for one item: [" + shown(n) + "]"
		}
		d.wrong(n, path, "a list", hint)
		return
	}
	// Not nil even when empty: "taints: []" says "none", no taints says "the default".
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.Content)))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.marks[at] = mark{line: item.Line, column: item.Column}
		element := reflect.New(v.Type().Elem()).Elem()
		if resolve(item).ShortTag() == "!!null" {
			d.at(item.Line, item.Column, at, "an empty item", "fill it in or remove the \"-\"")
		}
		d.value(item, element, at)
		v.Set(reflect.Append(v, element))
	}
}

// mapping decodes map[string]string and map[string]any.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a section of keys and values", "")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(n, path) {
		at := child(path, e.name)
		d.note(e, at)
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Kind() == reflect.Interface {
			if raw := d.raw(e.value, at); raw != nil {
				element.Set(reflect.ValueOf(raw))
			}
		} else {
			d.value(e.value, element, at)
		}
		v.SetMapIndex(reflect.ValueOf(e.name), element)
	}
}

// note remembers where a field was written: a scalar where it stands, a
// section or list where its key stands.
func (d *decoder) note(e entry, path string) {
	m := mark{line: e.key.Line, column: e.key.Column}
	target := resolve(e.value)
	switch {
	case target.ShortTag() == "!!null":
		m.null = true
	case target.Kind == yaml.ScalarNode, e.value.Kind == yaml.AliasNode:
		m.line, m.column = e.value.Line, e.value.Column
	}
	d.marks[path] = m
}
