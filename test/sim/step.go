package sim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/host"
)

// step is a long command that is under way on a host.
type step struct {
	id   string
	argv []string
	next int // the act that comes next
}

// poll is how often a waiting installer looks after its step.
const poll = 20 * time.Millisecond

// Step begins a long command, or finds it begun, and waits for its end. It
// goes on without us.
func (h *Host) Step(ctx context.Context, s host.Step) (result host.StepResult, err error) {
	result.Began = time.Now()
	dir := stepsDir + "/" + s.ID
	err = h.call(ctx, "step "+s.ID, true, 1, once(func() error {
		if h.steps[s.ID] != nil {
			result.Attached = true
			return nil
		}
		if _, begun := h.Files[dir+"/began"]; begun { // it has ended, or the host has rebooted
			result.Attached = true
			return nil
		}
		kind, _, _ := cutLast(s.ID, "-")
		for id := range h.steps {
			if strings.HasPrefix(id, kind+"-") {
				h.w.t.Errorf("sim: %s: step %s is begun while %s runs", h.name, s.ID, id)
			}
		}
		h.Put(dir+"/began", 0o600, h.bootID())
		now := &step{id: s.ID, argv: s.Argv}
		h.steps[s.ID] = now
		h.w.going.Go(func() { h.proceed(now) })
		return nil
	}))
	for err == nil {
		var ended bool
		if ended, err = h.follow(ctx, s, &result); ended {
			break
		}
		select {
		case <-ctx.Done():
			err = fmt.Errorf("%s: step %s: stopped waiting, it goes on: %w", h.name, s.ID, ctx.Err())
		case <-time.After(poll):
		}
	}
	result.Ended = time.Now()
	return result, err
}

func cutLast(s, sep string) (string, string, bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// follow looks after a step once.
func (h *Host) follow(ctx context.Context, s host.Step, result *host.StepResult) (ended bool, err error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	dir := stepsDir + "/" + s.ID
	if h.unfollowed[s.ID] {
		delete(h.unfollowed, s.ID)
		return false, fmt.Errorf("%s: step %s: stopped waiting, it goes on: %w", h.name, s.ID, host.ErrConnectionLost)
	}
	if err := h.reach(ctx); err != nil {
		var away *host.UnreachableError
		if errors.As(err, &away) {
			return false, nil // patience
		}
		return false, err
	}
	end, there := h.Files[dir+"/result"]
	switch {
	case there:
		code, err := strconv.Atoi(string(end.Content))
		if err != nil {
			panic(err)
		}
		result.Code, result.Output = code, h.Files[dir+"/output"].Content
		if code != 0 {
			return true, h.failure(s.Argv, code, strings.TrimSpace(string(result.Output)))
		}
		return true, nil
	case h.steps[s.ID] != nil:
		return false, nil
	}
	if before := string(h.Files[dir+"/began"].Content); before != h.bootID() {
		return true, &host.RebootError{Host: h.name, Step: s.ID, Before: before, After: h.bootID()}
	}
	return true, &host.StepLostError{Host: h.name, Step: s.ID, Dir: dir}
}

// proceed makes the acts of a step, one after the other, until it has ended or
// the host lost its power.
func (h *Host) proceed(s *step) {
	for {
		<-time.After(h.w.after(actTime))
		h.w.mu.Lock()
		more := !h.w.ended && h.steps[s.id] == s && h.act(s)
		h.w.mu.Unlock()
		if !more {
			return
		}
	}
}

// act makes the next act of a step and says whether there is another one. An
// act is a point where things can be cut, too.
func (h *Host) act(s *step) bool {
	acts := h.acts(s.argv)
	if s.next == len(acts) {
		code, output := 0, "done\n"
		if h.StepFails == s.id {
			code, output = 1, "it broke\n"
		}
		h.ended(s, code, output)
		return false
	}
	name := fmt.Sprintf("act %d of %s", s.next+1, s.id)
	made, now := false, acts[s.next]
	s.next++
	err := h.account(name, true, 1, once(func() error { made = true; return now() }))
	var run *host.RunError
	switch {
	case errors.As(err, &run):
		h.trapped(s)
		h.ended(s, run.Code, run.Stderr+"\n")
		return false
	case errors.Is(err, errSlain):
		h.ended(s, 137, "Killed\n")
		return false
	case errors.Is(err, host.ErrConnectionLost): // what the cut did to the host is done
		if h.unfollowed == nil {
			h.unfollowed = map[string]bool{}
		}
		h.unfollowed[s.id] = !h.off && !h.lost()
		if !made { // only who waits is cut off: no script goes on without one of its acts
			s.next--
		}
	case err != nil: // its disk is broken: no result either
		h.trapped(s)
		delete(h.steps, s.id)
		return false
	}
	return h.steps[s.id] == s
}

// errSlain ends a step by a signal that no shell can trap.
var errSlain = errors.New("killed")

// trapped does what a script that broke off has set a trap for.
func (h *Host) trapped(s *step) {
	if len(s.argv) > 2 && strings.Contains(s.argv[2], "trap 'systemctl start kubelet.service' EXIT") {
		_ = h.start(nil, "kubelet.service") // a shell does not look at what its trap came to
	}
}

func (h *Host) ended(s *step, code int, output string) {
	h.Put(stepsDir+"/"+s.id+"/output", 0o600, output)
	h.Put(stepsDir+"/"+s.id+"/result", 0o600, strconv.Itoa(code))
	delete(h.steps, s.id)
	h.w.changed(Call{Host: h.name, Name: "end of " + s.id, Nth: 1, Writes: true, Parts: 1}, 1)
}

// acts are what a long command does.
func (h *Host) acts(argv []string) []func() error {
	line := strings.Join(argv, " ")
	fail := func(code int, why string) []func() error {
		return []func() error{func() error { return h.failure(argv, code, why) }}
	}
	switch {
	case argv[0] == "sh" && len(argv) > 3 && h.w.steps[argv[2]] != nil:
		return h.w.steps[argv[2]](h, argv[4:])
	case argv[0] == "sh" && len(argv) > 4 && strings.Contains(argv[2], "exec kubeadm"): // where there is one
		if h.Files["/usr/local/bin/kubeadm"].Mode == 0 {
			return nil
		}
		return h.acts(append([]string{"kubeadm"}, argv[4:]...))
	case h.Files["/usr/local/bin/kubeadm"].Mode == 0:
		return fail(127, "kubeadm: not found")
	case strings.HasPrefix(line, "kubeadm init --config "):
		return h.kubeadmInit(argv)
	case strings.HasPrefix(line, "kubeadm join --config "):
		return h.kubeadmJoin(argv)
	case line == "kubeadm reset --force --skip-phases preflight,remove-etcd-member":
		return h.kubeadmReset()
	}
	return []func() error{func() error { return h.unknown(argv) }}
}
