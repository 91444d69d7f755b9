package changes

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperVar makes the test binary another process that writes without events:
// "map FILE" or "aio FILE". It says "ready", and for each line it reads writes
// once and says "done".
const helperVar = "CHANGES_TEST_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperVar); what != "" {
		if err := help(what); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func help(what string) error {
	how, name, _ := strings.Cut(what, " ")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	write := func(i int) error { return aioWrite(f, byte(i)) }
	if how == "map" {
		m, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		write = func(i int) error { m[0] = byte(i); return nil }
	} else if err := aioSetUp(); err != nil {
		return err
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for i := 1; in.Scan(); i++ {
		if err := write(i); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

var aioContext uintptr // of the helper process only

func aioSetUp() error {
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 8, uintptr(unsafe.Pointer(&aioContext)), 0); errno != 0 {
		return fmt.Errorf("io_setup: %w", errno)
	}
	return nil
}

// aioWrite writes one byte at the start of the file with io_submit(2).
func aioWrite(f *os.File, b byte) error {
	data := []byte{b}
	const pwrite = 1
	block := struct { // struct iocb
		data            uint64
		key, rwFlags    uint32
		opcode          uint16
		priority        int16
		fd              uint32
		buffer, size    uint64
		offset          int64
		reserved        uint64
		flags, resultFD uint32
	}{opcode: pwrite, fd: uint32(f.Fd()), buffer: uint64(uintptr(unsafe.Pointer(&data[0]))), size: 1}
	list := []unsafe.Pointer{unsafe.Pointer(&block)}
	if n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, aioContext, 1, uintptr(unsafe.Pointer(&list[0]))); n != 1 {
		return fmt.Errorf("io_submit: %w", errno)
	}
	var event [4]uint64
	if n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, aioContext, 1, 1, uintptr(unsafe.Pointer(&event[0])), 0, 0); n != 1 {
		return fmt.Errorf("io_getevents: %w", errno)
	}
	if event[2] != 1 {
		return fmt.Errorf("asynchronous write: result %d", int64(event[2]))
	}
	return nil
}

// watch starts a tracker that watches, its first set taken.
func watch(t *testing.T, opts Options, roots ...string) *Tracker {
	t.Helper()
	tr, err := New(roots, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for {
		set := tr.Drain(t.Context())
		if !set.All {
			return tr
		}
		if tr.watching() && tr.watches.lost != "" {
			return tr
		}
	}
}

func (t *Tracker) watching() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fd >= 0
}

// drain returns the set relative to dir.
func drain(t *testing.T, tr *Tracker, dir string) []string {
	t.Helper()
	set := tr.Drain(t.Context())
	if set.All {
		return []string{"ALL: " + set.Reason}
	}
	var list []string
	for _, p := range set.Paths {
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rel)
	}
	return list
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(text), 0o644))
}

// silent is a helper process that writes without events.
type silent struct {
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Scanner
}

func startSilent(t *testing.T, what string, attr *unix.SysProcAttr) *silent {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	s := &silent{cmd: exec.Command(exe)}
	s.cmd.Env = append(os.Environ(), helperVar+"="+what)
	s.cmd.SysProcAttr = attr
	in, err := s.cmd.StdinPipe()
	must(t, err)
	out, err := s.cmd.StdoutPipe()
	must(t, err)
	s.in, s.out = in, bufio.NewScanner(out)
	must(t, s.cmd.Start())
	t.Cleanup(func() { in.Close(); _ = s.cmd.Wait() })
	s.says(t, "ready")
	return s
}

func (s *silent) says(t *testing.T, want string) {
	t.Helper()
	if !s.out.Scan() || s.out.Text() != want {
		t.Fatalf("the helper says %q", s.out.Text())
	}
}

func (s *silent) write(t *testing.T) {
	t.Helper()
	_, err := s.in.Write([]byte("\n"))
	must(t, err)
	s.says(t, "done")
}

// againVar marks a test that runs once more in another process.
const againVar = "CHANGES_TEST_AGAIN"

// again runs the current test in a process with other privileges, from a copy of
// the binary that everybody may execute.
func again(t *testing.T, attr *unix.SysProcAttr, wrapper ...string) {
	t.Helper()
	dir := t.TempDir()
	open(t, dir)
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(dir+"/changes.test", exe, 0o755))
	must(t, os.Mkdir(dir+"/tmp", 0o755))
	must(t, os.Chmod(dir+"/tmp", 0o777|os.ModeSticky))
	args := append(wrapper, dir+"/changes.test", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), againVar+"=1", "TMPDIR="+dir+"/tmp")
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// open lets everybody into a directory of t.TempDir.
func open(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
}
