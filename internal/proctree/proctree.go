// Package proctree reads the kernel's table of processes and kills whole trees
// of them: the descendants of a process, wherever they have put themselves.
//
// It promises that Kill returns without an error only when no selected process
// lives, that nothing outside the selection is signalled, and that killing
// needs no disk and no large allocation: it runs when an instance has lost its
// claim. It relies on /proc being mounted, and on the caller being a child
// subreaper (or PID 1): only then do orphans stay its descendants.
//
// Who belongs to whom (jobs, survivors of an earlier life) is decided by the
// packages that use it, supervise and initproc.
package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"
)

// Proc is one process as /proc/PID/stat shows it (proc_pid_stat(5)).
type Proc struct {
	PID, PPID, Group, Session int
	Threads                   int
	Start                     uint64 // clock ticks since boot; with PID it names a process for as long as the machine is up
	State                     byte
	// Unexecuted: it was forked, and has executed nothing since. Of a child that was
	// started by vfork(2) that means that its parent's thread waits for it.
	Unexecuted bool
}

// Alive tells whether any part of the process still runs. A process whose first
// thread has ended is shown as a zombie while its other threads go on.
func (p *Proc) Alive() bool {
	switch p.State {
	case 'Z', 'X', 'x':
		return p.Threads > 1
	}
	return true
}

// Initial capacities: enough for an ordinary instance, so that reading the
// table does not allocate when it matters. 4096 entries are 260 KiB.
const (
	initialProcs = 4096
	direntBuffer = 32 << 10
)

// Table is a reading of all processes, in order of PID. Its buffers are reused
// from one reading to the next; it must not be shared between goroutines.
type Table struct {
	Procs  []Proc
	in     []bool // Procs[i] is selected
	dirent []byte
	stat   [1024]byte
}

// NewTable allocates the buffers; it reads nothing.
func NewTable() *Table {
	return &Table{
		Procs:  make([]Proc, 0, initialProcs),
		in:     make([]bool, 0, initialProcs),
		dirent: make([]byte, direntBuffer),
	}
}

// Read fills the table. It is not a snapshot: processes start and end meanwhile.
func (t *Table) Read() error {
	t.Procs = t.Procs[:0]
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	defer unix.Close(dir)
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.Getdents(dir, t.dirent) })
		if err != nil {
			return fmt.Errorf("list /proc: %w", err)
		}
		if n == 0 {
			break
		}
		t.readEntries(dir, t.dirent[:n])
	}
	if len(t.Procs) == 0 {
		return errors.New("list /proc: no processes there; is it mounted?")
	}
	sort.Sort(byPID(t.Procs))
	return nil
}

// readEntries reads the processes of one buffer of struct linux_dirent64:
// inode and offset of 8 bytes each, record length of 2, type of 1, name.
func (t *Table) readEntries(dir int, buf []byte) {
	const nameOffset = 19
	for len(buf) > nameOffset {
		length := int(buf[16]) | int(buf[17])<<8
		if length <= nameOffset || length > len(buf) {
			return
		}
		name := buf[nameOffset:length]
		buf = buf[length:]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if len(name) == 0 || name[0] < '1' || name[0] > '9' {
			continue
		}
		// A process that ended meanwhile is simply not there.
		if p, ok := t.readStat(dir, string(name)+"/stat"); ok {
			t.Procs = append(t.Procs, p)
		}
	}
}

func (t *Table) readStat(dir int, name string) (Proc, bool) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Proc{}, false
	}
	defer unix.Close(fd)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, t.stat[:]) })
	if err != nil {
		return Proc{}, false
	}
	return parseStat(t.stat[:n])
}

// parseStat reads the line of /proc/PID/stat. The second field is the command's
// name in parentheses, and may itself hold spaces, parentheses and newlines.
func parseStat(line []byte) (Proc, bool) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 2 || end < open || end+4 > len(line) {
		return Proc{}, false
	}
	p := Proc{PID: number(line[:open-1]), State: line[end+2]}
	rest := line[end+4:]
	for field := 4; field <= 22 && len(rest) > 0; field++ {
		value := rest
		if space := bytes.IndexByte(rest, ' '); space >= 0 {
			value, rest = rest[:space], rest[space+1:]
		} else {
			rest = nil
		}
		switch field {
		case 4:
			p.PPID = number(value)
		case 5:
			p.Group = number(value)
		case 6:
			p.Session = number(value)
		case 9:
			const forkNoExec = 0x40 // PF_FORKNOEXEC of the kernel
			p.Unexecuted = number(value)&forkNoExec != 0
		case 20:
			p.Threads = number(value)
		case 22:
			p.Start = uint64(number(value))
			return p, p.PID > 0
		}
	}
	return Proc{}, false
}

func number(digits []byte) int {
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return n
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// Find returns the process with this PID, or nil.
func (t *Table) Find(pid int) *Proc {
	i := sort.Search(len(t.Procs), func(i int) bool { return t.Procs[i].PID >= pid })
	if i < len(t.Procs) && t.Procs[i].PID == pid {
		return &t.Procs[i]
	}
	return nil
}

// Select marks the processes that root names, and all their descendants, and
// returns how many of the marked ones live. The process except is never
// marked, nor are its descendants for its sake.
func (t *Table) Select(except int, root func(*Proc) bool) int {
	t.in = t.in[:0]
	for i := range t.Procs {
		p := &t.Procs[i]
		t.in = append(t.in, p.PID != except && root(p))
	}
	for again := true; again; {
		again = false
		for i := range t.Procs {
			if !t.in[i] && t.Procs[i].PID != except && t.selected(t.Procs[i].PPID) {
				t.in[i], again = true, true
			}
		}
	}
	alive := 0
	for i := range t.Procs {
		if t.in[i] && t.Procs[i].Alive() {
			alive++
		}
	}
	return alive
}

func (t *Table) selected(pid int) bool {
	i := sort.Search(len(t.Procs), func(i int) bool { return t.Procs[i].PID >= pid })
	return i < len(t.Procs) && t.Procs[i].PID == pid && t.in[i]
}

// Selected calls f for every living process of the last Select.
func (t *Table) Selected(f func(*Proc)) {
	for i := range t.Procs {
		if t.in[i] && t.Procs[i].Alive() {
			f(&t.Procs[i])
		}
	}
}

// Lookup reads one process; ok is false if there is none.
func Lookup(pid int) (p Proc, ok bool) { return lookup(strconv.Itoa(pid)) }

func lookup(name string) (p Proc, ok bool) {
	line, err := os.ReadFile("/proc/" + name + "/stat")
	if err != nil {
		return Proc{}, false
	}
	return parseStat(line)
}

// BecomeSubreaper makes the calling process the one that its descendants'
// orphans are given to (prctl(2), PR_SET_CHILD_SUBREAPER). Children do not
// inherit it.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become child subreaper: %w", err)
	}
	return nil
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

type byPID []Proc

func (b byPID) Len() int           { return len(b) }
func (b byPID) Less(i, j int) bool { return b[i].PID < b[j].PID }
func (b byPID) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
