package sim

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Hold stops the host's API server when it reads "hold ...", for so many seconds at
// most, and lets it go on when it reads another line and at the end. It says
// "ready", and each line when it has done so.
func (h *Host) Hold(seconds string, in io.Reader, out io.Writer) error {
	most, err := strconv.ParseFloat(seconds, 64)
	if err != nil || !h.is(h.apiUp) {
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var until time.Time
		if strings.HasPrefix(lines.Text(), "hold") {
			until = time.Now().Add(time.Duration(most * float64(time.Second)))
		}
		h.until(until)
		fmt.Fprintln(out, lines.Text())
	}
	h.until(time.Time{})
	return nil
}

func (h *Host) is(so func() bool) bool {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return so()
}

func (h *Host) until(at time.Time) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.held = at
}

// mayDrop counts a hand-over of etcd's leadership in which an API server may
// propose what etcd drops.
func (w *World) mayDrop() {
	for _, h := range w.up() {
		if !h.held.After(time.Now()) {
			w.Exposed++
			return
		}
	}
}

// Held are the hosts whose API server is held now.
func (w *World) Held() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, h := range w.sorted() {
		if h.held.After(time.Now()) {
			names = append(names, h.name)
		}
	}
	return names
}
