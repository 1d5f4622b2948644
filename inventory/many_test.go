package inventory

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/golden"
)

func TestManyErrorsAreToldAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/many-errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err := Parse("many-errors.yaml", data)
	golden.Check(t, "many-errors.txt", []byte(report(warnings, err)+"\n"))
}

func TestHugeFileIsNotRead(t *testing.T) {
	_, _, err := Parse("f", make([]byte, maxSize+1))
	const want = "f:1:1: the file has 1048577 bytes; an inventory is at most 1048576 bytes: is it the right file?"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestManyHostsAreFast(t *testing.T) {
	text := edit(t, base, hostsOfBase, hostsWith(3))
	var hosts strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&hosts, "    - {name: w-%d, address: 198.18.%d.%d, role: worker, labels: {a: b}}\n", i, i/250, i%250+1)
	}
	text = edit(t, text, "  software:\n", hosts.String()+"  network: {podCIDR: 10.0.0.0/10}\n  software:\n")
	began := time.Now()
	c := mustParse(t, "f", text)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("5003 nodes took %s", took)
	}
	if got := len(c.Nodes()); got != 5003 {
		t.Errorf("%d nodes", got)
	}
}
