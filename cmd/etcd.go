package cmd

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

func newEtcd() *cobra.Command {
	c := &cobra.Command{Use: "etcd", Short: "Look at etcd's members, and take care of them"}
	alarms := &cobra.Command{Use: "alarms", Short: "Look at etcd's alarms, and take them back with their cause"}
	alarms.AddCommand(newEtcdAlarmsList(), newEtcdAlarmsDisarm())
	group(alarms)
	c.AddCommand(newEtcdMembers(), newEtcdDefragment(), alarms, newEtcdMoveLeader())
	group(c)
	return c
}

// membersHelp is the contract of -o json.
const membersHelp = `The exit code is the verdict on quorum, as that of "ha-install status".

With -o json it is one object, schema 1; a later schema may change what a field
means, a new field alone does not raise it.
  state, reasons, numbers  the verdict on quorum
  members  id (hexadecimal), name, host ("" for one that is on no host of the
           inventory), peerURL, role, leader, state, version; dbSize, dbInUse and
           dbQuota in bytes; behind: entries of the raft log that it has not applied
  alarms   member, host, kind, remedy`

func newEtcdMembers() *cobra.Command {
	return lookAtMembers(&cobra.Command{
		Use:   "members INVENTORY",
		Short: "Show etcd's members: votes, versions, databases, alarms; nothing is changed",
		Long: `members asks every master over its own SSH connection, so that neither the API
nor quorum is needed. Members are told by their peer URLs: one that is on no host
of the inventory is a ghost, a host without a member is named, too.

` + membersHelp,
		Example: `  ha-install etcd members inventory.yaml
  ha-install etcd members -o json inventory.yaml`,
	}, renderMembers)
}

func newEtcdAlarmsList() *cobra.Command {
	return lookAtMembers(&cobra.Command{
		Use:     "list INVENTORY",
		Short:   "Show which member has raised which alarm, and the remedy; nothing is changed",
		Long:    "list asks every master over its own SSH connection.\n\n" + membersHelp,
		Example: "  ha-install etcd alarms list inventory.yaml",
	}, renderAlarms)
}

// lookAtMembers makes a verb that shows members, or a part of what they say.
func lookAtMembers(c *cobra.Command, render func(io.Writer, provision.EtcdMembers) error) *cobra.Command {
	return looking(c, provision.LookAtMembers, render, func(all provision.EtcdMembers) error { return statusError(all.State) })
}

