package file

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// staleAge is how old a temporary file must be to be removed. Its writer locks
// it right after making it, so an unlocked one of this age has no writer.
const staleAge = time.Hour

// removeStale removes the temporary files that crashed processes left. What
// cannot be removed is left for another time: it harms nothing but space.
func removeStale(root *os.Root) {
	d, err := root.Open(ownDir)
	if err != nil {
		return
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			removeIfStale(root, ownDir+"/"+name)
		}
	}
}

func removeIfStale(root *os.Root, name string) {
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || time.Since(info.ModTime()) < staleAge {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	_ = root.Remove(name)
}
