package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/certs"
)

// errExpiry is the end of a look at certificates that found one that has expired,
// or soon will.
var errExpiry = errors.New("a certificate has expired, or is about to")

// defaultWithin is how soon a certificate may expire to be called due.
const defaultWithin = 30 * 24 * time.Hour

func newCerts() *cobra.Command {
	c := &cobra.Command{Use: "certs", Short: "Look at the certificates of all hosts, and renew them"}
	c.AddCommand(newCertsCheck(), newCertsRenew())
	group(c)
	return c
}

func newCertsCheck() *cobra.Command {
	within := days(defaultWithin)
	c := &cobra.Command{
		Use:   "check INVENTORY",
		Short: "Show every certificate of every host, and whether processes use it; nothing is changed",
		Long: `check asks all hosts at once, over their own SSH connections, which certificates
lie in their files, those inside kubeconfigs too, and makes a TLS handshake with
every process that serves one: etcd for clients (2379) and members (2380), API
servers (6443), kubelets (10250). It needs neither the API nor etcd, and works
with hosts off and with certificates that have expired.

A process that began before a file was written that it reads is named: it has to
be restarted to be sure that it uses what is in it.

The exit code is 17 when a certificate has expired or expires within the time of
--within, 5 when none has and a host could not be asked.

` + certsHelp,
		Example: `  ha-install certs check inventory.yaml
  ha-install certs check --within 60d -o json inventory.yaml`,
	}
	c.Flags().Var(&within, "within", "how soon a certificate may expire to be called due: 30d, 12h")
	take := func(ctx context.Context, site *provision.Site) provision.Certificates {
		return provision.TakeCertificates(ctx, site, time.Duration(within))
	}
	return looking(c, take, renderCerts, func(all provision.Certificates) error {
		switch {
		case all.State != certs.Good:
			return &saidError{errExpiry}
		case all.Err() != nil:
			return &saidError{all.Err()}
		}
		return nil
	})
}

// certsHelp is the contract of -o json.
const certsHelp = `With -o json it is one object, schema 1; a later schema may change what a field
means, a new field alone does not raise it.
  state    of the worst certificate: ok, due (it expires within the time), expired
  hosts    ssh is "ok" or why nothing is known; certificates are in the order of
           files: file, subject, names, issuer, serial (hexadecimal), ca, notBefore,
           notAfter, state, changed (the file's time), renewal (kubeadm's name for
           it), process (what reads it), served (address, serial, notAfter, same:
           it is the file's, error), restart (why the process has to be restarted)`

// days is a duration that also understands days: "30d".
type days time.Duration

func (d *days) Set(text string) error {
	n, unit := 0, ""
	if _, err := fmt.Sscanf(text, "%d%s", &n, &unit); err == nil && unit == "d" && n >= 0 {
		*d = days(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return errors.New("want a number of days (30d) or a duration (12h)")
	}
	*d = days(v)
	return nil
}

func (d *days) Type() string { return "duration" }

func (d *days) String() string { return spanOf(time.Duration(*d)) }

// spanOf is a time in days where it is as long as that.
func spanOf(d time.Duration) string {
	if d >= 48*time.Hour || d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
	return d.Round(time.Second).String()
}

func renderCerts(out io.Writer, all provision.Certificates) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tFILE\tSUBJECT\tNAMES\tISSUER\tEXPIRES\tSERIAL\tIN USE")
	var restarts, problems, silent []string
	total, due, expired := 0, 0, 0
	for _, h := range all.Hosts {
		if h.SSH != "ok" {
			silent = append(silent, h.SSH)
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\tDOWN\t-\t-\n", h.Name)
		}
		for _, c := range h.Certificates {
			total++
			switch c.State {
			case certs.Due:
				due++
			case certs.Expired:
				expired++
			}
			fmt.Fprintln(w, strings.Join([]string{h.Name, shortFile(c.File), c.Subject, someNames(c.Names), c.Issuer, expires(c, all.At), c.Serial, inUse(c)}, "\t"))
			if c.Restart != "" {
				restarts = append(restarts, fmt.Sprintf("%s: %s: %s", h.Name, shortFile(c.File), c.Restart))
			}
			if c.Served != nil && c.Served.Err != "" {
				problems = append(problems, fmt.Sprintf("%s: %s: %s", h.Name, c.Served.Address, c.Served.Err))
			}
		}
		for _, p := range h.Problems {
			problems = append(problems, h.Name+": "+p)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	renderList(out, "not asked", silent)
	renderList(out, "problems", problems)
	renderList(out, "restart needed", restarts)
	_, err := fmt.Fprintf(out, "\n%d certificates on %d of %d hosts: %d expired, %d expire within %s\n", total, len(all.Hosts)-len(silent), len(all.Hosts), expired, due, spanOf(all.Within.Duration()))
	return err
}

// shortFile leaves out the directory that nearly all files are in.
func shortFile(file string) string { return strings.TrimPrefix(file, "/etc/kubernetes/") }

// someNames are the first of a certificate's names, and how many more it has.
func someNames(names []string) string {
	const shown = 2
	if len(names) <= shown+1 {
		return dash(strings.Join(names, ","))
	}
	return fmt.Sprintf("%s +%d", strings.Join(names[:shown], ","), len(names)-shown)
}

func expires(c certs.Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	switch {
	case now.Before(c.NotBefore):
		return "NOT VALID YET"
	case left <= 0:
		return "EXPIRED " + spanOf(-left) + " ago"
	case c.State == certs.Due:
		return "DUE in " + spanOf(left)
	}
	return "in " + spanOf(left)
}

// inUse says whether the process that serves a file's certificate shows it.
func inUse(c certs.Certificate) string {
	switch {
	case c.Served == nil && c.Restart != "":
		return "restart " + c.Process
	case c.Served == nil:
		return "-"
	case c.Served.Serial == "":
		return "no answer"
	case !c.Served.Same:
		return "NO, " + c.Served.Serial
	case c.Restart != "":
		return "yes; restart " + c.Process
	}
	return "yes"
}
