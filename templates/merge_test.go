package templates

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMerge(t *testing.T) {
	type object = map[string]any
	type list = []any
	arg := func(name, value string) any { return object{"name": name, "value": value} }
	tests := []struct {
		name            string
		base, raw, want object
	}{
		{"a new key is added", object{"a": 1}, object{"b": 2}, object{"a": 1, "b": 2}},
		{"a scalar is replaced", object{"a": 1}, object{"a": 2}, object{"a": 2}},
		{"false and 0 are values", object{"a": true}, object{"a": false, "b": 0}, object{"a": false, "b": 0}},
		{"null removes", object{"a": 1, "b": object{"c": 1, "d": 2}}, object{"a": nil, "b": object{"c": nil}}, object{"b": object{"d": 2}}},
		{"objects are merged", object{"a": object{"x": 1, "y": 2}}, object{"a": object{"y": 3}}, object{"a": object{"x": 1, "y": 3}}},
		{"a plain list is replaced", object{"a": list{1, 2}}, object{"a": list{3}}, object{"a": list{3}}},
		{"an empty list is said on purpose", object{"extraArgs": list{arg("a", "1")}}, object{"extraArgs": list{}}, object{"extraArgs": list{}}},
		{"named things are merged by name", object{"extraArgs": list{arg("a", "1"), arg("b", "2")}}, object{"extraArgs": list{arg("b", "3"), arg("c", "4")}}, object{"extraArgs": list{arg("a", "1"), arg("b", "3"), arg("c", "4")}}},
		{"a flag may be given twice", object{"extraArgs": list{arg("a", "1")}}, object{"extraArgs": list{arg("a", "2"), arg("a", "3")}}, object{"extraArgs": list{arg("a", "2"), arg("a", "3")}}},
		{"names of certificates are added", object{"certSANs": list{"a", "b"}}, object{"certSANs": list{"b", "c"}}, object{"certSANs": list{"a", "b", "c"}}},
		{"what is no list of names is left to the decoder", object{"certSANs": list{"a"}}, object{"certSANs": list{object{}, object{}}}, object{"certSANs": list{object{}, object{}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, merge(tt.base, tt.raw)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMergeLeavesItsInputs(t *testing.T) {
	base := map[string]any{"a": map[string]any{"x": 1}}
	raw := map[string]any{"a": map[string]any{"y": 2}}
	merge(base, raw)
	if len(base["a"].(map[string]any)) != 1 || len(raw["a"].(map[string]any)) != 1 {
		t.Errorf("got %v and %v", base, raw)
	}
}
