package initproc

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DropFilePages unmaps the binary's own code and constants, which start-up code
// of every package linked in has touched; what is needed again comes back from
// the page cache. Only private, unwritable mappings of files are dropped that
// have no page of their own (a linker's relocations would make some): they hold
// nothing that the file does not. Any failure leaves things as they are.
func DropFilePages() {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	var start, end uint64
	droppable := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		// A mapping's first line ("from-to perms offset device inode path"), then
		// its properties, one a line ("Anonymous: 0 kB").
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if from, to, ok := strings.Cut(fields[0], "-"); ok && len(fields) >= 5 {
			var err1, err2 error
			start, err1 = strconv.ParseUint(from, 16, 64)
			end, err2 = strconv.ParseUint(to, 16, 64)
			unwritable := fields[1] == "r-xp" || fields[1] == "r--p"
			droppable = err1 == nil && err2 == nil && unwritable && fields[4] != "0"
			continue
		}
		if droppable && fields[0] == "Anonymous:" && fields[1] == "0" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
		}
	}
}
