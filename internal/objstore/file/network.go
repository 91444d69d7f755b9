package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
)

// networkMagic are the file systems whose locks, renames and syncs are not
// those of one kernel (values: linux/magic.h and each file system's source).
func networkMagic(magic uint32) (name string, found bool) {
	name, found = map[uint32]string{
		0x6969:     "NFS",
		0xff534d42: "CIFS",
		0xfe534d42: "SMB",
		0x517b:     "SMB",
		0x564c:     "NCP",
		0x73757245: "Coda",
		0x5346414f: "AFS",
		0x6b414653: "AFS",
		0x01021997: "9p",
		0x00c36400: "Ceph",
		0x0bd00bd0: "Lustre",
		0x47504653: "GPFS",
		0x19830326: "BeeGFS",
		0x20030528: "OrangeFS",
		0xaad7aaea: "PanFS",
		0x01161970: "GFS2",
		0x7461636f: "OCFS2",
	}[magic]
	return name, found
}

// networkFUSE holds the types, as /proc/self/mountinfo has them, of FUSE file
// systems that keep their files elsewhere. Other FUSE file systems are local,
// such as the root of a rootless container.
func networkFUSE(fstype string) bool {
	name, ok := strings.CutPrefix(fstype, "fuse.")
	if !ok {
		return false
	}
	for _, known := range []string{"sshfs", "gluster", "ceph", "s3", "rclone", "goofys", "geesefs", "juicefs",
		"mountpoint-s3", "mount-s3", "gcsfuse", "blobfuse", "davfs", "curlftpfs", "smbnetfs", "seaweedfs",
		"mfs", "moosefs", "lizardfs", "saunafs", "beegfs", "hdfs", "quobyte", "cunofs", "alluxio"} {
		if strings.HasPrefix(name, known) {
			return true
		}
	}
	return false
}

// refuseNetwork looks at the file system of dir, or of what there is above it.
func refuseNetwork(dir string) error {
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	name, found := networkMagic(uint32(st.Type))
	if !found && uint32(st.Type) == unix.FUSE_SUPER_MAGIC {
		name = fuseType(dir)
		found = networkFUSE(name)
	}
	if found {
		return fmt.Errorf("%w: %s is on a network file system (%s), where a conditional put is not atomic; use a local disk, or an S3 server in front of it",
			objstore.ErrUnsupported, dir, name)
	}
	return nil
}

// fuseType returns the type of the file system that dir is on, "" if unknown.
func fuseType(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return mountType(string(mounts), fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
}

// mountType finds the type of the mount with that device in the text of
// /proc/self/mountinfo (proc(5): the device is the third field, the type the
// first after the "-").
func mountType(mountinfo, device string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		types := strings.Fields(after)
		if ok && len(fields) > 2 && len(types) > 0 && fields[2] == device {
			return types[0]
		}
	}
	return ""
}
