// Package gitkv keeps keys of a coordinator as they are in Git: each file of a branch is a
// key, or each value in a file is.
//
// It promises:
//
//   - Atomic, the default: a commit's keys go below <prefix>/<tree>/, a tree of its own, and then
//     <prefix>/current is moved to it. Who reads current and then that tree sees one commit, whole.
//     It stays there until several newer ones were current.
//   - In place, for readers that know nothing of that: the keys are right below <prefix>/. A change
//     that fits into one transaction of the coordinator is one. A larger one is not, and is told
//     in the target's ledger while it lasts: each key has its old or its new value meanwhile, no
//     key of both commits is ever missing, and nothing is deleted before all is written.
//   - Only what it wrote itself is deleted, by whole names, and never because something failed
//     or could not be read.
//   - What others change in its keys is put right again.
//   - Of two writers one wins: every write is in one transaction with a compare-and-swap of
//     the target's ledger, so that who was deposed writes nothing more. The lease only keeps
//     several from trying at once.
//
// It leaves to others where the coordinator is, on which port web hooks come in, and who
// reads the keys. It follows Git wherever it goes: a branch that was pushed by force is
// followed as any other. One that is gone keeps its keys, unless it was asked otherwise.
package gitkv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"drover/internal/coord"
	"drover/internal/event"
	"drover/internal/gitkv/remote"
)

// Mode says how a commit becomes keys.
type Mode string

// The modes; see the package.
const (
	Atomic  Mode = "atomic"
	InPlace Mode = "in-place"
)

// Arrays says what becomes of a list in a file that is expanded.
type Arrays string

// The kinds of lists.
const (
	ArraysJSON   Arrays = "json"   // its key has it as JSON
	ArraysIndex  Arrays = "index"  // a key for each element: 0, 1, …
	ArraysIgnore Arrays = "ignore" // nothing, as git2consul does
)

// Repo is one repository, and what becomes of it.
type Repo struct {
	Name   string
	Remote remote.Options

	Branches []string // names, or patterns as path.Match has them, whose * stops at a slash
	Tags     []string // the same, of tags

	Mode       Mode   // empty: Atomic
	Mountpoint string // where its keys begin
	SourceRoot string // the directory that is taken; empty: all
	// The prefix is <mountpoint>/<name>/<branch>; these leave parts of it out.
	OmitName, OmitBranch bool

	Expand           bool   // JSON, YAML and properties files become a key for each value
	Arrays           Arrays // empty: ArraysJSON
	OmitExtension    bool   // of files that are expanded
	CommonProperties string // a file whose properties others may use as ${name}
	KeepSpace        bool   // else white space around a file's content goes, as git2consul does
	Exclude          []string

	Keep          int  // trees to keep, the current one included; 0: 5
	RemoveDeleted bool // remove the keys of a branch or tag that is gone

	Poll  time.Duration // 0: a minute
	Hooks []Hook
}

// Options of New.
type Options struct {
	Coord interface {
		coord.KV
		coord.Leases
	}
	Name   string // of this set of repositories; all who serve it use the same. Empty: git
	Holder string // who this is, for others to see
	Repos  []Repo
	// Root is where the ledgers are kept; empty: drover/git
	Root string
	// TTL of the writer's lease; 0: 15 s.
	TTL time.Duration
	// Compare is how often keys are compared with Git though no commit came; 0: 5 minutes.
	Compare time.Duration
	// Timeout of one look at a repository and all that follows; 0: 5 minutes.
	Timeout time.Duration
	Log     *slog.Logger // nil: nothing is logged
	Events  *event.Bus   // nil: nobody is told
}

// Syncer does it. See New.
type Syncer struct {
	o       Options
	workers []*worker
	hooks   map[string]*hook // by path
	places  places
	status  board
	steps   steps
	relay   chan struct{} // something was poked; capacity 1
}

