package sim

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Hold stops the host's API server from the first line that it reads to the end
// of its input, for so many seconds at most, and says "ready" and "held".
func (h *Host) Hold(seconds string, in io.Reader, out io.Writer) error {
	most, err := strconv.ParseFloat(seconds, 64)
	if err != nil || !h.is(h.apiUp) {
		return err
	}
	words := bufio.NewScanner(in)
	fmt.Fprintln(out, "ready")
	if !words.Scan() {
		return nil
	}
	h.until(time.Now().Add(time.Duration(most * float64(time.Second))))
	fmt.Fprintln(out, "held")
	words.Scan()
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
