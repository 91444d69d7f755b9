package changes

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// eachEntry calls f for each entry of a directory, or only for directories in it.
// Entries that stay there while it runs are seen once. buffer is scratch space.
// Errors are plain errno values.
func eachEntry(dir string, buffer []byte, onlyDirs bool, f func(name string, isDir bool)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		readEntries(fd, buffer[:n], onlyDirs, f)
	}
}

// readEntries reads struct linux_dirent64 (getdents64(2)): inode and offset of 8 bytes each,
// record length of 2, type of 1, name.
func readEntries(dir int, b []byte, onlyDirs bool, f func(name string, isDir bool)) {
	const nameOffset = 19
	for len(b) > nameOffset {
		length := int(b[16]) | int(b[17])<<8
		if length <= nameOffset || length > len(b) {
			return
		}
		kind, raw := b[18], b[nameOffset:length]
		b = b[length:]
		if end := bytes.IndexByte(raw, 0); end >= 0 {
			raw = raw[:end]
		}
		if onlyDirs && kind != unix.DT_DIR && kind != unix.DT_UNKNOWN {
			continue
		}
		name := string(raw)
		if name == "." || name == ".." {
			continue
		}
		isDir := kind == unix.DT_DIR
		if kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
			isDir = err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		}
		f(name, isDir)
	}
}

// sharedSystems are file systems on which other machines, or a process behind
// them, may change files without an event here (f_type of statfs(2)).
var sharedSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", 0xff534d42: "cifs", unix.SMB2_SUPER_MAGIC: "smb2",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs",
	unix.CODA_SUPER_MAGIC: "coda", unix.OCFS2_SUPER_MAGIC: "ocfs2", 0x01161970: "gfs2", 0x0bd00bd0: "lustre",
}

// remote returns a reason if the directory is on such a file system.
func remote(dir string) string {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "statfs " + dir + ": " + err.Error()
	}
	if name := sharedSystems[int64(uint32(fs.Type))]; name != "" {
		return foreign + dir + " is " + name
	}
	return ""
}

// readMounts returns the lines of /proc/self/mountinfo about mounts at or below
// the places, and sets doubt if one is of a kind that raises no events.
func (t *Tracker) readMounts() string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.watches.lost = err.Error()
		return ""
	}
	var ours strings.Builder
	for line := range strings.Lines(string(data)) {
		// ID, parent, device, root, mount point, options … (proc_pid_mountinfo(5))
		fields := strings.SplitN(line, " ", 6)
		if len(fields) < 6 {
			continue
		}
		point := unescape(fields[4])
		for i := range t.watches.places {
			p := &t.watches.places[i]
			if !below(point, p.real) || t.excluded(p.root+point[len(p.real):], true) {
				continue
			}
			ours.WriteString(line)
			if reason := remote(point); reason != "" {
				t.watches.doubt = reason
			}
			break
		}
	}
	return ours.String()
}

// unescape undoes the kernel's \ooo for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | s[i+3] - '0')
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