func renderMembers(out io.Writer, all provision.EtcdMembers) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tMEMBER\tID\tPEER URL\tROLE\tSTATE\tVERSION\tDB\tIN USE\tQUOTA\tBEHIND\tALARMS")
	var why []string
	for _, m := range all.Members {
		role, behind := string(m.Role), "-"
		if m.Leader {
			role = "leader"
		}
		if m.Version != "" {
			behind = fmt.Sprint(m.Behind)
		}
		fmt.Fprintln(w, strings.Join([]string{dash(m.Host), dash(m.Name), hexID(m.ID), m.PeerURL, dash(role), string(m.State), dash(m.Version),
			dbBytes(m.DBSize), dbBytes(m.DBInUse), dbBytes(m.DBQuota), behind, dash(strings.Join(m.Alarms, ","))}, "\t"))
		if m.Why != "" {
			why = append(why, m.Name+": "+m.Why)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	renderList(out, "not as it should be", why)
	_, err := fmt.Fprintf(out, "\n%s   %s  leader %s  (%s)\n", all.Quorum, all.State, cmp.Or(all.Leader, "-"), all.Took)
	return err
}

func renderAlarms(out io.Writer, all provision.EtcdMembers) error {
	if len(all.Alarms) == 0 {
		said := "no alarm is raised"
		if !all.State.HasQuorum() {
			said = "no alarm is known"
		}
		_, err := fmt.Fprintf(out, "%s  (%s)\n", said, all.State)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ALARM\tHOST\tMEMBER\tDB\tIN USE\tQUOTA\tWHAT TO DO")
	for _, a := range all.Alarms {
		var of provision.EtcdMember
		for _, m := range all.Members {
			if m.ID == a.Member {
				of = m
			}
		}
		fmt.Fprintln(w, strings.Join([]string{a.Kind, dash(a.Host), hexID(a.Member), dbBytes(of.DBSize), dbBytes(of.DBInUse), dbBytes(of.DBQuota), a.Remedy}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s  (%s)\n", all.State, all.Took)
	return err
}

func hexID(id etcd.MemberID) string {
	if id == 0 {
		return "-"
	}
	return id.String()
}

func dbBytes(n int64) string {
	if n <= 0 {
		return "-"
	}
	return units.Bytes(n)
}

// choreFlags are those of a verb that changes something about etcd.
type choreFlags struct {
	run    runFlags
	agreed agreement
	only   bool // the plan
}

func (f *choreFlags) add(c *cobra.Command) {
	f.run.add(c)
	c.Flags().BoolVar(&f.only, "plan", false, "only say what would be done; nothing is changed")
	c.Flags().BoolVar(&f.agreed.yes, "yes", false, "do not ask on a terminal either")
	c.MarkFlagsMutuallyExclusive("yes", "plan")
}

// do plans the chore, has it agreed to, and does it; none is what it means that
// nothing was changed.
func (f *choreFlags) do(c *cobra.Command, args []string, chore provision.Chore, none string) error {
	cluster, base, err := load(c, args[0])
	if err != nil {
		return err
	}
	if f.only {
		return planOnly(c, cluster, base, f.run, func(site *provision.Site, tell func(string)) (provision.Plan, error) {
			return chore.Plan(c.Context(), site, tell)
		})
	}
	report, err := f.run.begin(c, cluster, none)
	if err != nil {
		return err
	}
	site := provision.Connect(c.Context(), cluster, base, provision.SSH)
	defer site.Close()
	site.Operation = operation(c, cluster, args)
	f.agreed.make = func(c *cobra.Command, site *provision.Site) (provision.Plan, error) {
		return chore.Plan(c.Context(), site, nil)
	}
	return f.agreed.carryOut(c, site, f.run, report, func(plan *provision.Plan, run *phase.Runner) error {
		return chore.Run(c.Context(), site, plan, run)
	})
}

func newEtcdDefragment() *cobra.Command {
	var f choreFlags
	var all bool
	c := inventoryArg(&cobra.Command{
		Use:   "defragment INVENTORY",
		Short: "Give the room that is free in etcd's databases back, one member at a time",
		Long: `defragment has each member write its database anew, without the room that deleted
and compacted records have left in it. A member answers nobody meanwhile, and so
does the API server beside it: who is connected to it waits. So one has its turn
after the other, what leads etcd last, and leadership is handed on before; the
others have to hold quorum and to be whole, no balancer sends the master new
clients, and the next one has its turn when all of that is as it was.

A member is left as it is where less than a fifth of its database, or less than
8 MiB, would be given back; --all takes every one.

Any failure stops where it is met. The same command goes on from there.

` + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install etcd defragment --plan inventory.yaml
  ha-install etcd defragment inventory.yaml
  ha-install etcd defragment --all --yes inventory.yaml`,
	})
	f.add(c)
	c.Flags().BoolVar(&all, "all", false, "every member, however little would be given back")
	c.RunE = func(c *cobra.Command, args []string) error {
		return f.do(c, args, provision.Defragment(all), "nothing to defragment: no database would become much smaller (--all does it anyway)")
	}
	return c
}

func newEtcdAlarmsDisarm() *cobra.Command {
	var f choreFlags
	c := inventoryArg(&cobra.Command{
		Use:   "disarm INVENTORY",
		Short: "Make room in etcd's databases, and take NOSPACE alarms back",
		Long: `disarm takes back the NOSPACE alarms that etcd's members raise when their database
reaches its quota; until then the cluster takes no write but deletions. In this
order, each step under its gate:

  1. old revisions are compacted, which frees room inside the databases;
  2. each member is defragmented, one at a time and the leader last, as by
     "ha-install etcd defragment", which makes the databases smaller;
  3. the alarms are taken back, when every database is below 95 % of its quota;
  4. all members have to vote, to take a write and to hold the same data.

Where a database is still as full after 2, nothing is taken back: the next write
would raise the alarm again. What fills it has to be deleted first, which works
meanwhile, or its quota raised.

A CORRUPT alarm is refused: that member's data differ from the others'.

Any failure stops where it is met. The same command goes on from there, and does
nothing when no alarm is raised.

` + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install etcd alarms disarm --plan inventory.yaml
  ha-install etcd alarms disarm inventory.yaml`,
	})
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return f.do(c, args, provision.DisarmAlarms(), "no alarm is raised")
	}
	return c
}

func newEtcdMoveLeader() *cobra.Command {
	var f choreFlags
	c := hostArg(&cobra.Command{
		Use:   "move-leader INVENTORY [HOST]",
		Short: "Hand etcd's leadership to another member",
		Long: `move-leader hands etcd's leadership to the member on HOST, or to the healthy
follower with the fastest disk. Quorum is proven before and after. It changes
nothing where HOST leads already.

` + interruptHelp + "\n\n" + eventHelp,
		Example: `  ha-install etcd move-leader inventory.yaml
  ha-install etcd move-leader inventory.yaml cp-2`,
	}, inventory.RoleControlPlane)
	c.Args = usage(cobra.RangeArgs(1, 2))
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		to := ""
		if len(args) > 1 {
			to = args[1]
		}
		return f.do(c, args, provision.MoveLeader(to), "leadership is where it should be")
	}
	return c
}
