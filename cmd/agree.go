package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

// errDeclined: the operator looked at the plan and did not agree to it.
var errDeclined = errors.New("not agreed to; nothing was changed")

// agreement is how a workflow comes by the plan that it may carry out.
type agreement struct {
	file     string // a plan that was agreed to earlier
	yes      bool   // agreed to whatever it is
	terminal bool   // there is somebody to ask
	verbose  bool
	// make is the plan of the workflow.
	make func(*cobra.Command, *provision.Site) (provision.Plan, error)
}

// carryOut has the operator agree to the plan, does it, and reports. A refusal to
// agree is no run, and has no report.
func (a agreement) carryOut(c *cobra.Command, site *provision.Site, flags runFlags, report *reporter, do func(*provision.Plan, *phase.Runner) error) error {
	a.terminal, a.verbose = onTerminal(c), flags.verbose
	shown := c.OutOrStdout()
	if flags.output == "json" {
		shown = c.ErrOrStderr()
	}
	run := &phase.Runner{Events: report.event, Stop: stopIn(c.Context())}
	plan, err := a.plan(c, site, shown)
	switch {
	case errors.Is(err, errDeclined):
		return err
	case err == nil && plan != nil:
		report.goAhead()
	}
	if err == nil {
		err = do(plan, run)
	}
	return report.end(c, err, run.Tally)
}

// plan is what was agreed to; nil means anything. Without a terminal nobody is
// asked: a pipeline must not hang.
func (a agreement) plan(c *cobra.Command, site *provision.Site, shown io.Writer) (*provision.Plan, error) {
	if a.file != "" {
		return readPlan(a.file)
	}
	if a.yes || !a.terminal {
		return nil, nil
	}
	if err := site.RequireAll(); err != nil {
		return nil, err
	}
	if err := awaitSteps(c, site); err != nil {
		return nil, err
	}
	plan, err := a.make(c, site)
	if err != nil {
		return nil, err
	}
	renderPlan(shown, plan, a.verbose)
	return ask(c, plan)
}

// awaitSteps waits for steps that a killed run has left under way, and says so.
func awaitSteps(c *cobra.Command, site *provision.Site) error {
	return provision.AwaitSteps(c.Context(), site, func(text string) { fmt.Fprintln(c.ErrOrStderr(), text) })
}

// ask has the operator agree to a plan that was shown; where nothing is to do,
// the run proves that.
func ask(c *cobra.Command, plan provision.Plan) (*provision.Plan, error) {
	if plan.Nothing() {
		return &plan, nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "\nApply this plan? Type yes to go on: ")
	answer, err := readLine(c.Context(), c.InOrStdin())
	if err != nil {
		return nil, err
	}
	if answer != "yes" {
		return nil, errDeclined
	}
	return &plan, nil
}

func readPlan(file string) (*provision.Plan, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	plan, err := provision.ReadPlan(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &plan, nil
}

// readLine reads what is typed; an interrupt ends it.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	lines, errs := make(chan string, 1), make(chan error, 1)
	go func() { // it outlives an interrupt: a read cannot be called off
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			errs <- errDeclined
			return
		}
		lines <- strings.TrimSpace(line)
	}()
	select {
	case line := <-lines:
		return line, nil
	case err := <-errs:
		return "", err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// onTerminal says whether somebody sits there to read and to answer.
func onTerminal(c *cobra.Command) bool {
	return isTerminal(c.InOrStdin()) && isTerminal(c.OutOrStdout())
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
