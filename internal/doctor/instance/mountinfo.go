package instance

import (
	"regexp"
	"slices"
	"strings"

	"drover/internal/doctor"
)

// mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	root   string // of the file system: what of it is mounted
	point  string
	ro     bool
	fstype string
	source string
}

// parseMounts reads the lines, in their order; a later one at the same place is on top.
func parseMounts(text string) []mount {
	var all []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimRight(line, "\n"), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		// ID, parent, device, root, mount point, options, optional fields … - type, source, options
		if !ok || len(fields) < 6 || len(rest) < 2 {
			continue
		}
		m := mount{
			root: unescape(fields[3]), point: unescape(fields[4]), fstype: rest[0], source: unescape(rest[1]),
			ro: slices.Contains(strings.Split(fields[5], ","), "ro"),
		}
		all = slices.DeleteFunc(all, func(o mount) bool { return o.point == m.point })
		all = append(all, m)
	}
	return all
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	octal := func(c byte) bool { return c >= '0' && c <= '7' }
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

// pseudo are file systems that keep no files.
var pseudo = []string{
	"proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "securityfs", "debugfs", "tracefs", "configfs", "bpf", "pstore",
	"fusectl", "hugetlbfs", "autofs", "rpc_pipefs", "binfmt_misc", "efivarfs", "nsfs", "squashfs",
}

// remotes are file systems whose files are on other machines, or on the host below a
// virtual machine. FUSE says by whom after a dot.
var remotes = []string{
	"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "gfs2", "ocfs2", "afs", "coda",
	"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.goofys", "fuse.geesefs", "fuse.juicefs", "fuse.mount-s3",
	"fuse.mountpoint-s3", "fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.davfs", "fuse.seaweedfs", "fuse.mfs", "fuse.moosefs",
}

// What the part of the host's disk that is mounted tells of who mounted it.
var (
	volumeOf     = regexp.MustCompile(`/volumes/([^/]+)/_data(/|$)`)
	kubernetesOf = regexp.MustCompile(`/volumes/kubernetes\.io~([^/]+)/([^/]+)`)
	anonymous    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// classify says what is mounted; ok is false for what an engine brings itself.
func (m mount) classify() (doctor.Mount, bool) {
	out := doctor.Mount{Target: m.point, ReadOnly: m.ro, Where: m.point, Source: m.fstype}
	switch {
	case m.point == "/", slices.Contains(pseudo, m.fstype), within(m.point, "/dev"), within(m.point, "/proc"), within(m.point, "/sys"),
		within(m.point, "/run/secrets"), within(m.point, "/var/run/secrets"), slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, m.point):
		return out, false
	case m.fstype == "tmpfs" || m.fstype == "ramfs":
		out.Kind = doctor.InMemory
		return out, true
	case slices.Contains(remotes, m.fstype):
		out.Kind = doctor.Network
		return out, true
	}
	if found := kubernetesOf.FindStringSubmatch(m.root); found != nil {
		switch found[1] {
		case "empty-dir":
			out.Kind = doctor.Scratch
		case "secret", "configmap", "projected", "downward-api":
			return out, false
		default:
			out.Kind, out.Source = doctor.Persistent, found[1]
		}
		return out, true
	}
	if found := volumeOf.FindStringSubmatch(m.root); found != nil {
		out.Kind, out.Source = doctor.Volume, found[1]
		if anonymous.MatchString(out.Source) {
			out.Source = ""
		}
		return out, true
	}
	out.Kind = doctor.Disk
	if m.root != "/" {
		out.Kind, out.Source = doctor.HostMount, m.root
	}
	return out, true
}

func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
