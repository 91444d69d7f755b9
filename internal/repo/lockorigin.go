package repo

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// origin names the process that made a lock so exactly that its death can be proved
// from another process beside it. A host name cannot do that: in containers it may stand
// for more than one set of processes. restic passes over what it does not know.
type origin struct {
	Boot   string `json:"boot"`   // the kernel's id of this boot
	Spaces string `json:"spaces"` // in which process numbers and times are counted
	Start  uint64 `json:"start"`  // of the process, in ticks: its number may be given again
}

// ownOrigin is this process's; nil if it cannot be said.
func ownOrigin() *origin {
	// A /proc of another namespace would show somebody else under our number.
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	o := &origin{Boot: strings.TrimSpace(string(boot))}
	for _, space := range []string{"pid", "time"} {
		name, err := os.Readlink("/proc/self/ns/" + space)
		if err != nil && space == "pid" {
			return nil
		}
		o.Spaces += name // a kernel without name spaces for time has none to confuse
	}
	p, ok := proctree.Lookup(os.Getpid())
	if !ok || o.Boot == "" {
		return nil
	}
	o.Start = p.Start
	return o
}

// dead reports whether it is certain that the process which made the lock is gone.
func (c lockJSON) dead() bool {
	if c.Origin == nil || c.PID <= 0 {
		return false
	}
	own := ownOrigin()
	if own == nil || own.Boot != c.Origin.Boot || own.Spaces != c.Origin.Spaces {
		return false
	}
	if errors.Is(unix.Kill(c.PID, 0), unix.ESRCH) {
		return true
	}
	p, ok := proctree.Lookup(c.PID) // not ok: it may be hidden from us
	return ok && (!p.Alive() || p.Start != c.Origin.Start)
}
