package provision

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

func TestWhatIsWrongWithABastionIsSaidOnce(t *testing.T) {
	c := testCluster(t)
	wrong := func(bastion string) error { return fmt.Errorf("bastion %s: its key has changed", bastion) }
	s := &Site{Cluster: c, down: map[string]error{
		"lb-2": &host.BastionError{Host: "lb-2", Err: wrong("jump")},
		"cp-1": fmt.Errorf("dial: %w", &host.BastionError{Host: "cp-1", Err: wrong("jump")}),
		"cp-2": &host.BastionError{Host: "cp-2", Err: wrong("other")},
		"cp-3": errors.New("cp-3: no answer"),
		"w-1":  &host.BastionError{Host: "w-1", Err: wrong("jump")},
	}}
	err := s.RequireAll()
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) {
		t.Fatalf("%v", err)
	}
	const want = `lb-2, cp-1, w-1: bastion jump: its key has changed
cp-2: bastion other: its key has changed
cp-3: no answer`
	if err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
	if own := s.down["lb-2"].Error(); own != "lb-2: bastion jump: its key has changed" {
		t.Errorf("a host's own error was changed to %q", own)
	}
	none := &Site{Cluster: &inventory.Cluster{}}
	if err := none.RequireAll(); err != nil {
		t.Error(err)
	}
}
