package preflight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// fsyncScript writes 100 times as etcd's WAL does and lets dd tell how long
// each write took to reach the disk. It stops after 10 s: what is so slow needs
// no more samples. $1 is etcd's data directory, which need not exist yet.
const fsyncScript = `LC_ALL=C; export LC_ALL
at=$1
while [ -n "$at" ] && [ ! -d "$at" ]; do
	case $at in */*) at=${at%/*} ;; *) at= ;; esac
done
file=${at%/}/.ha-install-fsync
trap 'rm -f "$file"' EXIT
trap 'exit 1' HUP INT TERM
read -r begin _ </proc/uptime
i=0
while [ "$i" -lt 100 ]; do
	dd if=/dev/zero of="$file" bs=2300 count=1 seek="$i" conv=notrunc oflag=dsync 2>&1 || exit 1
	i=$((i + 1))
	read -r now _ </proc/uptime
	[ $((${now%.*} - ${begin%.*})) -lt 10 ] || break
done`

// Fsync is how long small synchronous writes to a disk take.
type Fsync struct {
	Samples   int
	Mean, P99 time.Duration
}

// ddTime matches dd's closing line: "2300 bytes (2.3 kB, 2.2 KiB) copied, 0.0012 s, 1.9 MB/s".
var ddTime = regexp.MustCompile(`copied, ([0-9.eE+-]+) s`)

func parseFsync(out []byte) (Fsync, error) {
	var times []time.Duration
	var sum time.Duration
	for _, m := range ddTime.FindAllSubmatch(out, -1) {
		seconds, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return Fsync{}, fmt.Errorf("read dd's time: %w", err)
		}
		t := time.Duration(seconds * float64(time.Second))
		times, sum = append(times, t), sum+t
	}
	if len(times) == 0 {
		return Fsync{}, errors.New("dd told no times: " + string(bytes.TrimSpace(firstLine(out))))
	}
	slices.Sort(times)
	n := len(times)
	// The nearest rank: of 100 samples the 99th, so that one outlier is allowed.
	return Fsync{Samples: n, Mean: sum / time.Duration(n), P99: times[(n*99+99)/100-1]}, nil
}

// Thresholds of etcd's own guide, and ours for refusing a bootstrap. Two
// samples make the p99 of a hundred: a high one with a low mean is a
// neighbour's burst, which a quiet disk's owner wants to hear of, no more.
const (
	fsyncWarn      = 10 * time.Millisecond
	fsyncRefuse    = 100 * time.Millisecond
	fsyncBurstMean = 25 * time.Millisecond
)

func decideFsync(f Fsync) []verdict {
	seen := fmt.Sprintf("p99 %s, mean %s of %d synced writes", round(f.P99), round(f.Mean), f.Samples)
	const fix = "put etcd's directory on a faster disk (SSD), alone"
	switch {
	case f.P99 > fsyncRefuse && f.Mean > fsyncBurstMean:
		return fail(seen, "p99 below 100ms: etcd would lose its leader again and again", fix)
	case f.P99 > fsyncWarn:
		return warn(seen, "p99 below 10ms", fix)
	default:
		return ok("%s", seen)
	}
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// Probe runs a command that writes on a named host.
type Probe func(ctx context.Context, hostName string, cmd host.Command) ([]byte, error)

// fsyncRuns is how often a bad result is measured; the best one counts.
const fsyncRuns = 3

// measureFsync measures etcd's disk, again while the result would refuse it.
func measureFsync(ctx context.Context, probe Probe, c *inventory.Cluster, name string) []verdict {
	var best Fsync
	for i := range fsyncRuns {
		f, err := runFsync(ctx, probe, c, name)
		if err != nil {
			return fail("the disk under "+etcdDir(c)+" cannot be measured: "+brief(err), "100 synced writes", "look for a full or failing disk")
		}
		if i == 0 || f.P99 < best.P99 {
			best = f
		}
		if decideFsync(best)[0].Severity != Error {
			break
		}
	}
	return decideFsync(best)
}

func runFsync(ctx context.Context, probe Probe, c *inventory.Cluster, name string) (Fsync, error) {
	out, err := probe(ctx, name, host.Command{Argv: []string{"sh", "-c", fsyncScript, "ha-install-fsync", etcdDir(c)}})
	if err != nil {
		return Fsync{}, err
	}
	return parseFsync(out)
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return line
}
