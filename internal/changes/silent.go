package changes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Two ways to write raise no event: through a shared mapping, and by the
// kernel's asynchronous I/O (io_submit(2), which InnoDB uses; io_uring does
// raise events). Both end with one, IN_CLOSE_WRITE, when the file is let go.

// silentSearch looks through the processes for files that may be written so.
type silentSearch struct {
	places []place
	found  []string
	blind  []int // processes that we may not inspect
}

// findSilent returns the files below the places that some process may be
// writing without an event, and a reason if one of our descendants could not be
// inspected.
func findSilent(places []place) (found []string, blind string) {
	s := &silentSearch{places: places}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, "list processes: " + err.Error()
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := s.inspect(pid); errors.Is(err, fs.ErrPermission) {
			s.blind = append(s.blind, pid)
		}
	}
	for _, pid := range s.blind {
		if s.inspectAs(pid) != nil && isDescendant(pid) {
			blind = fmt.Sprintf("the mappings of process %d cannot be read", pid)
		}
	}
	return s.found, blind
}

// inspect reads the mappings of one process. A process that has ended has none.
func (s *silentSearch) inspect(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	asynchronous := false
	lines := bufio.NewReaderSize(maps, 16<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if path, ok := sharedWritable(line); ok {
			if bytes.HasPrefix(path, []byte("/[aio]")) {
				asynchronous = true
			} else {
				s.add(unescapeNewline(string(path)))
			}
		}
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil {
			break
		}
	}
	if asynchronous {
		return s.openForWriting(dir)
	}
	return nil
}

// sharedWritable returns the path of a line of /proc/PID/maps if it is of a shared,
// writable mapping: "from-to rw-s offset device inode   path".
func sharedWritable(line []byte) ([]byte, bool) {
	space := bytes.IndexByte(line, ' ')
	if space < 0 || len(line) < space+5 || line[space+2] != 'w' || line[space+4] != 's' {
		return nil, false
	}
	slash := bytes.IndexByte(line, '/')
	if slash < 0 {
		return nil, false
	}
	return bytes.TrimSuffix(line[slash:], []byte("\n")), true
}

// unescapeNewline undoes the one escape in the paths of maps.
func unescapeNewline(path string) string { return strings.ReplaceAll(path, `\012`, "\n") }

// add notes a file below a place under the name that its root was given by.
func (s *silentSearch) add(path string) {
	path = strings.TrimSuffix(path, " (deleted)")
	for _, p := range s.places {
		if below(path, p.real) {
			s.found = append(s.found, p.root+path[len(p.real):])
		}
	}
}

// openForWriting notes all files that a process holds open for writing.
func (s *silentSearch) openForWriting(dir string) error {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		target, err := os.Readlink(dir + "/fd/" + fd.Name())
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil || !strings.HasPrefix(target, "/") {
			continue
		}
		info, err := os.ReadFile(dir + "/fdinfo/" + fd.Name())
		if err == nil && readOnly(info) {
			continue
		}
		s.add(target)
	}
	return nil
}

// readOnly tells from a /proc/PID/fdinfo file whether it is open for reading only.
func readOnly(info []byte) bool {
	for line := range bytes.Lines(info) {
		if value, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 8, 64)
			return err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY
		}
	}
	return false
}

// inspectAs inspects a process as its own user. Root without CAP_SYS_PTRACE
// and the like, as in most containers, may not look into a process of another user, but the
// user may, and the check is by the file-system UID of the thread that opens
// (ptrace(2), PTRACE_MODE_READ_FSCREDS).
func (s *silentSearch) inspectAs(pid int) error {
	if os.Geteuid() != 0 {
		return fs.ErrPermission
	}
	uid, gid, err := owner(pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		setFSID(uid, gid)
		err := s.inspect(pid)
		if setFSID(0, unix.Getegid()) {
			runtime.UnlockOSThread()
		}
		// Else the thread, which is not what it was, ends with the goroutine.
		result <- err
	}()
	return <-result
}

// setFSID sets the file-system user and group of the calling thread and tells
// whether they are set.
func setFSID(uid, gid int) bool {
	_, _ = unix.SetfsgidRetGid(gid)
	_, _ = unix.SetfsuidRetUid(uid)
	const ask = -1 // changes nothing and returns what is
	nowGID, err1 := unix.SetfsgidRetGid(ask)
	nowUID, err2 := unix.SetfsuidRetUid(ask)
	return err1 == nil && err2 == nil && nowGID == gid && nowUID == uid
}

// owner is the effective user and group of a process.
func owner(pid int) (uid, gid int, err error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	var real int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "Uid: %d %d", &real, &uid)
		_, _ = fmt.Sscanf(line, "Gid: %d %d", &real, &gid)
	}
	return uid, gid, nil
}

// isDescendant tells whether a process descends from this one.
func isDescendant(pid int) bool {
	for self := os.Getpid(); pid > 1; {
		if pid == self {
			return true
		}
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		end := bytes.LastIndexByte(stat, ')')
		if err != nil || end < 0 {
			return false
		}
		var state string
		if _, err := fmt.Sscan(string(stat[end+1:]), &state, &pid); err != nil {
			return false
		}
	}
	return false
}
