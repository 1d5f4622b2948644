package inventory

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
)

// typesSource is where descriptions come from: what a reader of the Go types
// is told, an editor tells too, and the two cannot differ.
//
//go:embed types.go
var typesSource string

//go:embed backup_copies.go
var copiesSource string

// object is one JSON Schema.
type object = map[string]any

// Schema is the JSON Schema (2020-12) of an inventory, for editors. It knows
// less than Parse: what one value means for another, it mostly cannot say.
func Schema() ([]byte, error) {
	docs, err := readDocs(typesSource, backupSource, copiesSource)
	if err != nil {
		return nil, fmt.Errorf("schema: read the types' comments: %w", err)
	}
	g := generator{docs: docs, defs: object{}}
	root := g.structure(reflect.TypeFor[Cluster]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = Kind + " " + APIVersion
	root["description"] = "One highly available Kubernetes cluster, as ha-install brings it up."
	root["$defs"] = g.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("schema: encode: %w", err)
	}
	return append(out, '\n'), nil
}

// generator turns Go types into schemas.
type generator struct {
	docs docs
	defs object // by type name
}

func (g *generator) structure(t reflect.Type) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		if options != "omitempty" {
			required = append(required, name)
		}
		property := g.schema(field.Type)
		described := []string{g.docs.fields[t.Name()+"."+field.Name]}
		if described[0] == "" {
			described[0] = g.docs.types[field.Type.Name()]
		}
		for _, value := range g.docs.values[field.Type.Name()] {
			if value.doc != "" {
				described = append(described, value.text+": "+value.doc)
			}
		}
		property["description"] = strings.Join(described, "\n")
		for keyword, value := range rules[t.Name()+"."+name] {
			property[keyword] = value
		}
		properties[name] = property
	}
	out := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	for keyword, value := range rules[t.Name()] {
		out[keyword] = value
	}
	return out
}

func (g *generator) schema(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Struct:
		if g.defs[t.Name()] == nil {
			g.defs[t.Name()] = g.structure(t)
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return object{"type": "integer"}
	}
	out := object{"type": "string"}
	var enum []string
	for _, value := range g.docs.values[t.Name()] {
		enum = append(enum, value.text)
	}
	if enum != nil {
		out["enum"] = enum
	}
	return out
}

// docs are the comments of Go source files.
type docs struct {
	types  map[string]string  // by type
	fields map[string]string  // by "Type.Field"
	values map[string][]value // the constants of a named string type
}

type value struct{ text, doc string }

func readDocs(sources ...string) (docs, error) {
	out := docs{types: map[string]string{}, fields: map[string]string{}, values: map[string][]value{}}
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), "types.go", source, parser.ParseComments)
		if err != nil {
			return docs{}, err
		}
		out.readFile(file)
	}
	return out, nil
}

func (d docs) readFile(file *ast.File) {
	for _, declaration := range file.Decls {
		general, _ := declaration.(*ast.GenDecl)
		if general == nil {
			continue
		}
		for _, spec := range general.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				d.types[spec.Name.Name] = prose(general.Doc)
				d.readFields(spec)
			case *ast.ValueSpec:
				d.readValue(spec)
			}
		}
	}
}

func (d docs) readFields(spec *ast.TypeSpec) {
	structure, _ := spec.Type.(*ast.StructType)
	if structure == nil {
		return
	}
	for _, field := range structure.Fields.List {
		for _, name := range field.Names {
			d.fields[spec.Name.Name+"."+name.Name] = strings.TrimSpace(prose(field.Doc) + " " + prose(field.Comment))
		}
	}
}

func (d docs) readValue(spec *ast.ValueSpec) {
	kind, _ := spec.Type.(*ast.Ident)
	if kind == nil || len(spec.Values) != 1 {
		return
	}
	if literal, _ := spec.Values[0].(*ast.BasicLit); literal != nil && literal.Kind == token.STRING {
		if text, err := strconv.Unquote(literal.Value); err == nil {
			d.values[kind.Name] = append(d.values[kind.Name], value{text: text, doc: prose(spec.Comment)})
		}
	}
}

// prose is a comment as one paragraph.
func prose(comment *ast.CommentGroup) string {
	return strings.Join(strings.Fields(comment.Text()), " ")
}
