//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// undisturbed is what an apply from bare hosts to a verified cluster did and
// left, with nobody killing it; the part "install" fills it in.
var undisturbed struct {
	run   result
	state map[string]string
}

// olderLeft: there is a whole cluster of the older release, left by killed runs.
var olderLeft bool

func needUndisturbed(t *testing.T) {
	t.Helper()
	if undisturbed.state != nil {
		return
	}
	recreate(t, baseHosts...)
	path := writeInventory(t, nil, nil)
	undisturbed.run = ha(t, "apply", "-o", "json", path)
	undisturbed.run.want(t, 0)
	undisturbed.state = lasting(t)
}

// leastKills is how many runs of the chain are killed at the least, and sampled
// of how many points that are next to each other one is taken but in e2e-long.
const (
	leastKills = 20
	sampled    = 3
)

// killsInsidePhases is how many of them are killed at moments left to chance.
const killsInsidePhases = 3

// fault3 installs on bare hosts with an installer that is killed (SIGKILL, as
// a crash would) at every boundary of its phases and inside some, or, but for
// e2e-long, at every third of these points, chance says which: run after run
// takes up what the one before left, until one comes through. What has come of it
// must be what an undisturbed run makes; but for e2e-long it is of the release that
// upgrades start from, and is compared when it has been upgraded.
func fault3(t *testing.T) {
	needUndisturbed(t)
	spans := spansOf(t, undisturbed.run)
	random := seeded(t)
	points := killsInside(killPoints(spans, random), spans, random, killsInsidePhases)
	if len(points) < leastKills {
		t.Fatalf("an undisturbed run has only %d points to kill it at, want %d: %v", len(points), leastKills, points)
	}
	least := leastKills
	if !*long {
		points, least = everyNth(points, sampled, random), leastKills/sampled
	}
	release := lab.OlderVersion
	if *long {
		release = lab.DefaultVersion
	}
	recreate(t, baseHosts...)
	path := writeInventoryOf(t, release, nil, nil)
	began := time.Now()
	killed := 0
	var h heirlooms
	for _, p := range points {
		r := haWatched(t, p.hit, "apply", "-o", "json", path)
		if r.code == 0 && p.inside { // it was over before the moment came
			continue
		}
		if r.code != -1 {
			t.Fatalf("after %d kills: a run was not killed %s, it ended with exit %d\n%s", killed, p, r.code, r.tail())
		}
		killed++
		t.Logf("kill %2d %s, after %s", killed, p, r.took.Round(100*time.Millisecond))
		h.look(t)
	}
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("bare hosts to a verified cluster, killed %d times: %s, the last run %s", killed, time.Since(began).Round(time.Second), r.took.Round(100*time.Millisecond))
	if killed < least {
		t.Errorf("only %d runs were killed, want %d", killed, least)
	}
	h.look(t)
	wantWhole(t, path, masters, "w-1")
	if *long {
		wantUndisturbed(t)
	} else if !t.Failed() {
		olderLeft = true
	}
}

// wantWhole wants a cluster of these masters and workers with nothing left
// undone: voters, nodes, backends, one CA set, no token, and nothing for one
// more apply to do.
func wantWhole(t *testing.T, path string, masters []string, workers ...string) {
	t.Helper()
	wantMembers(t, masters)
	wantNodes(t, path, append(slices.Clone(masters), workers...))
	wantExisting(t, masters)
	wantEqualCA(t, masters)
	wantBackends(t, masters)
	wantNoTokens(t)
	awaitFaultless(t, path, 2*time.Minute)
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("one more apply changed %d steps", n)
	}
}

// wantUndisturbed wants the hosts as an undisturbed run leaves them.
func wantUndisturbed(t *testing.T) {
	t.Helper()
	wantSame(t, "compared with an undisturbed run", undisturbed.state, lasting(t))
}

// heirlooms are what no run may replace once an earlier one has made it: the
// ID of a voter, a key of the CA set.
type heirlooms struct{ seen map[string]string }

// caKeys prints the sums of the keys of the CA set that are there.
const caKeys = `cd /etc/kubernetes/pki 2>/dev/null && sha256sum ca.key front-proxy-ca.key sa.key etcd/ca.key 2>/dev/null; exit 0`

