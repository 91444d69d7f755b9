package app

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/postgres"
)

// rollPatience is how long a server that is restarted unasked may take to be what it was.
const rollPatience = 5 * time.Minute

// parameters are those that the server gets.
func parameters(cfg *config.Config) map[string]string {
	if cfg.BacksUpDatabase() {
		return archived(cfg.Database.Parameters)
	}
	return cfg.Database.Parameters
}

// placed says where in the configuration it stands what the server cannot use.
func placed(cfg *config.Config, err error) error {
	var bad *postgres.SettingError
	if errors.As(err, &bad) {
		return cfg.At("database."+bad.Key, bad.Why)
	}
	return err
}

// checkParameters asks the server's program whether it takes what is configured.
func (m *member) checkParameters(ctx context.Context, cfg *config.Config) error {
	return placed(cfg, m.driver.CheckParameters(ctx, parameters(cfg)))
}

// reparameter gives the database's server its parameters and lines of pg_hba.conf of a new configuration, if they are others: it returns
// what has changed, and what brings the former back.
func (a *agent) reparameter(ctx context.Context, cfg *config.Config) (changed []string, back func(), err error) {
	back = func() {}
	if a.member == nil {
		return nil, back, nil
	}
	m := a.member
	changed = differing(parameters(m.given), parameters(cfg))
	if !slices.Equal(m.given.Database.HBA, cfg.Database.HBA) {
		changed = append(changed, "hba")
	}
	if len(changed) == 0 {
		m.given = cfg
		return nil, back, nil
	}
	if err := m.checkParameters(ctx, cfg); err != nil {
		return nil, back, refused(client.KindInvalid, "the new configuration is not valid, and nothing was changed: %v", err)
	}
	give := func(ctx context.Context, cfg *config.Config) error {
		run, err := a.cluster()
		if err != nil {
			return err
		}
		return run.Alone(ctx, func(ctx context.Context) error {
			return m.driver.Reconfigure(ctx, parameters(cfg), cfg.Database.HBA)
		})
	}
	switch err := give(ctx, cfg); {
	case errors.As(err, new(*database.Refused)), errors.As(err, new(*client.Error)):
		return nil, back, explainedOrder(err)
	case err != nil:
		return nil, back, refused(client.KindInvalid, "the database's server does not take it, and has what it had: %v", placed(cfg, err))
	}
	former := m.given
	m.given = cfg
	a.log.Info("database: the server has other parameters", "changed", changed)
	return changed, func() {
		m.given = former
		if err := give(context.WithoutCancel(ctx), former); err != nil {
			a.log.Error("database: the former parameters", "err", err)
		}
	}, nil
}

// differing are the names of parameters that are not the same, sorted.
func differing(a, b map[string]string) []string {
	names := map[string]bool{}
	for _, pair := range [][2]map[string]string{{a, b}, {b, a}} {
		for name, value := range pair[0] {
			if other, ok := pair[1][name]; !ok || other != value {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// pendingParameters are those of the database's server that a restart would change.
func (a *agent) pendingParameters(ctx context.Context) []string {
	if a.member == nil {
		return nil
	}
	s, err := a.member.driver.Status(ctx)
	if err != nil {
		return nil // it does not run, or drover members shows them soon
	}
	return s.Pending
}
