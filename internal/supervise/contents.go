package supervise

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openContents gives the job its files in memory.
func (o *streams) openContents() error {
	if o.j.Files == nil {
		return nil
	}
	for fd, content := range o.j.Files() {
		f, err := inMemory(content, o.j.User)
		if err != nil {
			return fmt.Errorf("give it a file at descriptor %d: %w", fd, err)
		}
		o.theirs = append(o.theirs, f)
		o.place(fd, f)
	}
	return nil
}

// place gives the job a file at a descriptor.
func (o *streams) place(fd int, f *os.File) {
	for len(o.files) <= fd {
		o.files = append(o.files, nil)
	}
	o.files[fd] = f
}

// inMemory is a file that has no name, is on no disk, and cannot be changed by anyone. It is the
// user's, and stands at its beginning.
func inMemory(content string, u *User) (*os.File, error) {
	fd, err := unix.MemfdCreate("drover", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make it: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	_, err = f.WriteString(content)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err == nil {
		err = f.Chmod(0o400)
	}
	if err == nil && u != nil {
		err = f.Chown(int(u.UID), int(u.GID))
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
