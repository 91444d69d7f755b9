package register

import (
	"net/netip"
	"strings"
	"testing"
)

func machine() []Interface {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return []Interface{
		{"eth0", addrs("fe80::1", "10.1.0.7", "2001:db8::7")},
		{"eth1", addrs("192.168.3.4", "192.168.3.5")},
		{"lo", addrs("127.0.0.1", "::1")},
	}
}

func TestPick(t *testing.T) {
	for _, c := range []struct{ selectors, want string }{
		{"eth0", "10.1.0.7"},
		{"eth0:inet", "10.1.0.7"},
		{"eth0:inet6", "2001:db8::7"},
		{"eth1[1]", "192.168.3.5"},
		{"eth1[2] eth0[0]", "fe80::1"},
		{"192.168.0.0/16", "192.168.3.4"},
		{"2001:db8::/32", "2001:db8::7"},
		{"inet", "10.1.0.7"},
		{"inet6", "2001:db8::7"},
		{"lo", "127.0.0.1"},
		{"eth9 172.16.0.0/12 static:db.example", "db.example"},
		{"static:2001:db8::9", "2001:db8::9"},
	} {
		var list []Selector
		for _, text := range strings.Fields(c.selectors) {
			s, err := ParseSelector(text)
			if err != nil || s.String() != text {
				t.Fatalf("%s: %v, %v", text, s, err)
			}
			list = append(list, s)
		}
		if got, err := Pick(list, machine()); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.selectors, got, err, c.want)
		}
	}
	none, _ := ParseSelector("eth7")
	if _, err := Pick([]Selector{none}, machine()); err == nil || !strings.Contains(err.Error(), "eth7; there are: eth0 fe80::1") {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"", "static:", "static:a b", "10.0.0.0/99", "eth0[", "eth0[x]", "eth0:inet5", "a b", strings.Repeat("a", 16)} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%q is read as %+v", text, s)
		}
	}
	if real, err := Interfaces(); err != nil || len(real) == 0 {
		t.Errorf("%v, %v", real, err)
	}
}

func FuzzParseSelector(f *testing.F) {
	for _, text := range []string{"eth0", "eth0:inet6", "eth0[1]", "10.0.0.0/8", "static:a", "inet"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSelector(text); err == nil {
			_, _ = Pick([]Selector{s}, machine())
		}
	})
}
