package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// BackupCopy is one place for copies of backups.
type BackupCopy struct {
	// To is sftp://user@host:port/dir, s3://bucket/prefix, or masters:///dir for a
	// directory on every control plane host.
	To string `json:"to"`
	// SSH says how an SFTP server is reached, beside what its URL says; nothing of
	// spec.ssh is taken over.
	SSH SSH `json:"ssh,omitempty"`
	// Endpoint of the S3 storage; default Amazon's, of the region. http:// is for
	// loopback addresses only.
	Endpoint string `json:"endpoint,omitempty"`
	Region   string `json:"region,omitempty"` // of the S3 storage; default us-east-1
	// CredentialsFile holds the keys of the S3 storage as Amazon's tools write them
	// ([default], aws_access_key_id, aws_secret_access_key), relative to the inventory,
	// or with ~/; default: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the
	// environment, then ~/.aws/credentials.
	CredentialsFile string `json:"credentialsFile,omitempty"`
	// CAFile has the certificates that the S3 storage's is verified by, relative to
	// the inventory, or with ~/; default: the system's.
	CAFile string `json:"caFile,omitempty"`
}

// CopyScheme is the kind of a place for copies.
type CopyScheme string

// The kinds of places.
const (
	CopySFTP    CopyScheme = "sftp"
	CopyS3      CopyScheme = "s3"
	CopyMasters CopyScheme = "masters"
)

// CopyPlace is the URL of a place, taken apart.
type CopyPlace struct {
	Scheme CopyScheme
	User   string // sftp; may be ""
	Host   string // sftp; of s3 the bucket
	Port   int    // sftp; 0: ssh's own
	// Dir is absolute and clean; of s3 the prefix, without a slash at either end,
	// or "".
	Dir string
}

// copyProblem is what is wrong with one field of a BackupCopy.
type copyProblem struct{ field, message, hint string }

const copyForms = "want sftp://user@host:port/dir, s3://bucket/prefix, or masters:///dir"

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Place takes the URL apart; its error never repeats a password.
func (c BackupCopy) Place() (CopyPlace, error) {
	p, problem := c.place()
	if problem != nil {
		return p, errors.New(problem.message + "; " + problem.hint)
	}
	return p, nil
}

func (c BackupCopy) place() (CopyPlace, *copyProblem) {
	wrong := func(message, hint string) (CopyPlace, *copyProblem) {
		return CopyPlace{}, &copyProblem{"to", message, hint}
	}
	u, err := url.Parse(c.To)
	if err != nil || u.Opaque != "" { // not quoted: it may hold a password
		return wrong("not a URL", copyForms)
	}
	if _, secret := u.User.Password(); secret {
		return wrong("holds a password", "take it out: SFTP logs in with a key or an agent, S3 takes its keys from the environment or from credentialsFile")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return wrong(quote(c.To)+" has more than a place in it", "take what is behind \"?\" or \"#\" out; endpoint and region are fields of their own")
	}
	p := CopyPlace{Scheme: CopyScheme(u.Scheme), User: u.User.Username(), Host: u.Hostname(), Dir: path.Clean("/" + u.Path)}
	if port := u.Port(); port != "" {
		if p.Port, err = strconv.Atoi(port); err != nil || p.Port < 1 || p.Port > 65535 {
			return wrong(port+" is not a port", "want 1 to 65535")
		}
	}
	switch p.Scheme {
	case CopySFTP:
		if p.Host == "" || p.Dir == "/" {
			return wrong(quote(c.To)+" lacks a host or a directory", "want sftp://user@host:port/dir")
		}
	case CopyS3:
		if !bucketName.MatchString(p.Host) || p.User != "" || p.Port != 0 {
			return wrong(quote(c.To)+" does not begin with a bucket's name", "want s3://bucket/prefix; the storage's address is the endpoint")
		}
		p.Dir = strings.Trim(p.Dir, "/")
	case CopyMasters:
		if u.Host != "" || u.User != nil || strings.Count(p.Dir, "/") < 2 {
			return wrong(quote(c.To)+" is not a directory on the control plane hosts", "want masters:///dir with at least two names, such as masters:///var/backups/ha-install")
		}
	default:
		return wrong(quote(c.To)+" is of no known kind", copyForms)
	}
	return p, nil
}

// problems is everything that is wrong with a place.
func (c BackupCopy) problems() []copyProblem {
	p, wrong := c.place()
	if wrong != nil {
		return []copyProblem{*wrong}
	}
	var all []copyProblem
	only := func(scheme CopyScheme, field string, given bool) {
		if given && p.Scheme != scheme {
			all = append(all, copyProblem{field, fmt.Sprintf("is of no use for %s", p.Scheme), fmt.Sprintf("it belongs to %s://", scheme)})
		}
	}
	only(CopyS3, "endpoint", c.Endpoint != "")
	only(CopyS3, "region", c.Region != "")
	only(CopyS3, "credentialsFile", c.CredentialsFile != "")
	only(CopyS3, "caFile", c.CAFile != "")
	if p.Scheme == CopyS3 && c.Endpoint != "" {
		if message := endpointProblem(c.Endpoint); message != "" {
			all = append(all, copyProblem{"endpoint", message, "want one such as https://s3.example.com"})
		}
	}
	return all
}

