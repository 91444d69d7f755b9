package restore

import (
	"bytes"
	"errors"
	"slices"

	"drover/internal/repo/format"
)

// errBase ends a restore upon a base that turns out not to be what is there, or not to
// help; it is done again without one.
var errBase = errors.New("the files are not those of the base")

// trees are those of one directory: in the snapshot, and in the base.
type trees struct {
	id   format.ID
	base *format.ID // nil: none
}

// baseNodes are the entries of a directory in the base, by name. A base that is gone
// from the repository helps no more.
func baseNodes(data []byte) (map[string]*format.Node, error) {
	if data == nil {
		return nil, nil
	}
	nodes, err := format.DecodeTree(data)
	if err != nil {
		return nil, err
	}
	m := make(map[string]*format.Node, len(nodes))
	for i := range nodes {
		m[nodes[i].Name] = &nodes[i]
	}
	return m, nil
}

// known reports whether an entry is on the disk already, with all that is below it.
func known(n, base *format.Node) bool {
	if base == nil || !sameMetadata(n, base) || !sameContent(n, base) {
		return false
	}
	if n.Type == format.NodeDir {
		return n.Subtree != nil && base.Subtree != nil && *n.Subtree == *base.Subtree
	}
	return n.Links == base.Links && (n.Links < 2 || n.Inode == base.Inode && n.DeviceID == base.DeviceID)
}

// sameMetadata compares what a restore sets; the rest is the capturing machine's.
func sameMetadata(a, b *format.Node) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.ModTime.Equal(b.ModTime) &&
		a.UID == b.UID && a.GID == b.GID && a.User == b.User && a.Group == b.Group &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y format.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

func sameContent(a, b *format.Node) bool {
	return a.Size == b.Size && a.LinkTarget == b.LinkTarget && a.Device == b.Device && slices.Equal(a.Content, b.Content)
}

// skip reports whether an entry of d need not be looked at, and notes it. Names of a
// file with several may be in directories that are not looked at: a change of one of
// them needs all.
func (a *run) skip(d *directory, n *format.Node, base map[string]*format.Node) (bool, error) {
	switch {
	case !a.delta:
		return false, nil
	case d.managed && known(n, base[n.Name]):
		d.known = append(d.known, n.Name)
		return true, nil
	case n.Type == format.NodeFile && n.Links > 1:
		return false, errBase
	}
	return false, nil
}
