package config

import (
	"fmt"
	"time"
)

// minUpkeepGrace is what readers without a lock need to end, or to look again.
const minUpkeepGrace = Duration(time.Minute)

func (c *Config) checkUpkeep() error {
	u := c.Upkeep
	switch {
	case u.Every != 0 && u.Every < MinTTL:
		return c.origin.at("upkeep.every", fmt.Sprintf("upkeep interval %s is too short", u.Every), "write 1s or more, or 0 for no upkeep")
	case u.Grace < minUpkeepGrace:
		return c.origin.at("upkeep.grace", fmt.Sprintf("grace %s is too short", u.Grace), "write 1m or more")
	}
	for _, rule := range []struct {
		path string
		n    int
	}{
		{"keep.last", u.Keep.Last}, {"keep.hourly", u.Keep.Hourly}, {"keep.daily", u.Keep.Daily}, {"keep.weekly", u.Keep.Weekly},
		{"keep.monthly", u.Keep.Monthly}, {"keep.yearly", u.Keep.Yearly}, {"diverged.last", u.Diverged.Last},
	} {
		if rule.n < 0 {
			return c.origin.at("upkeep."+rule.path, fmt.Sprintf("cannot keep %d", rule.n), "write a number of 1 or more, or 0 for no such rule")
		}
	}
	return nil
}
