package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
)

// The identity of a plan's document.
const (
	PlanAPIVersion = "ha-install.io/v1alpha1"
	PlanKind       = "Plan"
)

// Plan is what apply would do, from the state that was seen. It holds no
// secret, and two plans of the same state are equal.
type Plan struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Cluster    string `json:"cluster"`
	phase.Plan
	// Inputs are fingerprints of all that was given, by name: each field of the
	// inventory, the bundle, the manifests of the pod network.
	Inputs map[string]string `json:"inputs"`
	// Digest is the SHA-256 of all of the above.
	Digest string `json:"digest"`
}

// MakePlan says what Apply would do, by the same list of phases, and changes
// nothing: hosts, etcd and the API refuse every change. An error is what
// Apply would stop at, too. tell is given what the operator should read
// besides (the table of preflight); nil is allowed.
func MakePlan(ctx context.Context, s *Site, tell func(string)) (Plan, error) {
	return makePlan(ctx, s, phase.Planner{Tell: tell})
}

func makePlan(ctx context.Context, s *Site, planner phase.Planner) (Plan, error) {
	view, done := s.view()
	defer done()
	a, err := newApply(view)
	if err != nil {
		return Plan{}, err
	}
	defer a.close()
	if err := a.schedulable(); err != nil {
		return Plan{}, err
	}
	if err := a.findFirst(ctx); err != nil {
		return Plan{}, err
	}
	return a.plan(ctx, planner, a.stages())
}

// plan walks the stages of a workflow without making any change.
func (a *apply) plan(ctx context.Context, planner phase.Planner, stages []phase.Stage) (p Plan, err error) {
	p = Plan{APIVersion: PlanAPIVersion, Kind: PlanKind, Cluster: a.Cluster.Metadata.Name}
	if p.Inputs, err = a.inputs(); err != nil {
		return Plan{}, err
	}
	if p.Plan, err = planner.Make(ctx, stages); err != nil {
		return Plan{}, err
	}
	p.Digest, err = p.digest()
	return p, err
}

func (p Plan) digest() (string, error) {
	p.Digest = ""
	return fingerprintOf(p)
}

// ReadPlan reads a plan that was kept as JSON.
func ReadPlan(data []byte) (Plan, error) {
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("not a plan: %w", err)
	}
	if p.APIVersion != PlanAPIVersion || p.Kind != PlanKind {
		return p, fmt.Errorf("not a plan: it is a %s of %s, wanted %s of %s", p.Kind, p.APIVersion, PlanKind, PlanAPIVersion)
	}
	digest, err := p.digest()
	if err == nil && digest != p.Digest {
		err = fmt.Errorf("the plan was changed after it was made: its digest is %.12s, it says %.12s", digest, p.Digest)
	}
	return p, err
}

func fingerprintOf(v any) (string, error) {
	data, err := json.Marshal(v)
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:]), err
}

// inputs are fingerprints of everything that was given. What a raw field holds
// may be secret and easy to guess, so that its fingerprint is of all of it.
func (a *apply) inputs() (map[string]string, error) {
	data, err := json.Marshal(a.Cluster)
	if err != nil {
		return nil, err
	}
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	values := map[string]any{}
	flatten(values, "", document)
	if a.bundle != nil {
		values["the bundle"] = a.bundle.Manifest()
	}
	if a.Cluster.Spec.Network.CNI.Plugin == inventory.CNIManifests {
		if values["the manifests of the pod network"], err = a.networkManifests(); err != nil {
			return nil, err
		}
	}
	inputs := map[string]string{}
	for name, value := range values {
		sum, err := fingerprintOf(value)
		if err != nil {
			return nil, err
		}
		inputs[name] = sum[:16]
	}
	return inputs, nil
}

// flatten gives every field of a document a name of its own; hosts are named
// by their names, so that one more does not rename the others.
func flatten(into map[string]any, at string, value any) {
	m, isMap := value.(map[string]any)
	list, isList := value.([]any)
	switch {
	case at == "spec.containerd" || strings.HasPrefix(at, "spec.kubeadm."):
		into[at] = value
	case isMap:
		for key, v := range m {
			flatten(into, strings.TrimPrefix(at+"."+key, "."), v)
		}
	case isList && at == "spec.hosts":
		for _, v := range list {
			h, _ := v.(map[string]any)
			flatten(into, fmt.Sprintf("%s[%v]", at, h["name"]), v)
		}
	default:
		into[at] = value
	}
}

