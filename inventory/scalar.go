package inventory

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decimal is the one way to write a whole number that YAML 1.1 and 1.2 read
// alike: 0644 is octal in one, 1_000 text in the other.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *yaml.Node, path, want, hint string) {
	d.at(n.Line, n.Column, path, "want "+want+", found "+found(n), hint)
}

// found names what a node is.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return "the text " + quote(n.Value)
	case "!!int", "!!float":
		return "the number " + shown(n)
	case "!!bool":
		return "the truth value " + shown(n)
	case "!!null":
		return "nothing"
	}
	return "a value with the tag " + n.Tag
}

// shown is a scalar as it was written, cut to what fits a message.
func shown(n *yaml.Node) string { return short(n.Value) }

func short(s string) string {
	const enough = 60
	if r := []rune(s); len(r) > enough {
		return string(r[:enough]) + "..."
	}
	return s
}

func quote(s string) string { return strconv.Quote(short(s)) }

func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.wrong(n, path, "text", "")
		return
	}
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
	case "!!int", "!!float", "!!bool":
		d.wrong(n, path, "text", "quote it: "+quote(n.Value))
		return
	default:
		d.wrong(n, path, "text", "remove the tag")
		return
	}
	switch {
	case strings.ContainsAny(n.Value, "\n\r\t"):
		d.at(n.Line, n.Column, path, "the text contains a line break or a tab", "write it on one line")
		return
	case strings.TrimSpace(n.Value) != n.Value:
		d.at(n.Line, n.Column, path, "the text begins or ends with a space", "write "+quote(strings.TrimSpace(n.Value)))
		return
	}
	v.SetString(n.Value)
}

func (d *decoder) number(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && decimal.MatchString(n.Value) {
			hint = "write it without quotation marks: " + shown(n)
		}
		d.wrong(n, path, "a whole number", hint)
		return
	}
	number, ok := d.integer(n, path)
	if ok && (number > math.MaxInt32 || number < math.MinInt32) {
		d.at(n.Line, n.Column, path, shown(n)+" is out of range", "")
		return
	}
	v.SetInt(number)
}

// integer reads a whole number that has one meaning only.
func (d *decoder) integer(n *yaml.Node, path string) (int64, bool) {
	if !decimal.MatchString(n.Value) {
		hint := "write it in decimal, or quote it when it is text"
		if octal := strings.TrimLeft(n.Value, "0"); decimal.MatchString(octal) {
			hint = fmt.Sprintf("a leading 0 means octal to some readers: write %s, or the octal value in decimal, or quote it when it is text", octal)
		}
		d.at(n.Line, n.Column, path, shown(n)+" is not a plain decimal number", hint)
		return 0, false
	}
	number, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		d.at(n.Line, n.Column, path, shown(n)+" is out of range", "quote it when it is text")
	}
	return number, err == nil
}

func (d *decoder) boolean(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		hint := ""
		if answer, is := ambiguous(n); is {
			hint = "write " + answer
		}
		d.wrong(n, path, "true or false", hint)
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

// ambiguous tells whether n is a word that YAML 1.1 reads as a truth value and
// YAML 1.2 as text, and which value.
func ambiguous(n *yaml.Node) (string, bool) {
	switch strings.ToLower(n.Value) {
	case "yes", "on", "y":
		return "true", true
	case "no", "off", "n":
		return "false", true
	}
	return "", false
}

// raw decodes a value that is passed on to kubeadm or containerd, into what
// encoding/json would make of it: nil, bool, int64, float64, string, []any,
// map[string]any.
func (d *decoder) raw(n *yaml.Node, path string) any {
	if !d.enter(n, path) {
		return nil
	}
	defer d.leave()
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for _, e := range d.entries(n, path) {
			at := child(path, e.name)
			d.note(e, at)
			out[e.name] = d.raw(e.value, at)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.marks[at] = mark{line: item.Line, column: item.Column}
			out = append(out, d.raw(item, at))
		}
		return out
	}
	return d.rawScalar(n, path)
}

func (d *decoder) rawScalar(n *yaml.Node, path string) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		number, _ := d.integer(n, path)
		return number
	case "!!float":
		number, err := strconv.ParseFloat(n.Value, 64)
		if decimal.MatchString(n.Value) { // too large for YAML's integers: digits would be lost
			d.at(n.Line, n.Column, path, shown(n)+" is out of range", "quote it when it is text")
			return nil
		}
		if err != nil || math.IsInf(number, 0) || math.IsNaN(number) {
			d.at(n.Line, n.Column, path, shown(n)+" is not a number that JSON can carry", "quote it when it is text")
			return nil
		}
		return number
	case "!!str", "!!timestamp":
		if answer, is := ambiguous(n); is && len(n.Value) > 1 && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.TaggedStyle) == 0 {
			d.at(n.Line, n.Column, path, shown(n)+" is a truth value to some readers and text to others",
				fmt.Sprintf("write %s, or %s when it is text", answer, quote(n.Value)))
		}
		return n.Value
	}
	d.wrong(n, path, "a plain value", "remove the tag")
	return nil
}
