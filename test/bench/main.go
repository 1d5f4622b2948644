// Command bench measures `ha-install apply` in the lab, side by side with
// kubeadm's documented commands by hand, and what clients of either cluster see
// when the plug of the master that leads etcd is pulled; then `ha-install upgrade`
// in the same way; and a backup, a restore and a replacement by themselves. It prints
// Markdown tables.
// Absolute figures say little about other machines; the ratio within one run
// does. What both sides printed is kept in .lab/bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// clusterName is what the lab's inventory calls its cluster.
const clusterName = "lab"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rounds := flag.Int("rounds", 3, "how often each side makes the cluster")
	rides := flag.Int("upgrades", 1, "how often each side upgrades one; a round takes a quarter of an hour")
	only := flag.String("only", "", "clusters, upgrades or losses: leave the other parts out")
	quick := flag.Bool("quick", false, "one round of everything: a look, not a measurement")
	flag.Parse()
	if *quick {
		*rounds, *rides = 1, 1
	}
	lose := *only == "" || *only == "losses"
	switch *only {
	case "":
	case "clusters":
		*rides = 0
	case "upgrades":
		*rounds = 0
	case "losses":
		*rounds, *rides = 0, 0
	default:
		*rounds = -1
	}
	if *rounds < 0 || *rides < 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(64)
	}
	if err := measure(ctx, *rounds, *rides, lose); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the hosts and the program that are measured.
type bench struct {
	lab    *lab.Lab
	binary string
	dir    string
	result result
}