// MovedError means that what was agreed to is no longer what would be done.
type MovedError struct{ Differ []string }

// movedShown is how many differences an error spells out.
const movedShown = 12

func (e *MovedError) Error() string {
	shown := e.Differ
	if len(shown) > movedShown {
		shown = append(slices.Clone(shown[:movedShown]), fmt.Sprintf("and %d more", len(e.Differ)-movedShown))
	}
	return "the plan does not hold any more; nothing was changed\nwhy: " + strings.Join(shown, "\n     ") +
		"\nrun: look at what would be done now, and agree to that: the same command shows it on a terminal, as does ha-install plan or ha-install upgrade --plan"
}

// Moved is a *MovedError when now is another plan than p, nil when it is the same.
func (p Plan) Moved(now Plan) error {
	if p.Digest == now.Digest {
		return nil
	}
	var differ []string
	if p.Cluster != now.Cluster {
		differ = append(differ, fmt.Sprintf("the plan is of cluster %s, the inventory is of %s", p.Cluster, now.Cluster))
	}
	differ = append(differ, differentInputs(p.Inputs, now.Inputs)...)
	differ = append(differ, differentSteps(p.Steps, now.Steps)...)
	return &MovedError{differ}
}

func differentInputs(then, now map[string]string) []string {
	all := maps.Clone(then)
	maps.Copy(all, now)
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		_, was := then[name]
		_, is := now[name]
		what := "has changed"
		switch {
		case was && is && then[name] == now[name]:
			continue
		case !was:
			what = "was added"
		case !is:
			what = "was taken away"
		}
		if host, field, ok := strings.Cut(name, "]."); ok && comesOrGoes(then, now, host) {
			if field != "name" { // one line for the whole host
				continue
			}
			name = host + "]"
		}
		differ = append(differ, name+" "+what)
	}
	return differ
}

// comesOrGoes says whether a host is in only one of the two.
func comesOrGoes(then, now map[string]string, host string) bool {
	_, was := then[host+"].name"]
	_, is := now[host+"].name"]
	return was != is
}

func differentSteps(then, now []phase.PlannedStep) []string {
	key := func(steps []phase.PlannedStep) (ids []string, by map[string]phase.PlannedStep) {
		by, seen := map[string]phase.PlannedStep{}, map[string]int{}
		for _, s := range steps {
			id := s.ID()
			if seen[id]++; seen[id] > 1 {
				id = fmt.Sprintf("%s (%d)", id, seen[id])
			}
			ids, by[id] = append(ids, id), s
		}
		return ids, by
	}
	ids, was := key(then)
	nowIDs, is := key(now)
	for _, id := range nowIDs {
		if _, ok := was[id]; !ok {
			ids = append(ids, id)
		}
	}
	var differ []string
	for _, id := range ids {
		before, ok1 := was[id]
		after, ok2 := is[id]
		switch {
		case !ok1 || !ok2 || before.State != after.State:
			differ = append(differ, fmt.Sprintf("%s: %s then, %s now", id, stateText(before, ok1), stateText(after, ok2)))
		default:
			if name := differentChange(before.Changes, after.Changes); name != "" {
				differ = append(differ, id+": another change of "+name)
			}
		}
	}
	return differ
}

func stateText(s phase.PlannedStep, there bool) string {
	if !there {
		return "no step"
	}
	return map[phase.State]string{phase.AlreadyDone: "done", phase.ToChange: "to change", phase.NotKnown: "not known", phase.Proof: "a gate"}[s.State]
}

// differentChange names the first change in which two steps differ.
func differentChange(a, b []phase.Change) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return b[i].Name
		case i >= len(b):
			return a[i].Name
		}
		x, err1 := fingerprintOf(a[i])
		y, err2 := fingerprintOf(b[i])
		if x != y || err1 != nil || err2 != nil {
			return b[i].Name
		}
	}
	return ""
}
