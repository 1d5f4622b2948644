package probe

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatIsKeptForTheChartIsBounded(t *testing.T) {
	var r record
	for range mostSamples + 5 {
		r.sample(Sample{})
	}
	if out := r.report(LongLived, time.Now()); len(out.Samples) != mostSamples || out.Unsampled != 5 {
		t.Errorf("%d samples and %d more, want %d and 5", len(out.Samples), out.Unsampled, mostSamples)
	}
}

func TestAnOutageOfReadsThatLastsToTheEndCounts(t *testing.T) {
	began := time.Now()
	r := record{started: began}
	r.addRead(Sample{At: began, Took: time.Second, Read: true, Failed: true}, errors.New("no answer"), false)
	r.addRead(Sample{At: began.Add(time.Second), Took: time.Second, Read: true, Failed: true}, errors.New("no answer"), false)
	if out := r.report(LongLived, began.Add(3*time.Second)); out.Reads.LongestOutage != 3*time.Second || out.Reads.Failures != 2 {
		t.Errorf("reads %+v, want an outage of 3 s", out.Reads)
	}
}

func TestAnOutageOfReads(t *testing.T) {
	start := time.Now()
	type read struct {
		sent, took time.Duration
		failed     bool
	}
	const ms = time.Millisecond
	for _, tt := range []struct {
		what  string
		reads []read
		want  time.Duration
	}{
		{"none failed", []read{{0, 10 * ms, false}, {50 * ms, 900 * ms, false}}, 0},
		{"one failed at once, the next worked", []read{{0, 10 * ms, false}, {50 * ms, 5 * ms, true}, {100 * ms, 10 * ms, false}}, 60 * ms},
		{"one hung while others worked", []read{{50 * ms, 10 * ms, false}, {900 * ms, 10 * ms, false}, {0, 1000 * ms, true}, {1000 * ms, 10 * ms, false}}, 100 * ms},
		{"an outage", []read{{0, 10 * ms, false}, {50 * ms, 1000 * ms, true}, {100 * ms, 1000 * ms, true}, {1050 * ms, 450 * ms, false}}, 1450 * ms},
	} {
		r := record{started: start}
		for _, a := range tt.reads {
			var err error
			if a.failed {
				err = errors.New("no answer")
			}
			r.addRead(Sample{At: start.Add(a.sent), Took: a.took, Read: true, Failed: a.failed}, err, false)
		}
		if got := r.report(LongLived, start.Add(2*time.Second)).Reads.LongestOutage; got != tt.want {
			t.Errorf("%s: outage %s, want %s", tt.what, got, tt.want)
		}
	}
}

func TestBackwards(t *testing.T) {
	start := time.Now()
	write := func(number int, began, ended time.Duration, version uint64) attempt {
		return attempt{number: number, began: start.Add(began), ended: start.Add(ended), version: version}
	}
	for _, tt := range []struct {
		what   string
		writes []attempt
		want   []int
	}{
		{"in order", []attempt{write(1, 0, 1, 5), write(2, 2, 3, 6)}, nil},
		{"overtaken while under way", []attempt{write(2, 1, 3, 6), write(1, 0, 4, 5)}, nil},
		{"below one that had been acknowledged", []attempt{write(1, 0, 1, 5), write(2, 2, 3, 4)}, []int{2}},
		{"the same again", []attempt{write(1, 0, 1, 5), write(2, 2, 3, 5)}, []int{2}},
		{"in no time at all", []attempt{write(1, 0, 0, 5), write(2, 0, 0, 4)}, nil},
		{"recorded in the other order", []attempt{write(2, 2, 3, 4), write(1, 0, 1, 5)}, []int{2}},
		{"two, the second below the first only", []attempt{write(1, 0, 1, 5), write(2, 0, 2, 9), write(3, 1, 3, 7), write(4, 4, 5, 8)}, []int{4}},
	} {
		r := record{started: start, acknowledged: tt.writes}
		if got := r.report(LongLived, start.Add(time.Second)).Backwards; !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestALongOutageMakesNoLongText(t *testing.T) {
	r := Report{Failures: make([]Failure, mostTold+30)}
	for i := range r.Failures {
		r.Failures[i] = Failure{Number: i, Err: errors.New("no answer")}
	}
	if text := r.String(); strings.Count(text, "no answer") != mostTold || !strings.HasSuffix(text, "and 30 more") {
		t.Errorf("the report is\n%s", text)
	}
}
