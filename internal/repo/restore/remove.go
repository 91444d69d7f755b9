package restore

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// removeWay removes what is in the way of something in the snapshot.
func (a *run) removeWay(ctx context.Context, dir localfs.Dir, name, path string) error {
	gone, err := a.remove(ctx, dir, name, path)
	if err != nil {
		return fmt.Errorf("remove what is in the way: %w", err)
	}
	if !gone {
		return errors.New("what is in the way holds files that are kept")
	}
	return nil
}

// remove removes an entry and all below it. Below, what is kept or excluded
// stays, and so do the directories that lead to it (gone is false then). Another
// file system is not entered.
func (a *run) remove(ctx context.Context, dir localfs.Dir, name, path string) (gone bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	st, err := dir.Lstat(name)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = a.unlink(dir, name, path)
	} else {
		var kept bool
		kept, err = a.empty(ctx, dir, name, path)
		if kept || err != nil {
			return false, err
		}
		if err = a.step("rmdir", path); err == nil {
			err = unix.Unlinkat(dir.Fd(), name, unix.AT_REMOVEDIR)
		}
	}
	if err != nil {
		return false, err
	}
	a.res.removed.Add(1)
	return true, nil
}

// empty removes what is in the directory name; kept says that something stays.
func (a *run) empty(ctx context.Context, dir localfs.Dir, name, path string) (kept bool, err error) {
	above, err := dir.Stat()
	if err != nil {
		return false, err
	}
	sub, err := dir.Sub(name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	st, err := sub.Stat()
	if err != nil {
		return false, err
	}
	if st.Dev != above.Dev {
		return false, errors.New("another file system is mounted there, and is not in the snapshot")
	}
	if !a.root && st.Mode&0o700 != 0o700 {
		if err := errors.Join(a.step("chmod", path), unix.Fchmod(sub.Fd(), 0o700)); err != nil {
			return false, err
		}
	}
	names, err := sub.Names()
	if err != nil {
		return false, err
	}
	for _, entry := range names {
		below := join(path, entry)
		if !a.removable(below) {
			kept = true
			continue
		}
		gone, err := a.remove(ctx, sub, entry, below)
		if err != nil {
			return false, fmt.Errorf("%s: %w", below, err)
		}
		kept = kept || !gone
	}
	return kept, nil
}
