package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func stat(t *testing.T, path string) (mode fs.FileMode, inode uint64, uid, gid int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fs.FileMode(st.Mode & 0o7777), st.Ino, int(st.Uid), int(st.Gid)
}

func put(t *testing.T, f File, content string, want bool) {
	t.Helper()
	changed, err := f.Write([]byte(content))
	if err != nil || changed != want {
		t.Fatalf("changed %v, want %v; %v", changed, want, err)
	}
}

func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(names) {
		t.Errorf("%v in the directory, want %v; %v", entries, names, err)
	}
}

func TestWriteReplacesOnlyWhatDiffers(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "a", "b", "out")}
	put(t, f, "one", true)
	mode, inode, _, _ := stat(t, f.Path)
	if mode != DefaultMode || read(t, f.Path) != "one" {
		t.Errorf("mode %v", mode)
	}
	put(t, f, "one", false)
	if _, again, _, _ := stat(t, f.Path); again != inode {
		t.Error("an equal file was replaced")
	}
	f.Mode = 0o640
	put(t, f, "one", false)
	if mode, again, _, _ := stat(t, f.Path); mode != 0o640 || again != inode {
		t.Errorf("mode %v", mode)
	}
	put(t, f, "two", true)
	if mode, again, _, _ := stat(t, f.Path); mode != 0o640 || again == inode || read(t, f.Path) != "two" {
		t.Errorf("mode %v, replaced %v", mode, again != inode)
	}
	put(t, File{Path: filepath.Join(filepath.Dir(f.Path), "empty")}, "", true)
	alone(t, filepath.Dir(f.Path), "out", "empty")
}

// Tests run as root, so that owners can be set.
func TestOwner(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "out"), User: "daemon", Group: "7777"}
	put(t, f, "one", true)
	_, _, uid, gid := stat(t, f.Path)
	if uid != 1 || gid != 7777 {
		t.Errorf("%d:%d", uid, gid)
	}
	// Whoever states none keeps what is there, through a replacement, too.
	f.User, f.Group = "", ""
	put(t, f, "two", true)
	if _, _, uid, gid = stat(t, f.Path); uid != 1 || gid != 7777 {
		t.Errorf("%d:%d", uid, gid)
	}
	f.User, f.Group = strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())
	put(t, f, "two", false)
	if _, _, uid, gid = stat(t, f.Path); uid != os.Getuid() || gid != os.Getgid() {
		t.Errorf("%d:%d", uid, gid)
	}
	f.User = "nonesuch"
	if _, err := f.Write([]byte("three")); err == nil || read(t, f.Path) != "two" {
		t.Errorf("%v", err)
	}
}

func TestCheck(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "out")}
	put(t, f, "good", true)
	refusal := errors.New("bad directive")
	calls := 0
	f.Check = func(candidate string) error {
		calls++
		mode, _, _, _ := stat(t, candidate)
		if read(t, candidate) != "bad" || read(t, f.Path) != "good" || candidate != f.Candidate() || mode != DefaultMode {
			t.Errorf("the check sees %q beside %q, mode %v", read(t, candidate), read(t, f.Path), mode)
		}
		return refusal
	}
	var refused *RefusedError
	if _, err := f.Write([]byte("bad")); !errors.As(err, &refused) || !errors.Is(err, refusal) {
		t.Error(err)
	}
	if read(t, f.Path) != "good" {
		t.Error("the file was replaced")
	}
	alone(t, filepath.Dir(f.Path), "out")
	put(t, f, "good", false)
	if calls != 1 {
		t.Errorf("%d checks: a file that stays needs none", calls)
	}
}

func TestBackup(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "out"), Backup: true}
	put(t, f, "one", true)
	alone(t, filepath.Dir(f.Path), "out")
	put(t, f, "two", true)
	put(t, f, "three", true)
	if read(t, f.Path) != "three" || read(t, f.Path+".bak") != "two" {
		t.Errorf("%q, backup %q", read(t, f.Path), read(t, f.Path+".bak"))
	}
	alone(t, filepath.Dir(f.Path), "out", "out.bak")
}

// A crash between any two steps leaves what the next write removes.
func TestLeftovers(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "out"), Backup: true}
	put(t, f, "one", true)
	for _, left := range []string{f.Candidate(), f.Candidate() + ".bak"} {
		if err := os.WriteFile(left, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(t, f, "two", true)
	alone(t, filepath.Dir(f.Path), "out", "out.bak")
}

func TestWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	if _, err := (File{Path: dir}).Write([]byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := (File{Path: filepath.Join(dir, "no", "out"), NoDirectories: true}).Write(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// A link is replaced, and what it points to stays.
	for name, where := range map[string]string{"link": "aim", "dangling": "nonesuch"} {
		if err := os.WriteFile(filepath.Join(dir, "aim"), []byte("aim"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := File{Path: filepath.Join(dir, name), Backup: true}
		if err := os.Symlink(filepath.Join(dir, where), f.Path); err != nil {
			t.Fatal(err)
		}
		put(t, f, "aim", true)
		if info, err := os.Lstat(f.Path); err != nil || !info.Mode().IsRegular() || read(t, filepath.Join(dir, "aim")) != "aim" {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestMemoryOnly(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "target-test-") //nolint:usetesting // TempDir is not there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	put(t, File{Path: filepath.Join(memory, "out"), MemoryOnly: true}, "x", true)
	if err := (File{Path: filepath.Join(memory, "out"), MemoryOnly: true}).Append([]byte("y")); err != nil || read(t, filepath.Join(memory, "out")) != "xy" {
		t.Error(err)
	}
	disk := t.TempDir()
	f := File{Path: filepath.Join(disk, "out"), MemoryOnly: true}
	if _, err := f.Write([]byte("x")); !errors.Is(err, ErrOnDisk) {
		t.Error(err)
	}
	if err := f.Append([]byte("x")); !errors.Is(err, ErrOnDisk) {
		t.Error(err)
	}
	alone(t, disk)
}

func TestAppend(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "log"), Mode: 0o640, Group: "7777"}
	for range 2 {
		if err := f.Append([]byte("x\n")); err != nil {
			t.Fatal(err)
		}
	}
	mode, _, _, gid := stat(t, f.Path)
	if read(t, f.Path) != "x\nx\n" || mode != 0o640 || gid != 7777 {
		t.Errorf("%q, mode %v, group %d", read(t, f.Path), mode, gid)
	}
}
