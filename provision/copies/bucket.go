package copies

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/ha-install/ha-install/inventory"
)

// bucket keeps copies in S3-compatible storage. An object is there as a whole or
// not at all; a copy is there when its manifest, which is sent last, is.
type bucket struct {
	client *minio.Client
	name   string
	prefix string // "" or without a slash at either end
	source string // of the credentials, for errors
}

const defaultRegion = "us-east-1"

// attempts is how often a request is sent that found nobody, or was told to come
// again. The library waits between them.
const attempts = 3

func newBucket(c inventory.BackupCopy, at inventory.CopyPlace, baseDir string) (*bucket, error) {
	b := &bucket{name: at.Host, prefix: at.Dir}
	region := c.Region
	if region == "" {
		region = defaultRegion
	}
	address, secure := "s3."+region+".amazonaws.com", true
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil {
			return nil, errors.New("endpoint: not a URL") // not quoted: it may hold a password
		}
		address, secure = u.Host, u.Scheme == "https"
	}
	transport, err := transportFor(secure, absolute(c.CAFile, baseDir))
	if err != nil {
		return nil, err
	}
	keys, err := b.credentials(absolute(c.CredentialsFile, baseDir))
	if err != nil {
		return nil, err
	}
	b.client, err = minio.New(address, &minio.Options{Creds: keys, Secure: secure, Region: region, Transport: transport, MaxRetries: attempts})
	return b, err
}

// absolute is a path of the inventory; "" stays.
func absolute(name, baseDir string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(baseDir, name)
}

// transportFor verifies the storage by the system's authorities, or by those in
// a file.
func transportFor(secure bool, caFile string) (*http.Transport, error) {
	t, err := minio.DefaultTransport(secure)
	if err != nil || caFile == "" {
		return t, err
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("caFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("caFile: %s holds no certificate", caFile)
	}
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// credentials are those of the file, or of the environment, or of the user's
// own file; nobody is asked without any.
func (b *bucket) credentials(file string) (keys *credentials.Credentials, err error) {
	keys, _, b.source, err = findCredentials(file)
	return keys, err
}

func findCredentials(file string) (keys *credentials.Credentials, v credentials.Value, source string, err error) {
	switch {
	case file != "":
		keys, source = credentials.NewFileAWSCredentials(file, ""), file
	case os.Getenv("AWS_ACCESS_KEY_ID") != "":
		keys, source = credentials.NewEnvAWS(), "AWS_ACCESS_KEY_ID of the environment"
	default:
		keys, source = credentials.NewFileAWSCredentials("", os.Getenv("AWS_PROFILE")), "~/.aws/credentials"
	}
	v, err = keys.GetWithContext(nil)
	if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
		err = errors.New("they are not complete")
	}
	if err != nil {
		err = fmt.Errorf("no credentials in %s: %w\nrun: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file of the form of ~/.aws/credentials in credentialsFile", source, err)
	}
	return keys, v, source, err
}

// BucketKeys are what another machine needs for an S3 storage: the keys that this one
// would use, in the form of ~/.aws/credentials, where they were found, and the
// authorities. Keys that end by themselves are refused.
func BucketKeys(c inventory.BackupCopy, baseDir string) (keys []byte, source string, ca []byte, err error) {
	_, v, source, err := findCredentials(absolute(c.CredentialsFile, baseDir))
	if err != nil {
		return nil, source, nil, err
	}
	if v.SessionToken != "" {
		return nil, source, nil, fmt.Errorf("the credentials of %s are temporary (there is a session token)", source)
	}
	if strings.ContainsAny(v.AccessKeyID+v.SecretAccessKey, "\n\r") {
		return nil, source, nil, fmt.Errorf("the credentials of %s are more than a line each", source)
	}
	if name := absolute(c.CAFile, baseDir); name != "" {
		if _, err = transportFor(true, name); err == nil {
			ca, err = os.ReadFile(name)
		}
	}
	return fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", v.AccessKeyID, v.SecretAccessKey), source, ca, err
}

func (b *bucket) key(name string) string { return strings.TrimPrefix(path.Join(b.prefix, name), "/") }

func (b *bucket) list(ctx context.Context, dir string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a listing that is left early
	var names []string
	at := b.key(dir)
	if at != "" {
		at += "/"
	}
	for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: at}) {
		if o.Err != nil {
			return nil, b.explain(o.Err)
		}
		if name, is := strings.CutSuffix(strings.TrimPrefix(o.Key, at), "/"); is && name != "" {
			names = append(names, name)
		}
	}
	return names, ctx.Err()
}

func (b *bucket) open(ctx context.Context, file string) (io.ReadCloser, error) {
	o, err := b.client.GetObject(ctx, b.name, b.key(file), minio.GetObjectOptions{})
	if err == nil {
		_, err = o.Stat() // the first request
	}
	if err != nil {
		return nil, b.explain(err)
	}
	return o, nil
}

func (b *bucket) send(ctx context.Context, from, dir string, parts []string, check func(string, io.Reader) error) error {
	for _, part := range parts {
		if err := b.upload(ctx, from, dir, part); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		r, err := b.open(ctx, path.Join(dir, part))
		if err != nil {
			return err
		}
		err = check(part, r)
		r.Close()
		if err != nil {
			// What is wrong must not be completed by a manifest, nor be one.
			return errors.Join(err, b.explain(b.client.RemoveObject(ctx, b.name, b.key(path.Join(dir, part)), minio.RemoveObjectOptions{})))
		}
	}
	return nil
}

// upload sends a part, a large one in pieces; the storage compares each piece
// with its sum.
func (b *bucket) upload(ctx context.Context, from, dir, part string) error {
	src, size, err := opened(from, part)
	if err != nil {
		return err
	}
	defer src.Close()
	key := b.key(path.Join(dir, part))
	// Pieces that a killed run left are kept, and paid for, unseen. Who may not
	// ask for that may still send.
	_ = b.client.RemoveIncompleteUpload(ctx, b.name, key)
	_, err = b.client.PutObject(ctx, b.name, key, src, size, minio.PutObjectOptions{ContentType: "application/octet-stream"})
	return b.explain(err)
}

func (b *bucket) remove(ctx context.Context, dir string, parts []string) error {
	for i := len(parts) - 1; i >= 0; i-- { // the manifest first: what has none is no backup
		if err := b.client.RemoveObject(ctx, b.name, b.key(path.Join(dir, parts[i])), minio.RemoveObjectOptions{}); err != nil {
			return b.explain(err)
		}
	}
	return nil
}

// explain says what the storage's codes mean here.
func (b *bucket) explain(err error) error {
	if err == nil {
		return nil
	}
	said := minio.ToErrorResponse(err)
	switch said.Code {
	case minio.NoSuchKey:
		return fmt.Errorf("%s: %w", said.Key, fs.ErrNotExist)
	case minio.NoSuchBucket:
		return fmt.Errorf("there is no bucket %s: %w\nrun: make it, or mend the URL", b.name, err)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", minio.AccessDenied, "InvalidToken", "ExpiredToken":
		return fmt.Errorf("the storage refuses the credentials of %s (%s): %w", b.source, said.Code, err)
	}
	return err
}
