package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tracePoll is how often SlowDisk looks for processes that were started since.
const tracePoll = 200 * time.Millisecond

// SlowDisk has each fsync of the host's processes of that name (as in /proc/PID/comm)
// take so much longer, as on a disk that is worn or shared, those of processes that are
// started later as well. It traces them: every other system call takes some
// microseconds more, too. Undo lets them go on as before. No process is an error.
func (i *Injector) SlowDisk(ctx context.Context, host, process string, by time.Duration) (Undo, error) {
	h, err := i.lab.Host(host)
	if err != nil {
		return nil, err
	}
	tracing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var tracers sync.WaitGroup
	traced := map[int]bool{}
	trace := func() error {
		pids, err := processesOf(h.Container(), process)
		for _, pid := range pids {
			if traced[pid] {
				continue
			}
			tracer := exec.CommandContext(tracing, "strace", "--follow-forks", "--quiet=all", "--output=/dev/null", "--trace=fsync,fdatasync",
				fmt.Sprintf("--inject=fsync,fdatasync:delay_exit=%d", by.Microseconds()), fmt.Sprintf("--attach=%d", pid))
			tracer.Cancel = func() error { return tracer.Process.Signal(syscall.SIGTERM) } // it detaches
			tracer.WaitDelay = 5 * time.Second
			tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
			if err := tracer.Start(); err != nil {
				return fmt.Errorf("%s: slow down %s: %w", host, process, err)
			}
			traced[pid] = true
			tracers.Go(func() { _ = tracer.Wait() }) // it ends with what it traces
		}
		return err
	}
	if err := trace(); err != nil || len(traced) == 0 {
		stop()
		tracers.Wait()
		return nil, errors.Join(err, fmt.Errorf("%s: slow down %s: no such process was met", host, process))
	}
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(tracePoll)
		defer tick.Stop()
		for {
			select {
			case <-tracing.Done():
				return
			case <-tick.C:
				_ = trace() // a process may end while it is looked at
			}
		}
	})
	return func(context.Context) error {
		stop()
		looking.Wait()
		tracers.Wait()
		return nil
	}, nil
}

// processesOf are the processes of a name inside a container, by this machine's numbers.
func processesOf(container, name string) ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range all {
		comm, err := os.ReadFile(file)
		if err != nil || string(bytes.TrimSpace(comm)) != name {
			continue // it may have ended
		}
		groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !inContainer(string(groups), container) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/comm", &pid); err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// inContainer tells by a process' control groups.
func inContainer(groups, container string) bool {
	for line := range strings.Lines(groups) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if part == "lxc.payload."+container {
				return true
			}
		}
	}
	return false
}
