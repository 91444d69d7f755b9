package archive

import (
	"path/filepath"
	"strings"
)

// ChangedSet names what may have changed since the parent.
type ChangedSet struct {
	// Paths were created, changed or removed. A file is read even if it looks
	// unchanged. Of a directory the list of entries is compared, not what is in
	// its subdirectories.
	Paths []string
	// Trees are directories of which nothing is known: all below is looked at.
	Trees []string
	// All looks at everything, and reads the files in Paths in any case.
	All bool
}

// hint says what to look at below one directory. The nil hint says: everything.
type hint struct {
	self     bool // the entry itself was named
	deep     bool // everything below is looked at
	children map[string]*hint
}

func newHints(c *ChangedSet) *hint {
	top := new(hint)
	for _, path := range c.Paths {
		top.add(path, false)
	}
	for _, path := range c.Trees {
		top.add(path, true)
	}
	return top
}

func forcedHints(c *ChangedSet) *hint {
	top := newHints(c)
	top.deep = true
	return top
}

func (h *hint) add(path string, deep bool) {
	path = strings.TrimPrefix(filepath.Clean(path), "/")
	if path != "" {
		for name := range strings.SplitSeq(path, "/") {
			if h.children == nil {
				h.children = make(map[string]*hint)
			}
			next := h.children[name]
			if next == nil {
				next = new(hint)
				h.children[name] = next
			}
			h = next
		}
	}
	h.self = true
	h.deep = h.deep || deep
}

// partial reports whether there may be something that need not be looked at.
func (h *hint) partial() bool { return h != nil && !h.deep }

// child is the hint for an entry; nil with a partial h means that it need not be
// looked at.
func (h *hint) child(name string) *hint {
	if h == nil {
		return nil
	}
	c := h.children[name]
	if c == nil || !h.deep {
		return c
	}
	return forced(c)
}

// forced is h, but looking at everything below.
func forced(h *hint) *hint {
	if h == nil || h.deep {
		return h
	}
	return &hint{self: h.self, deep: true, children: h.children}
}

// forces reports whether a file must be read whatever it looks like.
func (h *hint) forces() bool { return h != nil && h.self }
