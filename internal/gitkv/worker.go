package gitkv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"drover/internal/event"
	"drover/internal/gitkv/remote"
)

// source is a repository; remote has the real one.
type source interface {
	Refs(ctx context.Context) (map[string]string, error)
	Fetch(ctx context.Context, ref string, want func(path string) bool) (remote.Snapshot, error)
}

// worker looks after one repository.
type worker struct {
	s      *Syncer
	repo   Repo
	source source
	wake   chan struct{} // capacity 1
	poked  atomic.Bool   // somebody must be told

	writer  string // of this term
	targets map[string]*target
	names   []string // of the refs that were wanted and there, in the last pass
	absent  bool     // and some were not
}

func (w *worker) ledger(prefix string) *ledger {
	root := w.s.o.Root
	return &ledger{kv: w.s.o.Coord, key: ledgerKey(root, prefix), list: listKey(root, prefix), writer: w.writer, steps: &w.s.steps}
}

func (w *worker) newReport(ref string) *Target {
	return &Target{Repo: w.repo.Name, Ref: ref, Prefix: w.repo.prefix(ref), Mode: w.repo.Mode}
}

// target returns what is known of a ref, and reserves its prefix.
func (w *worker) target(ref string) (*target, error) {
	if t := w.targets[ref]; t != nil {
		return t, nil
	}
	prefix := w.repo.prefix(ref)
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return nil, err
		}
	}
	if within(w.s.o.Root, prefix) {
		return nil, fmt.Errorf("the prefix %q is where the ledgers are", prefix)
	}
	if err := w.s.places.take(prefix, placeName{w.repo.Name, ref}); err != nil {
		return nil, err
	}
	t := &target{worker: w, ref: ref, prefix: prefix, mapping: w.repo.mapping()}
	w.targets[ref] = t
	return t, nil
}

// within says whether a key is root or below it.
func within(root, key string) bool { return key == root || strings.HasPrefix(key, root+"/") }

// begin forgets what a term before has done: others may have written since.
func (w *worker) begin(writer string) {
	w.writer, w.names = writer, nil
	if w.targets == nil {
		w.targets = map[string]*target{}
	}
	for _, t := range w.targets {
		t.done = ""
	}
}

// pass looks at the repository once, and makes all of its targets what they should be. If the
// repository cannot be read, nothing happens. What this writer has brought to the same commit before is
// not asked for again, unless it is time to compare.
func (w *worker) pass(ctx context.Context, compare bool) ([]Target, error) {
	ctx, cancel := context.WithTimeout(ctx, w.s.o.Timeout)
	defer cancel()
	refs, err := w.source.Refs(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(refs)), func(ref string) bool { return !w.repo.wants(ref) })
	var done []Target
	for _, ref := range names { // branches come before tags
		t, err := w.target(ref)
		if err != nil {
			report := w.newReport(ref)
			report.Error = err.Error()
			done = append(done, *report)
			continue
		}
		if !compare && t.done == refs[ref] {
			done = append(done, t.last)
			continue
		}
		done = append(done, t.sync(ctx, refs[ref], compare))
	}
	if !compare && !w.absent && slices.Equal(names, w.names) {
		return done, nil
	}
	gone, err := w.missing(ctx, refs)
	if w.names = nil; err == nil {
		w.names, w.absent = names, len(gone) > 0
	}
	return append(done, gone...), err
}

