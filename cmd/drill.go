package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// errDrill is the end of a drill in which a scenario did not pass.
var errDrill = errors.New("a scenario of the drill did not pass")

const drillHelp = `drill answers what happens when a master fails, by experiment on your own
cluster: it makes one failure at a time, measures what clients of the endpoint
see of it, repairs it, and goes on only when the cluster is whole again.

Scenarios, in their order:
  apiserver            the API server beside etcd's leader is killed and stays away
  etcd                 etcd's leader is killed and stays away
  scheduler            the scheduler that leads, likewise
  controller-manager   the controller-manager that leads, likewise
  master               the whole master that leads etcd is off
  partition            the master that leads etcd is cut off from the others
  balancer             the balancer that holds the virtual IP is off

Before each, all voters must be healthy and losing one must be affordable; it is
refused otherwise. A failure is one transient unit on its host and lies in
memory: it ends with us, also if this program or its machine is killed, after
three minutes at the latest, and with a reboot. A master that is off is one whose
containers are killed and whose packets are dropped, or with the two hooks one
whose power your own commands take and give back: they get its name as their only
argument. Nobody gives it back if the program is killed in between.

Two clients write a counter and read it, 20 times a second each, one with a new
connection for every request and one with a long-lived one; at the end all that
was acknowledged is read back. Lost acknowledged writes fail any drill. Meanwhile a
pod on another host is asked 10 times a second, a new pod is made and one of a
Deployment deleted, right after the failure; they run the image for probes of the
bundle. What the drill makes lies in the namespace ha-install-drill and is removed.

The exit code is 14 when a scenario did not pass.

With -o json it is one object, schema 1; a later schema may change what a field
means, a new field alone does not raise it. Durations are numbers of seconds
from the failure, unless their names say otherwise, and end in "Seconds".
  verdict     PASS, FAIL, or LEFT OUT when nothing could be played
  thresholds  what a scenario was allowed to cost
  scenarios   each with verdict, reasons, host and why it was chosen;
              downSeconds how long the failure lasted, movedSeconds when the
              last request failed before the repair, recoveredSeconds from the
              repair until the cluster was whole; takeovers (what, from, to,
              afterSeconds); clients with their requests, failures, gaps, lost
              writes, and a timeline in steps of 0.25 s; workload with the
              requests to a pod, and until pods ran
  error       why the drill ended before its end
`

// drillFlags are the drill's own.
type drillFlags struct {
	output    string
	confirm   string
	scenarios []string
	report    string // where the page goes; "" for none
	off, on   string
	limits    drill.Thresholds
	verbose   bool
	debug     bool
}

func newDrill() *cobra.Command {
	flags := drillFlags{limits: drill.Defaults()}
	c := inventoryArg(&cobra.Command{
		Use:   "drill INVENTORY",
		Short: "Make a running cluster's parts fail, one at a time, and measure what clients see",
		Long:  drillHelp + "\n" + interruptHelp,
		Example: `  ha-install drill inventory.yaml
  ha-install drill --scenario master,balancer --max-write-gap 3s --confirm prod inventory.yaml`,
	})
	flags.add(c)
	c.RunE = func(c *cobra.Command, args []string) error { return flags.run(c, args) }
	return c
}

