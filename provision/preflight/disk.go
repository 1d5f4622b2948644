package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// need is what must be free under a path before an install.
type need struct {
	path   string
	mb     int64
	inodes int64
}

// needs are what a host of the role must hold: images twice (content and
// unpacked) in containerd, an etcd that has grown, logs on the root.
func needs(c *inventory.Cluster, role inventory.Role) []need {
	switch role {
	case inventory.RoleControlPlane:
		return []need{{"/", 300, 1000}, {etcdDir(c), 1024, 100}, {"/var/lib/containerd", 2500, 20000},
			{"/var/lib/kubelet", 500, 2000}, {"/etc/kubernetes", 50, 100}}
	case inventory.RoleWorker:
		return []need{{"/", 300, 1000}, {"/var/lib/containerd", 2500, 20000}, {"/var/lib/kubelet", 500, 2000}, {"/etc/kubernetes", 50, 100}}
	default:
		return []need{{"/", 300, 1000}}
	}
}

// ExchangeMB is what must be free in each directory of a host that runs already:
// whatever exchanges its column stages the new files beside the old ones.
const ExchangeMB = 32

// The kubelet evicts pods below 10 % free (nodefs.available) and 15 %
// (imagefs.available), and deletes unused images above 85 % used: those that
// were imported for the next step are unused.
const imageFloorPercent = 15

// load is what one file system has and what is wanted of it: three
// directories on one disk need the sum.
type load struct {
	disk       Disk
	paths      []string
	mb, inodes int64
}

// loads groups the needs by file system. A host of this cluster has most of it
// already. An error is a path that df said nothing of.
func loads(s subject) ([]*load, error) {
	var list []*load
	at := map[string]*load{}
	for _, n := range needs(s.cluster, s.host.Role) {
		i := slices.IndexFunc(s.facts.Disks, func(d Disk) bool { return d.Path == n.path })
		if i < 0 {
			return nil, fmt.Errorf("df says nothing of %s", n.path)
		}
		d := s.facts.Disks[i]
		l := at[d.Mount]
		if l == nil {
			l = &load{disk: d}
			at[d.Mount] = l
			list = append(list, l)
		}
		if s.ours() {
			n.mb, n.inodes = max(n.mb/10, ExchangeMB), n.inodes/10
		}
		l.paths, l.mb, l.inodes = append(l.paths, n.path), l.mb+n.mb, l.inodes+n.inodes
	}
	return list, nil
}

func decideDisk(s subject) []verdict {
	list, err := loads(s)
	if err != nil {
		return fail(err.Error(), "a file system with free space", "run df on the host")
	}
	var out []verdict
	const fix = "free space, or mount a larger disk"
	for _, l := range list {
		seen := fmt.Sprintf("%d MB free of %d on %s", l.disk.AvailMB, l.disk.SizeMB, l.disk.Mount)
		switch {
		case l.disk.AvailMB < l.mb:
			out = append(out, fail(seen, fmt.Sprintf("%d MB for %s", l.mb, strings.Join(l.paths, ", ")), fix)...)
		case s.node() && l.disk.AvailMB*100 < l.disk.SizeMB*imageFloorPercent:
			out = append(out, warn(seen, fmt.Sprintf("%d %% free: below, the kubelet evicts pods and deletes images", imageFloorPercent), fix)...)
		default:
			out = append(out, ok("%s", seen)...)
		}
	}
	return out
}

// inodesFloorPercent is where the kubelet evicts (nodefs.inodesFree).
const inodesFloorPercent = 5

func decideInodes(s subject) []verdict {
	list, err := loads(s)
	if err != nil {
		return nil // Disk says it
	}
	var out []verdict
	for _, l := range list {
		d := l.disk
		seen := fmt.Sprintf("%d inodes free of %d on %s", d.InodesFree, d.Inodes, d.Mount)
		switch {
		case d.Inodes == 0: // no fixed number
		case d.InodesFree < l.inodes:
			out = append(out, fail(seen, fmt.Sprintf("%d for %s", l.inodes, strings.Join(l.paths, ", ")),
				"remove small files, or make the file system anew")...)
		case s.node() && d.InodesFree*100 < d.Inodes*inodesFloorPercent:
			out = append(out, warn(seen, fmt.Sprintf("%d %% free", inodesFloorPercent), "remove small files")...)
		}
	}
	if len(out) == 0 {
		return ok("enough")
	}
	return out
}
