package freeze

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// standing tells whether a state of /proc/PID/stat is that of something that
// executes nothing: stopped by a signal, held by a tracer, or dead.
func standing(state byte) bool {
	switch state {
	case 'T', 't', 'Z', 'X', 'x':
		return true
	}
	return false
}

// standsStill tells whether no thread of the process executes anything. A
// process that is gone does not. The first thread's state does not tell: the
// others stop each for itself, once it has left the kernel.
func standsStill(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err == unix.ENOENT || err == unix.ESRCH
	}
	threads := os.NewFile(uintptr(fd), dir)
	defer threads.Close()
	names, err := threads.Readdirnames(-1)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, name := range names {
		if line, err := os.ReadFile(dir + name + "/stat"); err == nil && !standing(stateOf(line)) {
			return false
		}
	}
	return true
}

// stateOf returns the state in a line of /proc/PID/stat: it follows the name in
// parentheses, which may hold some itself. 0: there is none.
func stateOf(line []byte) byte {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 || end+2 >= len(line) {
		return 0
	}
	return line[end+2]
}
