package format

import (
	"errors"
	"fmt"
)

// ErrTreeOrder: the nodes of a tree are not in strictly ascending order of
// their names, so two of them may have the same one.
var ErrTreeOrder = errors.New("nodes are not ordered or have the same name")

// Entry is a node of a tree that was not decoded beyond its name.
type Entry struct {
	Name string
	Raw  []byte // the node's JSON; a part of the tree's bytes
}

// TreeBuilder encodes a directory's nodes, which come in ascending order of
// their names (by bytes).
type TreeBuilder struct {
	buf  []byte
	last string
}

const treeHead, treeTail = `{"nodes":[`, "]}\n"

// NewTreeBuilder returns a builder that appends to buf[:0].
func NewTreeBuilder(buf []byte) *TreeBuilder {
	return &TreeBuilder{buf: append(buf[:0], treeHead...)}
}

// Add appends n.
func (t *TreeBuilder) Add(n *Node) error {
	if err := t.next(n.Name); err != nil {
		return err
	}
	t.buf = n.AppendJSON(t.buf)
	return nil
}

// AddRaw appends an entry as it is.
func (t *TreeBuilder) AddRaw(e Entry) error {
	if err := t.next(e.Name); err != nil {
		return err
	}
	t.buf = append(t.buf, e.Raw...)
	return nil
}

func (t *TreeBuilder) next(name string) error {
	if name <= t.last {
		return fmt.Errorf("add %.100q after %.100q: %w", name, t.last, ErrTreeOrder)
	}
	if t.last != "" {
		t.buf = append(t.buf, ',')
	}
	t.last = name
	return nil
}

// Finish returns the tree blob's bytes. The builder must not be used again.
func (t *TreeBuilder) Finish() []byte { return append(t.buf, treeTail...) }

// SplitTree returns the entries of a tree blob without decoding more of them
// than the name. Names are checked, and that they ascend.
func SplitTree(data []byte) ([]Entry, error) {
	var entries []Entry
	err := eachNode(data, func(s *scanner) error {
		s.space()
		start := s.i
		name, err := s.nodeName()
		if err != nil {
			return err
		}
		entries = append(entries, Entry{Name: string(name), Raw: s.b[start:s.i]})
		return nil
	}, func(i int) string { return entries[i].Name })
	if err != nil {
		return nil, fmt.Errorf("split tree: %w", err)
	}
	return entries, nil
}

// DecodeTree returns the nodes of a tree blob. Names are checked, and that
// they ascend.
func DecodeTree(data []byte) ([]Node, error) {
	var nodes []Node
	err := eachNode(data, func(s *scanner) error {
		nodes = append(nodes, Node{})
		return s.node(&nodes[len(nodes)-1])
	}, func(i int) string { return nodes[i].Name })
	if err != nil {
		return nil, fmt.Errorf("decode tree: %w", err)
	}
	return nodes, nil
}

// eachNode calls read at each node of a tree; name gives the name of the i-th
// node that was read.
func eachNode(data []byte, read func(*scanner) error, name func(i int) string) error {
	s := &scanner{b: data}
	count := 0
	item := func() error {
		if err := read(s); err != nil {
			return fmt.Errorf("node %d: %w", count, err)
		}
		if count > 0 && name(count) <= name(count-1) {
			return fmt.Errorf("node %d, %.100q: %w", count, name(count), ErrTreeOrder)
		}
		count++
		return nil
	}
	seen := false
	err := s.object(func(key []byte) error {
		if string(key) != "nodes" {
			_, err := s.value()
			return err
		}
		if seen {
			return errors.New("two lists of nodes")
		}
		seen = true
		if s.null() {
			return nil
		}
		return s.list(item)
	})
	if err != nil {
		return err
	}
	if s.space(); s.i != len(s.b) {
		return errors.New("bytes follow the tree")
	}
	if !seen {
		return errors.New("no list of nodes")
	}
	return nil
}

// nodeName consumes a whole node and returns its name.
func (s *scanner) nodeName() (name []byte, err error) {
	err = s.object(func(key []byte) (err error) {
		if string(key) == "name" {
			name, err = s.name()
			return err
		}
		_, err = s.value()
		return err
	})
	if err != nil {
		return nil, err
	}
	return name, CheckName(string(name))
}
