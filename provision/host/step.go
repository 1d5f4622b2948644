package host

import (
	"bytes"
	"context"
	_ "embed" // for the scripts
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	//go:embed scripts/step-start.sh
	stepStartScript string
	//go:embed scripts/step-run.sh
	stepRunScript string
	//go:embed scripts/step-end.sh
	stepEndScript string
	//go:embed scripts/step-follow.sh
	stepFollowScript string
)

const (
	defaultStepsDir = "/var/lib/ha-install/steps"
	// stepPatience is how long a host may be out of reach before waiting for
	// its step is given up: a reboot takes less.
	stepPatience = 5 * time.Minute
)

var stepID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,99}$`)

func unitName(id string) string { return "ha-install-" + id + ".service" }

// Step runs a long command as a transient systemd unit that outlives the
// connection, and waits for it; see the type Step. A command that ended with
// anything but 0 gives its result together with a *RunError. When ctx ends,
// waiting does, the step does not.
func (h *SSH) Step(ctx context.Context, s Step) (StepResult, error) {
	if !stepID.MatchString(s.ID) {
		return StepResult{}, fmt.Errorf("%s: step %q: an ID is made of a-z, 0-9 and '-'", h.cfg.Name, s.ID)
	}
	began := time.Now()
	f := &follower{host: h, step: s, dir: h.stepsDir + "/" + s.ID, unit: unitName(s.ID)}
	state, err := f.start(ctx)
	if err != nil {
		return StepResult{}, err
	}
	f.result.Attached = state != "new"
	for last := time.Now(); ; {
		err := f.follow(ctx)
		if err == nil || !f.retry(err) {
			return f.finish(err)
		}
		if f.moved {
			last = time.Now()
		}
		if ctx.Err() != nil {
			return f.finish(stepWaitError(h.cfg.Name, s.ID, time.Since(began), ctx.Err()))
		}
		if !f.moved && (time.Since(last) > stepPatience || !wait(ctx, stepPause)) {
			return f.finish(stepWaitError(h.cfg.Name, s.ID, time.Since(began), err))
		}
	}
}

// stepPause is between attempts to reach the host of a step again.
const stepPause = time.Second

// follower waits for one step over as many connections as it takes.
type follower struct {
	host   *SSH
	step   Step
	dir    string
	unit   string
	output bytes.Buffer // all there was so far
	line   []byte       // the line that is not complete yet
	moved  bool         // the last attempt reached the step
	result StepResult
}

// start begins the step or finds it begun; it is safe to repeat.
func (f *follower) start(ctx context.Context) (string, error) {
	h := f.host
	run, err := f.runScript()
	if err != nil {
		return "", fmt.Errorf("%s: step %s: %w", h.cfg.Name, f.step.ID, err)
	}
	argv := script(bootScript+stepStartScript, "step-start", f.dir, f.unit, stepEndScript)
	var out []byte
	err = h.idempotent(ctx, func(l *link) (err error) {
		out, err = h.exec(ctx, l, execution{argv: argv, stdin: strings.NewReader(run), fenced: fencedWork})
		return err
	})
	if err != nil {
		var failed *RunError
		if errors.As(err, &failed) {
			brief := *failed
			brief.Argv = []string{"systemd-run", "--unit=" + f.unit}
			err = &brief
		}
		return "", h.named([]string{"start step", f.step.ID}, err)
	}
	words := strings.Fields(string(out))
	switch {
	case len(words) == 1:
		return words[0], nil
	case len(words) == 3 && words[0] == "lost":
		return "", f.lostError(words[1], words[2])
	default:
		return "", fmt.Errorf("%s: step %s: cannot understand the answer %.80q", h.cfg.Name, f.step.ID, out)
	}
}

// runScript is what the unit runs. The command is in the script and not on the
// unit's command line, where systemd would expand $ and %.
func (f *follower) runScript() (string, error) {
	if len(f.step.Argv) == 0 {
		return "", errors.New("no command")
	}
	env := map[string]string{"HOME": "/root"}
	for k, v := range f.step.Env {
		env[k] = v
	}
	plain := &SSH{cfg: Config{User: "root"}}
	line, err := plain.commandLine(f.step.Argv, env)
	if err != nil {
		return "", err
	}
	return bootScript + stepRunScript + "exec " + line + "\n", nil
}

// follow waits on one connection until the step ends or the connection does.
func (f *follower) follow(ctx context.Context) error {
	h := f.host
	f.moved = false
	l, err := h.link(ctx)
	if err != nil {
		return err
	}
	f.moved = true
	argv := script(bootScript+stepFollowScript, "step-follow", f.dir, f.unit, strconv.Itoa(f.output.Len()+1))
	var end bytes.Buffer
	_, err = h.exec(ctx, l, execution{argv: argv, stdout: f, stderr: &end})
	if err != nil {
		if lost(l, err) {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		return err
	}
	return f.parse(end.String())
}

// retry says that the failure is the connection's and not the step's.
func (f *follower) retry(err error) bool {
	var away *UnreachableError
	return errors.Is(err, ErrConnectionLost) || errors.As(err, &away) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Write takes output as it comes and hands it on by lines.
func (f *follower) Write(p []byte) (int, error) {
	f.output.Write(p)
	if f.step.Output == nil {
		return len(p), nil
	}
	f.line = append(f.line, p...)
	for {
		i := bytes.IndexByte(f.line, '\n')
		if i < 0 {
			return len(p), nil
		}
		f.step.Output(strings.TrimSuffix(string(f.line[:i]), "\r"))
		f.line = f.line[i+1:]
	}
}

func (f *follower) lostError(before, after string) error {
	if before != "" && before != after {
		return &RebootError{Host: f.host.cfg.Name, Step: f.step.ID, Before: before, After: after}
	}
	return &StepLostError{Host: f.host.cfg.Name, Step: f.step.ID, Dir: f.dir}
}

const stepMark = "ha-install-step "

// parse reads the line that ends what the follow script has to say:
// "BOOT-ID SECONDS / RESULT CODE STATUS SECONDS" or "BOOT-ID SECONDS / lost BOOT-ID".
func (f *follower) parse(text string) error {
	_, line, _ := cutLast(text, stepMark)
	before, after, _ := strings.Cut(strings.TrimSpace(line), "/")
	// a main process that never came to its first act left no "began"
	began, end := strings.Fields(before), strings.Fields(after)
	if len(began) == 2 {
		f.result.Began = seconds(began[1])
	}
	switch {
	case len(end) == 4:
		f.result.Ended = seconds(end[3])
		return f.verdict(end[0], end[1], end[2])
	case len(end) == 2 && end[0] == "lost":
		return f.lostError(strings.Join(began[:min(1, len(began))], ""), end[1])
	default:
		return fmt.Errorf("%s: step %s: cannot understand its result %.120q", f.host.cfg.Name, f.step.ID, text)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func seconds(s string) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// verdict turns systemd's SERVICE_RESULT, EXIT_CODE and EXIT_STATUS into ours.
func (f *follower) verdict(result, how, status string) error {
	// systemd calls an end by SIGTERM a success, too
	if result == "success" && how == "exited" && status == "0" {
		return nil
	}
	e := &RunError{Host: f.host.cfg.Name, Argv: f.step.Argv, Code: -1}
	if how == "exited" {
		if n, err := strconv.Atoi(status); err == nil {
			e.Code = n
		}
	} else if status != "-" {
		e.Signal = status
	}
	t := &tail{max: stderrKept}
	_, _ = t.Write(f.output.Bytes())
	e.Stderr = t.String()
	f.result.Code = e.Code
	return e
}

func (f *follower) finish(err error) (StepResult, error) {
	if len(f.line) > 0 && f.step.Output != nil {
		f.step.Output(string(f.line))
		f.line = nil
	}
	f.result.Output = f.output.Bytes()
	return f.result, err
}
