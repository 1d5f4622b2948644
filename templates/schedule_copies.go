package templates

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// What sends a master's backups to the places for copies, and takes those of other
// masters.
const (
	BackupCopyDir = "/etc/ha-install/copies" // keys of the places
	// ReceivePort is where a master takes copies, at its internal address.
	ReceivePort    = 2378
	ReceiveSocket  = "hainstall-receive.socket"
	receiveService = "hainstall-receive@.service"
)

// ScheduledCopy is a place for copies as masters reach it: its files are theirs.
type ScheduledCopy struct {
	To     string      `json:"to"` // as the inventory has it
	Server *CopyServer `json:"server,omitempty"`
	// Of an S3 storage.
	Endpoint        string `json:"endpoint,omitempty"`
	Region          string `json:"region,omitempty"`
	CredentialsFile string `json:"credentialsFile,omitempty"`
	CAFile          string `json:"caFile,omitempty"`
}

// CopyServer is an SFTP server.
type CopyServer struct {
	Address       string   `json:"address"`
	Port          int      `json:"port"`
	User          string   `json:"user"`
	IdentityFiles []string `json:"identityFiles"`
	KnownHosts    string   `json:"knownHosts"`
}

// Place takes the URL apart.
func (c ScheduledCopy) Place() (inventory.CopyPlace, error) {
	return inventory.BackupCopy{To: c.To}.Place()
}

// CopyKeys are what a master needs for a place besides what the inventory says, as
// the operator's machine has it.
type CopyKeys struct {
	// Of an SFTP server.
	Address    string
	Port       int
	User       string
	Identities [][]byte
	KnownHosts []byte
	// Of an S3 storage.
	Credentials []byte
	CA          []byte
	From        string // where the credentials were found, for a plan
}

// ReceivesIn are the directories that masters keep each other's backups in.
func (c BackupConfig) ReceivesIn() []string {
	var dirs []string
	for _, to := range c.Copies {
		if at, err := to.Place(); err == nil && at.Scheme == inventory.CopyMasters {
			dirs = append(dirs, at.Dir)
		}
	}
	return dirs
}

// KeyFiles are the paths of all that was put on a master beside the configuration.
func (c BackupConfig) KeyFiles() []string {
	var all []string
	for _, to := range c.Copies {
		for _, file := range []string{to.CredentialsFile, to.CAFile} {
			if file != "" {
				all = append(all, file)
			}
		}
		if to.Server != nil {
			all = append(append(all, to.Server.IdentityFiles...), to.Server.KnownHosts)
		}
	}
	return all
}

// scheduledCopies are the places of the inventory, and the files that they need;
// keys are in the places' order.
func scheduledCopies(b inventory.Backup, keys []CopyKeys) ([]ScheduledCopy, []File, error) {
	var all []ScheduledCopy
	var files []File
	for i, c := range b.Copies {
		put := func(name string, secret bool, content []byte) string {
			f := File{Path: path.Join(BackupCopyDir, strconv.Itoa(i+1)+"-"+name), Mode: 0o600, Content: content, Secret: secret}
			files = append(files, f)
			return f.Path
		}
		at, err := c.Place()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.To, err)
		}
		to := ScheduledCopy{To: c.To, Endpoint: c.Endpoint, Region: c.Region}
		if at.Scheme != inventory.CopyMasters && i >= len(keys) {
			return nil, nil, fmt.Errorf("%s: no keys", c.To)
		}
		switch at.Scheme {
		case inventory.CopySFTP:
			k := keys[i]
			to.Server = &CopyServer{Address: k.Address, Port: k.Port, User: k.User}
			for n, identity := range k.Identities {
				to.Server.IdentityFiles = append(to.Server.IdentityFiles, put(fmt.Sprintf("identity-%d", n+1), true, identity))
			}
			to.Server.KnownHosts = put("known_hosts", false, k.KnownHosts)
		case inventory.CopyS3:
			to.CredentialsFile = put("credentials", true, keys[i].Credentials)
			if len(keys[i].CA) > 0 {
				to.CAFile = put("ca.crt", false, keys[i].CA)
			}
		}
		all = append(all, to)
	}
	return all, files, nil
}

// IsCopyFile reports whether a file is of the place at an index of the inventory's; of
// any for -1.
func IsCopyFile(file string, index int) bool {
	name, ours := strings.CutPrefix(file, BackupCopyDir+"/")
	return ours && !strings.Contains(name, "/") && (index < 0 || strings.HasPrefix(name, strconv.Itoa(index+1)+"-"))
}

// receiveUnits have a master take copies of others: the program runs only while one
// comes. Who connects has to show a certificate of etcd's CA before anything is read.
func receiveUnits(ih inventory.Host) []File {
	listen := net.JoinHostPort(ih.IP().String(), strconv.Itoa(ReceivePort))
	return []File{
		{Path: systemdDir + ReceiveSocket, Mode: 0o644, Content: fmt.Appendf(nil, receiveSocket, listen)},
		{Path: systemdDir + receiveService, Mode: 0o644, Content: fmt.Appendf(nil, receiveServiceText, BackupProgram, BackupConfigPath)},
	}
}

// ReceiveUnits are the paths of the unit files of who takes copies.
func ReceiveUnits() []string {
	return []string{systemdDir + ReceiveSocket, systemdDir + receiveService}
}

// The address may come later than the socket (FreeBind), and strangers who knock
// must not end it: systemd gives up a socket that is triggered too often.
const receiveSocket = `[Unit]
Description=Takes copies of backups that other masters have made

[Socket]
ListenStream=%s
FreeBind=yes
Accept=yes
MaxConnections=16
MaxConnectionsPerSource=4
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
`

const receiveServiceText = `[Unit]
Description=Takes a copy of a backup that another master has made
CollectMode=inactive-or-failed

[Service]
ExecStart=%s backup receive --config %s
StandardInput=socket
StandardOutput=journal
StandardError=journal
UMask=0077
NoNewPrivileges=yes
Nice=10
IOSchedulingClass=idle
RuntimeMaxSec=2h
SyslogLevel=notice
LogLevelMax=notice
`
