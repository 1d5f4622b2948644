package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sync/errgroup"
)

// State is what LXC says of a host, or StateAbsent.
type State string

// The states that matter; LXC has a few more on the way between them.
const (
	StateRunning State = "RUNNING"
	StateStopped State = "STOPPED"
	StateFrozen  State = "FROZEN"
	StateAbsent  State = "ABSENT"
)

// State says whether the host is on.
func (l *Lab) State(ctx context.Context, host string) (State, error) {
	h, err := l.Host(host)
	if err != nil {
		return "", err
	}
	path, err := containersPath(ctx)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(path, h.Container(), "config")); err != nil {
		return StateAbsent, nil
	}
	out, err := Run(ctx, "lxc-info", "--name", h.Container(), "--state", "--no-humanize")
	if err != nil {
		return "", fmt.Errorf("%s: ask its state: %w", host, err)
	}
	return State(strings.TrimSpace(string(out))), nil
}

// PowerOff ends the host at once, without a word to its processes.
func (l *Lab) PowerOff(ctx context.Context, host string) error {
	h, err := l.Host(host)
	if err != nil {
		return err
	}
	return kill(ctx, h.Container())
}

// PowerOn boots a host that is off and waits until it takes logins.
func (l *Lab) PowerOn(ctx context.Context, host string) error {
	if err := l.start(ctx, host); err != nil {
		return err
	}
	return l.AwaitLogin(ctx, host, bootLimit)
}

func (l *Lab) start(ctx context.Context, host string) error {
	h, err := l.Host(host)
	if err != nil {
		return err
	}
	if state, err := l.State(ctx, host); err != nil || state == StateRunning {
		return err
	}
	if _, err := Run(ctx, "lxc-start", "--name", h.Container(), "--daemon"); err != nil {
		return fmt.Errorf("%s: power on: %w", host, err)
	}
	return nil
}

// Recreate makes the hosts bare again, all at once: powered off, the root file
// system made equal to the box's, booted. Name, machine ID, address and SSH
// host key stay the same. Files are compared by size and time, which makes
// this a matter of a second; a test that forges both must use Down and Up.
func (l *Lab) Recreate(ctx context.Context, hosts ...string) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := l.ensureBox(ctx, os.Stderr)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, host := range hosts {
		group.Go(func() error {
			if err := l.recreate(ctx, b, host); err != nil {
				return fmt.Errorf("%s: make it bare again: %w", host, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (l *Lab) recreate(ctx context.Context, b box, host string) error {
	h, err := l.Host(host)
	if err != nil {
		return err
	}
	path, err := containersPath(ctx)
	if err != nil {
		return err
	}
	if state, err := l.State(ctx, host); err != nil {
		return err
	} else if state == StateAbsent {
		return fmt.Errorf("there is no such container; bring it up first: lab up %s", host)
	}
	if err := kill(ctx, h.Container()); err != nil {
		return err
	}
	rootfs := filepath.Join(path, h.Container(), "rootfs")
	mark := filepath.Join(path, h.Container(), recreatingMark)
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		return err
	}
	if _, err := Run(ctx, "rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--numeric-ids", "--delete", b.rootfs()+"/", rootfs+"/"); err != nil {
		return err
	}
	if err := os.Remove(mark); err != nil {
		return err
	}
	return l.PowerOn(ctx, host)
}

// AwaitLogin waits until the host lets the lab's key in over SSH, showing the
// host key that known_hosts names, and sudo works.
func (l *Lab) AwaitLogin(ctx context.Context, host string, limit time.Duration) error {
	h, err := l.Host(host)
	if err != nil {
		return err
	}
	config, err := l.clientConfig()
	if err != nil {
		return err
	}
	return Await(ctx, "a login on "+host, limit, func(ctx context.Context) error {
		return tryLogin(ctx, net.JoinHostPort(h.Address, "22"), config)
	})
}

func (l *Lab) clientConfig() (*ssh.ClientConfig, error) {
	raw, err := os.ReadFile(l.Key())
	if err != nil {
		return nil, fmt.Errorf("lab: read the login key (is the lab up?): %w", err)
	}
	signer, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("lab: read the login key: %w", err)
	}
	verify, err := knownhosts.New(l.KnownHosts())
	if err != nil {
		return nil, fmt.Errorf("lab: read known_hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User:              "vagrant",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   verify,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}, nil
}

func tryLogin(ctx context.Context, address string, config *ssh.ClientConfig) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	// The ssh package knows no context; a closed connection ends it.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		return err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	return session.Run("sudo -n true")
}
