package haproxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/host"
)

// DrainScript has HAProxy send nobody new to a server: $1 the name of a timer,
// $2 the seconds after which it takes that back, $3 askScript, $4 the socket,
// $5 the order, $6 the order that takes it back. The timer is there before the
// order is given: whoever gives it may die at any moment.
const DrainScript = `set -eu
systemctl stop "$1.timer" 2>/dev/null || :
systemd-run --quiet --collect --unit="$1" --on-active="$2" --timer-property=AccuracySec=1s perl -e "$3" "$4" "$6"
exec perl -e "$3" "$4" "$5"
`

// EnableScript takes that back, with the same arguments but for $2: the timer
// goes only when HAProxy has taken the order.
const EnableScript = `set -eu
answer=$(perl -e "$3" "$4" "$6")
if [ -n "$answer" ]; then
	echo "$answer" >&2
	exit 1
fi
systemctl stop "$1.timer" 2>/dev/null || :
`

// Drain has HAProxy send no new connection to the server. Those that are there
// stay; "disable server" would cut them, whatever is under way on them. The
// checks go on. When nobody enables the server again within expiry, the host
// does so by itself: then its checks alone decide, as ever.
func (b Backend) Drain(ctx context.Context, h host.Host, server string, expiry time.Duration) error {
	return b.order(ctx, h, DrainScript, server, expiry)
}

// Enable takes Drain back, and any other order that keeps the server out.
func (b Backend) Enable(ctx context.Context, h host.Host, server string) error {
	return b.order(ctx, h, EnableScript, server, 0)
}

func (b Backend) order(ctx context.Context, h host.Host, script, server string, expiry time.Duration) error {
	state := func(s string) string { return fmt.Sprintf("set server %s/%s state %s", b.Name, server, s) }
	out, err := h.Run(ctx, host.Command{Argv: []string{"sh", "-c", script, "ha-install-haproxy",
		timer(server), strconv.Itoa(int(expiry.Seconds())), askScript, b.Socket, state("drain"), state("ready")}})
	if err != nil {
		return err
	}
	if answer := strings.TrimSpace(string(out)); answer != "" { // it has nothing to say when it obeys
		return fmt.Errorf("%s: HAProxy: %w", h.Name(), errors.New(answer))
	}
	return nil
}

// timer is the systemd unit that enables a server again. Its name is not one of
// a step's.
func timer(server string) string { return "enable-" + server + "-by-ha-install" }