// New checks the options and starts nothing.
func New(o Options) (*Syncer, error) {
	def(&o.Name, "git")
	def(&o.Root, "drover/git")
	def(&o.TTL, 15*time.Second)
	def(&o.Compare, 5*time.Minute)
	def(&o.Timeout, 5*time.Minute)
	if o.Holder == "" {
		o.Holder = rand.Text()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Coord == nil {
		return nil, errors.New("there is no coordinator")
	}
	if o.Coord.MaxOps() < 2 {
		return nil, fmt.Errorf("the coordinator has no transactions: %w", coord.ErrUnsupported)
	}
	s := &Syncer{o: o, hooks: map[string]*hook{}, relay: make(chan struct{}, 1)}
	for _, r := range o.Repos {
		w, err := s.newWorker(r)
		if err != nil {
			return nil, fmt.Errorf("repository %q: %w", r.Name, err)
		}
		if slices.ContainsFunc(s.workers, func(other *worker) bool { return other.repo.Name == r.Name }) {
			return nil, fmt.Errorf("there are two repositories %q", r.Name)
		}
		s.workers = append(s.workers, w)
	}
	return s, nil
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (s *Syncer) newWorker(r Repo) (*worker, error) {
	def(&r.Mode, Atomic)
	def(&r.Arrays, ArraysJSON)
	def(&r.Keep, 5)
	def(&r.Poll, time.Minute)
	r.SourceRoot = strings.Trim(r.SourceRoot, "/")
	if err := r.check(); err != nil {
		return nil, err
	}
	source, err := remote.New(r.Remote)
	if err != nil {
		return nil, err
	}
	w := &worker{s: s, repo: r, source: source, wake: make(chan struct{}, 1)}
	for _, h := range r.Hooks {
		def(&h.Path, "/"+r.Name+"/"+string(h.Type))
		if err := h.check(); err != nil {
			return nil, err
		}
		if s.hooks[h.Path] != nil {
			return nil, fmt.Errorf("there are two web hooks at %s", h.Path)
		}
		s.hooks[h.Path] = &hook{Hook: h, worker: w}
	}
	return w, nil
}

func (r Repo) check() error {
	for _, part := range []struct{ what, value string }{{"name", r.Name}, {"mountpoint", r.Mountpoint}} {
		if part.value == "" && part.what == "mountpoint" {
			continue
		}
		if err := checkKey(part.value); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	if r.Mode != Atomic && r.Mode != InPlace {
		return fmt.Errorf("there is no mode %q", r.Mode)
	}
	if !slices.Contains([]Arrays{ArraysJSON, ArraysIndex, ArraysIgnore}, r.Arrays) {
		return fmt.Errorf("lists become nothing that is called %q", r.Arrays)
	}
	if len(r.Branches)+len(r.Tags) == 0 {
		return errors.New("no branch and no tag is wanted")
	}
	for _, p := range slices.Concat(r.Branches, r.Tags, r.Exclude) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	if many := len(r.Branches)+len(r.Tags) > 1 || strings.ContainsAny(strings.Join(slices.Concat(r.Branches, r.Tags), ""), `*?[\`); many && r.OmitBranch {
		return errors.New("several branches would have the same keys: keep the branch in their names")
	}
	return nil
}

// errKey: a name cannot be a key.
var errKey = errors.New("it can be no key")

// checkKey says whether something can be a key, or begin one, with every coordinator.
func checkKey(key string) error {
	if err := coord.CheckKey(key); err != nil {
		return fmt.Errorf("%w: %w", errKey, err)
	}
	if strings.HasSuffix(key, "/") {
		return fmt.Errorf("%w: %q ends with a slash", errKey, key)
	}
	return nil
}

// prefix is where the keys of a branch or tag begin; it may be empty.
func (r Repo) prefix(ref string) string {
	parts := []string{}
	if r.Mountpoint != "" {
		parts = append(parts, r.Mountpoint)
	}
	if !r.OmitName {
		parts = append(parts, r.Name)
	}
	if !r.OmitBranch {
		parts = append(parts, short(ref))
	}
	return strings.Join(parts, "/")
}

// short is a ref's name without refs/heads/ or refs/tags/.
func short(ref string) string {
	name, ok := strings.CutPrefix(ref, headsPrefix)
	if !ok {
		name = strings.TrimPrefix(ref, tagsPrefix)
	}
	return name
}

const (
	headsPrefix = "refs/heads/"
	tagsPrefix  = "refs/tags/"
)

// wants says whether the repository's keys are made from a ref.
func (r Repo) wants(ref string) bool {
	patterns, name := r.Branches, strings.TrimPrefix(ref, headsPrefix)
	if tag, ok := strings.CutPrefix(ref, tagsPrefix); ok {
		patterns, name = r.Tags, tag
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name) // New has checked the pattern
		return ok || p == name
	})
}

// below joins a prefix, which may be empty, and a key.
func below(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "/" + key
}
