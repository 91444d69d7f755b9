package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

// atValue is a flag that names a moment.
type atValue struct {
	now   func() time.Time
	given bool
	time.Time
	// text is what was given. If it is kept, what is no time is an error only for who asks for one.
	text string
	keep bool
	err  error
}

// Set reads what parseMoment reads.
func (v *atValue) Set(text string) (err error) {
	v.text = text
	v.Time, v.err = parseMoment(text, v.now())
	v.given = v.err == nil
	if v.keep {
		return nil
	}
	return v.err
}

// Type is what help shows for the value.
func (v *atValue) Type() string { return "TIME" }

func (v *atValue) String() string {
	if !v.given {
		return ""
	}
	return v.Format(time.RFC3339)
}

// parseMoment reads a moment in RFC 3339, in local time, or as how long ago it was.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{momentLayout, "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	var ago app.Duration
	if err := ago.UnmarshalText([]byte(text)); err != nil {
		return time.Time{}, usageError{quoted(text) + " is not a time", `write one as in "2026-01-31 15:04", 2026-01-31T15:04:05Z, or how long ago: 2h, 3d`}
	}
	return now.Add(-ago.Std()), nil
}

// addAt gives a command --at.
func (s *session) addAt(cmd *cobra.Command) *atValue {
	at := &atValue{now: s.Now}
	cmd.Flags().Var(at, "at", "take the newest committed snapshot of this moment, or of so long ago")
	return at
}

// choose is the snapshot that a command line means: by its name, by a moment, or
// else the newest committed one. For a moment it says on stderr which one that is.
func (s *session) choose(ctx context.Context, o operations, name string, at *atValue) (string, error) {
	switch {
	case !at.given && name == "":
		return "latest", nil
	case !at.given:
		return name, nil
	case name != "":
		return "", usageError{"a snapshot and --at", "give one of them"}
	}
	sn, err := o.SnapshotAt(ctx, at.Time)
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(s.Err, "drover: at %s the newest was %s of %s, %s old then\n", at.Local().Format(momentLayout),
		shortID(sn.ID), sn.Time.Local().Format(momentLayout), seconds(at.Sub(sn.Time).Seconds()))
	return sn.ID, nil
}

// momentLayout is how times are shown.
const momentLayout = "2006-01-02 15:04:05"

// arg is the i-th argument, "" if there is none.
func arg(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}
