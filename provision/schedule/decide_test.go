package schedule

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) // its first period of six hours is cp-3's
	at := func(clock string) time.Time {
		c, err := time.Parse(time.TimeOnly, clock)
		if err != nil {
			t.Fatal(err)
		}
		return day.Add(c.Sub(c.Truncate(24 * time.Hour)))
	}
	three := []string{"cp-1", "cp-2", "cp-3"}
	// made is the record of a backup that cp-2 has made.
	made := func(period, clock string) *Note { return &Note{Period: at(period), Time: at(clock), Host: "cp-2"} }
	on := func(clock string) *Note { return &Note{Period: at(clock), Host: "cp-9"} }
	for _, row := range []struct {
		name    string
		now     string
		self    string
		masters []string
		last    *Note
		own     []time.Time
		want    Kind
		period  string
		why     string
	}{
		{"the first master of a period makes its backup at once", "00:00:00", "cp-3", three, nil, nil, Make, "00:00:00", "the period since 2026-11-23T00:00:00Z has no backup yet"},
		{"the next one waits for it", "00:00:00", "cp-1", three, nil, nil, Wait, "00:00:00", "it is the turn of cp-3; cp-1 would follow at 2026-11-23T00:15:00Z"},
		{"and the one after that longer", "00:29:59", "cp-2", three, nil, nil, Wait, "00:00:00", "it is the turn of cp-3; cp-2 would follow at 2026-11-23T00:30:00Z"},
		{"when the first has not come, the next one follows", "00:15:00", "cp-1", three, nil, nil, Make, "00:00:00", ""},
		{"when two have not come, the third does", "00:30:00", "cp-2", three, nil, nil, Make, "00:00:00", ""},
		{"late is better than never", "05:59:59", "cp-2", three, nil, nil, Make, "00:00:00", ""},
		{"the next period is the next master's", "06:00:00", "cp-1", three, on("00:00:00"), nil, Make, "06:00:00", ""},
		{"not that of the one that had the last", "06:00:00", "cp-3", three, on("00:00:00"), nil, Wait, "06:00:00", "it is the turn of cp-1; cp-3 would follow at 2026-11-23T06:30:00Z"},
		{"a period that has its backup needs none", "11:00:00", "cp-1", three, on("06:00:00"), nil, Nothing, "06:00:00", "the period since 2026-11-23T06:00:00Z has its backup, on cp-9"},
		{"one of a shorter schedule from before counts", "11:00:00", "cp-1", three, on("09:00:00"), nil, Nothing, "06:00:00", ""},
		{"a clock that is a little behind finds the next period's", "05:59:59", "cp-2", three, on("06:00:00"), nil, Nothing, "00:00:00", ""},
		{"a record of the far future ends nothing", "06:00:00", "cp-1", three, on("23:00:00"), nil, Make, "06:00:00", ""},
		{"what was made and not put on record is found", "06:30:00", "cp-2", three, on("00:00:00"), []time.Time{at("06:10:00"), at("00:00:01")}, Adopt, "06:00:00", "it was made at 2026-11-23T06:10:00Z and is not on record"},
		{"one on record is not put there again, be its period another", "06:30:00", "cp-2", three, made("00:00:00", "06:10:00"), []time.Time{at("06:10:00")}, Nothing, "06:00:00", "it was made at 2026-11-23T06:10:00Z and put on record"},
		{"what another master made at that time is not this one's", "06:30:00", "cp-3", three, made("00:00:00", "06:10:00"), []time.Time{at("06:10:00")}, Adopt, "06:00:00", ""},
		{"one of the period before is not this one's", "06:00:00", "cp-1", three, on("00:00:00"), []time.Time{at("05:59:59")}, Make, "06:00:00", ""},
		{"a learner waits", "06:00:00", "cp-4", three, nil, nil, Wait, "06:00:00", "cp-4 is no voter"},
		{"a single master always has the turn", "06:00:00", "cp-2", []string{"cp-2"}, nil, nil, Make, "06:00:00", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := Decide(Facts{Now: at(row.now), Every: 6 * time.Hour, Grace: 15 * time.Minute, Self: row.self, Masters: row.masters, Last: row.last, Own: row.own})
			if d.Kind != row.want || !d.Period.Equal(at(row.period)) || row.why != "" && d.Why != row.why {
				t.Errorf("%+v", d)
			}
		})
	}
}

// TestEachPeriodHasOneFirstMaster goes through many: by turns, and never two at once.
func TestEachPeriodHasOneFirstMaster(t *testing.T) {
	masters := []string{"cp-2", "cp-3", "cp-1"}
	now, last := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), ""
	for range 30 {
		first := ""
		for _, self := range masters {
			if d := Decide(Facts{Now: now, Every: 7 * time.Minute, Grace: time.Minute, Self: self, Masters: masters}); d.Kind == Make && now.Equal(d.Period) {
				if first != "" {
					t.Errorf("%s: both %s and %s", now, first, self)
				}
				first = self
			}
		}
		if now.Equal(now.Truncate(7*time.Minute)) && (first == "" || first == last) {
			t.Errorf("%s: %q after %q", now, first, last)
		}
		if first != "" {
			last = first
		}
		now = now.Truncate(7 * time.Minute).Add(7 * time.Minute)
	}
}

// TestARecordThatGaveWayIsNotPutBack: a master whose clock is far off puts its own in
// place of it, and the two would take turns at that with each look.
func TestARecordThatGaveWayIsNotPutBack(t *testing.T) {
	now := time.Date(2026, 11, 23, 6, 30, 0, 0, time.UTC)
	own := now.Add(-10 * time.Minute)
	for name, last := range map[string]*Note{
		"far behind": {Period: now.Add(-24 * time.Hour).Truncate(6 * time.Hour), Host: "cp-2"},
		"far ahead":  {Period: now.Add(24 * time.Hour).Truncate(6 * time.Hour), Host: "cp-2"},
	} {
		f := Facts{Now: now, Every: 6 * time.Hour, Grace: time.Minute, Self: "cp-1", Masters: []string{"cp-1", "cp-2"}, Last: last, Own: []time.Time{own}}
		if d := Decide(f); d.Kind != Adopt {
			t.Errorf("another clock is %s, not recorded: %+v", name, d)
		}
		f.Recorded = own
		if d := Decide(f); d.Kind != Nothing {
			t.Errorf("another clock is %s, recorded: %+v", name, d)
		}
		f.Now = now.Add(6 * time.Hour)
		if d := Decide(f); d.Kind != Make {
			t.Errorf("another clock is %s, in the next period: %+v", name, d)
		}
	}
}
