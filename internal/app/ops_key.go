package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"drover/internal/config"
	"drover/internal/repo/format"
)

// Key is one key file of the volume: one password.
type Key struct {
	ID       string    `json:"id"`
	Current  bool      `json:"current"` // of the password that this command was given
	Username string    `json:"username"`
	Hostname string    `json:"hostname"`
	Created  time.Time `json:"created"`
}

// Keys lists the key files.
func (o *Ops) Keys(ctx context.Context) ([]Key, error) {
	v, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	infos, err := v.Repo.ListKeys(ctx)
	if err != nil {
		return nil, err
	}
	list := []Key{}
	for _, k := range infos {
		list = append(list, Key{ID: k.ID.String(), Current: k.Current, Username: k.Username, Hostname: k.Hostname, Created: k.Created})
	}
	return list, nil
}

// AddKey makes another password open the volume, too, and returns its key's id.
func (o *Ops) AddKey(ctx context.Context, password config.Secret) (string, error) {
	v, err := o.open(ctx)
	if err != nil {
		return "", err
	}
	id, err := v.AddKey(ctx, password.Reveal())
	return id.String(), err
}

// ReplaceKey makes another password open the volume instead of the one in use.
func (o *Ops) ReplaceKey(ctx context.Context, password config.Secret) (string, error) {
	v, err := o.open(ctx)
	if err != nil {
		return "", err
	}
	id, err := v.ReplaceKey(ctx, password.Reveal())
	return id.String(), err
}

// RemoveKey removes the key whose id begins with name, and returns the id.
func (o *Ops) RemoveKey(ctx context.Context, name string) (string, error) {
	v, err := o.open(ctx)
	if err != nil {
		return "", err
	}
	infos, err := v.Repo.ListKeys(ctx)
	if err != nil {
		return "", err
	}
	var found []format.ID
	for _, k := range infos {
		if name != "" && strings.HasPrefix(k.ID.String(), name) {
			found = append(found, k.ID)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("find key %.80q: %d keys have an id that begins so; see `drover key list`", name, len(found))
	}
	return found[0].String(), v.RemoveKey(ctx, found[0])
}
