package cmd

import (
	"context"
	"os"
	"sync"
)

// interrupts turns the operator's signals into wishes: the first one asks a
// run to stop at its next safe point, the second one ends all waiting. Where
// nothing is being changed, the first one ends at once.
type interrupts struct {
	stop   chan struct{} // closed by the first signal
	cancel context.CancelFunc

	mu      sync.Mutex
	running bool // a run is under way that knows safe points
}

type interruptsKey struct{}

// Interruptible is a context in which Execute heeds the signals. release is
// called when the next signal is to have its usual effect again, which is to
// end the process.
func Interruptible(ctx context.Context, signals <-chan os.Signal, release func()) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	i := &interrupts{stop: make(chan struct{}), cancel: cancel}
	go func() {
		<-signals
		if i.ask() {
			<-signals
		}
		release()
		cancel()
	}()
	return context.WithValue(ctx, interruptsKey{}, i)
}

// ask closes stop and says whether there is a run that will heed it.
func (i *interrupts) ask() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	close(i.stop)
	return i.running
}

// stopIn is a Runner.Stop: from when it is asked on, the first signal is only
// a wish. nil when the context heeds no signals.
func stopIn(ctx context.Context) func() <-chan struct{} {
	i, ok := ctx.Value(interruptsKey{}).(*interrupts)
	if !ok {
		return nil
	}
	return func() <-chan struct{} {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.running = true
		return i.stop
	}
}
