package consul

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestSlots(t *testing.T) {
	pair := func(key, value, session string) *api.KVPair {
		return &api.KVPair{Key: "l/a/" + key, Value: []byte(value), Session: session}
	}
	s := readSlots("l/a/", 3, api.KVPairs{
		pair("0", `{"holder": "x", "slots": 3}`, "s1"),
		pair("1", `{"holder": "gone", "slots": 3}`, ""),       // left by a session that is no more
		pair("b/2", `{"holder": "of a/b", "slots": 1}`, "s2"), // another lease's
		pair("2", `not ours`, "s3"),
	})
	if !slices.Equal(s.free, []int{1}) || strings.Join(s.holders, ",") != "s3,x" || s.other != 0 {
		t.Errorf("%+v", s)
	}
	if s := readSlots("l/a/", 1, api.KVPairs{pair("4", `{"holder": "x", "slots": 5}`, "s1")}); s.other != 5 {
		t.Errorf("another number of slots is not seen: %+v", s)
	}
}

// FuzzSlots: whatever is in a key, who locked it holds a slot, and no free slot is held.
func FuzzSlots(f *testing.F) {
	f.Add("0", `{"holder": "x", "slots": 1}`, true, 1)
	f.Add("-1", `{"slots": -1}`, true, 2)
	f.Add("00", `[]`, false, 3)
	f.Fuzz(func(t *testing.T, key, value string, locked bool, number int) {
		number = 1 + (number&0xff)%100
		p := &api.KVPair{Key: "l/" + key, Value: []byte(value)}
		if locked {
			p.Session = "s"
		}
		s := readSlots("l/", number, api.KVPairs{p})
		if len(s.free) < number-1 || len(s.free) > number || !slices.IsSorted(s.free) {
			t.Errorf("%d of %d slots are free: %+v", len(s.free), number, s)
		}
		if !locked && len(s.free) != number {
			t.Errorf("a key that nobody locked takes a slot: %+v", s)
		}
		if slices.Contains(s.holders, "") {
			t.Errorf("a holder has no name: %+v", s)
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, a := range []string{"http://127.0.0.1:8500", "https://h", "unix:///a", "http://u:p@h", "//h", "unix://h/a", "http://:1"} {
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, address string) {
		scheme, host, socket, err := parseAddress(address)
		if err == nil && (scheme != "http" && scheme != "https" || host == "" || strings.ContainsAny(host, "@/") || socket != "" && socket[0] != '/') {
			t.Errorf("%q: scheme %q, host %q, socket %q", address, scheme, host, socket)
		}
	})
}