// endpointProblem says what is wrong with the address of an S3 storage.
func endpointProblem(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "not the bare address of a server" // not quoted: it may hold a password
	case u.Scheme == "http":
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() || u.Hostname() == "localhost" {
			return ""
		}
		return "http:// has nobody verified: backups would go to whoever answers"
	case u.Scheme != "https":
		return quote(text) + " is not https://"
	}
	return ""
}

// ParseCopyTo reads a place from a command line: a URL as in the inventory; of
// s3:// also with ?endpoint=...&region=... behind it.
func ParseCopyTo(text string) (BackupCopy, error) {
	bare, query, _ := strings.Cut(text, "?")
	c := BackupCopy{To: bare}
	values, err := url.ParseQuery(query)
	if err != nil {
		return c, errors.New("what is behind \"?\" cannot be read; want endpoint=URL and region=NAME")
	}
	for name, v := range values {
		switch {
		case name == "endpoint" && len(v) == 1:
			c.Endpoint = v[0]
		case name == "region" && len(v) == 1:
			c.Region = v[0]
		default:
			return c, fmt.Errorf("%s behind \"?\": want endpoint and region, once each; keys never stand in a URL", quote(name))
		}
	}
	for _, p := range c.problems() {
		return c, fmt.Errorf("%s: %s; %s", p.field, p.message, p.hint)
	}
	return c, nil
}

// copies looks at where copies of backups go.
func (v *validator) copies() {
	first := map[string]string{}
	for i, c := range v.c.Spec.Backup.Copies {
		at := fmt.Sprintf("spec.backup.copies[%d]", i)
		if v.spoilt(at) || !v.required(at+".to", c.To, copyForms) {
			continue
		}
		for _, p := range c.problems() {
			v.err(at+"."+p.field, p.message, p.hint)
		}
		place, wrong := c.place()
		if wrong != nil {
			continue
		}
		key := fmt.Sprintf("%+v %s", place, c.Endpoint)
		if earlier, taken := first[key]; taken {
			v.err(at+".to", "the same as "+v.line(earlier), "remove one")
		} else {
			first[key] = at + ".to"
		}
		v.copySSH(at+".ssh", c.SSH, place)
	}
}

// ownDir is where masters have what is ha-install's, their scheduled backups too.
const ownDir = "/var/lib/ha-install/"

// copiesByMasters looks at what masters could not reach by themselves.
func (v *validator) copiesByMasters() {
	for i, c := range v.c.Spec.Backup.Copies {
		at := fmt.Sprintf("spec.backup.copies[%d]", i)
		place, wrong := c.place()
		if wrong != nil || v.spoilt(at) {
			continue
		}
		if place.Scheme == CopySFTP && len(c.SSH.IdentityFiles) == 0 {
			v.err(at, "masters send scheduled backups there, and have no key for it: an agent, or what ~/.ssh has, is this machine's alone",
				"write ssh: {identityFiles: [FILE]}, a key without a passphrase for this purpose alone; masters are given it")
		}
		if c.SSH.Bastion != nil && c.SSH.Bastion.Address != NoBastion {
			v.err(at+".ssh.bastion", "masters send scheduled backups there, and pass through no bastion", "remove it, and give the server an address that masters reach")
		}
		if place.Scheme == CopyMasters && strings.HasPrefix(place.Dir+"/", ownDir) {
			v.err(at+".to", ownDir+" is where masters keep their own", "want another directory, such as masters:///var/backups/ha-install")
		}
		if place.Scheme == CopyMasters && len(v.c.ControlPlanes()) == 1 {
			v.warn(at+".to", "there is one master alone: scheduled backups have no other to go to", "name a place elsewhere")
		}
		if strings.HasPrefix(c.Endpoint, "http://") {
			v.warn(at+".endpoint", "masters send scheduled backups there, and on a master it is the master itself", "want https:// and an address that masters reach")
		}
	}
}

// copySSH looks at how an SFTP server is reached.
func (v *validator) copySSH(at string, s SSH, place CopyPlace) {
	if place.Scheme != CopySFTP {
		if v.given(at) {
			v.err(at, fmt.Sprintf("is of no use for %s", place.Scheme), "it belongs to sftp://")
		}
		return
	}
	for field, given := range map[string]bool{".user": s.User != "", ".port": v.given(at + ".port")} {
		if given {
			v.err(at+field, "stands in the URL", "write sftp://user@host:port/dir, and remove it here")
		}
	}
	if v.given(at + ".sudo") {
		v.err(at+".sudo", "no command runs there", "remove it")
	}
	v.ssh(at, s, false)
	v.reachable(strings.TrimSuffix(at, ".ssh")+".to", place.Host)
}
