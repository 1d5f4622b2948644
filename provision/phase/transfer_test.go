package phase

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// slow hands out one byte every tenth of a second.
type slow struct{ io.Reader }

func (s slow) Read(p []byte) (int, error) {
	<-time.After(100 * time.Millisecond)
	return s.Reader.Read(p[:1])
}

func (s slow) Close() error { return nil }

func send(ctx context.Context, bytes int) error {
	r := Count(ctx, slow{strings.NewReader(strings.Repeat("x", bytes))})
	defer r.Close()
	_, err := io.Copy(io.Discard, r)
	return err
}

func TestTransferIsReportedFourTimesASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Phase{Name: "images", Host: "cp-1", Do: func(ctx context.Context) error {
			Expect(ctx, 20)
			if err := send(ctx, 10); err != nil {
				return err
			}
			<-time.After(time.Minute) // nothing is sent: no part of the rate
			return send(ctx, 10)
		}}
		events, err := collect(t.Context(), &Runner{}, One(p))
		if err != nil {
			t.Fatal(err)
		}
		var last time.Time
		reports := 0
		for _, e := range events {
			if e.Kind != Progress {
				continue
			}
			if reports++; e.Transfer == nil || e.Transfer.Total != 20 || e.Phase != "images" || e.Host != "cp-1" {
				t.Errorf("progress %+v", e)
			}
			if !last.IsZero() && e.Time.Sub(last) < progressEvery {
				t.Errorf("two reports within %s", e.Time.Sub(last))
			}
			last = e.Time
		}
		if reports < 5 || reports > 8 {
			t.Errorf("%d reports in two seconds of sending", reports)
		}
		// The reader's end costs a tenth of a second, too: 22 for 20 bytes.
		want := &Transfer{Done: 20, Total: 20, Rate: 9}
		if end := events[len(events)-1]; end.Kind != Finished || !cmp.Equal(end.Transfer, want) {
			t.Errorf("the end: %+v, %+v", end, end.Transfer)
		}
	})
}

func TestFilesAtOnceAreOneTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Phase{Name: "software", Do: func(ctx context.Context) error {
			Expect(ctx, 20)
			other := make(chan error)
			go func() { other <- send(ctx, 10) }()
			if err := send(ctx, 10); err != nil {
				return err
			}
			return <-other
		}}
		events, err := collect(t.Context(), &Runner{}, One(p))
		want := &Transfer{Done: 20, Total: 20, Rate: 18}
		if end := events[len(events)-1]; err != nil || !cmp.Equal(end.Transfer, want) {
			t.Errorf("%+v, %v", end.Transfer, err)
		}
	})
}

func TestATransferThatIsRepeatedCountsOnce(t *testing.T) {
	p := Phase{Name: "software", Do: func(ctx context.Context) error {
		Expect(ctx, 4)
		broken := Count(ctx, io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abcd")))))
		if _, err := io.Copy(io.Discard, broken); err == nil {
			t.Error("the reader did not break")
		}
		broken.Close()
		broken.Close()
		whole := Count(ctx, io.NopCloser(strings.NewReader("abcd")))
		defer whole.Close()
		_, err := io.Copy(io.Discard, whole)
		return err
	}}
	events, err := collect(t.Context(), &Runner{}, One(p))
	if end := events[len(events)-1]; err != nil || end.Transfer == nil || end.Transfer.Done != 4 {
		t.Errorf("%+v, %v", end.Transfer, err)
	}
}

func TestNothingSentIsNoTransfer(t *testing.T) {
	events, _ := collect(t.Context(), &Runner{}, One(Phase{Name: "claim", Do: func(context.Context) error { return nil }}))
	if end := events[len(events)-1]; end.Transfer != nil {
		t.Errorf("%+v", end.Transfer)
	}
	if err := send(t.Context(), 1); err != nil { // outside of a phase
		t.Error(err)
	}
}

func TestARunBeginsWithWhatIsToCome(t *testing.T) {
	host := func(name string) Phase { return Phase{Name: "software", Host: name} }
	var first Event
	r := Runner{Events: func(e Event) {
		if first.Kind == "" {
			first = e
		}
	}}
	if err := r.Run(t.Context(), []Stage{One(Phase{Name: "preflight"}), AtOnce([]string{"cp-1", "cp-2"}, host)}); err != nil {
		t.Fatal(err)
	}
	first.Time = time.Time{}
	got, err := json.Marshal(first)
	want := `{"time":"0001-01-01T00:00:00Z","kind":"workflow","stages":[{"phases":[{"phase":"preflight"}]},` +
		`{"parallel":true,"phases":[{"phase":"software","host":"cp-1"},{"phase":"software","host":"cp-2"}]}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s (%v), wanted %s", got, err, want)
	}
}
