package config

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Secret is text that is never printed: not by fmt, encoding/json, yaml or slog.
type Secret struct{ text string }

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return s.text }

// Set says whether there is a text.
func (s Secret) Set() bool { return s.text != "" }

const hidden = "[secret]"

// String hides the text.
func (Secret) String() string { return hidden }

// GoString hides the text.
func (Secret) GoString() string { return hidden }

// Format hides the text whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText hides the text.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the text.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// UnmarshalText takes any text.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// Duration is a length of time, written as Go does ("2s", "1h30m") with d and w for
// days of 24 hours and weeks. It is never negative.
type Duration time.Duration

// Std is d as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as Go does, without parts that are zero.
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration; its errors say how one is written.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*d = 0
		return nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return valueError{fmt.Sprintf("duration %q has no unit", s), fmt.Sprintf("write %ss for seconds, or ms, m, h, d, w", s)}
	}
	v, err := parseDuration(s)
	if err != nil {
		return valueError{fmt.Sprintf("%q is not a duration", s), "write a number and a unit, such as 500ms, 2s, 5m, 1h30m, 1d"}
	}
	if v < 0 {
		return valueError{fmt.Sprintf("duration %q is negative", s), "write one of 0 or more"}
	}
	*d = Duration(v)
	return nil
}

const day = 24 * time.Hour

// parseDuration reads leading whole weeks and days, then what Go reads.
func parseDuration(s string) (time.Duration, error) {
	var sum time.Duration
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		number, rest, found := strings.Cut(s, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("parse number before %s: %w", unit.name, err)
		}
		if time.Duration(n) > (math.MaxInt64-sum)/unit.length {
			return 0, strconv.ErrRange
		}
		sum += time.Duration(n) * unit.length
		s = rest
	}
	if s == "" && sum > 0 {
		return sum, nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("parse duration: %w", err)
	}
	if v > math.MaxInt64-sum || v < 0 && sum > 0 {
		return 0, strconv.ErrRange
	}
	return sum + v, nil
}

// Size is a number of bytes, or of bytes per second: "512KiB", "10MB", "1GiB".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// String writes s with the largest unit that divides it.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size; a plain number is bytes, "/s" at the end is allowed.
func (s *Size) UnmarshalText(text []byte) error {
	bad := valueError{fmt.Sprintf("%q is not a size", text), "write a number and a unit, such as 512KiB, 10MB, 1GiB"}
	number, factor := strings.TrimSuffix(string(text), "/s"), int64(1)
	for _, u := range sizeUnits {
		if n, found := strings.CutSuffix(number, u.name); found {
			number, factor = n, u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*float64(factor) >= math.MaxInt64 {
		return bad
	}
	*s = Size(v * float64(factor))
	return nil
}

// Command is a program and its arguments. A string becomes /bin/sh -c string.
type Command []string

// UnmarshalText makes a shell's command line of text.
func (c *Command) UnmarshalText(text []byte) error {
	if strings.TrimSpace(string(text)) == "" {
		return valueError{"command is empty", "write what to run, as a list or as a string for /bin/sh"}
	}
	*c = Command{"/bin/sh", "-c", string(text)}
	return nil
}

// Signal is a signal's name without SIG.
type Signal string

// Number is the signal itself.
func (s Signal) Number() syscall.Signal { return unix.SignalNum("SIG" + string(s)) }

// UnmarshalText reads TERM, SIGTERM or 15.
func (s *Signal) UnmarshalText(text []byte) error {
	name := strings.TrimPrefix(strings.ToUpper(string(text)), "SIG")
	if n, err := strconv.Atoi(name); err == nil {
		name = strings.TrimPrefix(unix.SignalName(syscall.Signal(n)), "SIG")
	}
	if name == "" || unix.SignalNum("SIG"+name) == 0 {
		return valueError{fmt.Sprintf("%q is not a signal", text), "write a name such as TERM, INT, QUIT or HUP"}
	}
	*s = Signal(name)
	return nil
}

// The settings that are one of a few words.
type (
	Ownership    string
	Fence        string
	FirstStart   string
	ImageFiles   string
	Init         string
	OnUnreadable string
	Consistency  string
	LogLevel     string
	LogFormat    string
)

// Their words.
const (
	OwnershipSingle   Ownership    = "single"
	OwnershipSlot     Ownership    = "slot"
	OwnershipEach     Ownership    = "each"
	FenceHistory      Fence        = "history"
	FenceStrict       Fence        = "strict"
	FirstStartRefuse  FirstStart   = "refuse"
	FirstStartAdopt   FirstStart   = "adopt"
	ImageFilesKeep    ImageFiles   = "keep"
	ImageFilesDrop    ImageFiles   = "discard"
	InitAuto          Init         = "auto"
	InitNever         Init         = "never"
	UnreadableFail    OnUnreadable = "fail"
	UnreadableSkip    OnUnreadable = "skip"
	ConsistencyFreeze Consistency  = "freeze"
	ConsistencyHook   Consistency  = "hook"
	ConsistencyLive   Consistency  = "live"
	LogDebug          LogLevel     = "debug"
	LogInfo           LogLevel     = "info"
	LogWarn           LogLevel     = "warn"
	LogError          LogLevel     = "error"
	LogText           LogFormat    = "text"
	LogJSON           LogFormat    = "json"
)

// Slog is the level as slog has it.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case LogDebug:
		return slog.LevelDebug
	case LogWarn:
		return slog.LevelWarn
	case LogError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// choice is a type whose values are a few words.
type choice interface{ choices() []string }

func (Ownership) choices() []string    { return words(OwnershipSingle, OwnershipSlot, OwnershipEach) }
func (Fence) choices() []string        { return words(FenceHistory, FenceStrict) }
func (FirstStart) choices() []string   { return words(FirstStartRefuse, FirstStartAdopt) }
func (ImageFiles) choices() []string   { return words(ImageFilesKeep, ImageFilesDrop) }
func (Init) choices() []string         { return words(InitAuto, InitNever) }
func (OnUnreadable) choices() []string { return words(UnreadableFail, UnreadableSkip) }
func (Consistency) choices() []string {
	return words(ConsistencyFreeze, ConsistencyHook, ConsistencyLive)
}
func (LogLevel) choices() []string  { return words(LogDebug, LogInfo, LogWarn, LogError) }
func (LogFormat) choices() []string { return words(LogText, LogJSON) }

// UnmarshalText takes one of the words.
func (o *Ownership) UnmarshalText(text []byte) error    { return choose(o, text) }
func (f *Fence) UnmarshalText(text []byte) error        { return choose(f, text) }
func (f *FirstStart) UnmarshalText(text []byte) error   { return choose(f, text) }
func (i *ImageFiles) UnmarshalText(text []byte) error   { return choose(i, text) }
func (i *Init) UnmarshalText(text []byte) error         { return choose(i, text) }
func (o *OnUnreadable) UnmarshalText(text []byte) error { return choose(o, text) }
func (c *Consistency) UnmarshalText(text []byte) error  { return choose(c, text) }
func (l *LogLevel) UnmarshalText(text []byte) error     { return choose(l, text) }
func (l *LogFormat) UnmarshalText(text []byte) error    { return choose(l, text) }

func words[T ~string](values ...T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

// choose sets *to to text if that is one of the words.
func choose[T interface {
	~string
	choice
}](to *T, text []byte) error {
	all := (*to).choices()
	if !slices.Contains(all, string(text)) {
		return valueError{fmt.Sprintf("%q is not one of %s", text, strings.Join(all, ", ")), meant(string(text), all)}
	}
	*to = T(text)
	return nil
}
