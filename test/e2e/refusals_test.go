//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ha-install/ha-install/test/fault"
)

// refusals has apply meet hosts that it must not touch, and compares all hosts
// before and after.
func refusals(t *testing.T) {
	recreate(t, baseHosts...)
	rows := []struct {
		name string
		run  func(*testing.T)
	}{
		{"many errors in the inventory: all with their lines, no host asked", refuseInventory},
		{"files that the inventory names are wrong: all with their lines, no host asked", refuseFiles},
		{"fault 17: the bastion shows another key than the pinned one", refuseBastionKey},
		{"fault 17: a host shows another key than the known one", refuseChangedKey},
		{"fault 17: the key of a host is not known", refuseUnknownKey},
		{"a host is off", refuseUnreachable},
		{"fault 32: sudo asks for a password", refuseSudoPassword},
		{"fault 32: sudo is denied", refuseSudoDenied},
		{"fault 30: a host has files of another cluster", refuseForeignFiles},
		{"a host belongs to another cluster of ours", refuseForeignMarker},
		{"fault 15: a disk is full", refuseFullDisk},
		{"fault 31: two hosts have the same machine ID", refuseSameMachine},
		{"fault 19: a clock is off", refuseClock},
		{"somebody else announces the router ID", refuseRouterID},
	}
	for _, row := range rows {
		t.Run(row.name, row.run)
	}
}

// refused runs apply and wants it refused with nothing changed on any host.
func refused(t *testing.T, inventory string, code int, texts ...string) result {
	t.Helper()
	before := onEach(t, baseHosts, bareFootprint)
	r := ha(t, "apply", inventory)
	wantSame(t, "a refused apply", before, onEach(t, baseHosts, bareFootprint))
	r.want(t, code, texts...)
	return r
}

// logins counts the SSH logins that a host has ever let in.
const logins = `journalctl --quiet --no-pager -t sshd | grep -c Accepted; exit 0`

