package main

import (
	"bytes"
	"context"
	_ "embed" // for the configuration
	"text/template"

	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/lab"
)

var (
	//go:embed haproxy.cfg.tmpl
	plainText     string
	plainTemplate = template.Must(template.New("haproxy.cfg").Parse(plainText))
)

// plainHAProxy is the configuration of a cluster that was made by hand.
func plainHAProxy(masters []lab.Host) (string, error) {
	var out bytes.Buffer
	err := plainTemplate.Execute(&out, struct {
		Socket, Backend string
		HealthPort      int
		Servers         []lab.Host
	}{templates.HAProxySocket, templates.HAProxyBackend, templates.BalancerHealthPort, masters})
	return out.String(), err
}

// plain puts a plain HAProxy in front of the cluster that was made by hand. It
// comes after the making, which is timed with the same checks on both sides.
// HAProxy is restarted: a reload would leave connections to the old one.
func (b *byHand) plain(ctx context.Context) error {
	masters, err := b.lab.Select(named(b.lab, "control-plane")...)
	if err != nil {
		return err
	}
	config, err := plainHAProxy(masters)
	if err != nil {
		return err
	}
	for name := range b.balancers {
		if err := b.put(ctx, name, templates.HAProxyConfigPath, config); err != nil {
			return err
		}
		if _, err := b.lab.Exec(ctx, name, "systemctl", "restart", "haproxy.service"); err != nil {
			return err
		}
	}
	return nil
}
