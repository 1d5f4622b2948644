//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/test/s3server"
)

// Besides to masters, copies go to a host's SFTP server and to S3 storage on this machine.
const (
	sftpHost     = "w-1"
	copiesAtHost = "/home/vagrant/copies"
	otherPlaces  = 2
)

const (
	schedulePeriod = 2 * time.Minute
	onMasters      = "/var/lib/ha-install/backups/" + clusterName
	copyDir        = "/var/backups/ha-install"
)

// backupsBySchedule has the masters back etcd up by themselves every two minutes: one
// backup in a period and no more, also with a master off; status tells its age, and
// what lies on a master proves to be whole, with the cluster's keys in it. Each lies on
// the other masters, too, also on one that was off when it was made, on an SFTP server
// and in S3 storage.
func backupsBySchedule(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bucket := s3server.NewAt(t, theLab.Gateway, "backups")
	path := writeInventory(t, nil, func(d document) {
		ssh := maps.Clone(d.ssh())
		user := ssh["user"].(string)
		delete(ssh, "user") // it stands in the URL
		d.spec()["backup"] = map[string]any{"schedule": schedulePeriod.String(), "keep": 3, "recipients": []string{id.Recipient().String()},
			"copies": []map[string]any{{"to": "masters://" + copyDir},
				{"to": "sftp://" + user + "@" + addressOf(t, sftpHost) + copiesAtHost, "ssh": ssh},
				{"to": "s3://backups/of", "endpoint": bucket.Endpoint, "credentialsFile": bucket.CredentialsFile, "caFile": bucket.CAFile}}}
	})
	awaitFaultless(t, path, time.Minute)
	t.Cleanup(func() { // whatever went wrong: no timer is left for the parts that follow
		ha(t, "backup", "schedule", "--off", "--yes", path)
		_, _ = askHosts(masters, "rm -rf /var/lib/ha-install/backups "+copyDir)
		_, _ = askHosts([]string{sftpHost}, "rm -rf "+copiesAtHost)
	})
	if r := ha(t, "status", path); r.code != 0 || !strings.Contains(r.stdout, "no master has the timer") {
		t.Errorf("before: exit %d\n%s", r.code, r.tail())
	}
	ha(t, "backup", "schedule", "--plan", path).want(t, 2)
	r := ha(t, "backup", "schedule", path)
	r.want(t, 0)
	t.Logf("scheduled in %s", r.took.Round(100*time.Millisecond))
	if again := ha(t, "backup", "schedule", "-o", "json", path); again.code != 0 || again.changed(t) != 0 {
		t.Errorf("a second run: exit %d\n%s", again.code, again.tail())
	}

	ps := startProbes(t, kubeconfigOf(t, path))
	first := awaitScheduled(t, masters, 1, schedulePeriod)
	all := awaitScheduled(t, masters, len(first)+1, schedulePeriod+time.Minute)
	onePerPeriod(t, all)
	for _, report := range ps.stop(t, "scheduled backups under load") {
		if n := len(report.Failures); n > 0 {
			t.Errorf("%d requests failed while scheduled backups were taken", n)
		}
	}
	newest := all[len(all)-1]
	st, r := statusOf(t, path)
	if b := st.ScheduledBackups; b == nil || b.EverySeconds != schedulePeriod.Seconds() || len(b.Masters) != len(masters) || b.AgeSeconds > 2*schedulePeriod.Seconds() || b.Newest.Host == "" {
		t.Errorf("status says %+v\n%s", b, r.tail())
	}
	if r.took > 5*time.Second {
		t.Errorf("status took %s", r.took)
	}
	if r := ha(t, "status", path); !strings.Contains(r.stdout, "backups every 2m0s by cp-1, cp-2, cp-3: the newest is ") {
		t.Errorf("status:\n%s", r.tail())
	}
	verifyScheduled(t, newest, identity)
	copiedToOthers(t, path, newest, identity)
	t.Run("a master off", func(t *testing.T) { scheduledWithout(t, path) })
	t.Run("killed", scheduledKilled)

	// With three to keep on each master and two minutes between, none has more.
	for _, dir := range []string{onMasters, copyDir + "/" + clusterName} {
		for name, out := range onEach(t, masters, "ls "+dir+" 2>/dev/null | wc -l; stat -c %a "+dir+" 2>/dev/null; exit 0") {
			if fields := strings.Fields(out); len(fields) > 0 && (fields[0] > "3" || len(fields) > 1 && fields[1] != "700") {
				t.Errorf("%s has %q backups in %s, mode", name, fields, dir)
			}
		}
	}
	ha(t, "backup", "schedule", "--off", path).want(t, 0)
	kept := scheduledOn(t, masters)
	for name, out := range onEach(t, masters, "ls -A /etc/systemd/system/hainstall-* /etc/ha-install /usr/local/lib/ha-install 2>/dev/null; systemctl is-active hainstall-backup.timer hainstall-receive.socket; ss -Hltn 'sport = :2378'; exit 0") {
		if left := strings.TrimPrefix(strings.TrimSpace(out), "/etc/ha-install:\n"); left != "inactive\ninactive" {
			t.Errorf("%s: left %q", name, out)
		}
	}
	if len(kept) == 0 {
		t.Error("--off has taken the backups away")
	}
	if again := ha(t, "backup", "schedule", "--off", "-o", "json", path); again.code != 0 || again.changed(t) != 0 {
		t.Errorf("--off again: exit %d\n%s", again.code, again.tail())
	}
}

