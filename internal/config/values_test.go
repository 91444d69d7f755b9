package config

import (
	"math"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "2s": 2 * time.Second, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "1d": day, "2w": 14 * day,
		"1w1d1h": 8*day + time.Hour, "1.5h": 90 * time.Minute,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%s: got %v, %v", text, d.Std(), err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s: written as %s, read as %v, %v", text, d, again.Std(), err)
		}
	}
	for _, text := range []string{"", "d", "1", "1.5", "-1s", "1x", "1d-2h", "1dd", "99999999w", "200000000d", "d1", "1d2w", "1s1d"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: read as %v", text, d.Std())
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "1KiB": 1024, "1kB": 1000, "1KB": 1000, "10MiB": 10 << 20, "1.5GiB": 3 << 29, "1TB": 1e12, "10MB/s": 1e7, "7B": 7, "8 MiB": 8 << 20,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: got %d, %v", text, s, err)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s: written as %s, read as %d, %v", text, s, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1XB", "NaN", "Inf", "1e30", "9999999TiB", "ten"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: read as %d", text, s)
		}
	}
	if s := Size(math.MaxInt64); s.String() == "" {
		t.Error("largest size has no text")
	}
}

func TestSignal(t *testing.T) {
	for text, want := range map[string]Signal{"TERM": "TERM", "SIGINT": "INT", "sigquit": "QUIT", "15": "TERM", "1": "HUP"} {
		var s Signal
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want || s.Number() == 0 {
			t.Errorf("%s: got %s, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "SIG", "0", "-1", "99", "TERMINATE"} {
		var s Signal
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: read as %s", text, s)
		}
	}
}

func TestMeant(t *testing.T) {
	among := []string{"store", "state", "volume", "first_start"}
	for word, want := range map[string]string{
		"sotre": "store", "Volume": "volume", "volumes": "volume", "firststart": "first_start", "zebra": "", "": "",
	} {
		if want != "" {
			want = `did you mean "` + want + `"?`
		}
		if got := meant(word, among); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}
