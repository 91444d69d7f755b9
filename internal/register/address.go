package register

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Interface is one of this machine's, with its addresses in the system's order.
type Interface struct {
	Name  string
	Addrs []netip.Addr
}

// Interfaces lists those that are up.
func Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var up []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		one := Interface{Name: i.Name}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				one.Addrs = append(one.Addrs, p.Addr().Unmap())
			}
		}
		up = append(up, one)
	}
	slices.SortFunc(up, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	return up, nil
}

// Selector chooses an address of this machine:
//
//	eth0          the first IPv4 address of that interface
//	eth0:inet6    its first IPv6 address that is no link-local one; eth0:inet is eth0
//	eth0[1]       its second address, of any kind; counted from 0
//	10.1.0.0/16   the first address in that network, whatever its interface
//	inet, inet6   the first address of any interface but the loopback's
//	static:ADDR   this address or host name, whatever the interfaces
type Selector struct {
	text   string
	static string
	prefix netip.Prefix
	name   string // of an interface; empty: any but the loopback's
	six    bool
	at     int // -1: not given
}

var byInterface = regexp.MustCompile(`^([A-Za-z0-9_.@-]{1,15})(?::(inet6?)|\[([0-9]{1,4})\])?$`)

// ParseSelector reads one.
func ParseSelector(text string) (Selector, error) {
	s := Selector{text: text, at: -1}
	if static, ok := strings.CutPrefix(text, "static:"); ok {
		if static == "" || strings.ContainsAny(static, " \t\n/") {
			return s, fmt.Errorf("%q names no address", text)
		}
		s.static = static
		return s, nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return s, fmt.Errorf("%q is not a network such as 10.1.0.0/16", text)
		}
		s.prefix = p.Masked()
		return s, nil
	}
	m := byInterface.FindStringSubmatch(text)
	if m == nil {
		return s, fmt.Errorf("%q is not eth0, eth0:inet6, eth0[1], a network, inet, inet6 or static:ADDRESS", text)
	}
	s.name, s.six = m[1], m[2] == "inet6"
	if m[3] != "" {
		s.at, _ = strconv.Atoi(m[3])
	}
	if text == "inet" || text == "inet6" {
		s.name, s.six = "", text == "inet6"
	}
	return s, nil
}

// String is the text that was read.
func (s Selector) String() string { return s.text }

// Pick returns the address that the first selector finds.
func Pick(selectors []Selector, from []Interface) (string, error) {
	for _, s := range selectors {
		if a, ok := s.pick(from); ok {
			return a, nil
		}
	}
	var have, want []string
	for _, i := range from {
		for _, a := range i.Addrs {
			have = append(have, i.Name+" "+a.String())
		}
	}
	for _, s := range selectors {
		want = append(want, s.text)
	}
	return "", fmt.Errorf("no address is %s; there are: %s", strings.Join(want, " or "), strings.Join(have, ", "))
}

func (s Selector) pick(from []Interface) (string, bool) {
	if s.static != "" {
		return s.static, true
	}
	for _, i := range from {
		if s.name != "" && i.Name != s.name {
			continue
		}
		if s.at >= 0 {
			if s.at < len(i.Addrs) {
				return i.Addrs[s.at].String(), true
			}
			continue
		}
		for _, a := range i.Addrs {
			if s.fits(a) {
				return a.String(), true
			}
		}
	}
	return "", false
}

func (s Selector) fits(a netip.Addr) bool {
	switch {
	case s.prefix.IsValid():
		return s.prefix.Contains(a)
	case s.name == "" && a.IsLoopback():
		return false
	case s.six:
		return a.Is6() && !a.IsLinkLocalUnicast()
	}
	return a.Is4()
}
