package sim

import (
	"context"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// database is how much one member's has, in bytes.
type database struct{ size, inUse int64 }

// What databases have unless Bloat said otherwise.
const (
	plainSize  = 1 << 20
	plainInUse = plainSize / 2
	plainQuota = 8 << 30
)

// space is what etcd's members have written, and may write.
type space struct {
	dbs   map[uint64]database // by member
	quota int64               // 0: plainQuota
	full  []uint64            // members with a NOSPACE alarm
	kept  int64               // what a compaction cannot free; 0: plainInUse
	other uint64              // a member with a CORRUPT alarm
}

func (s space) clone() space {
	s.dbs, s.full = maps.Clone(s.dbs), slices.Clone(s.full)
	return s
}

func (s space) of(id uint64) database {
	if d, ok := s.dbs[id]; ok {
		return d
	}
	return database{plainSize, plainInUse}
}

func (s space) most() int64 {
	if s.quota > 0 {
		return s.quota
	}
	return plainQuota
}

// restored is what new members have of a snapshot: the size of what was there, and
// the alarms, of members that are no more.
func (s space) restored(members []*member) space {
	size := database{plainSize, plainInUse}
	for _, d := range s.dbs {
		if d.size > size.size {
			size = d
		}
	}
	s = s.clone()
	s.dbs = map[uint64]database{}
	for _, m := range members {
		s.dbs[m.id] = size
	}
	return s
}

// quotaIn is etcd's in one of kubeadm's configurations.
func (h *Host) quotaIn(config string) int64 {
	found := quotaArgument.FindSubmatch(h.Files[config].Content)
	if found == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return n
}

var quotaArgument = regexp.MustCompile(`name: quota-backend-bytes\s+value: "(\d+)"`)

// Bloat gives every member a database of that many bytes, of which so many hold
// data and kept are needed, under a quota; alarmed are the hosts whose member has
// raised a NOSPACE alarm.
func (w *World) Bloat(size, inUse, kept, quota int64, alarmed ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.etcd.revision++ // something was written
	w.etcd.space = space{dbs: map[uint64]database{}, quota: quota, kept: kept}
	for _, m := range w.etcd.members {
		w.etcd.space.dbs[m.id] = database{size, inUse}
		if slices.Contains(alarmed, m.name) {
			w.etcd.space.full = append(w.etcd.space.full, m.id)
		}
	}
}

// Corrupt has the member on a host raise a CORRUPT alarm.
func (w *World) Corrupt(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.etcd.members {
		if m.name == host {
			w.etcd.space.other = m.id
		}
	}
}

// Databases are the sizes of the members' databases in bytes, by host.
func (w *World) Databases() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sizes := map[string]int64{}
	for _, m := range w.etcd.members {
		sizes[m.name] = w.etcd.space.of(m.id).size
	}
	return sizes
}

// Alarms is how many alarms are raised.
func (w *World) Alarms() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.etcd.space.full)
}

// Leader is the host whose etcd leads; "" for none.
func (w *World) Leader() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.leader(); m != nil {
		return m.name
	}
	return ""
}

func (s *etcdServer) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (r *pb.DefragmentResponse, err error) {
	err = s.with(ctx, "defragment", true, false, func(head *pb.ResponseHeader, m *member) error {
		w := s.h.w
		if up, voters := w.together(); len(up) < voters {
			w.accuse("%s was defragmented while a voter was away", m.name)
		}
		if _, voters := w.together(); voters > 1 && w.leader() == m {
			w.accuse("%s was defragmented while it led", m.name)
		}
		if s.h.apiUp() && !w.out(m.name) {
			w.accuse("%s was defragmented while balancers sent it clients", m.name)
		}
		d := w.etcd.space.of(m.id)
		w.etcd.space.set(m.id, database{d.inUse, d.inUse})
		r = &pb.DefragmentResponse{Header: head}
		return nil
	})
	return r, err
}

func (s *space) set(id uint64, d database) {
	if s.dbs == nil {
		s.dbs = map[uint64]database{}
	}
	s.dbs[id] = d
}

func (s *etcdServer) Compact(ctx context.Context, q *pb.CompactionRequest) (r *pb.CompactionResponse, err error) {
	err = s.with(ctx, "compact", true, true, func(head *pb.ResponseHeader, _ *member) error {
		e := &s.h.w.etcd
		switch {
		case q.Revision > e.revision:
			return rpctypes.ErrGRPCFutureRev
		case q.Revision <= e.compacted:
			return rpctypes.ErrGRPCCompacted
		}
		e.compacted = q.Revision
		for _, m := range e.members {
			d := e.space.of(m.id)
			kept := e.space.kept
			if kept == 0 {
				kept = plainInUse
			}
			e.space.set(m.id, database{d.size, min(d.inUse, kept)})
		}
		r = &pb.CompactionResponse{Header: head}
		return nil
	})
	return r, err
}

// Alarm lists alarms, or takes one back. Where the database is still as full, the
// next write would raise it again.
func (s *etcdServer) Alarm(ctx context.Context, q *pb.AlarmRequest) (r *pb.AlarmResponse, err error) {
	what, writes := "alarms", false
	if q.Action == pb.AlarmRequest_DEACTIVATE {
		what, writes = "disarm", true
	}
	err = s.with(ctx, what, writes, true, func(head *pb.ResponseHeader, _ *member) error {
		r = &pb.AlarmResponse{Header: head}
		full := &s.h.w.etcd.space.full
		if q.Action == pb.AlarmRequest_DEACTIVATE {
			for _, m := range s.h.w.etcd.members {
				if s.h.w.etcd.space.of(m.id).size >= s.h.w.etcd.space.most() {
					s.h.w.accuse("an alarm was taken back with the database of %s full", m.name)
				}
			}
			if q.Alarm != pb.AlarmType_NOSPACE {
				s.h.w.accuse("a %s alarm was taken back", q.Alarm)
			}
			*full = slices.DeleteFunc(*full, func(id uint64) bool { return id == q.MemberID })
			return nil
		}
		for _, id := range *full {
			r.Alarms = append(r.Alarms, &pb.AlarmMember{MemberID: id, Alarm: pb.AlarmType_NOSPACE})
		}
		if other := s.h.w.etcd.space.other; other != 0 {
			r.Alarms = append(r.Alarms, &pb.AlarmMember{MemberID: other, Alarm: pb.AlarmType_CORRUPT})
		}
		return nil
	})
	return r, err
}

// noSpace is the answer to a write while an alarm is raised.
func (s *etcdServer) noSpace() error {
	if len(s.h.w.etcd.space.full) > 0 {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}

// needsSpace says that a request of the API writes what etcd refuses while an alarm
// is raised: it takes deletions.
func needsSpace(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodDelete && r.URL.Query().Get("dryRun") == ""
}
