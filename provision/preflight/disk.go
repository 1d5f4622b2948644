package preflight

import (
	"fmt"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// need is the free space in MB that a path must have before an install.
type need struct {
	path string
	mb   int64
}

// needs are what a host of the role must hold: images twice (content and
// unpacked) in containerd, an etcd that has grown, logs on the root.
func needs(c *inventory.Cluster, role inventory.Role) []need {
	switch role {
	case inventory.RoleControlPlane:
		return []need{{"/", 300}, {etcdDir(c), 1024}, {"/var/lib/containerd", 2500}, {"/var/lib/kubelet", 500}, {"/etc/kubernetes", 50}}
	case inventory.RoleWorker:
		return []need{{"/", 300}, {"/var/lib/containerd", 2500}, {"/var/lib/kubelet", 500}, {"/etc/kubernetes", 50}}
	default:
		return []need{{"/", 300}}
	}
}

// The kubelet evicts pods below 10 % free (nodefs.available) and 15 %
// (imagefs.available), and deletes unused images above 85 % used: those that
// were imported for the next step are unused.
const imageFloorPercent = 15

// decideDisk sums the needs per file system: three directories on one disk
// need the sum. A host of this cluster holds its images already.
func decideDisk(s subject) []verdict {
	var mounts []string
	want, paths, disks := map[string]int64{}, map[string][]string{}, map[string]Disk{}
	for _, n := range needs(s.cluster, s.host.Role) {
		d, found := diskOf(s.facts, n.path)
		if !found {
			return fail("df says nothing of "+n.path, "a file system with free space", "run df "+n.path+" on the host")
		}
		if _, seen := disks[d.Mount]; !seen {
			mounts = append(mounts, d.Mount)
			disks[d.Mount] = d
		}
		mb := n.mb
		if s.ours() {
			mb /= 10
		}
		want[d.Mount] += mb
		paths[d.Mount] = append(paths[d.Mount], n.path)
	}
	var out []verdict
	for _, m := range mounts {
		d := disks[m]
		seen := fmt.Sprintf("%d MB free of %d on %s", d.AvailMB, d.SizeMB, m)
		switch {
		case d.AvailMB < want[m]:
			out = append(out, fail(seen, fmt.Sprintf("%d MB for %s", want[m], strings.Join(paths[m], ", ")),
				"free space, or mount a larger disk")...)
		case s.node() && d.AvailMB*100 < d.SizeMB*imageFloorPercent:
			out = append(out, warn(seen, fmt.Sprintf("%d %% free: below, the kubelet evicts pods and deletes images", imageFloorPercent),
				"free space, or mount a larger disk")...)
		default:
			out = append(out, ok("%s", seen)...)
		}
	}
	return out
}

// Below inodesNeeded an install does not fit; below the percentage the
// kubelet evicts (nodefs.inodesFree).
const (
	inodesNeeded       = 20000
	inodesFloorPercent = 5
)

func decideInodes(s subject) []verdict {
	seen := map[string]bool{}
	var out []verdict
	for _, n := range needs(s.cluster, s.host.Role) {
		d, found := diskOf(s.facts, n.path)
		if !found || seen[d.Mount] || d.Inodes == 0 {
			continue
		}
		seen[d.Mount] = true
		text := fmt.Sprintf("%d inodes free of %d on %s", d.InodesFree, d.Inodes, d.Mount)
		switch {
		case d.InodesFree < inodesNeeded && !s.ours() && s.node():
			out = append(out, fail(text, fmt.Sprintf("%d", inodesNeeded), "remove small files, or make the file system anew")...)
		case d.InodesFree*100 < d.Inodes*inodesFloorPercent:
			out = append(out, warn(text, fmt.Sprintf("%d %% free", inodesFloorPercent), "remove small files")...)
		}
	}
	if len(out) == 0 {
		return ok("enough")
	}
	return out
}

func diskOf(f Facts, path string) (Disk, bool) {
	for _, d := range f.Disks {
		if d.Path == path {
			return d, true
		}
	}
	return Disk{}, false
}
