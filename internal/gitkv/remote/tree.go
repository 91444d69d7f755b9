package remote

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The modes of entries of a tree.
const (
	modeDir       = 0o040000
	modeLink      = 0o120000
	modeSubmodule = 0o160000
)

// maxDepth bounds how deep directories may be.
const maxDepth = 64

func content(all objects, kind plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	o, ok := all[h]
	if !ok || o.Type() != kind {
		return nil, fmt.Errorf("the pack lacks %s %s", kind, h)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

// files lists the files of a commit.
func (r *Remote) files(all objects, commit plumbing.Hash, want func(string) bool) (Snapshot, error) {
	data, err := content(all, plumbing.CommitObject, commit)
	if err != nil {
		return Snapshot{}, err
	}
	root, err := treeOf(data)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read commit %s: %w", commit, err)
	}
	w := walk{all: all, want: want, limits: r.o.Limits, snapshot: Snapshot{Commit: commit.String()}}
	if err := w.tree(root, "", 0); err != nil {
		return Snapshot{}, err
	}
	slices.SortFunc(w.snapshot.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return w.snapshot, nil
}

// treeOf reads which tree a commit has: its first line says so.
func treeOf(commit []byte) (plumbing.Hash, error) {
	line, _, _ := bytes.Cut(commit, []byte("\n"))
	text, ok := bytes.CutPrefix(line, []byte("tree "))
	var h plumbing.Hash
	if !ok || len(text) != 2*len(h) {
		return h, errors.New("it names no tree")
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return h, errors.New("it names no tree")
	}
	return h, nil
}

type walk struct {
	all      objects
	want     func(string) bool
	limits   Limits
	seen     int   // entries
	bytes    int64 // of files: the same content may be there many times
	snapshot Snapshot
}

func (w *walk) tree(h plumbing.Hash, dir string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are more than %d deep: %w", maxDepth, errTooMuch)
	}
	data, err := content(w.all, plumbing.TreeObject, h)
	if err != nil {
		return err
	}
	return entries(data, func(mode uint32, name string, h plumbing.Hash) error {
		if w.seen++; w.seen > w.limits.Files {
			return fmt.Errorf("the commit has more than %d files: %w", w.limits.Files, errTooMuch)
		}
		path := dir + name
		switch mode {
		case modeDir:
			return w.tree(h, path+"/", depth+1)
		case modeLink:
			w.skip(path, "a symbolic link")
		case modeSubmodule:
			w.skip(path, "a submodule")
		default:
			return w.file(path, h)
		}
		return nil
	})
}

func (w *walk) skip(path, why string) {
	if w.want(path) {
		w.snapshot.Skipped = append(w.snapshot.Skipped, Skipped{path, why})
	}
}

func (w *walk) file(path string, h plumbing.Hash) error {
	if !w.want(path) {
		return nil
	}
	o, ok := w.all[h]
	if !ok || o.Size() > w.limits.File { // the server left out what is too large
		return fmt.Errorf("%q has more than %d bytes: %w", path, w.limits.File, errTooMuch)
	}
	if w.bytes += o.Size(); w.bytes > w.limits.Total {
		return fmt.Errorf("the commit's files have more than %d bytes: %w", w.limits.Total, errTooMuch)
	}
	data, err := content(w.all, plumbing.BlobObject, h)
	if err != nil {
		return err
	}
	w.snapshot.Files = append(w.snapshot.Files, File{path, data})
	return nil
}

// entries reads a tree: mode in octal, a space, a name, a zero byte, 20 bytes of hash; and again.
func entries(tree []byte, fn func(mode uint32, name string, h plumbing.Hash) error) error {
	for len(tree) > 0 {
		digits, rest, ok := bytes.Cut(tree, []byte(" "))
		if !ok || len(digits) > 6 {
			return errors.New("read a tree: an entry without a mode")
		}
		mode, err := strconv.ParseUint(string(digits), 8, 32)
		if err != nil {
			return errors.New("read a tree: an entry without a mode")
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		var h plumbing.Hash
		if !ok || len(rest) < len(h) {
			return errors.New("read a tree: it ends early")
		}
		if n := string(name); n == "" || n == "." || n == ".." || strings.Contains(n, "/") {
			return fmt.Errorf("read a tree: %q is no name", n)
		}
		copy(h[:], rest)
		tree = rest[len(h):]
		if err := fn(uint32(mode), string(name), h); err != nil {
			return err
		}
	}
	return nil
}
