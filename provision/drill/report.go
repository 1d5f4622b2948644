package drill

import (
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// Schema is the version of the JSON form of a Report. It is raised when a field
// changes its meaning or goes; new fields do not raise it.
const Schema = 1

// Verdict is what a scenario, or all of them, came to.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "PASS"
	Fail    Verdict = "FAIL"
	LeftOut Verdict = "LEFT OUT"
)

// Report is what a drill has shown.
type Report struct {
	Schema     int        `json:"schema"`
	Cluster    string     `json:"cluster"`
	Began      time.Time  `json:"began"`
	Ended      time.Time  `json:"ended"`
	Verdict    Verdict    `json:"verdict"`
	Thresholds Thresholds `json:"thresholds"`
	Scenarios  []Result   `json:"scenarios"` // as far as they were played
	// Error is why the drill ended before its end; "" when it did not.
	Error string `json:"error,omitempty"`
}

// Result is what one scenario has shown. Times in seconds count from the
// failure, unless they say otherwise.
type Result struct {
	Scenario  string  `json:"scenario"`
	Fails     string  `json:"fails"`
	Mitigates string  `json:"mitigates"`
	Verdict   Verdict `json:"verdict"`
	// Reasons are why it failed or was left out, a sentence each.
	Reasons []string  `json:"reasons,omitempty"`
	Host    string    `json:"host,omitempty"`
	Why     string    `json:"why,omitempty"` // this host
	Failed  time.Time `json:"failed,omitzero"`
	// Down is how long the failure lasted.
	Down units.Seconds `json:"downSeconds,omitempty"`
	// Moved is when the last request failed that failed before the repair: from
	// then on all clients had found what was left. 0: none failed.
	Moved units.Seconds `json:"movedSeconds"`
	// Recovered is the time from the repair until the cluster was whole.
	Recovered units.Seconds `json:"recoveredSeconds"`
	Takeovers []Takeover    `json:"takeovers,omitempty"`
	Clients   []Client      `json:"clients,omitempty"`
	Workload  *Workload     `json:"workload,omitempty"`
}

// Takeover is what somebody else leads since the failure.
type Takeover struct {
	What string `json:"what"`
	From string `json:"from"`
	To   string `json:"to,omitempty"` // "" when nobody took over before the repair
	// After is until it was seen.
	After units.Seconds `json:"afterSeconds,omitempty"`
}

// Client is what one client of the endpoint has seen, from before the failure
// until the cluster was whole again.
type Client struct {
	Kind         string `json:"kind"`
	Writes       int    `json:"writes"`
	FailedWrites int    `json:"failedWrites"`
	// WriteGap is the longest time without an acknowledged write.
	WriteGap    units.Seconds `json:"writeGapSeconds"`
	WriteGapAt  units.Seconds `json:"writeGapAtSeconds"` // when it began
	Reads       int           `json:"reads"`
	FailedReads int           `json:"failedReads"`
	ReadOutage  units.Seconds `json:"readOutageSeconds"` // the longest, from a failed read to the next answer
	// Lost are acknowledged writes that are gone, Stale reads that did not find
	// what was acknowledged before, Backwards writes that got an older revision
	// than one before. Verified says that Lost was found out.
	Lost      int    `json:"lostWrites"`
	Stale     int    `json:"staleReads"`
	Backwards int    `json:"backwards"`
	Verified  bool   `json:"verified"`
	FirstErr  string `json:"firstError,omitempty"`
	// Timeline is for a chart.
	Timeline []Bucket `json:"timeline"`
}

// BucketWidth is what a Bucket sums up.
const BucketWidth = 250 * time.Millisecond

// Bucket sums up the requests that were sent within BucketWidth; buckets
// without a request are left out.
type Bucket struct {
	At       units.Seconds `json:"atSeconds"` // its beginning; before the failure it is negative
	Requests int           `json:"requests"`
	Failed   int           `json:"failed,omitempty"`
	Slowest  units.Seconds `json:"slowestSeconds"`
}

// Workload is what pods have shown.
type Workload struct {
	// Requests and Failed are those of a client that asks a running pod all the time.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	// Scheduled is until a new pod ran that was made right after the failure,
	// Replaced until one ran in the place of a deleted pod of a Deployment. nil:
	// not before the cluster was whole again.
	Scheduled *units.Seconds `json:"scheduledSeconds,omitempty"`
	Replaced  *units.Seconds `json:"replacedSeconds,omitempty"`
}

// WriteGap is the longest of any client.
func (r Result) WriteGap() units.Seconds {
	var longest units.Seconds
	for _, c := range r.Clients {
		longest = max(longest, c.WriteGap)
	}
	return longest
}

// Lost counts the acknowledged writes that any client has lost.
func (r Result) Lost() int {
	n := 0
	for _, c := range r.Clients {
		n += c.Lost
	}
	return n
}

// TakenOver is when the last of what had to be taken over was; false when
// something was not.
func (r Result) TakenOver() (units.Seconds, bool) {
	var last units.Seconds
	for _, t := range r.Takeovers {
		if t.To == "" {
			return 0, false
		}
		last = max(last, t.After)
	}
	return last, true
}
