package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/fault"
)

// failover is what clients saw when the plug of etcd's leader was pulled.
type failover struct {
	master  string
	found   time.Duration // from its death to when the balancer with the VIP called it dead
	fresh   probe.Report  // of the client with new connections
	lasting probe.Report  // of the long-lived client, which was connected to that master
}

// lost is how many acknowledged writes are gone, or were for a while.
func (f failover) lost() int {
	return len(f.fresh.Lost) + len(f.fresh.Backwards) + len(f.lasting.Lost) + len(f.lasting.Backwards)
}

// failover pulls the plug of etcd's leader in the cluster that stands, and boots
// it again when clients write steadily; the next reset takes both away.
func (b *bench) failover(ctx context.Context, name string) (f failover, err error) {
	s, err := b.awaitWhole(ctx)
	if err != nil {
		return f, err
	}
	f.master = s.Quorum.Leader
	endpoint, err := b.endpoint(ctx)
	if err != nil {
		return f, err
	}
	certificate, err := b.lab.Exec(ctx, f.master, "cat", "/etc/kubernetes/pki/apiserver.crt")
	if err != nil {
		return f, err
	}
	cs, err := startClients(ctx, endpoint, certificate)
	if err != nil {
		return f, err
	}
	defer cs.abandon()
	began := time.Now()
	undo, err := fault.New(b.lab).Unplug(ctx, f.master)
	ended := time.Now()
	if err != nil {
		return f, err
	}
	defer func() {
		// A bench that is interrupted leaves no host off.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if e := undo(ctx); err == nil {
			err = e
		}
	}()
	if err := cs.awaitSteady(ctx, steadySeconds); err != nil {
		return f, err
	}
	if f.fresh, f.lasting, err = cs.stop(ctx); err != nil {
		return f, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, name+".log"), fmt.Appendf(nil, "the plug of %s was pulled\n%s\n%s\n", f.master, f.fresh, f.lasting), 0o600); err != nil {
		return f, err
	}
	f.found, err = b.foundDead(ctx, s.holder(), f.master, death(began, ended, f.lasting.LongestGapAt))
	return f, err
}

// death is when the master died, whose plug was pulled between two moments: with
// the last write that its long-lived client had acknowledged, where that one's
// longest gap is the one of the death.
func death(began, ended, lastWrite time.Time) time.Time {
	if lastWrite.Before(began) || lastWrite.After(ended) {
		return began
	}
	return lastWrite
}

// endpoint is the administrator's own way in.
func (b *bench) endpoint(ctx context.Context) (*rest.Config, error) {
	kubeconfig, err := b.lab.Exec(ctx, b.result.masters[0], "cat", "/etc/kubernetes/admin.conf")
	if err != nil {
		return nil, err
	}
	return clientcmd.RESTConfigFromKubeConfig(kubeconfig)
}

// foundDead asks a balancer's journal how long after the given time HAProxy
// called the master dead.
func (b *bench) foundDead(ctx context.Context, balancer, master string, since time.Time) (time.Duration, error) {
	journal, err := b.lab.Exec(ctx, balancer, "journalctl", "--unit", "haproxy.service", "--since", fmt.Sprintf("@%d", since.Unix()),
		"--output", "short-unix", "--quiet", "--no-pager")
	if err != nil {
		return 0, err
	}
	at, err := calledDead(string(journal), master, since)
	if err != nil {
		return 0, fmt.Errorf("the journal of HAProxy on %s: %w", balancer, err)
	}
	return at.Sub(since), nil
}

// calledDead finds when HAProxy first called the master dead after the given
// time, in a journal whose lines begin with seconds since 1970.
func calledDead(journal, master string, after time.Time) (time.Time, error) {
	said := fmt.Sprintf("Server %s/%s is DOWN", templates.HAProxyBackend, master)
	lines := bufio.NewScanner(strings.NewReader(journal))
	for lines.Scan() {
		if !strings.Contains(lines.Text(), said) {
			continue
		}
		stamp, _, _ := strings.Cut(lines.Text(), " ")
		seconds, err := strconv.ParseFloat(stamp, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("cannot understand %q", lines.Text())
		}
		whole, part := math.Modf(seconds)
		if at := time.Unix(int64(whole), int64(part*1e9)); at.After(after) {
			return at, nil
		}
	}
	if err := lines.Err(); err != nil {
		return time.Time{}, err
	}
	return time.Time{}, fmt.Errorf("%q is not in it after %s", said, after.UTC().Format(time.RFC3339Nano))
}
