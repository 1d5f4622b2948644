package inventory

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/ha-install/ha-install/test/golden"
)

func schemaBytes(t *testing.T) []byte {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaBytes(t)))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource("inventory.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("inventory.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// instance is a YAML document as a JSON Schema validator wants it.
func instance(t *testing.T, data []byte) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchemaGolden(t *testing.T) { golden.Check(t, "schema.json", schemaBytes(t)) }

func TestSchemaAcceptsTheExamples(t *testing.T) {
	schema := compiled(t)
	for name, data := range examples(t) {
		if err := schema.Validate(instance(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := schema.Validate(instance(t, []byte(base))); err != nil {
		t.Errorf("base: %v", err)
	}
}

func TestSchemaRefuses(t *testing.T) {
	schema := compiled(t)
	for _, r := range []row{
		{name: "an unknown field", old: "metadata:\n", with: "metadata:\n  colour: red\n"},
		{name: "a missing field", old: "  name: lab\n", with: "  {}\n"},
		{name: "a wrong type", old: "host: 192.0.2.10", with: "host: 12"},
		{name: "another kind", old: "Cluster", with: "Pod"},
		{name: "an unknown role", old: "role: load-balancer", with: "role: balancer"},
		{name: "a version that is too old", old: "v1.36.3", with: "v1.32.9"},
		{name: "a port out of range", old: "host: 192.0.2.10", with: "host: 192.0.2.10\n    port: 65536"},
		{name: "a bundle that is missing", old: "bundle: bundle.tar", with: "source: bundle"},
		{name: "a bundle that is not used", old: "bundle: bundle.tar", with: "source: installed\n    bundle: b"},
		{name: "manifests that are not applied", old: "software:", with: "network: {cni: {manifests: [a]}}\n  software:"},
		{name: "an internal address that is a name", old: "role: control", with: "internalAddress: cp-1\n      role: control"},
	} {
		t.Run(r.name, func(t *testing.T) {
			text := []byte(edit(t, base, r.old, r.with))
			if schema.Validate(instance(t, text)) == nil {
				t.Error("accepted by the schema")
			}
			if _, _, err := Parse("f", text); err == nil {
				t.Error("accepted by Parse")
			}
		})
	}
}

// TestSchemaKnowsEveryField walks the Go types and the schema side by side.
func TestSchemaKnowsEveryField(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(schemaBytes(t), &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	for _, of := range []reflect.Type{
		reflect.TypeFor[Cluster](), reflect.TypeFor[Metadata](), reflect.TypeFor[Spec](), reflect.TypeFor[Kubernetes](),
		reflect.TypeFor[Endpoint](), reflect.TypeFor[LoadBalancer](), reflect.TypeFor[SSH](), reflect.TypeFor[Bastion](),
		reflect.TypeFor[Host](), reflect.TypeFor[Taint](), reflect.TypeFor[Network](), reflect.TypeFor[CNI](),
		reflect.TypeFor[Software](), reflect.TypeFor[PKI](), reflect.TypeFor[Preflight](), reflect.TypeFor[Backup](), reflect.TypeFor[Kubeadm](),
	} {
		schema, ok := defs[of.Name()].(map[string]any)
		if of.Name() == "Cluster" {
			schema, ok = root, true
		}
		if !ok {
			t.Errorf("%s: no schema", of.Name())
			continue
		}
		properties := schema["properties"].(map[string]any)
		names := fieldNames(of)
		for _, name := range names {
			property, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s.%s: not in the schema", of.Name(), name)
				continue
			}
			if text, _ := property["description"].(string); text == "" {
				t.Errorf("%s.%s: no description", of.Name(), name)
			}
		}
		for name := range properties {
			if !slices.Contains(names, name) {
				t.Errorf("%s.%s: not in the Go type", of.Name(), name)
			}
		}
	}
	if got := len(defs) + 1; got != 17 {
		t.Errorf("%d types in the schema, 17 in this test", got)
	}
}

// TestSchemaRulesAreUsed finds rules for fields that are gone.
func TestSchemaRulesAreUsed(t *testing.T) {
	known := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(of.Elem())
		case reflect.Struct:
			known[of.Name()] = true
			fields := fieldsOf(of)
			for name, index := range fields {
				known[of.Name()+"."+name] = true
				walk(of.Field(index).Type)
			}
		}
	}
	walk(reflect.TypeFor[Cluster]())
	for rule := range rules {
		if !known[rule] {
			t.Errorf("the rule for %s has no field", rule)
		}
	}
}
