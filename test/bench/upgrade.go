package main

import (
	"context"
	_ "embed" // for the script
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/test/lab"
)

//go:embed upgrade.sh
var upgradeScript string

// ride is one upgrade of a cluster that clients write to all the while.
type ride struct {
	masters        []step        // in the order in which they were upgraded
	span           time.Duration // from when the first of them began to when the last had ended
	whole          time.Duration // of the command, or of the script
	fresh, lasting probe.Report  // of the client with new connections, of the long-lived one
	busy           float64       // the machine before
	load           string
}

// lost is how many acknowledged writes are gone, or were for a while.
func (r ride) lost() int {
	return len(r.fresh.Lost) + len(r.fresh.Backwards) + len(r.lasting.Lost) + len(r.lasting.Backwards)
}

// rides is one round: by hand, then by `ha-install upgrade`.
type rides struct{ hand, ours ride }

func (r rides) ratio() float64 { return r.ours.span.Seconds() / r.hand.span.Seconds() }

// upgrades alternates the two ways, each from bare hosts with a fresh cluster of
// the older release. Both clusters are made by `apply` and have its balancers:
// what differs is the upgrade.
func (b *bench) upgrades(ctx context.Context, rounds int) error {
	for i := range rounds {
		var r rides
		var err error
		if r.hand, err = b.ride(ctx, fmt.Sprintf("upgrade-byhand-%d", i+1), b.bring, b.upgradeByHand); err != nil {
			return err
		}
		if r.ours, err = b.ride(ctx, fmt.Sprintf("upgrade-%d", i+1), nil, b.upgrade); err != nil {
			return err
		}
		b.result.rides = append(b.result.rides, r)
		say("round %d: three masters upgraded by hand in %s, by upgrade in %s, ratio %.2f; writes failed: %s and %s, of the long-lived client %s and %s",
			i+1, seconds(r.hand.span), seconds(r.ours.span), r.ratio(), failed(r.hand.fresh), failed(r.ours.fresh), failed(r.hand.lasting), failed(r.ours.lasting))
	}
	return nil
}

// ride makes a cluster of the older release, has it prepared, where that is
// wanted, and upgrades it under clients.
func (b *bench) ride(ctx context.Context, name string, prepare func(context.Context) error, upgrade func(context.Context, *os.File) (ride, error)) (r ride, err error) {
	if err := b.older(ctx, name); err != nil {
		return r, err
	}
	if prepare != nil {
		if err := prepare(ctx); err != nil {
			return r, err
		}
	}
	endpoint, err := b.endpoint(ctx)
	if err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return r, err
	}
	defer log.Close()
	busy, err := settle(ctx)
	if err != nil {
		return r, err
	}
	before := load()
	cs, err := startPatient(ctx, endpoint)
	if err != nil {
		return r, err
	}
	defer cs.abandon()
	if r, err = upgrade(ctx, log); err != nil {
		return r, fmt.Errorf("%w; see %s", err, log.Name())
	}
	r.busy, r.load = busy, before
	if err := b.upgraded(ctx); err != nil {
		return r, err
	}
	if r.fresh, r.lasting, err = cs.stop(ctx); err != nil {
		return r, err
	}
	for _, report := range []probe.Report{r.fresh, r.lasting} {
		fmt.Fprintln(log, report)
		for _, f := range report.Failures {
			fmt.Fprintln(log, " ", f)
		}
	}
	say("%s: %s", name, seconds(r.span))
	return r, nil
}

// older makes bare hosts a cluster of the older release.
func (b *bench) older(ctx context.Context, name string) error {
	hosts, err := b.bare(ctx)
	if err != nil {
		return err
	}
	if err := b.lab.WriteInventory(b.olderInventory(), lab.InventoryOptions{Hosts: hosts, Version: lab.OlderVersion}); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.dir, name+"-older.json"))
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := runProgram(ctx, b.binary, log, "apply", b.olderInventory()); err != nil {
		return err
	}
	_, err = b.awaitWhole(ctx)
	return err
}

func (b *bench) olderInventory() string { return filepath.Join(b.dir, "older.yaml") }

