// Command ha-install turns bare hosts into a highly available Kubernetes
// control plane.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ha-install/ha-install/cmd"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx := cmd.Interruptible(context.Background(), signals, func() { signal.Stop(signals) })
	os.Exit(cmd.Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
