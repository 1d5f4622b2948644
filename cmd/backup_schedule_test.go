package cmd

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/provision/units"
)

func TestBackupScheduleIsShownAndTheTurnIsNot(t *testing.T) {
	code, out, _ := run(t, "", "backup", "--help")
	if code != 0 || !strings.Contains(out, "  schedule ") || strings.Contains(out, "  turn ") || strings.Contains(out, "  receive ") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out, _ := run(t, "", "backup", "schedule", "--help"); code != 0 || !strings.Contains(out, "--off") || !strings.Contains(out, "spec:\n    backup:") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestBackupScheduleNeedsEveryHost(t *testing.T) {
	file := writeInventory(t, nil)
	for _, args := range [][]string{{"--yes"}, {"--off", "--yes"}, {"--plan"}} {
		if code, _, errOut := run(t, "", append(append([]string{"backup", "schedule"}, args...), file)...); code != exitUnreachable {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
	if code, _, errOut := run(t, "", "backup", "schedule"); code != exitUsage {
		t.Errorf("without an inventory: exit %d, %s", code, errOut)
	}
}

func TestTurnWithoutConfigurationSaysSo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "backup.json")
	for _, args := range [][]string{{"turn"}, {"turn", "--check"}, {"receive"}} {
		code, _, errOut := run(t, "", append([]string{"backup", args[0], "--config", missing}, args[1:]...)...)
		if code != exitOther || !strings.Contains(errOut, missing) {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
}

// TestReceiveTakesItsConnectionFromStdin, as systemd hands it over, and nothing else.
func TestReceiveTakesItsConnectionFromStdin(t *testing.T) {
	config := filepath.Join(t.TempDir(), "backup.json")
	if err := os.WriteFile(config, []byte(`{"cluster":"lab","everyNanoseconds":60000000000,"keep":7,"directory":"/b","copies":[{"to":"masters:///var/b"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	for want, in := range map[string]*os.File{"etcd/ca.crt": socket, "stdin is no connection": file} {
		os.Stdin = in
		if code, _, errOut := run(t, "", "backup", "receive", "--config", config); code != exitOther || !strings.Contains(errOut, want) {
			t.Errorf("exit %d, %s, want %q", code, errOut, want)
		}
	}
}

func TestStatusShowsTheNewestScheduledBackup(t *testing.T) {
	every := provision.ScheduledBackups{Every: units.Seconds(6 * time.Hour), Masters: []string{"cp-1", "cp-2"}}
	none, some, copied := every, every, every
	some.Newest, some.Age = &schedule.Note{Host: "cp-2", Path: "/b/lab/2026-11-23T06-00-00Z", Revision: 44}, units.Seconds(125*time.Minute)
	with := *some.Newest
	with.Copies = []schedule.Copy{{Place: "s3://b/p"}, {Place: "masters:///b/c on cp-3", Err: "no route"}}
	copied.Newest, copied.Age = &with, some.Age
	for want, b := range map[string]*provision.ScheduledBackups{
		", revision 44\n  copied to s3://b/p\n  NOT at masters:///b/c on cp-3\n":                                        &copied,
		"\nbackups every 6h0m0s by cp-1, cp-2: none yet\n":                                                              &none,
		"\nbackups every 6h0m0s by cp-1, cp-2: the newest is 2h5m old, cp-2:/b/lab/2026-11-23T06-00-00Z, revision 44\n": &some,
	} {
		var out bytes.Buffer
		if err := renderStatus(&out, provision.Status{Backups: b}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v: want %q in\n%s", err, want, out.String())
		}
	}
}
