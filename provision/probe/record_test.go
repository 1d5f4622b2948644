package probe

import (
	"errors"
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
