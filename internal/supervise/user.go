package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// User is whom a job runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// ResolveUser looks up a user and a group, each by name or number. Without a
// group it is the user's own, with its supplementary groups. Both empty: nil,
// the agent's own.
func ResolveUser(name, group string) (*User, error) {
	if name == "" && group == "" {
		return nil, nil
	}
	u := &User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if name != "" {
		if err := u.lookUp(name, group == ""); err != nil {
			return nil, err
		}
	}
	if group != "" {
		gid, err := groupID(group)
		if err != nil {
			return nil, err
		}
		u.GID = gid
		if len(u.Groups) == 0 {
			u.Groups = []uint32{gid}
		}
	}
	return u, nil
}

func (u *User) lookUp(name string, needGroup bool) error {
	entry, err := user.Lookup(name)
	if err != nil {
		uid, notNumber := strconv.ParseUint(name, 10, 32)
		if notNumber != nil {
			return fmt.Errorf("look up user %s: %w", name, err)
		}
		if entry, err = user.LookupId(name); err != nil {
			if needGroup {
				return fmt.Errorf("user %s has no entry in /etc/passwd: name a group too", name)
			}
			u.UID = uint32(uid)
			return nil
		}
	}
	uid, err1 := strconv.ParseUint(entry.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(entry.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("look up user %s: %w", name, err)
	}
	u.UID, u.GID = uint32(uid), uint32(gid)
	ids, err := entry.GroupIds()
	if err != nil {
		return fmt.Errorf("look up the groups of user %s: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			u.Groups = append(u.Groups, uint32(n))
		}
	}
	return nil
}

func groupID(name string) (uint32, error) {
	id := name
	if entry, err := user.LookupGroup(name); err == nil {
		id = entry.Gid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("look up group %s: no such group", name)
	}
	return uint32(n), nil
}

// credential is nil where there is nothing to change, which an unprivileged
// agent could not do.
// Credential is what a process of the user is started with; nil: nothing is to change.
func (u *User) Credential() *syscall.Credential {
	if u == nil || os.Geteuid() != 0 && int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid() {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}
