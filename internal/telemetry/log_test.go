package telemetry

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	var out strings.Builder
	log := NewLogger(&out, slog.LevelInfo, false)
	log.Debug("not this")
	log.Info("committed", "seq", 7, "reason", "", "error", "two\nlines", slog.Group("at", "time", time.Duration(5)))
	want := regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO msg=committed seq=7 error="two\\nlines" at.time=5ns\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got %q", out.String())
	}
}

func TestJSON(t *testing.T) {
	var out strings.Builder
	NewLogger(&out, slog.LevelWarn, true).Error("lost", "epoch", 3)
	var event struct {
		Time       time.Time
		Level, Msg string
		Epoch      int
	}
	if err := json.Unmarshal([]byte(out.String()), &event); err != nil || event.Level != "ERROR" || event.Msg != "lost" || event.Epoch != 3 || event.Time.IsZero() {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
