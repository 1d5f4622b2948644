package probe_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ha-install/ha-install/provision/probe"
)

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func always(b behaviour) func(int) behaviour { return func(int) behaviour { return b } }

// at misbehaves at the given writes only.
func at(b behaviour, writes ...int) func(int) behaviour {
	return func(n int) behaviour {
		if slices.Contains(writes, n) {
			return b
		}
		return store
	}
}

// observe runs a probe until so many writes are acknowledged.
func observe(t *testing.T, api *fakeAPI, kind probe.Kind, acknowledged int) probe.Report {
	t.Helper()
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Kind: kind, Rate: 200, Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitWrites(ctx, acknowledged); err != nil {
		t.Fatal(err)
	}
	report, err := p.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	return report
}

func TestAHealthyEndpointLosesNothing(t *testing.T) {
	for _, kind := range []probe.Kind{probe.NewConnection, probe.LongLived} {
		t.Run(string(kind), func(t *testing.T) {
			api := newFakeAPI(t, always(store))
			r := observe(t, api, kind, 20)
			if !r.Verified || len(r.Failures)+len(r.Lost)+len(r.Backwards) != 0 || r.Acknowledged < 20 || r.Attempts != r.Acknowledged {
				t.Errorf("got %+v; want 20 writes or more, none failed, none lost", r)
			}
			if n := len(api.objects); n > 0 {
				t.Errorf("the probe left %d objects behind", n)
			}
			// The second write may be sent while the first one still connects.
			if kind == probe.LongLived && api.connections > 2 {
				t.Errorf("%d connections, want one for the whole probe", api.connections)
			}
			if kind == probe.NewConnection && api.connections < r.Attempts {
				t.Errorf("%d connections for %d writes, want one for each", api.connections, r.Attempts)
			}
		})
	}
}

func TestALostAcknowledgedWriteIsNamed(t *testing.T) {
	r := observe(t, newFakeAPI(t, at(forget, 3, 5)), probe.LongLived, 8)
	if !slices.Equal(r.Lost, []int{3, 5}) {
		t.Errorf("lost %v, want 3 and 5", r.Lost)
	}
	if !strings.Contains(r.String(), "LOST acknowledged writes [3 5]") {
		t.Errorf("the report hides the loss: %s", r)
	}
}

func TestARefusedWriteIsAFailureAndIsNotTriedAgain(t *testing.T) {
	api := newFakeAPI(t, at(unavailable, 4))
	r := observe(t, api, probe.NewConnection, 8)
	if len(r.Failures) != 1 || r.Failures[0].Number != 4 || !apierrors.IsServiceUnavailable(r.Failures[0].Err) {
		t.Fatalf("failures %v, want write 4 with its 503", r.Failures)
	}
	if len(r.Lost) != 0 {
		t.Errorf("lost %v: a write that was never acknowledged cannot be lost", r.Lost)
	}
	if r.Attempts != api.writes {
		t.Errorf("%d attempts made %d requests: client-go retried behind the probe's back", r.Attempts, api.writes)
	}
}

func TestAPatientClientTriesAgainWhereTheServerSaysRetryAfter(t *testing.T) {
	api := newFakeAPI(t, func(n int) behaviour { return unavailable })
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Kind: probe.LongLived, Rate: 1, Timeout: 10 * time.Second, Patient: true})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // the first write has been refused
	api.now(always(store))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := p.Stop(ctx)
	if err != nil || len(r.Failures) != 0 || r.Acknowledged != r.Attempts || api.writes <= r.Attempts {
		t.Errorf("%s, %v after %d requests; want every write acknowledged, the first one at a second try", r, err, api.writes)
	}
}

func TestAHangingWriteDelaysNoOther(t *testing.T) {
	r := observe(t, newFakeAPI(t, at(hang, 4, 5)), probe.LongLived, 80)
	if len(r.Failures) != 2 || !errors.Is(r.Failures[0], context.DeadlineExceeded) {
		t.Fatalf("failures %v, want two timeouts", r.Failures)
	}
	if limit := 200 * time.Millisecond; r.LongestGap >= limit || r.Failures[0].Took < limit {
		t.Errorf("longest gap %s, failed after %s; the others were answered while these two waited their %s", r.LongestGap, r.Failures[0].Took, limit)
	}
}

func TestAnOutageFailsEveryWriteInItAndMakesTheLongestGap(t *testing.T) {
	var out []int
	for n := 20; n < 100; n++ { // 400 ms at 200 a second
		out = append(out, n)
	}
	r := observe(t, newFakeAPI(t, at(unavailable, out...)), probe.LongLived, 60)
	if len(r.Failures) != len(out) {
		t.Fatalf("%d failures, want %d", len(r.Failures), len(out))
	}
	if r.LongestGap < 300*time.Millisecond || r.LongestGap > 2*time.Second {
		t.Errorf("longest gap %s, want the 400 ms for which it refused", r.LongestGap)
	}
}

func TestTimeGoingBackwardsIsSeen(t *testing.T) {
	r := observe(t, newFakeAPI(t, at(goBack, 6)), probe.LongLived, 8)
	if !slices.Equal(r.Backwards, []int{6}) {
		t.Errorf("backwards %v, want 6", r.Backwards)
	}
}

