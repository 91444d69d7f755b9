package initproc

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropFilePages unmaps the binary's own code and constants, which start-up code
// of every package linked in has touched; what is needed again comes back from
// the page cache. Only private, unwritable mappings of files are dropped that
// have no page of their own (a linker's relocations would make some): they hold
// nothing that the file does not. Any failure leaves things as they are.
func dropFilePages() {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	var start, end uintptr
	var perms, offset, device string
	var inode uint64
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Text()
		// A mapping's first line, then its properties, one a line.
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %d", &start, &end, &perms, &offset, &device, &inode); n == 6 {
			continue
		}
		kilobytes, ok := strings.CutPrefix(line, "Anonymous:")
		if !ok || strings.TrimSpace(kilobytes) != "0 kB" || inode == 0 {
			continue
		}
		if perms == "r-xp" || perms == "r--p" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}
