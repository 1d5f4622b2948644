package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
)

func newStatus() *cobra.Command {
	var output string
	var watch bool
	var interval time.Duration
	c := inventoryArg(&cobra.Command{
		Use:   "status INVENTORY",
		Short: "Show where the cluster stands: votes, control planes, balancers, certificates",
		Long: `status asks every host over its own SSH connection, so that neither an API
server, nor the balancer, nor the pod network is needed to see the truth. It
answers within five seconds, also with dead hosts. Its exit code is the verdict.

With --watch it keeps the connections open and asks again and again, brings
back hosts that come back, and says what changed; the exit code is the last
verdict. On a terminal it shows the last round in place; in a pipe each round
is a block, with -o json a line.

` + statusHelp,
	})
	outputFlag(c, &output, "text", "json")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "ask again and again, until interrupted")
	c.Flags().DurationVar(&interval, "interval", 2*time.Second, "with --watch: time from the end of a round to the next")
	c.RunE = func(c *cobra.Command, args []string) error {
		if interval <= 0 {
			return &usageError{fmt.Errorf("--interval %s: want more than 0", interval)}
		}
		if !watch && c.Flags().Changed("interval") {
			return &usageError{errors.New("--interval goes with --watch: without it hosts are asked once")}
		}
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		site := provision.ConnectSoon(c.Context(), cluster, base, provision.SSH)
		site.Operator = &net.Dialer{}
		defer site.Close()
		view := newStatusView(c.OutOrStdout(), output == "json", watch)
		if watch {
			return watchStatus(c.Context(), site, view, interval)
		}
		st := provision.TakeStatus(c.Context(), site)
		if err := view.show(st); err != nil {
			return err
		}
		return statusError(st.State)
	}
	return c
}

// statusHelp is the contract of -o json.
const statusHelp = `With -o json it is one object, schema 1; a later schema may change what a field
means, a new field alone does not raise it. Durations are numbers of seconds
and their names end in "Seconds".
  state        of everything; PASS with problems beside it is DEGRADED
  tookSeconds  connecting included
  quorum       the verdict on etcd: state, reasons, numbers, leader, term,
               alarms, and members, each with the inputs that it was judged by
  operations   what would become of each operation on members now: allowed or
               refused, why, and the numbers after it
  endpoint     which masters answer there, from every master and from here
  hosts        SSH, components, boot, clock, disks, certificates; "ok" is good;
               of a balancer its backend: each API server's state and since when
  scheduledBackups  how often, which masters have the timer, the newest and its age
  problems     what is wrong, a sentence each; warnings: what wants attention
  thresholds   those that were crossed, with value and limits
  changes      since the round before, with --watch`

// statusError is nil for PASS, else the verdict as an exit code: it is shown
// already.
func statusError(s etcd.State) error {
	if s == etcd.Pass {
		return nil
	}
	return &saidError{&verdictError{s}}
}

func writeStatusJSON(out io.Writer, st provision.Status, oneLine bool) error {
	enc := json.NewEncoder(out)
	if !oneLine {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(st)
}

func renderStatus(out io.Writer, st provision.Status) error {
	if err := etcd.Render(out, st.Quorum, nil); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := etcd.RenderProjections(out, st.Operations); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := renderHosts(out, st); err != nil {
		return err
	}
	if err := renderBalancers(out, st); err != nil {
		return err
	}
	if len(st.Endpoint.Backends) > 0 {
		fmt.Fprintf(out, "\nendpoint %s: answered by %s (asked from %s)\n", st.Endpoint.Address, strings.Join(st.Endpoint.Backends, ", "), vantages(st.Endpoint))
	}
	if b := st.Backups; b != nil {
		fmt.Fprintf(out, "\nbackups every %s by %s: %s\n", b.Every.Duration(), strings.Join(b.Masters, ", "), newestBackup(b))
	}
	for _, r := range st.Running {
		fmt.Fprintf(out, "\nrunning for %s: %s, on %s (`history` shows it)\n", r.Age, r.Holder, strings.Join(r.Hosts, ", "))
	}
	renderList(out, "warnings", beyondQuorum(st))
	renderList(out, "problems", st.Problems)
	_, err := fmt.Fprintf(out, "\n%s  (%s)\n", st.State, st.Took)
	return err
}

// newestBackup tells the scheduled backup that is on record.
func newestBackup(b *provision.ScheduledBackups) string {
	if b.Newest == nil {
		return "none yet"
	}
	text := fmt.Sprintf("the newest is %s old, %s:%s, revision %d", age(b.Age.Duration()), b.Newest.Host, b.Newest.Path, b.Newest.Revision)
	for _, c := range b.Newest.Copies {
		if c.Err == "" {
			text += "\n  copied to " + c.Place
		} else {
			text += "\n  NOT at " + c.Place
		}
	}
	return text
}

// vantages names the hosts from which the endpoint was reached.
func vantages(e provision.Endpoint) string {
	var names []string
	for _, v := range e.From {
		if len(v.Backends) > 0 {
			names = append(names, v.Host)
		}
	}
	if len(names) == 0 {
		return e.Via
	}
	return strings.Join(names, ", ")
}

// beyondQuorum are the warnings that the quorum table does not show itself.
func beyondQuorum(st provision.Status) []string {
	shown := map[string]bool{}
	for _, w := range st.Quorum.Warnings {
		shown[w] = true
	}
	var left []string
	for _, w := range st.Warnings {
		if !shown[w] {
			left = append(left, w)
		}
	}
	return left
}

func renderList(out io.Writer, head string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(out, "\n%s:\n", head)
	}
	for _, l := range lines {
		fmt.Fprintf(out, "  %s\n", indent(l))
	}
}

