package config

import (
	"strings"
	"testing"
	"time"
)

func TestUpkeep(t *testing.T) {
	c, err := Load(sources(t, "upkeep: {every: 30m, keep: {daily: 7, within: 2d}, diverged: {last: 3}}", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	u := c.Upkeep
	if u.Every.Std() != 30*time.Minute || u.Grace.Std() != time.Hour || u.Keep.Daily != 7 || u.Keep.Within.Std() != 48*time.Hour || u.Diverged.Last != 3 {
		t.Errorf("%+v", u)
	}
	for file, want := range map[string]string{
		"upkeep: {every: 1ms}":           "too short",
		"upkeep: {grace: 1s}":            "too short",
		"upkeep: {keep: {daily: -1}}":    "cannot keep -1",
		"upkeep: {diverged: {last: -2}}": "cannot keep -2",
		"upkeep: {keep: {dayly: 1}}":     "dayly",
	} {
		if _, err := Load(sources(t, file, nil, nil)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":1:") {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}
