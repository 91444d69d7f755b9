package cli

import (
	"strings"
	"testing"
	"time"

	"drover/internal/app"
)

func TestParseMoment(t *testing.T) {
	now := time.Unix(1e9, 0)
	local := func(text string) time.Time {
		at, err := time.ParseInLocation(time.DateTime, text, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for text, want := range map[string]time.Time{
		"2h":                        now.Add(-2 * time.Hour),
		"3d":                        now.Add(-72 * time.Hour),
		"1d2h":                      now.Add(-26 * time.Hour),
		"0":                         now,
		"2001-09-09 03:04":          local("2001-09-09 03:04:00"),
		"2001-09-09 03:04:05":       local("2001-09-09 03:04:05"),
		"2001-09-09T03:04:05Z":      time.Date(2001, 9, 9, 3, 4, 5, 0, time.UTC),
		"2001-09-09T03:04:05.5Z":    time.Date(2001, 9, 9, 3, 4, 5, 5e8, time.UTC),
		"2001-09-09T03:04:05+02:00": time.Date(2001, 9, 9, 1, 4, 5, 0, time.UTC),
		"0001-01-01T00:00:00Z":      {},
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "noon", "5", "-2h", "2001-09-09", "2001-13-09 03:04", "03:04", "2h ", "99999999d"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// FuzzParseMoment: whatever is typed is a moment that is not of the future, unless it
// is written as a date, or an error of one line.
func FuzzParseMoment(f *testing.F) {
	for _, seed := range []string{"2h", "3d", "2001-09-09 03:04", "2001-09-09T03:04:05+02:00", "1w1d", "99999999999999999999w", "\n"} {
		f.Add(seed)
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseMoment(text, now)
		switch {
		case err != nil && (strings.ContainsAny(err.Error(), "\n\r") || classifyCode(err) != exitUsage):
			t.Errorf("%q: %v", text, err)
		case err == nil && at.After(now) && !strings.Contains(text, ":"):
			t.Errorf("%q is %v, later than %v", text, at, now)
		}
	})
}

func classifyCode(err error) int {
	code, _ := classify(err)
	return code
}

// TestAtSaysWhich: the snapshot that was meant is named on stderr, and taken.
func TestAtSaysWhich(t *testing.T) {
	now := time.Unix(1e9+90, 0) // as the world of these tests has it
	line := "drover: at " + now.Add(-time.Hour).Format(momentLayout) + " the newest was 11111111 of " +
		now.Add(-time.Hour-90*time.Second).Format(momentLayout) + ", 1m30s old then\n"
	ops := &fakeOps{}
	if got := try(t, ops, storeEnv, "restore", "--at", "1h", "--target", "/t"); got.code != 0 || got.err != line || ops.restore.Snapshot != "1111111122222222" {
		t.Errorf("restore: %+v, of %s; want %q", got, ops.restore.Snapshot, line)
	}
	if got := try(t, ops, storeEnv, "ls", "--at", "1h", "/sub"); got != (result{0, "1111111122222222\n/a\\nb\n/\\xff\\x1b[31m\n/sub\n", line}) {
		t.Errorf("ls: %+v", got)
	}
}

// What a database is restored to is a time, or else what its text looks like.
func TestDatabaseTargets(t *testing.T) {
	for text, want := range map[string]app.DatabaseTarget{
		"2026-01-31T15:04:05Z": {Time: time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)},
		"16/B374D848":          {LSN: "16/B374D848"},
		"4711":                 {XID: "4711"},
		"before the change":    {Name: "before the change"},
	} {
		ops := &fakeOps{}
		got := try(t, ops, storeEnv, "restore", "--database", "--target", "/t", "--at", text)
		if got.code != 0 || !ops.database.At.Time.Equal(want.Time) || ops.database.At.LSN != want.LSN || ops.database.At.XID != want.XID || ops.database.At.Name != want.Name {
			t.Errorf("--at %q: %+v, exit %d: %s", text, ops.database.At, got.code, got.err)
		}
	}
	for _, args := range [][]string{
		{"restore", "--database"}, {"restore", "--database", "latest", "--target", "/t"}, {"restore", "--at", "16/B374D848"},
	} {
		if got := try(t, &fakeOps{}, storeEnv, args...); got.code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, got.code, got.err)
		}
	}
}