func renderHosts(out io.Writer, st provision.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tROLE\tSSH\tAPISERVER\tCONTROLLER\tSCHEDULER\tKUBELET\tNODE\tVERSION\tUP\tCLOCK\tDISK\tFIRST EXPIRY")
	for _, h := range st.Hosts {
		if h.Role == inventory.RoleLoadBalancer {
			continue
		}
		fmt.Fprintln(w, strings.Join([]string{h.Name, string(h.Role), mark(h.SSH), mark(h.APIServer),
			leads(st, "kube-controller-manager", h.ControllerManager, h), leads(st, "kube-scheduler", h.Scheduler, h),
			mark(h.Kubelet), firstWords(h.Node), dash(h.Version), uptime(h), clock(h), fullest(h), expiry(st, h)}, "\t"))
	}
	return w.Flush()
}

func renderBalancers(out io.Writer, st provision.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "\nBALANCER\tSSH\tHAPROXY\tKEEPALIVED\tVIP\tUP\tCLOCK\tDISK\n"
	for _, h := range st.Hosts {
		if !h.Balances {
			continue
		}
		vip := "-"
		if h.HoldsVIP {
			vip = "holds it"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", head, h.Name, mark(h.SSH), mark(h.Units["haproxy"]), mark(h.Units["keepalived"]), vip, uptime(h), clock(h), fullest(h))
		head = ""
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return renderBackends(out, st)
}

// renderBackends has a row for each API server and a column for each HAProxy.
func renderBackends(out io.Writer, st provision.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head, rows := "\nBACKEND", map[string]string{}
	for _, h := range st.Hosts {
		if h.Backend == nil {
			continue
		}
		head += "\tON " + h.Name
		for _, master := range st.Hosts {
			if master.Role != inventory.RoleControlPlane {
				continue
			}
			cell := "-"
			if s, there := h.Backend.Server(master.Name); there {
				cell = fmt.Sprintf("%s %s", s.State, age(s.For.Duration()))
			}
			rows[master.Name] += "\t" + cell
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w, head)
	for _, h := range st.Hosts {
		if cells := rows[h.Name]; cells != "" {
			fmt.Fprintln(w, h.Name+cells)
		}
	}
	return w.Flush()
}

// mark is a table cell: why it is not ok stands below the table.
func mark(s string) string {
	switch s {
	case "ok":
		return "ok"
	case "":
		return "-"
	default:
		return "DOWN"
	}
}

// leads is how a component is, by its own word or else by its pod's state,
// with a star on the leader's.
func leads(st provision.Status, component, health string, h provision.HostStatus) string {
	cell := mark(health)
	if health == "" {
		cell = dash(h.Pods[component])
	}
	for _, l := range st.Leaders {
		if l.Component == component && l.Node == h.Name {
			return cell + "*"
		}
	}
	return cell
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func firstWords(s string) string {
	head, _, _ := strings.Cut(s, ":")
	return dash(head)
}

// uptime reads "3d4h", "12m", "40s".
func uptime(h provision.HostStatus) string {
	if h.Uptime == 0 {
		return "-"
	}
	return age(h.Uptime.Duration())
}

// age reads as uptime does.
func age(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	default:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	}
}

// clock is the offset of a host's clock, where it is more than the round trip
// leaves open.
func clock(h provision.HostStatus) string {
	switch {
	case h.Clock == nil:
		return "-"
	case max(h.Clock.Offset, -h.Clock.Offset) <= h.Clock.Within:
		return "ok"
	default:
		return h.Clock.String()
	}
}

// fullest is the fill of the fullest file system that was asked about.
func fullest(h provision.HostStatus) string {
	cell, most := "-", -1.0
	for _, d := range h.Disks {
		if d.Used > most {
			cell, most = fmt.Sprintf("%.0f%% %s", d.Used*100, d.Path), d.Used
		}
	}
	return cell
}

func expiry(st provision.Status, h provision.HostStatus) string {
	if h.Expires == nil {
		return "-"
	}
	days := int(h.Expires.NotAfter.Sub(st.At).Hours() / 24)
	return fmt.Sprintf("%s in %d days", baseName(h.Expires.File), days)
}

func baseName(file string) string { return file[strings.LastIndex(file, "/")+1:] }
