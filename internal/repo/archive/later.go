package archive

import (
	"context"
	"fmt"
	"strings"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// A backup in two steps reads in the first, while the files hold still, and
// stores in the second. With everything in one step each entry is stored as it
// is read, so that memory stays bounded.

// made is an entry, or what makes it in the second step.
type made struct {
	format.Entry
	later func(context.Context) (format.Entry, error) // nil: it is made
}

// none reports whether there is no entry.
func (m *made) none() bool { return m.Raw == nil && m.later == nil }

// treeMaker stores a directory's tree, once its entries' content may be stored.
type treeMaker func(context.Context) (format.ID, error)

// now makes an entry at once, unless there are two steps.
func (a *run) now(ctx context.Context, make func(context.Context) (format.Entry, error)) (made, error) {
	if a.stage != nil {
		return made{later: make}, nil
	}
	e, err := make(ctx)
	return made{Entry: e}, err
}

// finishAll makes what is not made yet.
func (a *run) finishAll(ctx context.Context, all []made) ([]format.Entry, error) {
	entries := make([]format.Entry, len(all))
	if a.stage == nil {
		for i := range all {
			entries[i] = all[i].Entry
		}
		return entries, nil
	}
	err := a.crew.Each(len(all), func(i int) (err error) {
		entries[i] = all[i].Entry
		if all[i].later != nil {
			entries[i], err = all[i].later(ctx)
		}
		return err
	})
	return entries, err
}

// Looked is what Look read.
type Looked struct {
	a     *run
	links *linkList
}

// Look is the first step of Run: it reads all that it has to, with files' contents
// copied into stage, and stores nothing. Store does the rest; stage is closed after
// that. With a ChangedSet and a local cache it asks nothing of the store.
func Look(ctx context.Context, w *repo.Writer, r *repo.Repository, opt Options, stage *Stage) (*Looked, error) {
	a, roots, err := begin(w, r, &opt)
	if err != nil {
		return nil, err
	}
	a.stage = stage
	links, err := a.look(ctx, roots)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", strings.Join(opt.Paths, ", "), err)
	}
	return &Looked{a, links}, nil
}

// Store is the second step.
func (l *Looked) Store(ctx context.Context) (*Result, error) {
	res, err := l.a.store(ctx, l.links)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", strings.Join(l.a.opt.Paths, ", "), err)
	}
	return res, nil
}
