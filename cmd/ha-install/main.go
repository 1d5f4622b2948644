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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back: a second one ends us at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cmd.Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
