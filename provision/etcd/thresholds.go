package etcd

import (
	"fmt"

	"github.com/ha-install/ha-install/provision/units"
)

// Crossing is a threshold that was crossed.
type Crossing struct {
	Subject string  `json:"subject"` // a host, a member, or "cluster"
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"` // "seconds", or "ratio" of what there is
	Warn    float64 `json:"warn"`
	Refuse  float64 `json:"refuse,omitempty"` // 0: nothing is refused for it
	// Refuses says that Refuse was crossed too.
	Refuses bool   `json:"refuses,omitempty"`
	Text    string `json:"text"`
}

// crossings compares a member's figures with their thresholds.
func crossings(m Member) []Crossing {
	var cs []Crossing
	if m.Latency.Duration() > slowRead {
		cs = append(cs, Crossing{
			Subject: m.Name, What: "linearizable read", Value: m.Latency.Number(), Unit: "seconds", Warn: slowRead.Seconds(),
			Text: fmt.Sprintf("%s: a linearizable read took %s (warns above %s)", m.Name, shortDuration(m.Latency), slowRead),
		})
	}
	if m.FsyncP99.Duration() > slowFsync {
		cs = append(cs, Crossing{
			Subject: m.Name, What: "WAL fsync p99", Value: m.FsyncP99.Number(), Unit: "seconds", Warn: slowFsync.Seconds(),
			Text: fmt.Sprintf("%s: the disk is slow: 99 %% of etcd's fsyncs take up to %s (warns above %s)", m.Name, shortDuration(m.FsyncP99), slowFsync),
		})
	}
	if full := m.Fullness(); full >= QuotaWarn {
		cs = append(cs, Crossing{
			Subject: m.Name, What: "database over quota", Value: units.Ratio(full), Unit: "ratio", Warn: QuotaWarn, Refuse: QuotaRefuse, Refuses: full >= QuotaRefuse,
			Text: fmt.Sprintf("%s: the database fills %.0f %% of its quota (warns at %.0f %%, mutations are refused at %.0f %%): compact and defragment it", m.Name, full*100, QuotaWarn*100, QuotaRefuse*100),
		})
	}
	return cs
}

func writeCrossing(w *Write) Crossing {
	return Crossing{
		Subject: "cluster", What: "leased write", Value: w.Latency.Number(), Unit: "seconds", Warn: slowRead.Seconds(),
		Text: "the write probe took " + shortDuration(w.Latency),
	}
}

// Fullness is the member's database over its quota; 0 where the quota is not told.
func (m Member) Fullness() float64 { return fullness(m.DBSize, m.DBQuota) }

// Fullness is the database over its quota; 0 where the quota is not told.
func (s Status) Fullness() float64 { return fullness(s.DBSize, s.DBQuota) }

func fullness(size, quota int64) float64 {
	if quota <= 0 {
		return 0
	}
	return float64(size) / float64(quota)
}
