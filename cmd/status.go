package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	c := inventoryArg(&cobra.Command{
		Use:   "status INVENTORY",
		Short: "Show where the cluster stands: votes, control planes, balancers, certificates",
		Long: `status asks every host over its own SSH connection, so that neither an API
server, nor the balancer, nor the pod network is needed to see the truth. It
answers within five seconds, also with dead hosts. Its exit code is the verdict.`,
	})
	outputFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		cluster, base, err := load(c, args[0])
		if err != nil {
			return err
		}
		connecting, cancel := context.WithTimeout(c.Context(), provision.ConnectBudget)
		site := provision.Connect(connecting, cluster, base, provision.SSH)
		cancel()
		defer site.Close()
		site.ReadOnly()
		st := provision.TakeStatus(c.Context(), site)
		if output == "json" {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			err = enc.Encode(st)
		} else {
			err = renderStatus(c.OutOrStdout(), st)
		}
		if err == nil && st.State != etcd.Pass {
			err = &saidError{&verdictError{st.State}}
		}
		return err
	}
	return c
}

func renderStatus(out io.Writer, st provision.Status) error {
	if err := etcd.Render(out, st.Quorum, nil); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tROLE\tSSH\tAPISERVER\tCONTROLLER\tSCHEDULER\tKUBELET\tNODE\tVERSION\tFIRST EXPIRY")
	for _, h := range st.Hosts {
		if h.Role == inventory.RoleLoadBalancer {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.Role, mark(h.SSH), mark(h.APIServer),
			leads(st, "kube-controller-manager", h), leads(st, "kube-scheduler", h), mark(h.Kubelet), firstWords(h.Node), dash(h.Version), expiry(h))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	renderBalancers(out, st)
	if len(st.Endpoint.Backends) > 0 {
		fmt.Fprintf(out, "\nendpoint %s: answered by %s (asked from %s)\n", st.Endpoint.Address, strings.Join(st.Endpoint.Backends, ", "), st.Endpoint.Via)
	}
	if bad := st.Problems(); len(bad) > 0 {
		fmt.Fprintf(out, "\nproblems:\n")
		for _, p := range bad {
			fmt.Fprintf(out, "  %s\n", indent(p))
		}
	}
	_, err := fmt.Fprintf(out, "\n%s  (%s)\n", st.State, st.Took)
	return err
}

func renderBalancers(out io.Writer, st provision.Status) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "\nBALANCER\tSSH\tHAPROXY\tKEEPALIVED\tVIP\n"
	for _, h := range st.Hosts {
		if h.Role != inventory.RoleLoadBalancer {
			continue
		}
		vip := "-"
		if h.HoldsVIP {
			vip = "holds it"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\n", head, h.Name, mark(h.SSH), mark(h.Units["haproxy"]), mark(h.Units["keepalived"]), vip)
		head = ""
	}
	w.Flush()
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

// leads is the state of a component's pod, with a star on the leader's.
func leads(st provision.Status, component string, h provision.HostStatus) string {
	cell := dash(h.Pods[component])
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

func expiry(h provision.HostStatus) string {
	if h.Expires == nil {
		return "-"
	}
	days := int(time.Until(h.Expires.NotAfter).Hours() / 24)
	return fmt.Sprintf("%s in %d days", h.Expires.File, days)
}
