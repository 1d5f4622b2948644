package provision

import (
	"context"
	"strconv"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// noteReplacing is the note of the last replacement, "cp-2 with cp-4" while it is
// under way and with ended behind it afterwards: once the lost member is gone,
// what there is on the other host is of the join, and no sign of a master that
// was never lost.
const (
	noteReplacing = "replacing"
	noteEnded     = ", ended"
	noteMember    = ", member "
)

// note is that of this replacement.
func (o ReplaceOptions) note() string { return o.Lost.Name + " with " + o.With }

// heard says whether a note is of such a replacement, and of which member.
func (o ReplaceOptions) heard(noted string) (bool, etcd.MemberID) {
	noted = strings.TrimSuffix(noted, noteEnded)
	whose, id, _ := strings.Cut(noted, noteMember)
	n, _ := strconv.ParseUint(id, 16, 64)
	return whose == o.note(), etcd.MemberID(n)
}

// removed says that nothing of the lost master is left to be removed.
func (r *replacement) removed(context.Context) (bool, error) { return r.member.ID == 0, nil }

// snapshot takes a backup before the first change.
func (r *replacement) snapshot() phase.Phase {
	return phase.Phase{
		Name: "backup",
		Done: r.removed,
		Do: func(ctx context.Context) error {
			_, err := r.kept.backupTo(ctx, r.Backup)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) { return explainBackup(r.Backup), nil },
	}
}

// remember notes in the cluster what is under way.
func (r *replacement) remember() phase.Phase {
	return r.noting("begin", r.removed, func() string { return r.note() + noteMember + strconv.FormatUint(uint64(r.member.ID), 16) })
}

// end notes that it came to its end, and says what is left to the operator.
func (r *replacement) end() phase.Phase {
	p := r.noting("end", func(ctx context.Context) (bool, error) {
		client, err := r.kept.anyAPI(ctx)
		if err != nil {
			return false, err
		}
		noted, err := client.Noted(ctx, noteReplacing)
		begun, _ := r.heard(noted)
		return !begun || strings.HasSuffix(noted, noteEnded), err
	}, func() string { return r.note() + noteEnded })
	write := p.Do
	p.Do = func(ctx context.Context) error {
		if err := write(ctx); err != nil {
			return err
		}
		if !r.sameHost() {
			phase.Tell(ctx, r.Lost.Name+" is out of the cluster, and still in the inventory: delete its lines there. It must not be powered on again as it is: its balancer or kubelet would come back")
		}
		return nil
	}
	return p
}

func (r *replacement) noting(name string, done func(context.Context) (bool, error), text func() string) phase.Phase {
	return phase.Phase{
		Name: name, Done: done,
		Do: func(ctx context.Context) error {
			client, err := r.kept.anyAPI(ctx)
			if err != nil {
				return err
			}
			return client.Note(ctx, noteReplacing, text())
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "ConfigMap kube-system/ha-install", Text: "notes what is under way"}}, nil
		},
	}
}

// fence cleans a host that has come back without its etcd data under the lost
// master's name, before its member is removed: an etcd that starts there in
// between would be an empty one under an old ID.
func (r *replacement) fence() phase.Phase {
	reset, balancer := r.resetNode(r.Lost), r.resetBalancer(r.Lost)
	return phase.Phase{
		Name: "fence", Host: r.With,
		Done:  func(context.Context) (bool, error) { return r.fenced, nil },
		Needs: []phase.Check{r.mayGo()},
		Do: func(ctx context.Context) error {
			if r.Cluster.Balances(r.Lost) {
				if err := balancer.Do(ctx); err != nil {
					return err
				}
			}
			if err := reset.Do(ctx); err != nil {
				return err
			}
			return r.disown(r.Lost).Do(ctx) // its marker is the last to go: until then all is repeated
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeClean, Name: r.With, Text: "kubelet and containers are stopped; /etc/kubernetes is moved aside, never deleted"}}, nil
		},
	}
}

// operation is the removal of the lost member: as a dead one, which has to be
// proven, or as one whose host is in our hands and has nothing to come back with.
func (r *replacement) operation() etcd.Operation {
	op := etcd.Operation{Kind: etcd.OpRemoveDead, Host: r.Lost.Name, ID: r.member.ID, PeerURL: peerURL(r.Lost), Fenced: true}
	switch {
	case r.member.Role == etcd.Learner:
		op.Kind = etcd.OpRemoveLearner
	case r.sameHost():
		op.Kind = etcd.OpRemoveLive
	}
	return op
}

// mayGo wants the others to hold quorum without the lost member.
func (r *replacement) mayGo() phase.Check {
	return phase.Check{Name: "the other masters to do without " + r.Lost.Name, Run: func(ctx context.Context) error {
		if r.member.ID == 0 {
			return nil
		}
		_, err := r.kept.allowed(ctx, r.operation(), etcd.PreGateBudget)
		return phase.Final(err)
	}}
}

// removeLost takes the lost member off etcd's list, by its ID.
func (r *replacement) removeLost() phase.Phase {
	return phase.Phase{
		Name: "remove-member", Host: r.Lost.Name,
		Done: r.removed,
		Do: func(ctx context.Context) error {
			op := r.operation()
			v, err := r.kept.members.Do(ctx, op, etcd.Want{Watch: sayMissing(ctx)}, etcd.MinDead+etcd.PreGateBudget)
			if err != nil {
				return err
			}
			d := etcd.Project(v, op)
			tellVerdict(ctx, v, op.String(), &d)
			return nil
		},
		Gate:        []phase.Check{r.quorumWithin("without " + r.Lost.Name)},
		GateTimeout: restartGate,
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			d := etcd.Project(r.kept.members.Look(ctx, etcd.Options{ReadOnly: true}), r.operation())
			return []phase.Change{{Kind: changeMembership, Name: r.Lost.Name, Text: "member " + r.member.ID.String() + " is removed by its ID", Figures: figures(d.Before, d.After)}}, nil
		},
	}
}

// joinAsPlanned tells in one step what the phases of apply do after the removal.
func (r *replacement) joinAsPlanned() phase.Phase {
	return phase.Phase{
		Name: "join", Host: r.With,
		Done: func(ctx context.Context) (bool, error) {
			if r.member.ID != 0 {
				return false, nil
			}
			ih, _ := r.Cluster.HostByName(r.With)
			m, there := r.members.Look(ctx, etcd.Options{ReadOnly: true}).Find(0, peerURL(ih))
			return there && m.Healthy && m.Role == etcd.Voter, nil
		},
		Do: func(context.Context) error { return errReadOnly },
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{
				{Kind: changeMembership, Name: r.With, New: true, Text: "joins by all phases of ha-install apply: software, certificates, balancers, a learner that is promoted when it has caught up"},
				{Kind: changeStart, Name: "kubelet", Text: "with etcd, the API server and the other static pods of " + r.With},
			}, nil
		},
	}
}

// withoutHost is the inventory less one host.
func withoutHost(c *inventory.Cluster, name string) *inventory.Cluster {
	less := *c
	less.Spec.Hosts = nil
	for _, h := range c.Spec.Hosts {
		if h.Name != name {
			less.Spec.Hosts = append(less.Spec.Hosts, h)
		}
	}
	return &less
}