func (f *drillFlags) add(c *cobra.Command) {
	outputFlag(c, &f.output, "text", "json")
	flags := c.Flags()
	flags.StringVar(&f.report, "report", "", "write the outcome with charts to this file, as one HTML page")
	flags.StringVar(&f.confirm, "confirm", "", "the cluster's name, instead of typing it")
	flags.StringSliceVar(&f.scenarios, "scenario", nil, "only these: "+strings.Join(drill.Names(), ", "))
	_ = c.RegisterFlagCompletionFunc("scenario", cobra.FixedCompletions(drill.Names(), cobra.ShellCompDirectiveNoFileComp)) // the flag was just made
	flags.StringVar(&f.off, "power-off-hook", "", "a program that takes the power of the host in its argument")
	flags.StringVar(&f.on, "power-on-hook", "", "a program that gives it back, and ends when the host boots")
	seconds := func(into *units.Seconds, name, usage string) {
		flags.DurationVar((*time.Duration)(into), name, into.Duration(), usage)
	}
	seconds(&f.limits.WriteGap, "max-write-gap", "the longest time without an acknowledged write")
	seconds(&f.limits.Takeover, "max-takeover", "the longest time until another one leads")
	seconds(&f.limits.Pod, "max-pod", "the longest time until a new pod runs, or one in the place of a deleted one")
	seconds(&f.limits.Recovery, "max-recovery", "the longest time from the repair until the cluster is whole")
	flags.IntVar(&f.limits.FailedWrites, "max-failed-writes", f.limits.FailedWrites, "failed writes of each client; -1 for any number")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show more of what is done")
	flags.BoolVar(&f.debug, "debug", false, "show every remote command on standard error, with its time and bytes, never its content")
}

func (f *drillFlags) run(c *cobra.Command, args []string) error {
	scenarios, err := drill.Select(f.scenarios)
	if err != nil {
		return &usageError{err}
	}
	options := provision.DrillOptions{Scenarios: scenarios, Thresholds: f.limits}
	if (f.off == "") != (f.on == "") {
		return &usageError{errors.New("--power-off-hook and --power-on-hook go together: what is taken has to be given back")}
	}
	if f.off != "" {
		if options.PowerOff, err = hook(f.off); err == nil {
			options.PowerOn, err = hook(f.on)
		}
		if err != nil {
			return &usageError{err}
		}
	}
	if err := writable(f.report); err != nil {
		return &usageError{fmt.Errorf("--report: %w; nothing was changed", err)}
	}
	cluster, base, err := load(c, args[0])
	if err != nil {
		return err
	}
	if err := confirmName(c, cluster.Metadata.Name, f.confirm, "makes parts of the running cluster fail, one at a time"); err != nil {
		return err
	}
	report, err := f.play(c, cluster, base, args, options)
	if len(report.Scenarios) > 0 || err == nil {
		if shown := errors.Join(f.show(c.OutOrStdout(), report), f.save(report)); shown != nil {
			return errors.Join(err, shown)
		}
	}
	if err == nil && report.Verdict == drill.Fail {
		return &saidError{errDrill}
	}
	return err
}

// play runs the drill. With JSON the progress goes to standard error.
func (f *drillFlags) play(c *cobra.Command, cluster *inventory.Cluster, base string, args []string, o provision.DrillOptions) (drill.Report, error) {
	if f.debug {
		debugTo(c, c.ErrOrStderr())
	}
	out := c.OutOrStdout()
	if f.output == "json" {
		out = c.ErrOrStderr()
	}
	view := &plain{out: out, lines: f.verbose}
	view.begin(headOf(c.Name(), cluster, time.Now()))
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operator = &net.Dialer{}
	site.Operation = operation(c, cluster, args)
	return provision.Drill(c.Context(), site, o, &phase.Runner{Events: view.event, Stop: stopIn(c.Context())})
}

func (f *drillFlags) show(out io.Writer, r drill.Report) error {
	if f.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", " ")
		return enc.Encode(r)
	}
	return renderDrill(out, r)
}

func (f *drillFlags) save(r drill.Report) error {
	if f.report == "" {
		return nil
	}
	var page bytes.Buffer
	err := drillPage(&page, r)
	if err == nil {
		err = writeFile(f.report, page.Bytes())
	}
	if err != nil {
		return fmt.Errorf("the drill is over, its --report was not written: %w", err)
	}
	return nil
}

// hook is a program of the operator's that gets a host's name.
func hook(program string) (func(context.Context, string) error, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, host string) error {
		out, err := exec.CommandContext(ctx, path, host).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w\n%s", program, host, err, strings.TrimSpace(string(out)))
		}
		return nil
	}, nil
}
