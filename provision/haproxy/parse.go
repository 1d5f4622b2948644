package haproxy

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// Parse reads the answers to "show info", "show servers state BACKEND" and
// "show stat", one after the other. Columns are found by their names: each
// release of HAProxy adds some.
func Parse(out []byte, backend string) (View, error) {
	var v View
	var orders map[string]int64 // by server
	var err error
	seen := 0
	for part := range strings.SplitSeq(string(out), "\n\n") {
		part = strings.TrimSpace(part)
		switch {
		case strings.HasPrefix(part, "Name:"):
			err = v.info(part)
		case strings.HasPrefix(part, "1\n# be_id"): // the version of its format
			orders, err = adminStates(part)
		case strings.HasPrefix(part, "# pxname,"):
			err = v.stat(part, backend, orders)
		case part == "":
			continue
		default:
			return View{}, fmt.Errorf("HAProxy: cannot understand the answer %.80q", part)
		}
		if err != nil {
			return View{}, err
		}
		seen++
	}
	if seen != 3 {
		return View{}, fmt.Errorf("HAProxy: %d answers to three questions: %.80q", seen, out)
	}
	return v, nil
}

// info reads lines "Name: value".
func (v *View) info(text string) error {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "Version":
			v.Version = value
		case "Uptime_sec":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return fmt.Errorf("HAProxy: %s: %w", name, err)
			}
			v.Uptime = units.Seconds(time.Duration(n) * time.Second)
		}
	}
	return nil
}

// adminStates reads the orders that servers are under, as bits.
func adminStates(text string) (map[string]int64, error) {
	lines := strings.Split(text, "\n")[1:]
	columns := indexes(strings.Fields(strings.TrimPrefix(lines[0], "# ")))
	all := map[string]int64{}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		name, err := field(f, columns, "srv_name")
		if err != nil {
			return nil, err
		}
		text, err := field(f, columns, "srv_admin_state")
		if err != nil {
			return nil, err
		}
		if all[name], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("HAProxy: the state of %s: %w", name, err)
		}
	}
	return all, nil
}

// The bits of HAProxy's srv_admin_state.
const (
	maintenance = 0x01 | 0x02 | 0x04 | 0x20 | 0x40 // by order, inherited, in the configuration, no address
	draining    = 0x08 | 0x10                      // by order, inherited
)

func (v *View) stat(text, backend string, orders map[string]int64) error {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# ")))
	r.FieldsPerRecord = -1 // its header ends in a comma, too
	rows, err := r.ReadAll()
	if err != nil {
		return fmt.Errorf("HAProxy: show stat: %w", err)
	}
	columns := indexes(rows[0])
	for _, row := range rows[1:] {
		get := func(name string) string {
			value, missing := field(row, columns, name)
			if missing != nil {
				err = missing
			}
			return value
		}
		name := get("svname")
		if get("pxname") != backend || name == "FRONTEND" || name == "BACKEND" {
			continue
		}
		s := Server{Name: name, Check: check(get("check_status"), get("check_code"), get("last_chk"))}
		s.State, s.Well = state(get("status"), orders[name])
		seconds, _ := strconv.ParseInt(get("lastchg"), 10, 64) // empty where nothing has ever changed
		s.For = units.Seconds(time.Duration(seconds) * time.Second)
		s.Sessions, _ = strconv.Atoi(get("scur"))
		if err != nil {
			return err
		}
		v.Servers = append(v.Servers, s)
	}
	if len(v.Servers) == 0 {
		return fmt.Errorf("HAProxy has no backend %q", backend)
	}
	return nil
}

// state makes one word of HAProxy's ("UP", "UP 1/2", "DRAIN", "NOLB", "no
// check", ...), which says DOWN also of a server that is drained and down.
func state(status string, order int64) (State, bool) {
	word, _, _ := strings.Cut(status, " ")
	well := word == "UP" || word == "DRAIN" || word == "no" || word == "NOLB"
	switch {
	case word == "MAINT" || order&maintenance != 0:
		return Stopped, false
	case word == "DRAIN" || order&draining != 0:
		return Drained, well
	case word == "NOLB":
		return Leaving, well
	case well:
		return Up, true
	}
	return Down, false
}

// check reads "L7OK 200", "L4CON: Connection refused". A star is of a check
// that is under way.
func check(status, code, last string) string {
	text := strings.TrimPrefix(status, "* ")
	if code != "" {
		text += " " + code
	}
	if last != "" {
		text += ": " + last
	}
	return text
}

func indexes(names []string) map[string]int {
	all := map[string]int{}
	for i, name := range names {
		all[name] = i
	}
	return all
}

func field(row []string, columns map[string]int, name string) (string, error) {
	i, ok := columns[name]
	if !ok || i >= len(row) {
		return "", fmt.Errorf("HAProxy: its answer has no %s: %.80q", name, row)
	}
	return row[i], nil
}
