package pki

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-multierror"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"
)

// Certificate is a row of the expiry table.
type Certificate struct {
	File     string    `json:"file"`
	Subject  string    `json:"subject"` // common name
	NotAfter time.Time `json:"notAfter"`
}

// Expiry lists the certificates in the files, soonest first. A file is PEM
// (keys beside the certificates are passed over) or a kubeconfig, whose client
// certificates count. Files without any are named in the error; the rows of
// the others are returned with it.
func Expiry(files map[string][]byte) ([]Certificate, error) {
	var rows []Certificate
	var all *multierror.Error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		found, err := certificatesIn(name, files[name])
		if err != nil {
			all = multierror.Append(all, err)
		}
		rows = append(rows, found...)
	}
	slices.SortStableFunc(rows, func(a, b Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.File, b.File))
	})
	return rows, all.ErrorOrNil()
}

func certificatesIn(name string, data []byte) ([]Certificate, error) {
	blocks := [][]byte{data}
	// A kubeconfig holds its PEM in base64, so PEM never parses as one.
	if config, err := clientcmd.Load(data); err == nil && len(config.AuthInfos) > 0 {
		blocks = nil
		for _, user := range config.AuthInfos {
			if len(user.ClientCertificateData) > 0 {
				blocks = append(blocks, user.ClientCertificateData)
			}
		}
		if blocks == nil { // a token, or a path to a file that is listed itself
			return nil, nil
		}
	}
	var rows []Certificate
	for _, block := range blocks {
		certs, err := cert.ParseCertsPEM(block)
		if err != nil {
			return nil, fmt.Errorf("%s: no certificate in PEM", name)
		}
		for _, c := range certs {
			rows = append(rows, Certificate{File: name, Subject: c.Subject.CommonName, NotAfter: c.NotAfter.UTC()})
		}
	}
	return rows, nil
}