// scheduledWithout powers the master off that has the next turn: another one makes the
// backup of its period, after the grace.
func scheduledWithout(t *testing.T, path string) {
	period := time.Now().Add(20 * time.Second).Truncate(schedulePeriod).Add(schedulePeriod)
	off := turnOf(period)
	others := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == off })
	t.Logf("%s has the turn of %s", off, period.UTC().Format(time.TimeOnly))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	on, err := inject.PowerOff(ctx, off)
	if err != nil {
		t.Fatal(err)
	}
	in := func(all []scheduledBackup) (of []scheduledBackup) {
		for _, b := range all {
			if b.Time.Truncate(schedulePeriod).Equal(period) {
				of = append(of, b)
			}
		}
		return of
	}
	var made []scheduledBackup
	for len(made) == 0 && time.Now().Before(period.Add(schedulePeriod)) {
		made = in(scheduledOn(t, others))
		time.Sleep(2 * time.Second)
	}
	if err := on(ctx); err != nil {
		t.Fatal(err)
	}
	if len(made) != 1 {
		t.Fatalf("%s was off: the period since %s has %+v\n%v", off, period.UTC().Format(time.TimeOnly), made, scheduleLogs(others))
	}
	t.Logf("%s made it, %s into the period", made[0].Host, made[0].Time.Sub(period))
	awaitFaultless(t, path, 3*time.Minute)
	awaitCopied(t, made[0])
	// The one that was off looks by itself again, and makes none of a period that has its backup.
	n := len(scheduledOn(t, masters))
	onePerPeriod(t, awaitScheduled(t, masters, n+1, schedulePeriod+time.Minute))
	if made := in(scheduledOn(t, masters)); len(made) > 1 {
		t.Errorf("the period without %s has two: %+v", off, made)
	}
}

// killWhenBusy kills the program on a master in the middle of a backup.
const killWhenBusy = `end=$(($(date +%s) + 150))
while [ "$(date +%s)" -lt "$end" ]; do
	for d in ` + onMasters + `/.*.part; do
		[ -d "$d" ] || continue
		systemctl kill --signal KILL hainstall-backup.service && echo killed
		exit 0
	done
	sleep 0.05
done`

// scheduledKilled kills the program in the middle: the same period has its backup all
// the same, and nothing is left of the one that died.
func scheduledKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	killed := make(chan string, len(masters))
	for _, name := range masters {
		go func() {
			if out, err := theLab.Exec(ctx, name, "sh", "-c", killWhenBusy); err == nil && strings.Contains(string(out), "killed") {
				killed <- name
			}
		}()
	}
	select {
	case name := <-killed:
		t.Logf("killed on %s at %s", name, time.Now().UTC().Format(time.TimeOnly))
	case <-ctx.Done():
		t.Fatalf("no backup was met under way\n%v", scheduleLogs(masters))
	}
	// The others are still there to kill the one who follows; it is killed, too, at most.
	onePerPeriod(t, awaitScheduled(t, masters, len(scheduledOn(t, masters))+1, 2*schedulePeriod))
	if left := onEach(t, masters, "ls -d "+onMasters+"/.*.part 2>/dev/null; exit 0"); strings.Join(slices.Collect(maps.Values(left)), "") != "" {
		t.Logf("under way, or left until that master's next turn: %v", left)
	}
}

// scheduledBackup is one that lies on a master.
type scheduledBackup struct {
	Host string
	Path string
	Time time.Time
}

// scheduledOn are the whole backups on masters, the oldest first.
func scheduledOn(t *testing.T, hosts []string) []scheduledBackup {
	t.Helper()
	var all []scheduledBackup
	there, _ := askHosts(hosts, "ls -1 "+onMasters+" 2>/dev/null; exit 0")
	for name, out := range there {
		for _, dir := range strings.Fields(out) {
			at, err := time.Parse("2006-01-02T15-04-05Z", dir)
			if err != nil {
				t.Errorf("%s has %q among its backups", name, dir)
			}
			all = append(all, scheduledBackup{name, onMasters + "/" + dir, at})
		}
	}
	slices.SortFunc(all, func(a, b scheduledBackup) int { return a.Time.Compare(b.Time) })
	return all
}

// scheduleLogs are what hosts say of their timers, one after the other.
func scheduleLogs(hosts []string) string {
	var all strings.Builder
	said, _ := askHosts(hosts, "cat /var/lib/ha-install/backup-state.json; systemctl list-timers --all hainstall-backup.timer --no-pager; systemctl status hainstall-backup.service --no-pager; journalctl -u hainstall-backup.service -n 40 --no-pager; exit 0")
	for name, out := range said {
		fmt.Fprintf(&all, "== %s\n%s\n", name, out)
	}
	return all.String()
}

