package gitkv

import (
	"slices"
	"sync"
	"time"
)

// Target is what became of a branch or tag in a pass.
type Target struct {
	Repo   string `json:"repository"`
	Ref    string `json:"ref"` // refs/heads/… or refs/tags/…
	Prefix string `json:"prefix"`
	Mode   Mode   `json:"mode"`
	Commit string `json:"commit,omitempty"` // that is there, whole
	Tree   string `json:"tree,omitempty"`   // what current names

	Changed   bool     `json:"changed,omitempty"`   // the commit is there since this pass
	Written   int      `json:"written,omitempty"`   // keys
	Deleted   int      `json:"deleted,omitempty"`   // keys, in place
	Drift     int      `json:"drift,omitempty"`     // keys that somebody else had changed
	Others    int      `json:"others,omitempty"`    // in place: keys below the prefix that are not ours, and stay
	Parts     bool     `json:"parts,omitempty"`     // in place: the change was larger than a transaction
	Collected int      `json:"collected,omitempty"` // old trees that were removed
	Missing   bool     `json:"missing,omitempty"`   // the branch is gone
	Removed   bool     `json:"removed,omitempty"`   // and so are its keys
	Notes     []string `json:"notes,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// Report is what Once did.
type Report struct {
	Targets []Target `json:"targets"`
}

// RepoStatus is what is known of a repository.
type RepoStatus struct {
	Name    string    `json:"name"`
	Looked  time.Time `json:"looked,omitzero"` // when it was looked at last, by this instance
	Error   string    `json:"error,omitempty"` // of that look
	Targets []Target  `json:"targets,omitempty"`
}

// Status is what is known to this instance: the writer knows all.
type Status struct {
	Writer       bool         `json:"writer"`
	Error        string       `json:"error,omitempty"` // why it cannot become the writer
	Repositories []RepoStatus `json:"repositories,omitempty"`
}

// board holds the status.
type board struct {
	mu  sync.Mutex
	now Status
}

// Status returns what is known now.
func (s *Syncer) Status() Status {
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	now := s.status.now
	now.Repositories = slices.Clone(now.Repositories)
	return now
}

func (b *board) lead(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.Writer, b.now.Error = yes, ""
}

func (b *board) leads() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now.Writer
}

func (b *board) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.Error = err.Error()
}

// put notes a pass. If the repository could not be read, the targets stay as they were known.
func (b *board) put(name string, targets []Target, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.now.Repositories, func(r RepoStatus) bool { return r.Name == name })
	if i < 0 {
		i = len(b.now.Repositories)
		b.now.Repositories = append(b.now.Repositories, RepoStatus{Name: name})
	}
	r := &b.now.Repositories[i]
	r.Looked, r.Error = time.Now(), ""
	if err != nil {
		r.Error = err.Error()
	}
	if err == nil || targets != nil {
		r.Targets = targets
	}
}
