package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// local is a host.Reader for this machine. Anything but a query and a dial
// fails the test.
type local struct {
	t    *testing.T
	name string
	dial func(address string) error
}

func (l local) Name() string { return l.name }

func (l local) Query(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, &host.RunError{Host: l.name, Argv: argv, Code: exit.ExitCode(), Stderr: string(exit.Stderr)}
	}
	return out, err
}

func (l local) ReadFile(context.Context, string) ([]byte, error) {
	l.t.Error("preflight read a file by itself")
	return nil, errors.ErrUnsupported
}

func (l local) Stat(context.Context, ...string) (map[string]host.FileInfo, error) {
	l.t.Error("preflight asked for files by itself")
	return nil, errors.ErrUnsupported
}

func (l local) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	if l.dial != nil {
		if err := l.dial(address); err != nil {
			return nil, err
		}
	}
	ours, theirs := net.Pipe()
	return ours, theirs.Close()
}

func refuse(string) error { return fmt.Errorf("dial: %w", syscall.ECONNREFUSED) }

func TestScriptRunsHereAndParses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				path = "/bin/sh"
			}
			sent := time.Now()
			out, err := local{t: t}.Query(t.Context(), path, "-c", factsScript, "facts", defaultEtcdDir, "localhost", fmt.Sprint(port))
			if err != nil {
				t.Fatal(err)
			}
			f, err := parseFacts(out, sent, time.Now())
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			checkLocalFacts(t, f, port)
		})
	}
}

func checkLocalFacts(t *testing.T, f Facts, port int) {
	t.Helper()
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if f.Kernel != "Linux" || f.Hostname != hostname || f.Cores < 1 || f.MemoryMB < 100 || f.BootID == "" {
		t.Errorf("the machine: %+v", f)
	}
	if len(f.Disks) != 5 || f.Disks[0].Mount != "/" || f.Disks[0].SizeMB == 0 {
		t.Errorf("disks: %+v", f.Disks)
	}
	if !f.has(netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("addresses: %+v", f.Addresses)
	}
	if len(f.Listeners) != 1 || f.Listeners[0].Port != port || !strings.Contains(f.Listeners[0].Process, fmt.Sprint(os.Getpid())) {
		t.Errorf("listeners: %+v, wanted port %d of pid %d", f.Listeners, port, os.Getpid())
	}
	if !f.Tools["sh"] || !f.Tools["cp"] || !f.ResolvedAsked || len(f.Resolved) == 0 {
		t.Errorf("tools %v, resolved %v", f.Tools, f.Resolved)
	}
	if f.ClockOffset.Abs() > f.ClockError+time.Millisecond {
		t.Errorf("the clock is %s ± %s off itself", f.ClockOffset, f.ClockError)
	}
}

