package kube

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someUse = `# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",group="policy",resource="poddisruptionbudgets",version="v1beta1"} 7
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested.
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="resource.k8s.io",removed_release="1.37",resource="resourceclaims",subresource="status",version="v1beta1"} 1
apiserver_requested_deprecated_apis{group="admission.example.com",removed_release="1.40",resource="a\"b",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="old.example.com",removed_release="1.38",resource="gone",subresource="",version="v1"} 0
apiserver_requested_deprecated_apis{group="resource.k8s.io",removed_release="1.37",resource="resourceclaims",subresource="",version="v1beta1"} 1
apiserver_requested_deprecated_apis{group="resource.k8s.io",removed_release="1.37",resource="resourceclaims",subresource="",version="v1beta1"} 1
# TYPE apiserver_requested_deprecated_apis_else gauge
apiserver_requested_deprecated_apis_else{group="x"} 1
`

func TestDeprecatedUse(t *testing.T) {
	api, client := newAPI(t)
	if used, err := client.DeprecatedUse(t.Context()); len(used) > 0 || err != nil {
		t.Errorf("of a server that nobody asked: %v, %v", used, err)
	}
	// Buckets of the real ones are long.
	api.Metrics = someUse + "apiserver_long{le=\"" + strings.Repeat("x", 100_000) + "\"} 1\n"
	want := []DeprecatedAPI{
		{"", "v1", "endpoints", "", ""},
		{"admission.example.com", "v1", `a"b`, "", "1.40"},
		{"resource.k8s.io", "v1beta1", "resourceclaims", "", "1.37"},
		{"resource.k8s.io", "v1beta1", "resourceclaims", "status", "1.37"},
	}
	used, err := client.DeprecatedUse(t.Context())
	if diff := cmp.Diff(want, used); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if used[0].String() != "endpoints.v1" || used[3].String() != "resourceclaims.v1beta1.resource.k8s.io/status" {
		t.Errorf("written %q and %q", used[0], used[3])
	}
}

func TestDeprecatedUseIsNotGuessed(t *testing.T) {
	api, client := newAPI(t)
	for _, row := range []struct{ metrics, want string }{
		{"", "it has none"},
		{deprecatedMetric + `{group="",resource="endpoints",version="v1"} 1` + "\n", "is not a gauge"},
		{deprecatedMetric + `{group="` + "\n", "metrics: "},
	} {
		api.Metrics = row.metrics
		_, err := client.DeprecatedUse(t.Context())
		wantError(t, err, row.want)
	}
	api.Metrics = someUse
	api.Fail("GET metrics", http.StatusForbidden)
	_, err := client.DeprecatedUse(t.Context())
	wantError(t, err, "metrics: ")
}

func TestGone(t *testing.T) {
	for _, row := range []struct {
		removed string
		minor   int
		want    bool
	}{
		{"1.37", 36, false}, {"1.37", 37, true}, {"1.37", 38, true}, {"1.9", 36, true}, {"1.100", 36, false}, {"", 36, false}, {"2.0", 36, false},
	} {
		if got := (DeprecatedAPI{Removed: row.removed}).Gone(1, row.minor); got != row.want {
			t.Errorf("removed in %q, of 1.%d: %t", row.removed, row.minor, got)
		}
	}
}
