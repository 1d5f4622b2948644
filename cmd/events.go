package cmd

import (
	"encoding/json"
	"io"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// The contract of `-o json` of the verbs that change hosts: one JSON object a
// line. The first is a runHead, then come phase.Events as they happen, the last
// is a runSummary; without that, the run was killed. A schema may get new kinds
// and new fields; what is there keeps its name and meaning.
const eventSchema = 1

const eventHelp = `With -o json, one JSON object a line:

  run        first: schema (1), command, cluster, version, time, hosts
  workflow   the phases to come, in stages; those of a parallel stage run at once
  started    a phase began; phase and, unless it is of the whole cluster, host
  waiting    message completes "waiting for ..."
  output     message is a line of a long command
  progress   transfer: doneBytes, totalBytes, bytesPerSecond
  notice     message is for the operator; data has the same for programs:
             quorum and decision, or preflight, or backup
  undoing    the phase takes back what it began; message is the cause
  finished   the phase changed something, and its gate passed
  skipped    all was as it should be, and its gate passed
  failed     message is the error
  stopping   the operator asked for a stop at the next safe point
  stopped    the phase was stopped there; message says in which part
  summary    last: result (ok, failed, interrupted), exitCode, error, changed,
             unchanged, elapsedSeconds, phases with their times

Each has time and kind, those of phases elapsedSeconds since the phase started.
All durations are numbers of seconds. A stream without a summary was cut off.
New kinds and fields may come within a schema: skip what you do not know.`

// runHead is the first line of a run.
type runHead struct {
	Kind       string    `json:"kind"` // "run"
	Schema     int       `json:"schema"`
	Time       time.Time `json:"time"`
	Command    string    `json:"command"` // the verb
	Cluster    string    `json:"cluster"`
	Kubernetes string    `json:"kubernetesVersion"` // that the inventory wants
	Version    string    `json:"version"`           // of this program
	Hosts      []runHost `json:"hosts"`
}

type runHost struct {
	Name string         `json:"name"`
	Role inventory.Role `json:"role"`
}

func headOf(command string, c *inventory.Cluster, now time.Time) runHead {
	h := runHead{
		Kind: "run", Schema: eventSchema, Time: now.UTC(), Command: command,
		Cluster: c.Metadata.Name, Kubernetes: c.Spec.Kubernetes.Version, Version: Version,
	}
	for _, of := range c.Spec.Hosts {
		h.Hosts = append(h.Hosts, runHost{Name: of.Name, Role: of.Role})
	}
	return h
}

// How a run ended.
const (
	resultOK          = "ok"
	resultFailed      = "failed"
	resultInterrupted = "interrupted"
)

// runSummary is the last line of a run.
type runSummary struct {
	Time      time.Time      `json:"time"`
	Kind      string         `json:"kind"` // "summary"
	Result    string         `json:"result"`
	ExitCode  int            `json:"exitCode"`
	Error     string         `json:"error,omitempty"`
	Changed   int            `json:"changed"`
	Unchanged int            `json:"unchanged"`
	Elapsed   units.Seconds  `json:"elapsedSeconds"`
	Phases    []phaseSummary `json:"phases"` // in the order in which they began
}

// phaseSummary is a phase over all its hosts.
type phaseSummary struct {
	Phase   string        `json:"phase"`
	Runs    int           `json:"runs"`
	Changed int           `json:"changed"`
	Failed  int           `json:"failed,omitempty"`
	Elapsed units.Seconds `json:"elapsedSeconds"` // while it ran on at least one host
	Bytes   int64         `json:"bytes,omitempty"`

	running int
	since   time.Time
}

// summarize adds the event to the phases' times. A phase that runs twice in a
// workflow counts only while it runs.
func summarize(phases []phaseSummary, e phase.Event) []phaseSummary {
	at := -1
	for i := range phases {
		if phases[i].Phase == e.Phase {
			at = i
		}
	}
	if at < 0 {
		if e.Kind != phase.Started {
			return phases
		}
		phases = append(phases, phaseSummary{Phase: e.Phase})
		at = len(phases) - 1
	}
	p := &phases[at]
	switch e.Kind {
	case phase.Started:
		if p.running == 0 {
			p.since = e.Time
		}
		p.running++
		p.Runs++
	case phase.Finished, phase.Skipped, phase.Failed, phase.Stopped:
		if p.running--; p.running == 0 {
			p.Elapsed += units.Seconds(e.Time.Sub(p.since))
		}
		switch e.Kind {
		case phase.Finished:
			p.Changed++
		case phase.Failed:
			p.Failed++
		}
		if e.Transfer != nil {
			p.Bytes += e.Transfer.Done
		}
	}
	return phases
}

// jsonLines shows a run to programs.
type jsonLines struct{ enc *json.Encoder }

func newJSONLines(out io.Writer) *jsonLines { return &jsonLines{json.NewEncoder(out)} }

// A closed pipe must not stop a run half way: what the encoder says is dropped.
func (j *jsonLines) begin(h runHead)     { _ = j.enc.Encode(h) }
func (j *jsonLines) event(e phase.Event) { _ = j.enc.Encode(e) }
func (j *jsonLines) end(s runSummary)    { _ = j.enc.Encode(s) }
