package provision

import (
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
)

func TestRouterIDIn(t *testing.T) {
	for config, want := range map[string]int{
		"": 0, "vrrp_instance a {\n    virtual_router_id 77\n    priority 100\n}": 77, "# virtual_router_id 5\n": 0, "virtual_router_id many\n": 0,
	} {
		if got := routerIDIn([]byte(config)); got != want {
			t.Errorf("%q has %d, want %d", config, got, want)
		}
	}
}

// Who holds the VIP is configured first; who else has an old ID is silent before.
func TestRenumberingOrder(t *testing.T) {
	c := testCluster(t)
	want := c.Spec.LoadBalancer.VirtualRouterID
	on := func(id int, holds bool) hostFacts {
		return hostFacts{balances: true, routerID: id, holdsVIP: holds, marker: marker{Cluster: c.Metadata.Name}}
	}
	tests := []struct {
		name                    string
		lb1, lb2                hostFacts
		first, silenced, orders string
	}{
		{"nothing there yet", hostFacts{}, hostFacts{}, "", "", "lb-1 lb-2"},
		{"all as it should be", on(want, true), on(want, false), "lb-1", "", "lb-1 lb-2"},
		{"a new ID, and the first holds the VIP", on(9, true), on(9, false), "lb-1", "lb-2", "lb-1 lb-2"},
		{"a new ID, and the second holds the VIP", on(9, false), on(9, true), "lb-2", "lb-1", "lb-2 lb-1"},
		{"stopped half way: the second has the new ID and holds", on(9, false), on(want, true), "lb-2", "lb-1", "lb-2 lb-1"},
		{"stopped half way, and the old one was booted: both hold", on(9, true), on(want, true), "lb-2", "lb-1", "lb-2 lb-1"},
		{"nobody holds it", on(9, false), on(9, false), "lb-1", "lb-2", "lb-1 lb-2"},
		{"a second balancer is new", on(9, true), hostFacts{}, "lb-1", "", "lb-1 lb-2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &apply{Site: &Site{Cluster: c}, facts: map[string]hostFacts{"lb-1": tt.lb1, "lb-2": tt.lb2}}
			stages, ordered := a.renumbering(c.Balancers())
			var silenced []string
			for _, s := range stages {
				for _, p := range s.Phases {
					silenced = append(silenced, p.Host)
				}
			}
			all := announcers(c, a.facts)
			if len(all) > 0 && all[0].Name != tt.first || len(all) == 0 && tt.first != "" {
				t.Errorf("%s is to keep the VIP, want %s", names(all), tt.first)
			}
			if got := strings.Join(silenced, " "); got != tt.silenced {
				t.Errorf("silent meanwhile: %q, want %q", got, tt.silenced)
			}
			if got := names(ordered); got != tt.orders {
				t.Errorf("configured in the order %q, want %q", got, tt.orders)
			}
		})
	}
}

func names(hosts []inventory.Host) string { return strings.Join(namesOf(hosts), " ") }
