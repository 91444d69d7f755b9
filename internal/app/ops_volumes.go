package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// Volumes names the volumes that there are in the store, whatever their passwords.
func (o *Ops) Volumes(ctx context.Context) ([]string, error) {
	st, err := o.store(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{}
	err = objstore.Folders(ctx, st, func(name string) error {
		if config.IsVolumeName(name) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	slices.Sort(names)
	volumes := []string{}
	for _, name := range names {
		switch ours, err := volume.Exists(ctx, objstore.WithPrefix(st, name)); {
		case err != nil:
			return nil, err
		case ours:
			volumes = append(volumes, name)
		}
	}
	return volumes, nil
}

// Status reads the head: what is known of the volume where no agent answers.
func (o *Ops) Status(ctx context.Context) (client.Status, error) {
	v, err := o.open(ctx)
	if err != nil {
		return client.Status{}, err
	}
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return client.Status{}, err
	}
	s := client.Status{
		Service: o.cfg.Service, Volume: o.cfg.Volume, Instance: o.cfg.ID, Version: Version,
		Role: "none", Health: "ok", Message: "no agent answers here: read from the store",
	}
	headStatus(&s, seen.Head)
	last, err := v.LastRestoreTest(ctx)
	if err != nil {
		o.log.Warn("status", "err", err)
	}
	if s.RestoreTest = restoreTestOf(last); last != nil && last.Passed {
		s.RTO = &last.Restore
	}
	written, err := v.HeadWritten(ctx)
	if err != nil {
		return client.Status{}, err
	}
	silent := silence(seen.Head, time.Since(written))
	for _, bad := range []string{silent, restoreTestHealth(s.RestoreTest)} {
		if bad != "" {
			s.Health, s.Message = "degraded", bad
			break
		}
	}
	return s, nil
}

// clocksApart is by how much the store's clock and ours may differ before a living
// holder is called silent. It is for people: nothing is decided by it.
const clocksApart = time.Minute

// silence says that a holder has not renewed for long; "" if it has, or there is none.
func silence(h protocol.Head, age time.Duration) string {
	if h.State != protocol.Held || age < max(3*time.Duration(h.TTL), clocksApart) {
		return ""
	}
	return fmt.Sprintf("%s holds it, and has been silent for %s: nobody takes over", h.Holder.ID, age.Round(time.Second))
}

// StatusOf is what Status tells of a volume that could not be read.
func StatusOf(cfg *config.Config, err error) client.Status {
	s := client.Status{Service: cfg.Service, Volume: cfg.Volume, Instance: cfg.ID, Version: Version, Role: "none"}
	s.Health, s.Message = "failed", err.Error()
	if errors.Is(err, ErrNoRepository) {
		s.Health, s.Message = "ok", "not made yet"
	}
	return s
}
