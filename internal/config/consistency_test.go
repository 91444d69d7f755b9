package config

import (
	"strings"
	"testing"
	"time"
)

func TestConsistency(t *testing.T) {
	c, err := Load(sources(t, "", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Backup.Consistency != ConsistencyFreeze || c.Backup.FreezeLimit.Std() != time.Second {
		t.Errorf("got %+v", c.Backup)
	}
	c, err = Load(sources(t, `
backup:
  consistency: hook
  quiesce: {command: [app, pause, 5]}
  resume: {command: "app resume", timeout: 1m}
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	b := c.Backup
	if strings.Join(b.Quiesce.Command, "|") != "app|pause|5" || b.Quiesce.Timeout != DefaultHook ||
		strings.Join(b.Resume.Command, "|") != "/bin/sh|-c|app resume" || b.Resume.Timeout.Std() != time.Minute {
		t.Errorf("got %+v", b)
	}
	c, err = Load(sources(t, "", map[string]string{"DROVER_CONSISTENCY": "live"}, nil))
	if err != nil || c.Backup.Consistency != ConsistencyLive {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestConsistencyErrors(t *testing.T) {
	for file, want := range map[string]string{
		"backup: {consistency: frozen}":                                                     "is not one of freeze, hook, live",
		"backup: {freeze_limit: 0}":                                                         "out of range",
		"backup: {freeze_limit: 2m}":                                                        "out of range",
		"backup: {consistency: hook, quiesce: {command: [a]}}":                              "backup.resume has no command",
		"backup: {quiesce: {command: [a]}}":                                                 "consistency is freeze",
		"backup: {consistency: live, resume: {command: a}}":                                 "consistency is live",
		"backup: {quiesce: {timeout: 0}}":                                                   "has no time",
		"backup: {consistency: hook, quiesce: {command: a}, resume: {command: [\"a\\0\"]}}": "zero byte",
	} {
		if _, err := Load(sources(t, file, nil, nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
}