// look reads the heirlooms that are there by now and compares them with those
// that were seen before. It also wants one learner at most.
func (h *heirlooms) look(t *testing.T) {
	t.Helper()
	if h.seen == nil {
		h.seen = map[string]string{}
	}
	note := func(what, is string) {
		if was, ok := h.seen[what]; ok && was != is {
			t.Errorf("%s was %s, and is now %s", what, was, is)
		}
		h.seen[what] = is
	}
	for _, sums := range onEach(t, masters, caKeys) {
		for line := range strings.Lines(sums) {
			if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
				note(name, sum)
			}
		}
	}
	learners := 0
	for _, m := range listedMembers(t) {
		if m.learner {
			learners++
		} else if m.name != "" {
			note("voter "+m.name, m.id)
		}
	}
	if learners > 1 {
		t.Errorf("%d learners at a time", learners)
	}
}

type listedMember struct {
	id, name, peerURL string
	learner           bool
}

// listedMembers is the member list as the first master that answers has it;
// none when there is no etcd yet, or no quorum.
func listedMembers(t *testing.T) []listedMember {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for _, host := range allMasters {
		out, err := theLab.Exec(ctx, host, etcdctlArgs("--command-timeout=2s", "member", "list")...)
		if err != nil {
			continue // no such host, no etcd on it, or none that has a leader
		}
		var list []listedMember
		for line := range strings.Lines(string(out)) {
			// ID, status, name, peer URLs, client URLs, is a learner
			if f := strings.Split(strings.TrimSpace(line), ", "); len(f) == 6 {
				list = append(list, listedMember{id: f[0], name: f[2], peerURL: f[3], learner: f[5] == "true"})
			}
		}
		return list
	}
	return nil
}

// killedAt runs apply and kills it with SIGKILL when a step of the phase says
// the text.
func killedAt(t *testing.T, path, phase, text string) result {
	t.Helper()
	r := haWatched(t, func(line string) bool {
		var e event
		return json.Unmarshal([]byte(line), &e) == nil && e.Phase == phase && e.Kind == "output" && strings.Contains(e.Message, text)
	}, "apply", "-o", "json", path)
	if r.code != -1 {
		t.Fatalf("it was not killed: phase %q never said %q; exit %d\n%s", phase, text, r.code, r.tail())
	}
	return r
}

// killedOnce kills the installer once at each of the most dangerous moments,
// and then lets one run go on undisturbed. (The one between the add of a member
// and its promotion is with the joins, in "grow".)
func killedOnce(t *testing.T) {
	needUndisturbed(t)
	t.Run("in the middle of init", func(t *testing.T) {
		path := writeInventory(t, nil, nil)
		recreate(t, baseHosts...) // a reset leaves what it moved aside
		killedAt(t, path, "init", "[kubelet-start] Starting the kubelet")
		comesThrough(t, path)
	})
	t.Run("while etcd is hardened", func(t *testing.T) {
		soften(t, "cp-1")
		path := writeInventory(t, nil, nil)
		p := killPoint{phase: "harden-etcd", host: "cp-1", inside: true, after: hardenMoment}
		if r := haWatched(t, p.hit, "apply", "-o", "json", path); r.code != -1 {
			t.Fatalf("it was not killed %s\n%s", p, r.tail())
		}
		comesThrough(t, path)
	})
	t.Run("in the middle of a worker's join", func(t *testing.T) {
		recreate(t, "w-1")
		kubectl(t, "delete", "node", "w-1")
		path := writeInventory(t, nil, nil)
		killedAt(t, path, "join", "[kubelet-start] Starting the kubelet")
		comesThrough(t, path)
	})
	wantWhole(t, writeInventory(t, nil, nil), masters, "w-1")
	wantUndisturbed(t)
}

// hardenMoment is when etcd's manifest is being swapped, the kubelet stopped.
const hardenMoment = 700 * time.Millisecond

func comesThrough(t *testing.T, path string) {
	t.Helper()
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("the next run came through in %s, %d steps", r.took.Round(100*time.Millisecond), r.changed(t))
}

// soften takes back what harden-etcd did on a master.
func soften(t *testing.T, host string) {
	t.Helper()
	shell(t, host, `systemctl stop kubelet && sed -i '/`+existing+`/d' /etc/kubernetes/manifests/etcd.yaml && systemctl start kubelet`)
	awaitFaultless(t, writeInventory(t, nil, nil), 3*time.Minute)
}
