package probe

import (
	"errors"
	"fmt"
	"net/http"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func newClient(config Config) (kubernetes.Interface, error) {
	if config.REST == nil {
		return nil, errors.New("no endpoint is given")
	}
	rc := rest.CopyConfig(config.REST)
	rc.QPS = -1 // the probe keeps its own rate
	rc.UserAgent = "ha-install-probe"
	switch config.Kind {
	case LongLived:
		client, err := kubernetes.NewForConfig(rc)
		if err != nil {
			return nil, fmt.Errorf("make a client: %w", err)
		}
		return client, nil
	case NewConnection:
		return newConnectionClient(rc)
	default:
		return nil, fmt.Errorf("kind %q is neither %q nor %q", config.Kind, NewConnection, LongLived)
	}
}

// newConnectionClient does not use client-go's own transport: that one is
// cached and shared by every client of the process.
func newConnectionClient(rc *rest.Config) (kubernetes.Interface, error) {
	tls, err := rest.TLSConfigFor(rc)
	if err != nil {
		return nil, fmt.Errorf("read its certificates: %w", err)
	}
	transport, err := rest.HTTPWrappersForConfig(rc, &http.Transport{DialContext: rc.Dial, TLSClientConfig: tls, DisableKeepAlives: true})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	client, err := kubernetes.NewForConfigAndClient(rc, &http.Client{Transport: transport})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client, nil
}
