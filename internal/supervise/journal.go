package supervise

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// Line is one line of a job's output, without its line break; a very long one is cut.
type Line struct {
	Time   time.Time
	Job    string
	Stream int // 1: stdout, 2: stderr
	Text   string
}

// Bounds of a Journal, in lines and bytes of text for each job.
const (
	journalLines = 1000
	journalBytes = 256 << 10
)

// Journals keeps the newest lines of all jobs, and tells them to those who follow.
type Journals struct {
	mu      sync.Mutex
	jobs    map[string]*Journal
	changed chan struct{} // closed when there is something new, and replaced
	seq     uint64
}

// NewJournals makes an empty one.
func NewJournals() *Journals {
	return &Journals{jobs: map[string]*Journal{}, changed: make(chan struct{})}
}

// Of is the journal of the named job; it lives on when the job's definition changes.
func (all *Journals) Of(job string) *Journal {
	all.mu.Lock()
	defer all.mu.Unlock()
	j := all.jobs[job]
	if j == nil {
		j = &Journal{all: all, job: job}
		all.jobs[job] = j
	}
	return j
}

// Keep forgets the journals of other jobs than these.
func (all *Journals) Keep(jobs []string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for name := range all.jobs {
		if !slices.Contains(jobs, name) {
			delete(all.jobs, name)
		}
	}
}

// Journal keeps the newest lines of one job.
type Journal struct {
	all *Journals
	job string

	// Guarded by all.mu.
	lines []entry
	bytes int
	total uint64 // lines that ever came
}

type entry struct {
	seq uint64
	Line
}

// writer takes what one stream of the job writes; nothing at all is its end.
func (j *Journal) writer(stream int) func([]byte) {
	var line []byte
	return func(chunk []byte) {
		if len(chunk) == 0 && len(line) > 0 {
			j.add(Line{Time: time.Now(), Job: j.job, Stream: stream + 1, Text: string(line)})
			line = nil
		}
		for len(chunk) > 0 {
			end := bytes.IndexByte(chunk, '\n')
			part := chunk
			if end >= 0 {
				part = chunk[:end]
			}
			line = append(line, part[:min(len(part), longLine-len(line))]...)
			if end < 0 {
				return
			}
			chunk = chunk[end+1:]
			j.add(Line{Time: time.Now(), Job: j.job, Stream: stream + 1, Text: string(line)})
			line = line[:0]
		}
	}
}

func (j *Journal) add(l Line) {
	j.all.mu.Lock()
	defer j.all.mu.Unlock()
	j.all.seq++
	j.total++
	j.lines = append(j.lines, entry{j.all.seq, l})
	j.bytes += len(l.Text)
	drop := 0
	for len(j.lines)-drop > journalLines || j.bytes > journalBytes && drop < len(j.lines)-1 {
		j.bytes -= len(j.lines[drop].Text)
		drop++
	}
	clear(j.lines[:drop]) // the text goes now, its place when append moves the rest
	j.lines = j.lines[drop:]
	close(j.all.changed)
	j.all.changed = make(chan struct{})
}

// Follower reads the lines of one job, or of all, in the order in which they came.
type Follower struct {
	all *Journals
	job string
	seq uint64 // of the last one that was read

	passed map[*Journal]uint64 // lines of each that came and are done with
	missed int
}

// Follow begins with the newest lines, so many; job "": of all.
func (all *Journals) Follow(job string, newest int) *Follower {
	all.mu.Lock()
	defer all.mu.Unlock()
	f := &Follower{all: all, job: job}
	entries := f.after()
	if skip := len(entries) - max(0, newest); skip > 0 {
		f.seq = entries[skip-1].seq
	}
	f.pass(func(j *Journal) uint64 { return j.total - uint64(len(j.from(f.seq))) })
	return f
}

// pass notes for each job how many of its lines are done with; with all.mu held.
func (f *Follower) pass(of func(*Journal) uint64) {
	f.passed = map[*Journal]uint64{}
	for name, j := range f.all.jobs {
		if f.job == "" || name == f.job {
			f.passed[j] = of(j)
		}
	}
}

// from are the lines that are kept and follow seq; with all.mu held.
func (j *Journal) from(seq uint64) []entry {
	at, _ := slices.BinarySearchFunc(j.lines, seq+1, func(e entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
	return j.lines[at:]
}

// after lists what follows the last one read, oldest first; with all.mu held.
func (f *Follower) after() []entry {
	var found []entry
	for name, j := range f.all.jobs {
		if f.job != "" && name != f.job {
			continue
		}
		found = append(found, j.from(f.seq)...)
	}
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
	return found
}

// Missed is how many lines were dropped, because they came faster than they were read,
// before those which the last call returned.
func (f *Follower) Missed() int { return f.missed }

// Next returns the lines that came since the last call, nothing if there are none.
func (f *Follower) Next() []Line {
	lines, _ := f.next()
	return lines
}

func (f *Follower) next() ([]Line, <-chan struct{}) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	entries := f.after()
	was := f.passed // of a new journal: nothing
	f.missed = -len(entries)
	f.pass(func(j *Journal) uint64 {
		f.missed += int(j.total - was[j])
		return j.total
	})
	lines := make([]Line, len(entries))
	for i, e := range entries {
		lines[i], f.seq = e.Line, e.seq
	}
	return lines, f.all.changed
}

// Wait returns the lines that came since the last call, and waits until there are any.
func (f *Follower) Wait(ctx context.Context) ([]Line, error) {
	for {
		lines, changed := f.next()
		if len(lines) > 0 {
			return lines, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
