package cmd

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/versions"
)

func newVersions() *cobra.Command {
	c := &cobra.Command{
		Use:   "versions INVENTORY",
		Short: "Show what is on every host beside what the bundle brings; nothing is changed",
		Long: `versions asks all hosts at once for the versions of their static pods (as their
manifests say), of their programs, and of the kubelet that runs (as its Node
says), and shows them above those that the inventory's bundle brings. The last
line says whether an upgrade is due, or one broke off. A host that cannot be
reached is named there, and the exit code is 5.

` + versionsHelp,
	}
	render := func(out io.Writer, v provision.Versions) error { return renderVersions(out, v, c.Flags().Arg(0)) }
	return looking(c, provision.TakeVersions, render, func(v provision.Versions) error {
		if err := v.Err(); err != nil {
			return &saidError{err}
		}
		return nil
	})
}

// versionsHelp is the contract of -o json.
const versionsHelp = `With -o json it is one object, schema 1; a later schema may change what a field
means, a new field alone does not raise it.
  state    none: no control plane is there; current: nothing to upgrade; due: what is
           offered may follow; mixed: an upgrade to it broke off; refused: it may not
           follow, see problems; unknown: not all that matters was seen
  summary  the last line; next is the verb that goes on: upgrade or apply
  offer    kubernetes is the version that the inventory wants; pods and programs are
           the bundle's versions by name
  hosts    ssh is "ok" or why nothing is known; pods are the tags of static pods'
           images, programs what each says of itself, "?" when it does not; node is
           the kubelet that runs`

func renderVersions(out io.Writer, v provision.Versions, file string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	columns := append(append([]string{}, versions.Components...), versions.OfNodes...)
	fmt.Fprintln(w, "HOST\tROLE\tSSH\tAPISERVER\tCONTROLLER\tSCHEDULER\tETCD\tNODE\tKUBELET\tKUBEADM\tKUBECTL\tCONTAINERD\tRUNC")
	row := func(name, role, ssh, node string, s versions.Set) {
		cells := []string{name, role, ssh}
		for _, c := range columns {
			if c == "kubelet" {
				cells = append(cells, node)
			}
			cells = append(cells, dash(s.Of(c)))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	for _, h := range v.Hosts {
		if h.Role != inventory.RoleLoadBalancer {
			row(h.Name, string(h.Role), mark(h.SSH), dash(h.Node), h.Set)
		}
	}
	if v.Offer.Bundle {
		row("bundle", "", "", "", v.Offer.Set)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := renderBalancerVersions(out, v); err != nil {
		return err
	}
	var silent []string
	for _, h := range v.Hosts {
		if h.SSH != "ok" {
			silent = append(silent, h.SSH)
		}
	}
	renderList(out, "not asked", silent)
	if v.Offer.Err != "" {
		fmt.Fprintf(out, "\nthe bundle is left out: %s\n", indent(v.Offer.Err))
	}
	next := ""
	if v.Next != "" {
		next = ": " + host.Quote([]string{"ha-install", v.Next, file})
	}
	_, err := fmt.Fprintf(out, "\n%s%s\n", v.Summary, next)
	return err
}

func renderBalancerVersions(out io.Writer, v provision.Versions) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, ssh string, s versions.Set) {
		fmt.Fprintln(w, strings.Join([]string{name, ssh, dash(s.Of("haproxy")), dash(s.Of("keepalived"))}, "\t"))
	}
	head := "\nBALANCER\tSSH\tHAPROXY\tKEEPALIVED\n"
	for _, h := range v.Hosts {
		if h.Balances {
			fmt.Fprint(w, head)
			row(h.Name, mark(h.SSH), h.Set)
			head = ""
		}
	}
	if v.Offer.Bundle && head == "" {
		row("bundle", "", v.Offer.Set)
	}
	return w.Flush()
}