// awaitScheduled waits until there are so many; what retention removes meanwhile is
// counted, too.
func awaitScheduled(t *testing.T, hosts []string, n int, within time.Duration) []scheduledBackup {
	t.Helper()
	seen := map[string]scheduledBackup{}
	deadline := time.Now().Add(within + 30*time.Second)
	for {
		for _, b := range scheduledOn(t, hosts) {
			seen[b.Host+b.Path] = b
		}
		if len(seen) >= n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d backups within %s, want %d: %v\n%v", len(seen), within, n, seen, scheduleLogs(hosts))
		}
		time.Sleep(2 * time.Second)
	}
	var all []scheduledBackup
	for _, b := range seen {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b scheduledBackup) int { return a.Time.Compare(b.Time) })
	return all
}

// onePerPeriod wants no two of the same period.
func onePerPeriod(t *testing.T, all []scheduledBackup) {
	t.Helper()
	var periods []string
	seen := map[time.Time]scheduledBackup{}
	for _, b := range all {
		period := b.Time.Truncate(schedulePeriod)
		if other, twice := seen[period]; twice {
			t.Errorf("the period since %s has two: %+v and %+v", period.Format(time.TimeOnly), other, b)
		}
		seen[period] = b
		periods = append(periods, fmt.Sprintf("%s on %s at %s", period.Format(time.TimeOnly), b.Host, b.Time.Format(time.TimeOnly)))
	}
	t.Logf("periods: %s", strings.Join(periods, ", "))
}

// awaitCopied waits until a backup lies on all masters but its own.
func awaitCopied(t *testing.T, b scheduledBackup) {
	t.Helper()
	others := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == b.Host })
	file := copyDir + "/" + clusterName + "/" + filepath.Base(b.Path) + "/" + backup.ManifestFile
	deadline := time.Now().Add(schedulePeriod)
	for {
		there, _ := askHosts(others, "ls "+file+" 2>/dev/null; exit 0")
		if strings.Count(strings.Join(slices.Collect(maps.Values(there)), " "), file) == len(others) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s lies on %q alone\n%s", b.Path, b.Host, there, scheduleLogs(masters))
		}
		time.Sleep(2 * time.Second)
	}
}

// copiedToOthers finds the copies of a backup as an operator would, and brings one here.
func copiedToOthers(t *testing.T, path string, b scheduledBackup, identity string) {
	t.Helper()
	awaitCopied(t, b)
	name := filepath.Base(b.Path)
	var list struct {
		Copies []struct {
			Place   string
			Error   string
			Backups []struct{ Path string }
		}
	}
	r := ha(t, "backup", "list", "--copies", "-o", "json", path)
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || r.code != 0 || len(list.Copies) != len(masters)+otherPlaces {
		t.Fatalf("exit %d, %v\n%s", r.code, err, r.tail())
	}
	for _, at := range list.Copies {
		has := slices.ContainsFunc(at.Backups, func(c struct{ Path string }) bool { return filepath.Base(c.Path) == name })
		if own := strings.HasSuffix(at.Place, " on "+b.Host); at.Error != "" || has == own {
			t.Errorf("%s of %s: %+v", name, b.Host, at)
		}
	}
	if r := ha(t, "backup", "fetch", "--directory", t.TempDir(), "--identity", identity, path, name); r.code != 0 || !strings.Contains(r.stdout, "secrets opened, of this CA") {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}
	st, r := statusOf(t, path)
	if n := st.ScheduledBackups.Newest; n.Host == "" || len(n.Copies) != len(masters)-1+otherPlaces {
		t.Errorf("status says %+v\n%s", n, r.tail())
	}
}

// turnOf is whose turn a period is.
func turnOf(period time.Time) string {
	return masters[period.Unix()/int64(schedulePeriod/time.Second)%int64(len(masters))]
}

// verifyScheduled fetches a backup, as an operator would, and proves it with the
// identity that opens its keys; on the master itself the program proves it, too.
func verifyScheduled(t *testing.T, b scheduledBackup, identity string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := theLab.Exec(ctx, b.Host, "/usr/local/lib/ha-install/ha-install", "backup", "verify", b.Path); err != nil {
		t.Errorf("%s: %v\n%s", b.Host, err, out)
	}
	dir := filepath.Join(t.TempDir(), filepath.Base(b.Path))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{backup.ManifestFile, backup.SnapshotFile, backup.KeysFile} {
		out, err := theLab.Exec(ctx, b.Host, "cat", b.Path+"/"+name)
		if err != nil {
			t.Fatalf("%s: %v", b.Host, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := ha(t, "backup", "verify", "--identity", identity, dir); r.code != 0 || !strings.Contains(r.stdout, "secrets opened, of this CA") {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}
	var m backup.Manifest
	data, err := os.ReadFile(filepath.Join(dir, backup.ManifestFile))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil || m.Leader || !m.Quorum || m.Snapshot.Hash == nil || !strings.HasPrefix(m.KubernetesVersion, "v1.") {
		t.Errorf("%+v, %v", m, err)
	}
}
