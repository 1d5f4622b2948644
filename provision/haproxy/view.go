package haproxy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/units"
)

// State is what HAProxy makes of a server.
type State string

const (
	Up      State = "UP"
	Down    State = "DOWN"
	Leaving State = "LEAVING" // it has announced its end: only what is connected goes on
	Drained State = "DRAINED" // by order, no new connections
	Stopped State = "STOPPED" // by order, no connections at all (maintenance)
)

// View is a backend as one HAProxy sees it.
type View struct {
	Version string        `json:"version"`
	Uptime  units.Seconds `json:"uptimeSeconds"` // since it was started or reloaded
	Servers []Server      `json:"servers"`
}

// Server is one of the backend's servers.
type Server struct {
	Name  string        `json:"name"`
	State State         `json:"state"`
	For   units.Seconds `json:"forSeconds"` // it has been so
	// Check is how the last health check ended: "L7OK 200", "L4CON: Connection
	// refused"; empty when there was none.
	Check string `json:"check,omitempty"`
	// Well is that checks pass, which they may also do while it is drained.
	Well     bool `json:"well"`
	Sessions int  `json:"sessions"`
}

// Out says that the server is kept out by an order, not by its checks.
func (s Server) Out() bool { return s.State == Drained || s.State == Stopped }

// String reads "DOWN for 40s (L4CON: Connection refused)".
func (s Server) String() string {
	text := fmt.Sprintf("%s for %s", s.State, s.For)
	if !s.Well && s.Check != "" {
		text += " (" + s.Check + ")"
	}
	return text
}

// Server finds a server by its name.
func (v View) Server(name string) (Server, bool) {
	i := slices.IndexFunc(v.Servers, func(s Server) bool { return s.Name == name })
	if i < 0 {
		return Server{}, false
	}
	return v.Servers[i], true
}

// MayDrain decides whether a server may be drained, by what the HAProxy of
// each host says: every one of them must send its clients to all the others.
// The error says which does not.
func MayDrain(views map[string]View, server string) error {
	var bad []string
	for at, v := range views {
		if _, there := v.Server(server); !there {
			bad = append(bad, fmt.Sprintf("%s does not know %s", at, server))
		}
		if len(v.Servers) < 2 {
			bad = append(bad, fmt.Sprintf("%s has no other server", at))
		}
		for _, s := range v.Servers {
			if s.Name != server && s.State != Up {
				bad = append(bad, fmt.Sprintf("on %s, %s is %s", at, s.Name, s))
			}
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("the others have to take the clients of %s: %s", server, strings.Join(bad, "; "))
}
