// Package arch asserts the shape of the source: what may import what, and what
// must not appear anywhere.
package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ha-install/ha-install"

// root is the repository, seen from this package.
const root = "../.."

// source is one Go file.
type source struct {
	path string // from the root
	text []byte
	file *ast.File
	set  *token.FileSet
}

func (s source) dir() string { return path.Dir(s.path) }

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// product says whether the file ends up in the program.
func (s source) product() bool { return !s.test() && !strings.HasPrefix(s.path, "test/") }

// sources parses every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || rel != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		s := source{path: filepath.ToSlash(rel), set: token.NewFileSet()}
		if s.text, err = os.ReadFile(name); err != nil {
			return err
		}
		s.file, err = parser.ParseFile(s.set, s.path, s.text, parser.ParseComments)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files were found", len(all))
	}
	return all
}

func (s source) imports() []string {
	var paths []string
	for _, i := range s.file.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}

// allowed are the imports of our own that a package may have. They point
// downwards only.
var allowed = map[string][]string{
	"cmd/ha-install":      {"cmd"},
	"cmd":                 {"inventory", "provision", "provision/backup", "provision/boot", "provision/bundle", "provision/certs", "provision/drill", "provision/etcd", "provision/host", "provision/kube", "provision/phase", "provision/preflight", "provision/release", "provision/schedule", "provision/units", "provision/versions"},
	"provision":           {"inventory", "templates", "provision/backup", "provision/bundle", "provision/certs", "provision/copies", "provision/drill", "provision/etcd", "provision/haproxy", "provision/host", "provision/kube", "provision/phase", "provision/pki", "provision/preflight", "provision/probe", "provision/relay", "provision/release", "provision/schedule", "provision/units", "provision/versions"},
	"provision/preflight": {"inventory", "provision/host", "provision/units"},
	"provision/kube":      {"provision/host", "provision/units"},
	"provision/etcd":      {"provision/units"},
	"provision/haproxy":   {"provision/host", "provision/units"},
	"provision/pki":       {"inventory", "templates"},
	"provision/boot":      {"templates", "provision/backup", "provision/bundle", "provision/units"},
	"provision/bundle":    {"inventory"},
	"provision/backup":    {"templates", "provision/etcd", "provision/pki", "provision/units"},
	"provision/certs":     {"templates"},
	"provision/copies":    {"inventory", "provision/backup", "provision/host"},
	"provision/drill":     {"provision/units"},
	"provision/host":      {"inventory"},
	"provision/phase":     {"provision/units"},
	"provision/probe":     {},
	"provision/relay":     {"provision/backup"},
	"provision/release":   {},
	"provision/schedule":  {"templates", "provision/etcd", "provision/units"},
	"provision/units":     {},
	"provision/versions":  {"provision/bundle", "provision/host"},
	"templates":           {"inventory"},
	"inventory":           {},
}

func TestImportsRunDownwards(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if !s.product() {
			continue
		}
		may, known := allowed[s.dir()]
		if !known {
			t.Errorf("%s: package %s is not in the table of allowed imports", s.path, s.dir())
			continue
		}
		seen[s.dir()] = true
		for _, i := range s.imports() {
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s; %s may import only %q of ours", s.path, own, s.dir(), may)
			}
		}
	}
	for dir := range allowed {
		if !seen[dir] {
			t.Errorf("%s is in the table, but there is no such package", dir)
		}
	}
}

func TestOnlyCmdKnowsTheTerminal(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports() {
			if i == "github.com/spf13/cobra" && s.dir() != "cmd" && !strings.HasPrefix(s.path, "test/") {
				t.Errorf("%s imports cobra; only cmd may", s.path)
			}
		}
	}
}

// uses calls f with each selector (context.Background) in the file, by the
// package's own name.
func (s source) uses(f func(name string, at token.Position)) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				f(x.Name+"."+sel.Sel.Name, s.set.Position(sel.Pos()))
			}
		}
		return true
	})
}

func TestForbiddenCalls(t *testing.T) {
	const main = "cmd/ha-install/main.go"
	for _, s := range sources(t) {
		s.uses(func(name string, at token.Position) {
			switch name {
			case "context.Background", "context.TODO":
				if s.product() && (s.path != main || name == "context.TODO") {
					t.Errorf("%s: %s; only %s makes a context, all others are given theirs", at, name, main)
				}
			case "time.Sleep":
				if !s.test() {
					t.Errorf("%s: time.Sleep; wait for a fact, with a deadline", at)
				}
			case "ssh.InsecureIgnoreHostKey":
				t.Errorf("%s: host keys are always verified", at)
			case "os.Exit":
				if s.product() && s.path != main {
					t.Errorf("%s: os.Exit; return an error", at)
				}
			case "t.Skip", "t.Skipf", "t.SkipNow":
				t.Errorf("%s: %s; a test that cannot run is no test", at, name)
			}
		})
	}
}

// TestTLSIsVerified permits one place to verify in its own way: what listens
// on a host's loopback with a certificate that it has made itself.
func TestTLSIsVerified(t *testing.T) {
	const ownWay = "provision/kube/loopback.go"
	for _, s := range sources(t) {
		if s.path == ownWay {
			if n := bytes.Count(s.text, []byte("InsecureSkipVerify: true")); n != 1 || !bytes.Contains(s.text, []byte("VerifyConnection:")) {
				t.Errorf("%s: %d unverified TLS configurations, want one with VerifyConnection", s.path, n)
			}
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			pair, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, ok := pair.Key.(*ast.Ident)
			if ok && key.Name == "InsecureSkipVerify" && s.product() {
				t.Errorf("%s: InsecureSkipVerify", s.set.Position(pair.Pos()))
			}
			return true
		})
	}
}

func TestFilesAreShortAndFinished(t *testing.T) {
	const most = 450
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, want %d at most: split it", s.path, n, most)
		}
		for _, group := range s.file.Comments {
			for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
				if strings.Contains(group.Text(), word) {
					t.Errorf("%s: a comment says %s", s.set.Position(group.Pos()), word)
				}
			}
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	documented, packages := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.product() {
			packages[s.dir()] = true
			documented[s.dir()] = documented[s.dir()] || s.file.Doc != nil
		}
	}
	for dir := range packages {
		if !documented[dir] {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

// topLevel is agreed with the project's owner. What the build makes (bin) is
// not committed.
var topLevel = []string{"cmd", "provision", "templates", "inventory", "test", "go.mod", "go.sum", "Makefile", "README.md", "LICENSE"}

func TestTopLevel(t *testing.T) {
	ignored, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		made := strings.Contains("\n"+string(ignored), "\n/"+e.Name()+"/\n")
		if !strings.HasPrefix(e.Name(), ".") && !made && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong to the top level; agreed are %q and dot files", e.Name(), topLevel)
		}
	}
}
