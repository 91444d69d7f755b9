package app

import (
	"log/slog"

	"drover/client"
	"drover/internal/config"
	"drover/internal/repo"
	"drover/internal/volume"
)

// newUpkeep returns nil if the configuration wants none.
func newUpkeep(cfg *config.Config, rt *volume.Runtime, paused func() bool, log *slog.Logger) *volume.Upkeep {
	u := cfg.Upkeep
	if u.Every == 0 {
		return nil
	}
	return volume.NewUpkeep(rt, volume.UpkeepOptions{
		Every: u.Every.Std(), Grace: u.Grace.Std(), Paused: paused, Log: log,
		Keep: volume.Retention{
			Committed: policyOf(u.Keep),
			Diverged:  repo.Policy{Last: u.Diverged.Last, Within: u.Diverged.Within.Std()},
		},
	})
}

func policyOf(k config.Keep) repo.Policy {
	return repo.Policy{
		Last: k.Last, Hourly: k.Hourly, Daily: k.Daily, Weekly: k.Weekly,
		Monthly: k.Monthly, Yearly: k.Yearly, Within: k.Within.Std(),
	}
}

// upkeepOf tells the figures as the API does.
func upkeepOf(s volume.UpkeepStats) *client.Upkeep {
	out := &client.Upkeep{
		Last: s.Last, Removed: s.Removed, Condemned: s.Condemned, Deleted: s.Deleted,
		Freed: s.Freed, Waiting: s.Waiting, Waits: s.Waits, DamagedCount: s.DamagedCount,
	}
	for _, d := range s.Damaged {
		out.Damaged = append(out.Damaged, client.DamagedSnapshot(d))
	}
	if s.Problem != nil {
		out.Error = s.Problem.Error()
	}
	return out
}
