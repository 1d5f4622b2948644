package provision

import (
	"strconv"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
)

func TestRawFieldsAreComplainedOfWhereTheyStand(t *testing.T) {
	text := strings.Replace(string(inventory.Example()), "  # kubeadm:\n", `  kubeadm:
    clusterConfiguration:
      apiSrver: {}
    kubeletConfiguration:
      maxPods: many
`, 1)
	line := func(field string) int { return 1 + strings.Count(text[:strings.Index(text, field)], "\n") }
	c, _, err := inventory.Parse("i.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = (&Site{Cluster: c}).Render()
	if err == nil {
		t.Fatal("accepted")
	}
	for field, want := range map[string]string{
		"apiSrver": `spec.kubeadm.clusterConfiguration.apiSrver: unknown field "apiSrver"`,
		"maxPods":  `spec.kubeadm.kubeletConfiguration.maxPods: maxPods is a string, want int32`,
	} {
		found := false
		for l := range strings.Lines(err.Error()) {
			found = found || strings.HasPrefix(l, "i.yaml:"+strconv.Itoa(line(field+":"))+":") && strings.Contains(l, want)
		}
		if !found {
			t.Errorf("%s: no line %d with %q in:\n%v", field, line(field+":"), want, err)
		}
	}
}
