// Package haproxy asks a running HAProxy what it does, and has it send nobody
// new to a server for a while, through its admin socket.
package haproxy

import (
	"context"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
)

// Backend is one backend of the HAProxy on a host.
type Backend struct {
	Socket string // path of the admin socket, which only root may use
	Name   string
}

// askScript sends one line to a socket and prints the answer. perl-base is
// essential in Debian and Ubuntu, where a minimal host has no other client of
// Unix sockets. It has no "$" and no "%", which systemd would expand in the
// command of a timer. The alarm is for a HAProxy that hangs.
const askScript = `use Socket; use POSIX ();
alarm 3;
socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, pack_sockaddr_un(shift @ARGV)) or POSIX::perror("the admin socket of HAProxy"), exit 1;
syswrite S, shift(@ARGV) . chr(10);
print while <S>;
`

// ask is the command that sends orders, separated by semicolons.
func (b Backend) ask(orders ...string) []string {
	return []string{"perl", "-e", askScript, b.Socket, strings.Join(orders, "; ")}
}

// Look asks for everything about the backend at once.
func (b Backend) Look(ctx context.Context, h host.Reader) (View, error) {
	out, err := h.Query(ctx, b.ask("show info", "show servers state "+b.Name, "show stat")...)
	if err != nil {
		return View{}, err
	}
	return Parse(out, b.Name)
}
