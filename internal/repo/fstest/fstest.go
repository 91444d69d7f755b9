// Package fstest makes directories with every kind of file in them, and describes
// directories, for the tests of backup and restore.
//
// What it says of a file is found out with the kernel's calls alone, not with the
// code under test.
package fstest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Must fails the test at once if there is an error.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Write writes a file, making the directories above it.
func Write(t testing.TB, path, content string) {
	t.Helper()
	Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	Must(t, os.WriteFile(path, []byte(content), 0o644))
}

// Noise returns n bytes that do not compress, other ones at each call.
func Noise(n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// GoRoot is the directory of the Go toolchain: a large tree that every machine
// with these tests has.
func GoRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	Must(t, err)
	return strings.TrimSpace(string(out))
}

// Describe lists all that is below dir, and dir itself: path → metadata and content.
func Describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	links := make(map[uint64]string)
	Must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		text := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d bytes %s links %d", len(data), digest(data), st.Nlink)
			if st.Nlink > 1 {
				if links[st.Ino] == "" {
					links[st.Ino] = rel
				}
				text += " = " + links[st.Ino]
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " → " + target
		case unix.S_IFBLK, unix.S_IFCHR:
			text += fmt.Sprintf(" device %d", st.Rdev)
		}
		attrs, err := attributes(path)
		out[rel] = text + attrs
		if err != nil {
			return err
		}
		return nil
	}))
	return out
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func attributes(path string) (string, error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	text := ""
	for _, name := range names {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return text, nil
}

// Compare fails the test for each path that differs.
func Compare(t testing.TB, got, want map[string]string) {
	t.Helper()
	for path, w := range want {
		if g := got[path]; g != w {
			t.Errorf("%q is\n  %s\nwant\n  %s", path, g, w)
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%q should not be there: %s", path, g)
		}
	}
}

var (
	// Old is a time that no new file has.
	Old = time.Unix(1234567890, 987654321)
	// An ACL as the kernel keeps it: version 2; user::rwx, user:1:r--, group::r-x, mask::r-x, other::r--.
	ACL = []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	// A capability: revision 2, effective, cap_net_bind_service.
	Capability = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

// RichTree makes a directory with one of everything. It needs root.
func RichTree(t testing.TB, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"small": "hello", "empty": "", "sub/deep/er/file": "x", "setuid": "s", "owned": "o", "attrs": "a", "first": "linked",
		"new\nline": "n", "not\xffutf8": "u", strings.Repeat("l", 255): "long", "big": string(Noise(9<<20 + 5)), "twin": "hello",
	} {
		Write(t, filepath.Join(dir, name), content)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	Must(t, os.Mkdir(in("nothing"), 0o500), os.Mkdir(in("sticky"), 0o700), os.Mkdir(in("zz"), 0o755))
	Must(t, os.Symlink("/target\xfe", in("symlink")), os.Symlink("small", in("symlink2")), os.Link(in("first"), in("zz/second")), os.Link(in("first"), in("third")))
	Must(t, unix.Mkfifo(in("fifo"), 0o620), unix.Mknod(in("null"), unix.S_IFCHR|0o666, 259), unix.Mknod(in("block"), unix.S_IFBLK|0o600, 0x702))
	Must(t, unix.Lsetxattr(in("attrs"), "user.one", []byte("1"), 0), unix.Lsetxattr(in("attrs"), "user.empty", nil, 0),
		unix.Lsetxattr(in("sub"), "user.dir", Noise(300), 0), unix.Lsetxattr(in("symlink"), "trusted.link", []byte("t"), 0),
		unix.Lsetxattr(in("attrs"), "system.posix_acl_access", ACL, 0), unix.Lsetxattr(in("sub/deep"), "system.posix_acl_default", ACL, 0))
	Must(t, os.Lchown(in("owned"), 1234, 56789), os.Lchown(in("symlink"), 12, 34), os.Lchown(in("sub/deep"), 77, 78), os.Lchown(in("setuid"), 5, 6))
	Must(t, unix.Lsetxattr(in("setuid"), "security.capability", Capability, 0))
	Must(t, unix.Chmod(in("setuid"), 0o6751), unix.Chmod(in("sticky"), 0o3777), unix.Chmod(in("sub/deep/er/file"), 0))
	f, err := os.Create(in("sparse"))
	Must(t, err)
	_, err = f.WriteAt([]byte("middle"), 10<<20+100)
	Must(t, err, f.Truncate(20<<20), f.Close())
	for _, name := range []string{"small", "symlink", "fifo", "sub/deep/er/file", "sub/deep", "sub", "nothing", "."} {
		ts := []unix.Timespec{{Sec: Old.Unix()}, {Sec: Old.Unix(), Nsec: int64(Old.Nanosecond())}}
		Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}
