package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/snapdb"
)

// HashKV is of the same records that a snapshot holds.
func (s *etcdServer) HashKV(ctx context.Context, q *pb.HashKVRequest) (r *pb.HashKVResponse, err error) {
	err = s.with(ctx, "hash", false, false, func(head *pb.ResponseHeader, _ *member) error {
		upTo := s.h.w.etcd.revision
		if q.Revision != 0 {
			upTo = min(upTo, q.Revision)
		}
		r = &pb.HashKVResponse{Header: head, Hash: snapdb.HashKV(upTo), CompactRevision: -1}
		return nil
	})
	return r, err
}

// pieceSize is how much of a snapshot goes out in one message; the host may be
// struck between any two.
const pieceSize = 16 << 10

// Snapshot streams a real database with its SHA-256.
func (s *etcdServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	var data []byte
	for i := 0; i == 0 || i < len(data); i += pieceSize {
		var r *pb.SnapshotResponse
		err := s.with(stream.Context(), "snapshot", false, false, func(*pb.ResponseHeader, *member) error {
			if i == 0 {
				data = s.h.database()
			}
			end := min(i+pieceSize, len(data))
			r = &pb.SnapshotResponse{Blob: data[i:end], RemainingBytes: uint64(len(data) - end), Version: "3.6.8"}
			return nil
		})
		if err == nil {
			err = stream.Send(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// database is the member's own, as it goes out; the world is locked.
func (h *Host) database() []byte {
	e := h.w.etcd
	var ids []uint64
	for _, m := range e.members {
		ids = append(ids, m.id)
	}
	return snapdb.Sent(snapdb.DatabaseWith(h.w.t, max(e.revision, 1), h.w.stored(), ids...)) // one of nothing is none
}

// stored are the objects that a snapshot holds as API servers store them: the
// Nodes and kubeadm's configuration, where they are asked for.
func (w *World) stored() []snapdb.Object {
	if !w.SnapshotObjects {
		return nil
	}
	var all []snapdb.Object
	store := func(key string, from kubeapi.Object, into runtime.Object) {
		data, err := json.Marshal(from)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		var out bytes.Buffer
		if err == nil {
			err = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(into, &out)
		}
		if err != nil {
			w.t.Errorf("sim: %s: %v", key, err)
		}
		all = append(all, snapdb.Object{Key: []byte(key), Value: out.Bytes()})
	}
	for _, name := range w.API.Names("nodes") {
		name = strings.TrimPrefix(name, "/")
		store("/registry/minions/"+name, w.API.Get("nodes", "", name), &corev1.Node{})
	}
	store("/registry/configmaps/kube-system/kubeadm-config", w.API.Get("configmaps", "kube-system", "kubeadm-config"), &corev1.ConfigMap{})
	return all
}
