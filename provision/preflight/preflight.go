// Package preflight asks all hosts at once whether the cluster can be built on
// them, and reports every problem in one table. It changes nothing, but for
// the write probe of etcd's disk, which its caller must hand in.
package preflight

import (
	"context"
	_ "embed"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/units"
)

// Options say what preflight cannot see on the hosts.
type Options struct {
	// ConnectErrors are the hosts that could not be reached, each with its
	// reason; they are errors of the report.
	ConnectErrors map[string]error
	// Arch is the bundle's GOARCH; "" when any will do.
	Arch string
	// Debs says that the bundle installs Debian packages; Distribution is what
	// they were made for ("debian 12"), "" for any.
	Debs         bool
	Distribution string
	// CAFingerprint is the Fingerprint of the cluster's CA, "" when there is
	// none yet. A host that holds this CA belongs to the cluster.
	CAFingerprint string
	// Ours, when set, adds hosts that are known to belong to this cluster.
	Ours func(hostName string) bool
	// DiskProbe lets the latency of etcd's disk be measured; nil leaves it out.
	DiskProbe Probe
	// ListenAlways listens for the VRRP of others also on balancers that have the
	// inventory's router ID in use already, which takes its time.
	ListenAlways bool
	// Parallel bounds the hosts asked at a time; default 32.
	Parallel int
}

const (
	defaultParallel = 32
	// factsTimeout is for a host that hangs with its connection open.
	factsTimeout = 20 * time.Second
	probeTimeout = 40 * time.Second
)

//go:embed facts.sh
var factsScript string

// Run asks every host of the inventory and decides. Hosts without a Reader are
// errors of the report, as is all else: Run itself does not fail.
func Run(ctx context.Context, c *inventory.Cluster, hosts map[string]host.Reader, opt Options) Report {
	began := time.Now()
	reachable := func(name string) bool { return hosts[name] != nil && opt.ConnectErrors[name] == nil }

	var all []subject
	var findings []Finding
	var between, endpoint []dial
	var carried []heard
	var g errgroup.Group
	g.Go(func() error { all, findings = gather(ctx, c, hosts, &opt); return nil })
	g.Go(func() error { carried = listen(ctx, c, hosts, &opt); return nil })
	g.Go(func() error { between = dialAll(ctx, hosts, pairs(c, reachable), dialTimeout); return nil })
	g.Go(func() error {
		endpoint = dialAll(ctx, hosts, endpointDials(c, reachable), endpointTimeout)
		if !managed(c) && opt.CAFingerprint == "" {
			endpoint = present(ctx, c, hosts, endpoint)
		}
		return nil
	})
	_ = g.Wait() // all put their errors into what they return
	if strangerAnswers(c, all, endpoint) {
		// keepalived may just have taken the VIP: the facts are older than the answer.
		all, findings = gather(ctx, c, hosts, &opt)
	}

	for _, s := range all {
		findings = append(findings, decideHost(s)...)
	}
	findings = append(findings, decideBetween(all)...)
	findings = append(findings, decideReach(c, between)...)
	findings = append(findings, decideRouterID(c, all, carried)...)
	findings = append(findings, decideEndpoint(c, all, endpoint)...)
	findings = append(findings, probeDisks(ctx, all, &opt)...)
	demote(findings, c.Spec.Preflight.IgnoreErrors)
	sortFindings(findings, c)
	return Report{Findings: findings, Hosts: len(c.Spec.Hosts), Took: units.Seconds(time.Since(began))}
}

// gather asks the hosts for their facts, in one round trip each.
func gather(ctx context.Context, c *inventory.Cluster, hosts map[string]host.Reader, opt *Options) ([]subject, []Finding) {
	facts := make([]Facts, len(c.Spec.Hosts))
	found := make([][]Finding, len(c.Spec.Hosts))
	var g errgroup.Group
	g.SetLimit(parallel(opt))
	for i, h := range c.Spec.Hosts {
		reader, refusal := hosts[h.Name], opt.ConnectErrors[h.Name]
		if refusal != nil || reader == nil {
			found[i] = []Finding{decideConnection(h.Name, refusal)}
			continue
		}
		g.Go(func() error {
			f, err := ask(ctx, c, h, reader)
			if err != nil {
				found[i] = named(h.Name, CheckFacts, fail(brief(err), "an answer from the host", "run the installer again; look at the host"))
				return nil
			}
			facts[i], found[i] = f, named(h.Name, CheckConnection, ok("a root shell over SSH"))
			return nil
		})
	}
	_ = g.Wait() // found has the errors
	var all []subject
	for i, h := range c.Spec.Hosts {
		if !facts[i].Now.IsZero() {
			all = append(all, subject{cluster: c, opt: opt, host: h, facts: facts[i]})
		}
	}
	return all, slices.Concat(found...)
}

func ask(ctx context.Context, c *inventory.Cluster, h inventory.Host, reader host.Reader) (Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, factsTimeout)
	defer cancel()
	argv := []string{"sh", "-c", factsScript, "ha-install-facts", etcdDir(c), endpointName(c)}
	for _, p := range portsOf(c, h) {
		argv = append(argv, strconv.Itoa(p))
	}
	sent := time.Now()
	out, err := reader.Query(ctx, argv...)
	if err != nil {
		return Facts{}, err
	}
	return parseFacts(out, sent, time.Now())
}

// probeDisks measures the masters that are to become members. A running
// member's disk is busy with the cluster, and another cluster's is not ours to
// write on.
func probeDisks(ctx context.Context, all []subject, opt *Options) []Finding {
	if opt.DiskProbe == nil {
		return nil
	}
	found := make([][]Finding, len(all))
	var g errgroup.Group
	g.SetLimit(parallel(opt))
	for i, s := range all {
		member := slices.Contains(s.facts.Files, etcdDir(s.cluster)+"/member")
		if !s.is(inventory.RoleControlPlane) || member || s.foreign() || len(s.facts.ReadOnly) > 0 {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			found[i] = named(s.host.Name, CheckFsync, measureFsync(ctx, opt.DiskProbe, s.cluster, s.host.Name))
			return nil
		})
	}
	_ = g.Wait() // found has the errors
	return slices.Concat(found...)
}

func parallel(opt *Options) int {
	if opt.Parallel > 0 {
		return opt.Parallel
	}
	return defaultParallel
}

// sortFindings puts the cluster's own first, then the hosts in the inventory's
// order, each in the order of the checks.
func sortFindings(findings []Finding, c *inventory.Cluster) {
	at := map[string]int{"": -1}
	for i, h := range c.Spec.Hosts {
		at[h.Name] = i
	}
	rank := map[string]int{}
	for i, name := range order {
		rank[name] = i
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		if d := at[a.Host] - at[b.Host]; d != 0 {
			return d
		}
		return rank[a.Check] - rank[b.Check]
	})
}