// The path without ip(8), grep and modprobe must tell the same addresses and
// listeners.
func TestScriptNeedsOnlyCoreutils(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"sh", "cat", "date", "uname", "nproc", "stat", "head", "base64", "df", "tail", "ls"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
	ask := func(path string) Facts {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", factsScript, "facts", defaultEtcdDir, "", port)
		cmd.Env = []string{"PATH=" + path}
		sent := time.Now()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		f, err := parseFacts(out, sent, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	full, bare := ask(os.Getenv("PATH")), ask(bin)
	for _, a := range full.Addresses {
		if a.Prefix.Addr().Is4() && bare.interfaceOf(a.Prefix.Addr()) != a.Interface {
			t.Errorf("%v is missing without ip(8): %+v", a, bare.Addresses)
		}
	}
	if len(bare.Listeners) != 1 || bare.Listeners[0].Process != full.Listeners[0].Process {
		t.Errorf("listeners without grep: %+v, with: %+v", bare.Listeners, full.Listeners)
	}
}

func TestFsyncScriptMeasuresAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	out, err := local{t: t}.Query(t.Context(), "sh", "-c", fsyncScript, "fsync", dir+"/not/there/yet")
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFsync(out)
	if err != nil {
		t.Fatal(err)
	}
	if f.Samples < 1 || f.Samples > 100 || f.P99 <= 0 {
		t.Errorf("measured %+v", f)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunReportsEveryHost(t *testing.T) {
	c := testCluster()
	hosts := map[string]host.Reader{}
	for _, h := range c.Spec.Hosts {
		hosts[h.Name] = local{t: t, name: h.Name, dial: refuse}
	}
	delete(hosts, "w-1")
	r := Run(t.Context(), c, hosts, Options{
		ConnectErrors: map[string]error{"cp-3": errors.New("sudo asks for a password")},
		DiskProbe: func(context.Context, string, host.Command) ([]byte, error) {
			return []byte("2300 bytes (2.3 kB, 2.2 KiB) copied, 0.001 s, 2.3 MB/s\n"), nil
		},
	})
	want := map[string]string{ // one machine stands in for all: they must be found equal
		"cp-3 Connection": "sudo asks for a password",
		"w-1 Connection":  "no connection",
		"cp-1 MachineID":  "the same machine as lb-1, lb-2, cp-2",
		"cp-1 Fsync":      "p99 1ms",
	}
	for _, f := range r.Findings {
		key := f.Host + " " + f.Check
		if text, ok := want[key]; ok && strings.HasPrefix(f.Seen, text) {
			delete(want, key)
		}
	}
	if len(want) > 0 {
		t.Errorf("not reported: %v\n%+v", want, r.Findings)
	}
	var failure *Failure
	if err := r.Err(); !errors.As(err, &failure) || !strings.Contains(err.Error(), "cp-3: Connection: sudo asks") {
		t.Errorf("the error is %v", err)
	}
}

// testCluster has every role; names and addresses are those of a small lab.
func testCluster() *inventory.Cluster {
	h := func(name, address string, role inventory.Role) inventory.Host {
		return inventory.Host{Name: name, Address: address, InternalAddress: address, Role: role}
	}
	return &inventory.Cluster{
		Metadata: inventory.Metadata{Name: "lab"},
		Spec: inventory.Spec{
			Kubernetes: inventory.Kubernetes{Version: "v1.36.3"},
			Endpoint:   inventory.Endpoint{Host: "10.0.0.10", Port: 6443},
			Hosts: []inventory.Host{
				h("lb-1", "10.0.0.11", inventory.RoleLoadBalancer), h("lb-2", "10.0.0.12", inventory.RoleLoadBalancer),
				h("cp-1", "10.0.0.21", inventory.RoleControlPlane), h("cp-2", "10.0.0.22", inventory.RoleControlPlane),
				h("cp-3", "10.0.0.23", inventory.RoleControlPlane), h("w-1", "10.0.0.31", inventory.RoleWorker),
			},
		},
	}
}

// latecomer takes the VIP after it was asked for its facts.
type latecomer struct {
	local
	asked *int
}

func (l latecomer) Query(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := l.local.Query(ctx, argv...)
	if argv[0] == "perl" { // listens to the link, beside the facts
		return out, err
	}
	if *l.asked++; *l.asked > 1 {
		out = append([]byte("addr=9: eth0    inet 10.0.0.10/32 scope global eth0\n"), out...)
	}
	return out, err
}

// TestAVIPThatIsJustTakenIsNotAStrangers has keepalived take the VIP between
// the facts and the question who answers there.
func TestAVIPThatIsJustTakenIsNotAStrangers(t *testing.T) {
	c := testCluster()
	at := func(address string) error {
		if strings.HasPrefix(address, "10.0.0.10:") {
			return nil
		}
		return syscall.ECONNREFUSED
	}
	for _, takes := range []bool{true, false} {
		hosts, asked := map[string]host.Reader{}, 0
		for _, h := range c.Spec.Hosts {
			hosts[h.Name] = local{t: t, name: h.Name, dial: at}
		}
		if takes {
			hosts["lb-1"] = latecomer{local{t: t, name: "lb-1", dial: at}, &asked}
		}
		r := Run(t.Context(), c, hosts, Options{Ours: func(string) bool { return true }})
		i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Check == CheckEndpoint })
		if i < 0 || (r.Findings[i].Severity == OK) != takes {
			t.Errorf("taken by lb-1: %t: %+v", takes, r.Findings[max(i, 0)])
		}
	}
}