// upgraded wants all that was asked for: the masters run the new release and the
// cluster is whole.
func (b *bench) upgraded(ctx context.Context) error {
	versions, err := b.lab.Exec(ctx, b.result.masters[0], "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf",
		"get", "nodes", "--selector", "node-role.kubernetes.io/control-plane", "--output", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}")
	if err != nil {
		return err
	}
	for _, v := range strings.Fields(string(versions)) {
		if v != lab.DefaultVersion {
			return fmt.Errorf("the masters' kubelets say %s after the upgrade, want %s", versions, lab.DefaultVersion)
		}
	}
	_, err = b.awaitWhole(ctx)
	return err
}

// The phases that a master's turn begins and ends with.
const (
	turnBegins = "drain"
	turnEnds   = "uncordon"
)

// handBinaries is where the operator by hand has put the new programs.
const handBinaries = "/root/" + lab.DefaultVersion

// upgradeByHand times the documented commands on the masters.
func (b *bench) upgradeByHand(ctx context.Context, log *os.File) (ride, error) {
	config := filepath.Join(b.dir, "ssh_config")
	if err := writeSSHConfig(b.lab, config); err != nil {
		return ride{}, err
	}
	began := time.Now()
	steps, err := runScript(ctx, log, upgradeScript, append([]string{"upgrade.sh", config, lab.DefaultVersion, handBinaries}, b.result.masters...)...)
	if err != nil {
		return ride{}, fmt.Errorf("kubeadm upgrade by hand: %w", err)
	}
	took := time.Since(began)
	return ride{masters: steps, span: took, whole: took}, nil
}

// programs are what the documentation has one upgrade on a control plane's host.
var programs = []string{"kubeadm", "kubelet", "kubectl"}

// bring imports the new release's images on all nodes and copies its programs:
// what `ha-install upgrade` does within its time.
func (b *bench) bring(ctx context.Context) error {
	newer, err := bundle.Open(b.lab.Bundle(lab.DefaultVersion))
	if err != nil {
		return err
	}
	defer newer.Close()
	hosts, err := b.lab.Select()
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(2 * len(hosts)) // each is a process here and one there
	for _, h := range hosts {
		for _, item := range newer.For(inventory.Role(h.Role)) {
			if item.Kind == bundle.KindImage || slices.Contains(programs, path.Base(item.Path)) {
				all.Go(func() error { return b.bringOne(ctx, h.Name, newer, item) })
			}
		}
	}
	return all.Wait()
}

func (b *bench) bringOne(ctx context.Context, host string, newer *bundle.Bundle, item bundle.Item) error {
	content := newer.Reader(item)
	defer content.Close()
	file := path.Join(handBinaries, path.Base(item.Path))
	if err := b.lab.Send(ctx, host, file, content); err != nil || item.Kind != bundle.KindImage {
		return err
	}
	_, err := b.lab.Exec(ctx, host, "ctr", "--namespace", "k8s.io", "images", "import", file)
	return err
}

// upgrade times `ha-install upgrade`, the program's start included.
func (b *bench) upgrade(ctx context.Context, log *os.File) (ride, error) {
	r, err := runProgram(ctx, b.binary, log, "upgrade", b.lab.Inventory(), "--yes")
	if err != nil {
		return ride{}, err
	}
	u := ride{whole: r.took}
	u.masters, u.span, err = mastersTurns(r.events, b.result.masters)
	return u, err
}

// mastersTurns are the masters in the order in which they were upgraded, each
// from when it began to leave the balancers to when it was back, and the time
// from the first one's beginning to the last one's end.
func mastersTurns(events []phase.Event, masters []string) ([]step, time.Duration, error) {
	var turns []step
	var began, first, last time.Time
	for _, e := range events {
		switch {
		case !slices.Contains(masters, e.Host):
		case e.Kind == phase.Started && e.Phase == turnBegins:
			if began = e.Time; first.IsZero() {
				first = e.Time
			}
		case e.Kind == phase.Finished && e.Phase == turnEnds:
			turns, last = append(turns, step{e.Host, e.Time.Sub(began)}), e.Time
		}
	}
	if len(turns) != len(masters) {
		return nil, 0, fmt.Errorf("this run upgraded %d masters, want %d", len(turns), len(masters))
	}
	return turns, last.Sub(first), nil
}
