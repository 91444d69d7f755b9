package localfs

import (
	"os/user"
	"strconv"
	"sync"

	"drover/internal/repo/format"
)

// Owners finds the names of users and groups, each once.
type Owners struct {
	users  sync.Map // uint32 → string
	groups sync.Map
}

// Name sets the names of n's owner; an unknown one stays empty.
func (o *Owners) Name(n *format.Node) {
	n.User = cached(&o.users, n.UID, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return ""
	})
	n.Group = cached(&o.groups, n.GID, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return ""
	})
}

func cached(m *sync.Map, id uint32, lookup func(string) string) string {
	if name, ok := m.Load(id); ok {
		return name.(string)
	}
	name := lookup(strconv.FormatUint(uint64(id), 10))
	m.Store(id, name)
	return name
}