func TestReadingBackIsTriedUntilTheEndpointAnswers(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.failLists = 2
	if r := observe(t, api, probe.NewConnection, 3); !r.Verified || api.lists < 3 {
		t.Errorf("verified %v after %d lists", r.Verified, api.lists)
	}
}

func TestWithoutAnyAnswerTheReportIsNotAVerdict(t *testing.T) {
	api := newFakeAPI(t, always(unavailable))
	api.failLists = 1000
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.AwaitWrites(ctx, 1); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("AwaitWrites = %v, want the last failure in it", err)
	}
	r, err := p.Stop(ctx)
	if err == nil || r.Verified || r.Acknowledged != 0 || r.LongestGap < 200*time.Millisecond {
		t.Errorf("Stop = %+v, %v; want an error, no verdict, and a gap as long as the probe", r, err)
	}
	if !strings.Contains(r.String(), "not read back") {
		t.Errorf("the report reads like a verdict: %s", r)
	}
}

func TestABadConfigurationIsRefused(t *testing.T) {
	api := newFakeAPI(t, always(store))
	for what, config := range map[string]probe.Config{
		"no endpoint":  {},
		"no such kind": {REST: api.rest(), Kind: "carrier pigeon"},
	} {
		if _, err := probe.Start(t.Context(), config); err == nil {
			t.Errorf("%s: Start worked", what)
		}
	}
}

// reading runs a probe that reads, too, until so many writes are acknowledged.
func reading(t *testing.T, api *fakeAPI, acknowledged int) probe.Report {
	t.Helper()
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Kind: probe.LongLived, Rate: 100, Timeout: 200 * time.Millisecond, Reads: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitWrites(ctx, acknowledged); err != nil {
		t.Fatal(err)
	}
	report, err := p.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestReadsThatHangAreFailuresOfReadsAlone(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.hangGets = []int{4, 5}
	r := reading(t, api, 80)
	if r.Reads.Failures != 2 || r.Reads.Stale != 0 || !errors.Is(r.Reads.First, context.DeadlineExceeded) {
		t.Errorf("reads %+v, want two timeouts", r.Reads)
	}
	if r.Reads.LongestOutage >= 200*time.Millisecond {
		t.Errorf("outage %s, while all other reads were answered", r.Reads.LongestOutage)
	}
	if len(r.Failures) != 0 {
		t.Errorf("failed writes: %v", r.Failures)
	}
}

func TestAReadThatDoesNotFindWhatWasAcknowledgedIsStale(t *testing.T) {
	if r := reading(t, newFakeAPI(t, always(forget)), 40); r.Reads.Stale == 0 || r.Reads.Stale != r.Reads.Attempts {
		t.Errorf("reads %+v, want all of them stale", r.Reads)
	}
}

func TestEveryRequestIsKeptForTheChart(t *testing.T) {
	r := reading(t, newFakeAPI(t, at(unavailable, 3)), 40)
	writes, failed := 0, 0
	for _, s := range r.Samples {
		if s.At.IsZero() || s.Took <= 0 {
			t.Fatalf("sample %+v", s)
		}
		if !s.Read {
			writes++
		}
		if s.Failed {
			failed++
		}
	}
	if writes != r.Attempts || len(r.Samples)-writes != r.Reads.Attempts || failed != 1 || r.Unsampled != 0 {
		t.Errorf("%d samples, %d of writes, %d failed; want one for each of %d writes and %d reads, one failed", len(r.Samples), writes, failed, r.Attempts, r.Reads.Attempts)
	}
}

func TestAllOfManyObjectsAreRemoved(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.copies, api.failRemovals = 100, 2
	r := observe(t, api, probe.LongLived, 20)
	if n := len(api.objects); n > 0 || r.Acknowledged < 20 {
		t.Errorf("the probe left %d of more than 2,000 objects behind, %+v", n, r)
	}
	if want := api.failRemovals + 2020/500; api.removals < want {
		t.Errorf("%d requests to remove, want %d or more: two failed, and 500 at a time", api.removals, want)
	}
}

// A probe that has written for a quarter of an hour leaves more than goes within
// any fixed time.
func TestARemovalThatGoesOnIsNotGivenUp(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.copies, api.removalTakes = 100, 400*time.Millisecond // four pages and more
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Rate: 200, RemovePatience: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitWrites(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stop(t.Context()); err != nil || len(api.objects) > 0 {
		t.Errorf("%d objects are left: %v", len(api.objects), err)
	}
}

// One that stands still is.
func TestARemovalThatStandsStillIsGivenUp(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.failRemovals = 1 << 20
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Rate: 200, RemovePatience: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitWrites(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stop(t.Context()); err == nil {
		t.Error("a removal of which nothing comes ends without an error")
	}
}

func TestWhatCannotBeRemovedIsNamed(t *testing.T) {
	api := newFakeAPI(t, always(store))
	api.failRemovals = 1 << 20
	p, err := probe.Start(t.Context(), probe.Config{REST: api.rest(), Rate: 200})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := p.AwaitWrites(ctx, 5); err != nil {
		t.Fatal(err)
	}
	report, err := p.Stop(ctx)
	if !report.Verified {
		t.Errorf("the writes were not read back: %+v", report)
	}
	for _, want := range []string{"etcdserver: request timed out", "run: kubectl --namespace default delete configmaps --selector ha-install.io/probe="} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
