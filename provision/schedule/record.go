package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
)

// Note is what is kept on record of the newest scheduled backup.
type Note struct {
	// ClusterID is etcd's: a restored cluster has one of its own, beside the records
	// of the one before.
	ClusterID etcd.MemberID `json:"clusterID"`

	Period   time.Time     `json:"period"` // when that began
	Time     time.Time     `json:"time"`   // when the backup was begun
	Took     units.Seconds `json:"tookSeconds"`
	Host     string        `json:"host"` // where it lies
	Path     string        `json:"path"`
	From     string        `json:"from"` // whose member gave it
	Revision int64         `json:"revision"`
	Bytes    int64         `json:"bytes"`
	SHA256   string        `json:"sha256"` // of the database
	Keys     bool          `json:"keys"`   // the cluster's keys are in it, encrypted
	// Copies are what became of it at the places of the inventory; none before all
	// have ended.
	Copies []Copy `json:"copies,omitempty"`
}

// Copy is what became of a backup at one place.
type Copy struct {
	Place string `json:"place"`
	Err   string `json:"error,omitempty"` // why it is not there
}

// Sent is what became of the copies of a master's own newest backup.
type Sent struct {
	Backup string    `json:"backup"` // its name
	Tried  time.Time `json:"time"`
	Copies []Copy    `json:"copies"`
}

// At reports whether a backup of that name is at a place.
func (s *Sent) At(name, place string) bool {
	return s != nil && s.Backup == name && slices.Contains(s.Copies, Copy{Place: place})
}

// State is what a master says of its last look, for those who ask when etcd does
// not answer.
type State struct {
	Since   time.Time `json:"since"` // of the first look
	At      time.Time `json:"time"`
	Outcome string    `json:"outcome"`         // a sentence
	Err     string    `json:"error,omitempty"` // why the look, or the backup, failed
	// Recorded is when the backup was begun that this master has put on record last.
	Recorded time.Time `json:"recorded,omitzero"`
	// Last is the newest backup on record, as of the last look that could see it.
	Last *Note `json:"last,omitempty"`
	// Sent is of this master's own newest backup; nil for none that was sent.
	Sent *Sent `json:"sent,omitempty"`
}

// ReadState reads the state of a master's last look; none is no error.
func ReadState(file string) (State, error) {
	var s State
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Write puts the state in place of the last one, whole or not at all. It is on
// one line, which is what asks for it reads.
func (s State) Write(file string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.part")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once it has its name
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// ReadConfig reads what the master was told.
func ReadConfig(file string) (templates.BackupConfig, error) {
	var c templates.BackupConfig
	data, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", file, err)
	}
	if c.Cluster == "" || c.Every < time.Second || c.Keep < 1 || !filepath.IsAbs(c.Directory) {
		return c, fmt.Errorf("%s: no cluster, schedule, number to keep or directory\nrun: ha-install backup schedule INVENTORY, which writes it", file)
	}
	return c, nil
}