// missing looks after what is not there: what is wanted by its whole name, and what has a ledger.
func (w *worker) missing(ctx context.Context, refs map[string]string) ([]Target, error) {
	absent := map[string]bool{}
	for kind, names := range map[string][]string{headsPrefix: w.repo.Branches, tagsPrefix: w.repo.Tags} {
		for _, name := range names {
			if _, ok := refs[kind+name]; !ok && !strings.ContainsAny(name, `*?[\`) {
				absent[kind+name] = true
			}
		}
	}
	pages, err := w.pages(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range pages {
		if _, ok := refs[r.Ref]; !ok && w.repo.wants(r.Ref) && r.Prefix == w.repo.prefix(r.Ref) {
			absent[r.Ref] = true
		}
	}
	var done []Target
	for _, ref := range slices.Sorted(maps.Keys(absent)) {
		t, err := w.target(ref)
		if err != nil {
			continue // another has its place now
		}
		report := t.missing(ctx, len(refs) > 0)
		if done = append(done, report); report.Removed || report.Commit == "" {
			delete(w.targets, ref)
			w.s.places.leave(t.prefix, placeName{w.repo.Name, ref})
		}
	}
	return done, nil
}

// look is pass, and tells of it.
func (w *worker) look(ctx context.Context, compare bool) ([]Target, error) {
	targets, err := w.pass(ctx, compare)
	if ctx.Err() != nil {
		return targets, err // what ends is not worth telling
	}
	w.s.status.put(w.repo.Name, targets, err)
	log := w.s.o.Log.With("repository", w.repo.Name)
	if err != nil {
		log.Warn("the repository could not be looked at; its keys stay", "error", err)
	}
	for _, t := range targets {
		switch {
		case t.Error != "":
			log.Warn("keys could not be brought to the commit", "ref", t.Ref, "error", t.Error)
		case t.Changed, t.Removed, t.Drift > 0:
			log.Info("keys were brought to the commit", "ref", t.Ref, "commit", t.Commit, "written", t.Written, "deleted", t.Deleted, "drift", t.Drift)
			w.tell(t)
		}
	}
	return targets, err
}

// tell publishes that keys have changed.
func (w *worker) tell(t Target) {
	if w.s.o.Events == nil {
		return
	}
	text := fmt.Sprintf("%s is at %s below %q", t.Ref, t.Commit, t.Prefix)
	if t.Removed {
		text = fmt.Sprintf("%s is gone, and its keys below %q are", t.Ref, t.Prefix)
	}
	w.s.o.Events.Publish(event.Event{Name: "synced", Source: w.repo.Name, Text: text})
}

// failed says whether something of a pass is worth another soon.
func failed(targets []Target, err error) bool {
	return err != nil || slices.ContainsFunc(targets, func(t Target) bool { return t.Error != "" })
}

// minPause is between two looks however often hooks call.
const minPause = time.Second

// run looks again and again until ctx ends.
func (w *worker) run(ctx context.Context) {
	var compared time.Time
	retry := minPause
	for {
		began := time.Now()
		compare := began.Sub(compared) >= w.s.o.Compare
		targets, err := w.look(ctx, compare)
		wait := w.repo.Poll
		if failed(targets, err) {
			wait = min(wait, retry)
			retry = min(2*retry, max(w.repo.Poll, minPause))
		} else {
			retry = minPause
			if compare {
				compared = began
			}
			wait = min(wait, max(minPause, w.s.o.Compare-began.Sub(compared)))
		}
		if !w.wait(ctx, jitter(wait)) {
			return
		}
	}
}

// jitter spreads what many do at once.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// wait waits for d, or for a hook, but at least for minPause.
func (w *worker) wait(ctx context.Context, d time.Duration) bool {
	if !sleep(ctx, min(d, minPause)) {
		return false
	}
	timer := time.NewTimer(d - min(d, minPause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.wake:
	case <-timer.C:
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Once looks at all repositories once, as the elected writer; it waits for that.
func (s *Syncer) Once(ctx context.Context) (Report, error) {
	lease, err := s.acquire(ctx)
	if err != nil {
		return Report{}, err
	}
	ctx, cancel := s.term(ctx, lease)
	defer cancel()
	var report Report
	var errs []error
	for _, w := range s.workers {
		targets, err := w.look(ctx, true)
		report.Targets = append(report.Targets, targets...)
		if err != nil {
			errs = append(errs, fmt.Errorf("repository %q: %w", w.repo.Name, err))
		}
		for _, t := range targets {
			if t.Error != "" {
				errs = append(errs, fmt.Errorf("repository %q, %s: %s", t.Repo, t.Ref, t.Error))
			}
		}
	}
	return report, errors.Join(errs...)
}
