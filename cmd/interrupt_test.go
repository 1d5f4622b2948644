package cmd

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
)

func TestSignals(t *testing.T) {
	rows := []struct {
		name               string
		running            bool
		signals            int
		stop, cancel, free bool
	}{
		{"without a signal nothing ends", true, 0, false, false, false},
		{"the first one asks a run to stop", true, 1, true, false, false},
		{"the second one ends its waiting, and the third is the system's", true, 2, true, true, true},
		{"where nothing is changed the first one ends it", false, 1, true, true, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 2)
				free := false
				base, end := context.WithCancel(t.Context())
				defer end()
				ctx := Interruptible(base, signals, func() { free = true })
				i := ctx.Value(interruptsKey{}).(*interrupts)
				if row.running {
					stopIn(ctx)()
				}
				for range row.signals {
					signals <- os.Interrupt
				}
				synctest.Wait()
				stopped := false
				select {
				case <-i.stop:
					stopped = true
				default:
				}
				if stopped != row.stop || (ctx.Err() != nil) != row.cancel || free != row.free {
					t.Errorf("asked to stop %t, canceled %t, released %t", stopped, ctx.Err() != nil, free)
				}
				for range 2 - row.signals { // let it end
					signals <- os.Interrupt
					synctest.Wait()
				}
			})
		})
	}
	if stopIn(t.Context()) != nil {
		t.Error("a context without signals heeds them")
	}
}
