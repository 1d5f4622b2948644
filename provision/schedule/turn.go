package schedule

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/ha-install/ha-install/provision/etcd"
)

// The keys in etcd, beside Kubernetes' own.
const (
	lastKey = "/ha-install/backup/last"
	turnKey = "/ha-install/backup/turn"
)

const (
	// turnTTL is how many seconds of silence end a turn.
	turnTTL     = 15
	callTimeout = 5 * time.Second
)

// ErrTaken means that another master has the turn, or has had it just now.
var ErrTaken = errors.New("another master has the turn")

// ErrLost means that the turn ended before the backup was whole: this process was
// frozen, or cut off from etcd's majority.
var ErrLost = errors.New("the turn was lost: etcd has not heard of this master for too long")

// Records are what etcd knows of scheduled backups, asked through one member.
type Records struct {
	client   *clientv3.Client
	endpoint string
}

// Open prepares to ask the member at an endpoint; nothing is sent yet.
func Open(ctx context.Context, endpoint string, cfg *tls.Config) (*Records, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: cfg, Logger: zap.NewNop(),
		Context:     context.WithoutCancel(ctx), // a turn is given back also by who was told to end
		DialTimeout: etcd.DialTimeout, DialKeepAliveTime: callTimeout, DialKeepAliveTimeout: callTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return &Records{c, endpoint}, nil
}

// Close ends the connection.
func (r *Records) Close() { _ = r.client.Close() } // always says "context canceled"

// Voter is a member that votes.
type Voter struct {
	ID        etcd.MemberID
	Name      string
	PeerURL   string
	ClientURL string
}

// View is what was asked through quorum.
type View struct {
	Self   Voter // the member that was asked
	Voters []Voter
	// Cluster is the ID of the cluster, which a restore changes.
	Cluster etcd.MemberID
	Last    *Note  // of this cluster; nil for none
	Holder  string // who has the turn now; "" for nobody
	// rev is when Last was written; a turn is taken on that.
	rev int64
}

// Names are those of all voters.
func (v View) Names() []string {
	var names []string
	for _, m := range v.Voters {
		names = append(names, m.Name)
	}
	return names
}

// Look asks for members and records, through quorum.
func (r *Records) Look(ctx context.Context) (View, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), callTimeout)
	defer cancel()
	var v View
	list, err := r.client.MemberList(ctx)
	if err != nil {
		return v, fmt.Errorf("etcd: member list: %w", err)
	}
	v.Cluster = etcd.MemberID(list.Header.ClusterId)
	for _, m := range list.Members {
		if m.IsLearner || m.Name == "" || len(m.ClientURLs) == 0 || len(m.PeerURLs) == 0 {
			continue
		}
		voter := Voter{etcd.MemberID(m.ID), m.Name, m.PeerURLs[0], m.ClientURLs[0]}
		v.Voters = append(v.Voters, voter)
		if m.ID == list.Header.MemberId {
			v.Self = voter
		}
	}
	slices.SortFunc(v.Voters, func(a, b Voter) int { return strings.Compare(a.Name, b.Name) })
	got, err := r.client.Txn(ctx).Then(clientv3.OpGet(lastKey), clientv3.OpGet(turnKey)).Commit()
	if err != nil {
		return v, fmt.Errorf("etcd: records of backups: %w", err)
	}
	for _, kv := range got.Responses[0].GetResponseRange().Kvs {
		v.rev = kv.ModRevision
		var n Note
		// What cannot be read is written anew, and what a restore has brought back: the
		// backup that it names may lie on a host that is lost.
		if json.Unmarshal(kv.Value, &n) == nil && n.ClusterID == v.Cluster {
			v.Last = &n
		}
	}
	for _, kv := range got.Responses[1].GetResponseRange().Kvs {
		v.Holder = string(kv.Value)
	}
	return v, nil
}

// Amend puts what became of the copies of a backup on record, where that is the
// newest one still.
func (r *Records) Amend(ctx context.Context, n Note) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), callTimeout)
	defer cancel()
	got, err := r.client.Get(ctx, lastKey)
	if err != nil || len(got.Kvs) == 0 {
		return err
	}
	var seen Note
	if err := json.Unmarshal(got.Kvs[0].Value, &seen); err != nil || seen.Host != n.Host || seen.Path != n.Path {
		return nil // another one's, by now
	}
	seen.Copies = n.Copies
	value, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	_, err = r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(lastKey), "=", got.Kvs[0].ModRevision)).Then(clientv3.OpPut(lastKey, string(value))).Commit()
	return err
}

// Turn is a master's turn to make a backup. It ends with the process, or when etcd
// does not hear of it.
type Turn struct {
	records *Records
	session *concurrency.Session
	rev     int64 // of the key that bears it
}

// Take takes the turn, unless another has it or has put a backup on record since
// the view was taken: ErrTaken. The context of the work ends with the turn.
func (r *Records) Take(ctx context.Context, v View) (*Turn, context.Context, error) {
	session, err := concurrency.NewSession(r.client, concurrency.WithTTL(turnTTL), concurrency.WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("etcd: a lease for the turn: %w", err)
	}
	t := &Turn{records: r, session: session}
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done, err := r.client.Txn(asking).If(
		clientv3.Compare(clientv3.CreateRevision(turnKey), "=", 0),
		clientv3.Compare(clientv3.ModRevision(lastKey), "=", v.rev),
	).Then(clientv3.OpPut(turnKey, v.Self.Name, clientv3.WithLease(session.Lease()))).Commit()
	if err == nil && !done.Succeeded {
		err = ErrTaken
	}
	if err != nil {
		t.End(ctx)
		return nil, nil, fmt.Errorf("take the turn: %w", err)
	}
	t.rev = done.Header.Revision
	working, lost := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-session.Done():
			lost(ErrLost)
		case <-ctx.Done():
		}
	}()
	return t, working, nil
}

// mine is what a request stands on as long as the turn is ours.
func (t *Turn) mine() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(turnKey), "=", t.rev)
}

// Held proves that the turn is still ours.
func (t *Turn) Held(ctx context.Context) error { return t.commit(ctx) }

// Record puts a backup on record, and ends the turn with it.
func (t *Turn) Record(ctx context.Context, n Note) error {
	value, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return t.commit(ctx, clientv3.OpPut(lastKey, string(value)), clientv3.OpDelete(turnKey))
}

func (t *Turn) commit(ctx context.Context, ops ...clientv3.Op) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), callTimeout)
	defer cancel()
	done, err := t.records.client.Txn(ctx).If(t.mine()).Then(ops...).Commit()
	if err == nil && !done.Succeeded {
		err = ErrLost
	}
	return err
}

// End gives the turn to others. Its lease would end by itself, later.
func (t *Turn) End(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	t.session.Orphan()
	_, _ = t.records.client.Revoke(ctx, t.session.Lease())
}
