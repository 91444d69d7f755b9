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
	if u.Diverged.Last < 0 {
		return c.negative("upkeep.diverged.last", u.Diverged.Last)
	}
	return c.checkKeep("upkeep.keep.", u.Keep)
}

func (c *Config) checkKeep(at string, k Keep) error {
	for _, rule := range []struct {
		name string
		n    int
	}{
		{"last", k.Last}, {"hourly", k.Hourly}, {"daily", k.Daily}, {"weekly", k.Weekly}, {"monthly", k.Monthly}, {"yearly", k.Yearly},
	} {
		if rule.n < 0 {
			return c.negative(at+rule.name, rule.n)
		}
	}
	return nil
}

func (c *Config) negative(path string, n int) error {
	return c.origin.at(path, fmt.Sprintf("cannot keep %d", n), "write a number of 1 or more, or 0 for no such rule")
}
