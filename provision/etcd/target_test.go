package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestClassifyDial(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Outcome
	}{
		{"sshd says that nothing listens", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection refused"}, Refused},
		{"sshd says that there is no route", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "No route to host"}, Refused},
		{"sshd's own connect timed out", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection timed out"}, TimedOut},
		{"sshd forbids forwarding: the vantage point is of no use", &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "administratively prohibited"}, VantageDown},
		{"a wrapped refusal", fmt.Errorf("cp-1: dial: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), Refused},
		{"our deadline", fmt.Errorf("cp-1: %w", context.DeadlineExceeded), TimedOut},
		{"the SSH connection is gone", errors.New("ssh: handshake failed: EOF"), VantageDown},
	} {
		if got := classifyDial(tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestRemoteURL(t *testing.T) {
	for _, tt := range []struct {
		name string
		t    Target
		want string
	}{
		{"the peer URL's address with the client port", Target{PeerURL: "https://10.0.0.1:2380"}, "https://10.0.0.1:2379"},
		{"IPv6 keeps its brackets", Target{PeerURL: "https://[fd00::1]:2380"}, "https://[fd00::1]:2379"},
		{"given outright", Target{PeerURL: "https://10.0.0.1:2380", RemoteURL: "https://x:1"}, "https://x:1"},
	} {
		if got := tt.t.remoteURL(); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}
