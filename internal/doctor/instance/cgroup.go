package instance

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"drover/internal/doctor"
)

// noLimit is where version 1 of control groups writes that there is none: more than any
// machine has.
const noLimit = 1 << 60

// readMemory reads the limit and the working set: what is used, without the pages of
// files that can be dropped at once. Both versions of control groups are known.
func (s *Sight) readMemory() doctor.Memory {
	pid := "self"
	if s.pid != 0 {
		pid = strconv.Itoa(s.pid)
	}
	groups, err := s.read("/proc/" + pid + "/cgroup")
	if err != nil {
		return doctor.Memory{}
	}
	for _, dir := range groupDirs(groups) {
		for _, version := range []struct{ limit, used, inactive string }{
			{"memory.max", "memory.current", "inactive_file"},
			{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
		} {
			if m, ok := s.memoryOf(dir, version.limit, version.used, version.inactive); ok {
				return m
			}
		}
	}
	return doctor.Memory{}
}

// groupDirs are where the group's files may be: with a name space of its own, or the
// engine's mount, the group is the top.
func groupDirs(groups string) []string {
	var dirs []string
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			dirs = append(dirs, path.Join("/sys/fs/cgroup", fields[2]), "/sys/fs/cgroup")
		case fields[1] == "memory":
			dirs = append(dirs, path.Join("/sys/fs/cgroup/memory", fields[2]), "/sys/fs/cgroup/memory")
		}
	}
	return dirs
}

func (s *Sight) memoryOf(dir, limit, used, inactive string) (doctor.Memory, bool) {
	m := doctor.Memory{Seen: true, Where: path.Join(dir, limit)}
	text, err := s.read(m.Where)
	if err != nil {
		return m, false
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n < noLimit {
		m.Limit = n
	}
	current, err := s.read(path.Join(dir, used))
	if err != nil {
		return m, true
	}
	m.Working, _ = strconv.ParseInt(strings.TrimSpace(current), 10, 64)
	stat, err := s.read(path.Join(dir, "memory.stat"))
	if err != nil {
		return m, true
	}
	for line := range strings.Lines(stat) {
		var n int64
		if _, err := fmt.Sscanf(line, inactive+" %d", &n); err == nil {
			m.Working = max(0, m.Working-n)
		}
	}
	return m, true
}