// measure makes the cluster so many times on each side, and upgrades it so many
// times; none leaves that part out. Losses are suffered once, or not at all.
func measure(ctx context.Context, rounds, rides int, lose bool) error {
	l, err := lab.Open()
	if err != nil {
		return err
	}
	b := &bench{lab: l, binary: program(l), dir: filepath.Join(l.Dir, "bench")}
	b.result = result{at: time.Now(), machine: machine(), version: lab.DefaultVersion, masters: named(l, "control-plane")}
	if _, err := os.Stat(b.binary); err != nil {
		return fmt.Errorf("%w; `make build` makes it", err)
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if rounds > 0 {
		if err := b.clusters(ctx, rounds); err != nil {
			return err
		}
	}
	if err := b.upgrades(ctx, rides); err != nil {
		return err
	}
	var failed error
	if lose {
		failed = b.lose(ctx) // what was measured before is shown all the same
	}
	b.result.markdown(os.Stdout)
	return errors.Join(failed, b.result.lost())
}

// clusters compares the ways to make one.
func (b *bench) clusters(ctx context.Context, rounds int) error {
	if err := b.fromBare(ctx); err != nil {
		return err
	}
	if err := b.again(ctx, rounds); err != nil {
		return err
	}
	return b.pairs(ctx, rounds)
}

// program is the one that `make build` made, or the one that HA_INSTALL_BIN names.
func program(l *lab.Lab) string {
	if named := os.Getenv("HA_INSTALL_BIN"); named != "" {
		return named
	}
	return filepath.Join(l.Root, "bin", "ha-install")
}

// fromBare times the whole way.
func (b *bench) fromBare(ctx context.Context) error {
	if _, err := b.bare(ctx); err != nil {
		return err
	}
	busy, err := settle(ctx)
	if err != nil {
		return err
	}
	b.result.bare, err = b.apply(ctx, "bare")
	if err != nil {
		return err
	}
	say("apply from bare hosts: %s (machine %.0f %% busy before)", seconds(b.result.bare.took), 100*busy)
	return nil
}

// bare makes all hosts but the spares bare, and names them.
func (b *bench) bare(ctx context.Context) ([]string, error) {
	say("the hosts are made bare")
	hosts, err := b.lab.Select()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return names, b.lab.Recreate(ctx, names...)
}

// again times runs that find nothing to do.
func (b *bench) again(ctx context.Context, rounds int) error {
	for i := range rounds {
		r, err := b.apply(ctx, fmt.Sprintf("again-%d", i+1))
		if err != nil {
			return err
		}
		for _, s := range spans(r.events, b.result.masters) {
			if s.changed > 0 {
				return fmt.Errorf("apply on a finished cluster changed something in the phase %s", s.name)
			}
		}
		b.result.again = append(b.result.again, r.took)
		say("apply on a finished cluster: %s", seconds(r.took))
	}
	return nil
}

// pairs alternates the two sides on the same prepared hosts.
func (b *bench) pairs(ctx context.Context, rounds int) error {
	hand, err := newByHand(ctx, b.lab, b.dir)
	if err != nil {
		return err
	}
	for i := range rounds {
		p, err := b.pair(ctx, hand, i+1)
		if err != nil {
			return err
		}
		b.result.pairs = append(b.result.pairs, p)
		say("round %d: by hand %s, apply %s, ratio %.2f; etcd's leader unplugged: no write for %s and %s, of its long-lived client %s and %s",
			i+1, seconds(p.byHand()), seconds(p.apply.whole), p.ratio(),
			seconds(p.off[0].fresh.LongestGap), seconds(p.off[1].fresh.LongestGap), seconds(p.off[0].lasting.LongestGap), seconds(p.off[1].lasting.LongestGap))
	}
	return nil
}

func (b *bench) pair(ctx context.Context, hand *byHand, round int) (pair, error) {
	var p pair
	if err := b.reset(ctx); err != nil {
		return p, err
	}
	if err := hand.prepare(ctx); err != nil {
		return p, err
	}
	if err := b.before(ctx, &p, 0); err != nil {
		return p, err
	}
	log, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("byhand-%d.log", round)))
	if err != nil {
		return p, err
	}
	defer log.Close()
	if p.hand, err = hand.run(ctx, log); err != nil {
		return p, fmt.Errorf("%w; see %s", err, log.Name())
	}
	if err := hand.plain(ctx); err != nil {
		return p, err
	}
	if p.off[0], err = b.failover(ctx, fmt.Sprintf("failover-byhand-%d", round)); err != nil {
		return p, err
	}
	if err := b.reset(ctx); err != nil {
		return p, err
	}
	if err := b.before(ctx, &p, 1); err != nil {
		return p, err
	}
	r, err := b.apply(ctx, fmt.Sprintf("apply-%d", round))
	if err != nil {
		return p, err
	}
	if p.apply, err = clusterPhase(r.events, b.result.masters); err != nil {
		return p, err
	}
	p.off[1], err = b.failover(ctx, fmt.Sprintf("failover-apply-%d", round))
	return p, err
}

// before waits for a calm machine and notes how calm it was.
func (b *bench) before(ctx context.Context, p *pair, side int) (err error) {
	p.busy[side], err = settle(ctx)
	p.load[side] = load()
	return err
}

func (b *bench) apply(ctx context.Context, name string) (run, error) {
	log, err := os.Create(filepath.Join(b.dir, name+".json"))
	if err != nil {
		return run{}, err
	}
	defer log.Close()
	r, err := runProgram(ctx, b.binary, log, "apply", b.lab.Inventory())
	b.result.memory = max(b.result.memory, r.memory)
	return r, err
}

// reset brings the hosts back to prepared ones without a cluster. It moves
// aside what a cluster leaves; a bench leaves many, so they are deleted here.
func (b *bench) reset(ctx context.Context) error {
	log, err := os.Create(filepath.Join(b.dir, "reset.json"))
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := runProgram(ctx, b.binary, log, "reset", b.lab.Inventory(), "--confirm", clusterName); err != nil {
		return err
	}
	for _, name := range b.result.masters {
		if _, err := b.lab.Exec(ctx, name, "sh", "-c", "rm -rf /var/lib/etcd.ha-install-* /etc/kubernetes.ha-install-*"); err != nil {
			return err
		}
	}
	return nil
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+"  "+format+"\n", args...)
}