func refuseInventory(t *testing.T) {
	path := writeInventory(t, nil, nil)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range [][2]string{
		{"version: v1.36.3", "version: latest"},
		{"mode: dedicated", "mode: dedicatd"},
		{"{name: cp-2, address: 198.51.100.22,", "{name: cp-1, address: 198.51.100.21,"},
		{"serviceCIDR: 10.96.0.0/12", "serviceCIDR: 10.244.128.0/20"},
		{"plugin: flannel", "plugin: flannel\n      flavour: vanilla"},
	} {
		if !bytes.Contains(data, []byte(edit[0])) {
			t.Fatalf("the inventory has no %q", edit[0])
		}
		data = bytes.Replace(data, []byte(edit[0]), []byte(edit[1]), 1)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	texts := []string{"(line 23)"} // where the name and address were first used
	for n, line := range strings.Split(string(data), "\n") {
		for _, wrong := range []string{"latest", "dedicatd", "podCIDR", "flavour"} {
			if strings.Contains(line, wrong) {
				texts = append(texts, fmt.Sprintf("%s:%d:", path, n+1))
			}
		}
	}
	texts = append(texts, path+":24:14: spec.hosts[3].name", path+":24:29: spec.hosts[3].address")
	before := onEach(t, baseHosts, logins)
	refused(t, path, 3, texts...)
	wantSame(t, "logins", before, onEach(t, baseHosts, logins))
}

// knownHosts writes the lab's known_hosts with the key of one host replaced,
// or left out when key is nil, and returns its path.
func knownHosts(t *testing.T, host string, key ssh.PublicKey) string {
	t.Helper()
	h, err := theLab.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(theLab.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, h.Address+",") {
			out.WriteString(line)
		} else if key != nil {
			fmt.Fprintf(&out, "%s %s", h.Address, ssh.MarshalAuthorizedKey(key))
		}
	}
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// hostKey is the public key that a host really has.
func hostKey(t *testing.T, host string) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(onHost(t, host, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func refuseChangedKey(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	known := knownHosts(t, "cp-2", other)
	path := writeInventory(t, nil, func(d document) { d.ssh()["knownHosts"] = []any{known} })
	refused(t, path, 5, "cp-2", "has changed", ssh.FingerprintSHA256(other), ssh.FingerprintSHA256(hostKey(t, "cp-2")), known)
}

func refuseUnknownKey(t *testing.T) {
	known := knownHosts(t, "cp-3", nil)
	path := writeInventory(t, nil, func(d document) { d.ssh()["knownHosts"] = []any{known} })
	key := hostKey(t, "cp-3")
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	refused(t, path, 5, "cp-3", "is not known", ssh.FingerprintSHA256(key), line)
}

// refuseUnreachable cuts the operator off instead of powering the host off, so
// that the host can still be compared.
func refuseUnreachable(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	undo, err := inject.Cut(ctx, fault.Operator, "w-1", 22)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := undo(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	r := refused(t, writeInventory(t, nil, nil), 5, "w-1", "198.51.100.31:22")
	if r.took > 45*time.Second {
		t.Errorf("it took %s to say that a host does not answer", r.took)
	}
}

const sudoers = "/etc/sudoers.d/vagrant"

func refuseSudoPassword(t *testing.T) {
	withFile(t, "cp-1", sudoers, "vagrant ALL=(ALL) ALL")
	refused(t, writeInventory(t, nil, nil), 5, "cp-1", "sudo asks for a password", "NOPASSWD")
}

func refuseSudoDenied(t *testing.T) {
	// without a password prompt first: sudo asks before it denies
	withFile(t, "cp-1", sudoers, "Defaults:vagrant !authenticate")
	refused(t, writeInventory(t, nil, nil), 5, "cp-1", "sudo is denied to the user", "vagrant")
}

// withFile puts other content into a file of a host until the test ends.
func withFile(t *testing.T, host, path, content string) {
	t.Helper()
	kept := "/root/kept-" + filepath.Base(path)
	onHost(t, host, "cp", "--archive", path, kept)
	t.Cleanup(func() { onHost(t, host, "mv", kept, path) })
	onHost(t, host, "sh", "-c", `printf '%s\n' "$1" >"$2"`, "sh", content, path)
}

func refuseForeignFiles(t *testing.T) {
	shell(t, "cp-2", `mkdir -p /etc/kubernetes/manifests /var/lib/etcd/member/snap && echo old >/etc/kubernetes/admin.conf && echo old >/var/lib/etcd/member/snap/db`)
	t.Cleanup(func() { onHost(t, "cp-2", "rm", "-rf", "/etc/kubernetes", "/var/lib/etcd") })
	refused(t, writeInventory(t, nil, nil), 4, "cp-2", "another cluster", "/etc/kubernetes/admin.conf", "/var/lib/etcd/member")
}

func refuseForeignMarker(t *testing.T) {
	shell(t, "w-1", `mkdir -p /var/lib/ha-install && echo '{"cluster":"production"}' >/var/lib/ha-install/cluster.json`)
	t.Cleanup(func() { onHost(t, "w-1", "rm", "-rf", "/var/lib/ha-install") })
	refused(t, writeInventory(t, nil, nil), 4, "w-1", "production")
}

func refuseFullDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	undo, err := inject.Shrink(ctx, "cp-3", "/var/lib/containerd", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := undo(context.Background()); err != nil {
			t.Error(err)
		}
		onHost(t, "cp-3", "rmdir", "/var/lib/containerd")
	})
	if _, err := inject.Fill(ctx, "cp-3", "/var/lib/containerd", 1<<20); err != nil {
		t.Fatal(err)
	}
	refused(t, writeInventory(t, nil, nil), 4, "cp-3", "/var/lib/containerd", "free")
}

func refuseSameMachine(t *testing.T) {
	id := onHost(t, "cp-1", "cat", "/etc/machine-id")
	withFile(t, "cp-3", "/etc/machine-id", id)
	refused(t, writeInventory(t, nil, nil), 4, "cp-1", "cp-3", "/etc/machine-id", id)
}

// refuseClock has the clock of one host be wrong by more and more: at 10 s
// preflight warns, from a minute on it refuses. All hosts share the clock of
// one machine, so a script stands before the host's own date.
func refuseClock(t *testing.T) {
	const shim = "/usr/local/bin/date"
	wrong := func(seconds string) {
		onHost(t, "cp-2", "sh", "-c", `printf '#!/bin/sh\nexec /usr/bin/date --date="%s seconds" "$@"\n' "$1" >"$2" && chmod 755 "$2"`, "sh", seconds, shim)
	}
	t.Cleanup(func() { onHost(t, "cp-2", "rm", "-f", shim) })
	path := writeInventory(t, nil, nil)
	wrong("10")
	r := ha(t, "preflight", path)
	r.want(t, 0)
	if !strings.Contains(r.stdout, "Clock") || !strings.Contains(r.stdout, "+10.") && !strings.Contains(r.stdout, "+9.9") {
		t.Errorf("no warning of a clock that is 10 s fast:\n%s", r.stdout)
	}
	wrong("-360")
	refused(t, path, 4, "cp-2", "Clock: -3")
	wrong("7200")
	refused(t, path, 4, "cp-2", "Clock: +7")
}
