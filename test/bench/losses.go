package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/ha-install/ha-install/provision/backup"
)

const (
	// largeDatabase is what is written into etcd before a backup of it is timed,
	// in objects of that size.
	largeDatabase = 500 << 20
	largeObject   = 512 << 10
	writersAtOnce = 4
	// looks is how often `status` is asked while nothing else goes on.
	looks = 5
)

// losses is what it takes to keep a cluster's data, and to come back from a loss.
type losses struct {
	replace run // of a master that was installed anew
	backup  run
	bytes   int64           // of the snapshot
	quiet   []time.Duration // what `status` takes
	during  []time.Duration // what it takes while that backup is made
	restore run             // of it, on the same masters
	busy    float64         // the machine before
}

// throughput is bytes a second of the whole command.
func (l losses) throughput() float64 { return float64(l.bytes) / l.backup.took.Seconds() }

// slower is by which factor `status` is slower during a backup, by the medians.
func (l losses) slower() float64 {
	_, quiet, _ := spread(inSeconds(l.quiet))
	_, during, _ := spread(inSeconds(l.during))
	return during / quiet
}

func inSeconds(all []time.Duration) []float64 {
	var values []float64
	for _, d := range all {
		values = append(values, d.Seconds())
	}
	return values
}

// lose makes a cluster on bare hosts, replaces a master that has lost all, and
// backs a large database up and restores it.
func (b *bench) lose(ctx context.Context) error {
	if err := b.fromBare(ctx); err != nil {
		return err
	}
	var l losses
	var err error
	if l.replace, err = b.replaceAnew(ctx); err != nil {
		return err
	}
	say("a master that was installed anew, replaced: %s", seconds(l.replace.took))
	if err := b.enlarge(ctx); err != nil {
		return err
	}
	if l.busy, err = settle(ctx); err != nil {
		return err
	}
	directory, err := os.MkdirTemp(b.dir, "backups-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if err := b.backUp(ctx, &l, directory); err != nil {
		return err
	}
	say("a backup of %d MB: %s; status meanwhile takes %.1f times as long", l.bytes>>20, seconds(l.backup.took), l.slower())
	name, err := newest(directory)
	if err != nil {
		return err
	}
	if l.restore, err = b.logged(ctx, "restore", "--confirm", clusterName, "--backup-directory", directory, "--from", name, b.lab.Inventory()); err != nil {
		return err
	}
	say("that backup, restored: %s", seconds(l.restore.took))
	b.result.losses = &l
	_, err = b.awaitWhole(ctx)
	return err
}

// logged runs the program; what it prints is kept under the verb's name.
func (b *bench) logged(ctx context.Context, args ...string) (run, error) {
	log, err := os.Create(filepath.Join(b.dir, args[0]+".json"))
	if err != nil {
		return run{}, err
	}
	defer log.Close()
	return runProgram(ctx, b.binary, log, args...)
}

// replaceAnew installs the second master anew, and has it replaced by itself.
func (b *bench) replaceAnew(ctx context.Context) (run, error) {
	if _, err := b.awaitWhole(ctx); err != nil {
		return run{}, err
	}
	lost := b.result.masters[1]
	if err := b.lab.Recreate(ctx, lost); err != nil {
		return run{}, err
	}
	if err := b.lab.AwaitLogin(ctx, lost, time.Minute); err != nil {
		return run{}, err
	}
	if _, err := settle(ctx); err != nil {
		return run{}, err
	}
	directory, err := os.MkdirTemp(b.dir, "before-replace-")
	if err != nil {
		return run{}, err
	}
	defer os.RemoveAll(directory)
	r, err := b.logged(ctx, "replace", "--confirm", lost, "--backup-directory", directory, b.lab.Inventory(), lost)
	if err != nil {
		return r, err
	}
	_, err = b.awaitWhole(ctx)
	return r, err
}

// enlarge writes objects until the database is large.
func (b *bench) enlarge(ctx context.Context) error {
	endpoint, err := b.endpoint(ctx)
	if err != nil {
		return err
	}
	endpoint.QPS = -1
	client, err := kubernetes.NewForConfig(endpoint)
	if err != nil {
		return err
	}
	again := func(error) bool { return ctx.Err() == nil }
	began := time.Now()
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(writersAtOnce)
	for i := range largeDatabase / largeObject {
		all.Go(func() error {
			noise := make([]byte, largeObject)
			_, _ = rand.Read(noise) // never fails
			object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("large-%d", i)}, BinaryData: map[string][]byte{"noise": noise}}
			return retry.OnError(retry.DefaultBackoff, again, func() error { // a request may time out under so many
				_, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, object, metav1.CreateOptions{})
				if apierrors.IsAlreadyExists(err) {
					return nil
				}
				return err
			})
		})
	}
	err = all.Wait()
	say("%d MB were written in %s", largeDatabase>>20, seconds(time.Since(began)))
	return err
}

// backUp times a backup, and `status` before and meanwhile.
func (b *bench) backUp(ctx context.Context, l *losses, directory string) error {
	for range looks {
		took, err := b.look(ctx)
		if err != nil {
			return err
		}
		l.quiet = append(l.quiet, took)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		l.backup, err = b.logged(ctx, "backup", "create", "--directory", directory, b.lab.Inventory())
		done <- err
	}()
	for {
		took, err := b.look(ctx)
		if err != nil {
			return errors.Join(err, <-done)
		}
		select {
		case err := <-done: // the last look was not all within it
			if err == nil && len(l.during) == 0 {
				err = errors.New("the backup was over before status was; there is nothing to compare")
			}
			if err == nil {
				l.bytes, err = snapshotBytes(directory)
			}
			return err
		default:
			l.during = append(l.during, took)
		}
	}
}

// look is how long `status` takes.
func (b *bench) look(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	_, err := b.lookAround(ctx)
	return time.Since(began), err
}

// newest is the name of the newest backup in a directory that has one at least.
func newest(directory string) (string, error) {
	all, err := backup.In(directory, clusterName).List()
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("no backup is in %s", directory)
	}
	return filepath.Base(all[0].Path), nil
}

func snapshotBytes(directory string) (int64, error) {
	name, err := newest(directory)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(filepath.Join(directory, clusterName, name, backup.SnapshotFile))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
