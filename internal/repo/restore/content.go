package restore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// target is a place where a blob goes.
type target struct {
	j      *job
	offset int64
}

// content writes the content of all jobs, pack by pack.
func (a *run) content(ctx context.Context) error {
	jobs := a.jobs
	a.jobs = nil
	slices.SortFunc(jobs, func(x, y *job) int { return strings.Compare(x.path, y.path) })
	need := newNeeds(a.r)
	targets := make(map[format.ID][]target)
	for _, j := range jobs {
		for _, p := range j.need {
			targets[p.id] = append(targets[p.id], target{j, p.offset})
			if err := need.add(format.Handle{Type: format.DataBlob, ID: p.id}); err != nil {
				return err // it was there when the job was made
			}
		}
		j.need = nil
	}
	need.seen = nil
	err := a.crew.Each(len(need.packs), func(i int) error {
		pack := need.packs[i]
		need.packs[i].blobs = nil
		return a.r.LoadPackBlobs(ctx, pack.id, pack.blobs, func(h format.Handle, data []byte, err error) error {
			for _, t := range targets[h.ID] {
				pieceErr := err
				if pieceErr == nil {
					pieceErr = a.writePiece(t.j, t.offset, data)
				}
				a.wrote(t.j, pieceErr)
			}
			return ctx.Err()
		})
	})
	for _, j := range jobs { // after an error some are still open
		if closeErr := a.closeJob(j); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}
	return err
}

// linkAll makes the further names of files.
func (a *run) linkAll(ctx context.Context, links []link) error {
	for i := range links {
		if err := ctx.Err(); err != nil {
			return err
		}
		l := &links[i]
		path := join(l.dir.path, l.node.Name)
		if err := a.link(l, path); err != nil {
			a.fail(path, err)
		}
	}
	return nil
}

func (a *run) link(l *link, path string) error {
	first, err := a.dirs.get(l.firstDir)
	if err != nil {
		return err
	}
	defer a.dirs.put(first)
	dir, err := a.dirs.get(l.dir)
	if err != nil {
		return err
	}
	defer a.dirs.put(dir)
	want, err := first.Lstat(l.first.Name)
	if err != nil {
		return err
	}
	var st localfs.Stat
	if st, err = dir.Lstat(l.node.Name); err == nil {
		if st.Ino == want.Ino && st.Dev == want.Dev {
			return nil
		}
		if err := a.unlink(dir.Dir, l.node.Name, path); err != nil {
			return err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := a.step("link", path); err != nil {
		return err
	}
	return unix.Linkat(first.Fd(), l.first.Name, dir.Fd(), l.node.Name, 0)
}

// finishDirs sets the metadata of d and all directories below, the deepest
// first: making entries changes a directory's times, and its mode may forbid it.
func (a *run) finishDirs(ctx context.Context, d *directory) error {
	if d.lost {
		return nil
	}
	err := a.crew.Each(len(d.subs), func(i int) error { return a.finishDirs(ctx, d.subs[i]) })
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || !a.sets(d) {
		return err
	}
	h, err := a.dirs.get(d)
	if err != nil {
		a.fail(d.path, err)
		return nil
	}
	defer a.dirs.put(h)
	st, err := h.Stat()
	if err == nil {
		err = a.setMeta(fdFile{h.Fd()}, d.path, d.node, &st)
	}
	if err != nil {
		a.fail(d.path, err)
	}
	return nil
}
