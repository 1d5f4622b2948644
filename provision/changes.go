package provision

import (
	"slices"
	"strconv"
	"strings"
)

// Change is something that is another than it was in the round before.
type Change struct {
	What string `json:"what"` // "cp-2 etcd", "quorum", "leader"
	From string `json:"from"` // "" when it was not there
	To   string `json:"to"`
}

// String reads "cp-2 etcd: healthy -> dead".
func (c Change) String() string {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return c.What + ": " + dash(c.From) + " -> " + dash(c.To)
}

// Since are the changes from an earlier status to this one, in the order of
// the status. Figures that change all the time are left out.
func (st Status) Since(before Status) []Change {
	was, now := before.words(), st.words()
	old := map[string]string{}
	for _, w := range was {
		old[w.what] = w.is
	}
	var changes []Change
	for _, w := range now {
		if from := old[w.what]; from != w.is {
			changes = append(changes, Change{w.what, from, w.is})
		}
	}
	for _, w := range was {
		if !slices.ContainsFunc(now, func(n word) bool { return n.what == w.what }) && w.is != "" {
			changes = append(changes, Change{w.what, w.is, ""})
		}
	}
	return changes
}

// word is one thing about the cluster that can be said in a word.
type word struct{ what, is string }

func (st Status) words() []word {
	w := []word{
		{"status", string(st.State)}, {"quorum", string(st.Quorum.State)}, {"leader", st.Quorum.LeaderName},
		{"term", strconv.FormatUint(st.Quorum.Term, 10)},
	}
	for _, m := range st.Quorum.Members {
		w = append(w, word{m.Name + " etcd", string(m.State)}, word{m.Name + " etcd role", string(m.Role)})
	}
	for _, a := range st.Quorum.Alarms {
		w = append(w, word{a.Kind + " alarm of " + a.Member.String(), "raised"})
	}
	for _, h := range st.Hosts {
		for _, part := range []word{
			{"ssh", h.SSH}, {"apiserver", h.APIServer}, {"controller-manager", h.ControllerManager}, {"scheduler", h.Scheduler},
			{"kubelet", h.Kubelet}, {"node", h.Node},
		} {
			w = append(w, word{h.Name + " " + part.what, brief(part.is)})
		}
		for _, unit := range sortedKeys(h.Units) {
			w = append(w, word{h.Name + " " + unit, brief(h.Units[unit])})
		}
		if h.Backend != nil {
			for _, server := range h.Backend.Servers {
				w = append(w, word{h.Name + " backend " + server.Name, string(server.State)})
			}
		}
		if h.HoldsVIP {
			w = append(w, word{h.Name + " VIP", "holds it"})
		}
		if h.SSH == ok {
			w = append(w, word{h.Name + " boot", h.BootID})
		}
	}
	for _, r := range st.Running {
		w = append(w, word{r.Command + " by " + r.Operator, "running"})
	}
	for _, l := range st.Leaders {
		w = append(w, word{l.Component + " leader", l.Node})
	}
	return append(w, word{"endpoint", strings.Join(st.Endpoint.Backends, ", ")})
}

// brief is a state in a word: errors differ from round to round.
func brief(state string) string {
	switch state {
	case "", ok, "Ready":
		return state
	}
	return "down"
}
