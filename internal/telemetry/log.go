// Package telemetry sets up the agent's log.
//
// It promises one line an event, in text for people or in JSON for machines, with
// times in UTC to the millisecond. It leaves to others what is said, and to
// config.Secret that no secret is in it.
package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger writes events of level and above to w; json says how.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	if json {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: forPeople}))
}

// shortTime makes the event's own time comparable between machines, and short.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 || a.Key != slog.TimeKey || a.Value.Kind() != slog.KindTime {
		return a
	}
	return slog.String(slog.TimeKey, a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
}

// forPeople leaves out what says nothing, too.
func forPeople(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindString && a.Value.String() == "" {
		return slog.Attr{}
	}
	return shortTime(groups, a)
}
