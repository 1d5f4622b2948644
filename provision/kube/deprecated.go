package kube

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// deprecatedMetric is the gauge of an API server that has a 1 for each
// deprecated API that was asked for since the server started.
const deprecatedMetric = "apiserver_requested_deprecated_apis"

var errNoMetrics = errors.New("it has none")

// DeprecatedAPI is an API that somebody uses and that a later release no
// longer serves.
type DeprecatedAPI struct {
	Group       string `json:"group"` // "" is the core group
	Version     string `json:"version"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource,omitempty"`
	Removed     string `json:"removed,omitempty"` // the minor that has it no more, "1.37"; "" when none is planned
}

// String is "poddisruptionbudgets.v1beta1.policy".
func (d DeprecatedAPI) String() string {
	name := strings.TrimSuffix(d.Resource+"."+d.Version+"."+d.Group, ".")
	if d.Subresource != "" {
		name += "/" + d.Subresource
	}
	return name
}

// Gone says that the minor of Kubernetes does not serve the API any more.
func (d DeprecatedAPI) Gone(major, minor int) bool {
	var inMajor, inMinor int
	if _, err := fmt.Sscanf(d.Removed, "%d.%d", &inMajor, &inMinor); err != nil {
		return false // no release is named
	}
	return major > inMajor || major == inMajor && minor >= inMinor
}

// DeprecatedUse are the deprecated APIs that clients have asked this API
// server for since it started, sorted and without repeats. Each server counts
// on its own, so the caller asks each. Who asked is not in it: that is in the
// audit log (annotation k8s.io/deprecated).
func (c *Client) DeprecatedUse(ctx context.Context) ([]DeprecatedAPI, error) {
	body, err := c.Discovery().RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("apiserver %s: metrics: %w", c.Server, err)
	}
	defer body.Close()
	// All metrics of an API server are megabytes: the parser is given the lines
	// of the one.
	var lines bytes.Buffer
	whole := bufio.NewScanner(body)
	whole.Buffer(nil, 1<<20)
	any := false
	for whole.Scan() {
		any = true
		if line := whole.Bytes(); bytes.HasPrefix(line, []byte(deprecatedMetric+"{")) || bytes.HasPrefix(line, []byte("# TYPE "+deprecatedMetric+" ")) {
			lines.Write(line)
			lines.WriteByte('\n')
		}
	}
	if err := whole.Err(); err != nil || !any {
		return nil, fmt.Errorf("apiserver %s: metrics: %w", c.Server, cmp.Or(err, errNoMetrics))
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&lines)
	if err != nil {
		return nil, fmt.Errorf("apiserver %s: metrics: %w", c.Server, err)
	}
	var used []DeprecatedAPI
	for _, m := range families[deprecatedMetric].GetMetric() {
		if m.Gauge == nil {
			return nil, fmt.Errorf("apiserver %s: metrics: %s is not a gauge", c.Server, deprecatedMetric)
		}
		if m.GetGauge().GetValue() > 0 {
			used = append(used, deprecatedAPI(m))
		}
	}
	slices.SortFunc(used, func(a, b DeprecatedAPI) int {
		return slices.Compare([]string{a.Group, a.Version, a.Resource, a.Subresource, a.Removed}, []string{b.Group, b.Version, b.Resource, b.Subresource, b.Removed})
	})
	return slices.Compact(used), nil
}

func deprecatedAPI(m *dto.Metric) DeprecatedAPI {
	var d DeprecatedAPI
	for _, label := range m.GetLabel() {
		switch label.GetName() {
		case "group":
			d.Group = label.GetValue()
		case "version":
			d.Version = label.GetValue()
		case "resource":
			d.Resource = label.GetValue()
		case "subresource":
			d.Subresource = label.GetValue()
		case "removed_release":
			d.Removed = label.GetValue()
		}
	}
	return d
}
