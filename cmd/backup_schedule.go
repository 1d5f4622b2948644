package cmd

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
)

func newBackupSchedule() *cobra.Command {
	var f choreFlags
	var off bool
	c := inventoryArg(&cobra.Command{
		Use:   "schedule INVENTORY",
		Short: "Have the masters back etcd up by themselves, one at a time, or end that",
		Long: `schedule puts this program and a systemd timer on every master, as the inventory
has it:

  spec:
    backup:
      schedule: 6h             # the time between backups, from 1m to 744h
      keep: 7                  # whole ones that each master keeps
      recipients: [age1...]    # who can open the cluster's keys in them

Time is parted into periods of that length, the same for all. In each one master
makes one backup, the next master in the next period; when it is down or fails,
the one after it follows. Who makes it holds a lease in etcd, asked at its own
member with its own certificate, and puts the backup on record there when it is
whole. Without quorum none is made.

The backup is made and proved as by "ha-install backup create", of the master's
own member unless that leads, and lies on the master in
/var/lib/ha-install/backups, for root alone. What is beyond the number to keep
is removed, never the newest that is whole: before the next one is made where the
disk has no room for it. Those of a cluster that had the name before stay. After
a restore the next one is made soon. Without recipients a backup has no keys; a
passphrase is not possible, as it would lie on the masters.

Each backup is then sent to the places of spec.backup.copies, to all at once, and
read back; there, too, so many are kept, of those that masters have made. Masters
are given the keys for that (--plan says which), as files for root alone:

  sftp://...       the key of ssh.identityFiles, without a passphrase, and the
                   server's host keys that are known here; no agent, no bastion
  s3://...         the two keys that "backup create" would use here, and the CA
  masters:///dir   nothing: masters send to each other with etcd's certificates,
                   to port 2378 of the internal addresses, where systemd listens

A copy that fails is told by "ha-install status" and tried again later; the backup
stays as it is.

"ha-install status" shows how old the newest one is and where it lies, and warns
when it is older than twice the time between two, or when a timer is missing.

A second run changes nothing, and brings keys that have changed here. --off takes
timers, program and keys away; backups and copies stay.
apply does the same as this verb wherever the inventory has spec.backup.schedule,
so that a new master gets the timer, too.

` + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install backup schedule --plan inventory.yaml
  ha-install backup schedule inventory.yaml
  ha-install backup schedule --off inventory.yaml`,
	})
	f.add(c)
	c.Flags().BoolVar(&off, "off", false, "take the timers and the program off the masters; backups stay")
	c.RunE = func(c *cobra.Command, args []string) error {
		if off {
			return f.do(c, args, provision.UnscheduleBackups(), "no master makes backups by itself")
		}
		return f.do(c, args, provision.ScheduleBackups(), "every master has the timer already, as the inventory has it")
	}
	return c
}

// newBackupReceive is what a connection of another master starts on a master.
func newBackupReceive() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:    "receive",
		Short:  "On a master: take a copy of another master's backup from the connection on stdin",
		Hidden: true,
		Args:   usage(cobra.NoArgs),
	}
	c.Flags().StringVar(&config, "config", provision.TurnConfig, "what backup schedule has written")
	c.RunE = func(c *cobra.Command, _ []string) error {
		turn, err := provision.LoadTurn(config, Version)
		if err != nil {
			return err
		}
		conn, err := net.FileConn(os.Stdin)
		if err != nil {
			return fmt.Errorf("stdin is no connection: %w", err)
		}
		os.Stdin.Close() // conn has its own
		return turn.Receive(c.Context(), conn)
	}
	return c
}

// newBackupTurn is what the timer on a master runs.
func newBackupTurn() *cobra.Command {
	var config string
	var check bool
	c := &cobra.Command{
		Use:    "turn",
		Short:  "On a master: make the backup that is due, if the turn is this master's",
		Hidden: true,
		Args:   usage(cobra.NoArgs),
	}
	c.Flags().StringVar(&config, "config", provision.TurnConfig, "what backup schedule has written")
	c.Flags().BoolVar(&check, "check", false, "only prove that a turn could be taken")
	c.RunE = func(c *cobra.Command, _ []string) error {
		turn, err := provision.LoadTurn(config, Version)
		if err != nil {
			return err
		}
		if check {
			return turn.Check(c.Context())
		}
		run := &phase.Runner{Events: func(e phase.Event) {
			if e.Kind == phase.Notice {
				fmt.Fprintln(c.OutOrStdout(), e.Message)
			}
		}}
		outcome, err := turn.Take(c.Context(), run)
		// A timer asks all the time: its log has what was done alone.
		if made := strings.HasPrefix(outcome, "made "); made || outcome != "" && onTerminal(c) {
			fmt.Fprintln(c.OutOrStdout(), outcome)
		}
		return err
	}
	return c
}
