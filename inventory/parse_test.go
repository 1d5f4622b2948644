package inventory

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// base is a valid inventory without a warning; rows of tables edit it.
const base = `apiVersion: ha-install.io/v1alpha1
kind: Cluster
metadata:
  name: lab
spec:
  kubernetes:
    version: v1.36.3
  endpoint:
    host: 192.0.2.10
` + hostsOfBase + `  software:
    bundle: bundle.tar
`

const hostsOfBase = mastersOfBase + `    - name: lb-1
      address: 192.0.2.21
      role: load-balancer
    - name: lb-2
      address: 192.0.2.22
      role: load-balancer
`

const mastersOfBase = `  hosts:
    - name: cp-1
      address: 192.0.2.11
      role: control-plane
    - name: cp-2
      address: 192.0.2.12
      role: control-plane
    - name: cp-3
      address: 192.0.2.13
      role: control-plane
`

// hostsWith is another section of hosts: n control planes and two balancers.
func hostsWith(n int) string {
	text := "  hosts:\n"
	for i := range 2 {
		text += fmt.Sprintf("    - {name: lb-%d, address: 192.0.2.%d, role: load-balancer}\n", i+1, 21+i)
	}
	for i := range n {
		text += fmt.Sprintf("    - {name: cp-%d, address: 192.0.2.%d, role: control-plane}\n", i+1, 11+i)
	}
	return text
}

// edit replaces the first old by new, which must be there.
func edit(t *testing.T, text, old, with string) string {
	t.Helper()
	if old == "" {
		return with
	}
	if !strings.Contains(text, old) {
		t.Fatalf("the base has no %q", old)
	}
	return strings.Replace(text, old, with, 1)
}

// report is what Parse says, warnings first, one line each.
func report(warnings []Issue, err error) string {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// row edits base (old "" replaces all of it) and says what Parse must tell.
type row struct{ name, old, with, want string }

func (r row) run(t *testing.T) {
	t.Run(r.name, func(t *testing.T) {
		c, warnings, err := Parse("f", []byte(edit(t, base, r.old, r.with)))
		if diff := cmp.Diff(r.want, report(warnings, err)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if (c == nil) != (err != nil) {
			t.Errorf("cluster %v with error %v", c, err)
		}
		var all *Errors
		if err != nil && !errors.As(err, &all) {
			t.Errorf("%T is not *Errors", err)
		}
	})
}

func TestBaseIsValid(t *testing.T) {
	row{name: "no error, no warning", old: "kind", with: "kind"}.run(t)
}
