package containerpilot

import (
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// serviceKeys are those that say how a job, or a service of version 2, is registered.
var serviceKeys = []string{"port", "interfaces", "tags", "meta", "initial_status", "consul"}

// What is said of registering.
const (
	noPort      = "has no effect: nothing is registered without a port"
	noHook      = "has no equal: what runs when a job stops is no service"
	noHeartbeat = "has no equal: the catalog is told every third of the ttl"
	noTelemetry = "has no equal: the agent's metrics are no service; give a job one if somebody looks for it"
)

// branch is one side of an action that chooses: of the entry that opened it, and of the
// one that began this side.
type branch struct{ opened, began int }

// branches tells of each entry between which actions it stands; of an {{ if }}, {{ else }} or
// {{ end }} itself as well.
func branches(entries []entry) [][]branch {
	all := make([][]branch, len(entries))
	var open []branch
	for i, e := range entries {
		switch {
		case e.action == "":
		case opens(e.action) > 0:
			open = append(open[:len(open):len(open)], branch{i, i})
		case keyword(e.action) == "else" && len(open) > 0:
			open = append(open[:len(open)-1:len(open)-1], branch{open[len(open)-1].opened, i})
		}
		all[i] = open
		if e.action != "" && opens(e.action) < 0 && len(open) > 0 {
			open = open[:len(open)-1]
		}
	}
	return all
}

// together says whether what stands in a can be there when what stands in b is.
func together(a, b []branch) bool {
	for _, x := range a {
		for _, y := range b {
			if x.opened == y.opened && x.began != y.began {
				return false
			}
		}
	}
	return true
}

// inside says whether an action belongs to one of those around b.
func inside(action []branch, b []branch) bool {
	for _, y := range b {
		if len(action) > 0 && action[len(action)-1].opened == y.opened {
			return true
		}
	}
	return false
}

// isPort says whether a value is a port, as far as that can be known.
func isPort(n *node) bool {
	s, ok := single(n)
	return ok && (templated(s) || validPort(s) && !strings.HasPrefix(s, ":"))
}

// registers says whether a job, or a service of version 2, is registered.
func registers(n *node) bool {
	if n.kind != object {
		return false
	}
	for _, e := range n.entries {
		if e.key == "port" && isPort(e.value) {
			return true
		}
	}
	return false
}

// serviceKey keeps a member that says how n is registered: all of them where the port is.
func (c *conversion) serviceKey(indent int, n *node, name, at string, e entry, why string) {
	where := branches(n.entries)
	var own []branch
	for i := range n.entries {
		if n.entries[i].value == e.value {
			own = where[i]
		}
	}
	if why == "" && e.key == "port" && !isPort(e.value) {
		why = "is no port"
	}
	if why == "" && e.key != "port" {
		why = noPort
		for i, other := range n.entries {
			if other.key == "port" && isPort(other.value) && together(where[i], own) {
				why = ""
			}
		}
	}
	switch {
	case why != "":
		c.comments(indent, e)
		c.leave(indent, e.value, at+"."+e.key, why)
	case e.key == "port":
		c.service(indent, n, name, at, where, own)
	}
}

// service writes the section, for the port that stands in own.
func (c *conversion) service(indent int, n *node, name, at string, where [][]branch, own []branch) {
	c.out.add(indent, "service:")
	indent += 2
	c.out.add(indent, "name: "+scalar(name))
	addressed := false
	for i, e := range n.entries {
		switch {
		case !together(where[i], own):
		case e.action != "" && inside(where[i], own) && (opens(e.action) != 0 || keyword(e.action) == "else"):
		case e.action != "":
			c.out.control(indent, e.action)
		case contains(serviceKeys, e.key):
			c.comments(indent, e)
			addressed = c.serviceMember(indent, e, at+"."+e.key) && e.key == "interfaces" || addressed
		case c.version == 2 && e.key == "ttl":
			c.ttl(indent, e.value, at+".ttl")
		case c.version == 3 && e.key == "health" && e.value.get("ttl") != nil:
			c.ttl(indent, e.value.get("ttl"), at+".health.ttl")
		}
	}
	for i, e := range n.entries {
		if addressed && e.key == "interfaces" && len(where[i]) > len(own) {
			c.note(e.value, at+".interfaces", "stands between actions: where it is not there, eth0 or inet was meant; write address: [eth0, inet] for that")
		}
	}
	if !addressed {
		c.out.add(indent, "address: [eth0, inet]")
	}
}

// serviceMember writes one, and says whether it did.
func (c *conversion) serviceMember(indent int, e entry, at string) bool {
	s, isText := single(e.value)
	switch e.key {
	case "port":
		c.out.add(indent, "port: "+portText(c.scalar(e.value, s, at)))
	case "interfaces":
		return c.words(indent, "address", e.value, at, findsNothing)
	case "tags":
		return c.words(indent, "tags", e.value, at, func(string) bool { return false })
	case "meta":
		c.meta(indent, e.value, at)
	case "initial_status":
		if isText && (templated(s) || contains([]string{"passing", "warning", "critical"}, s)) {
			c.out.add(indent, "initial: "+c.scalar(e.value, s, at))
		} else if s != "" || !isText {
			c.leave(indent, e.value, at, "is no status")
		}
	case "consul":
		c.extras(indent, e.value, at)
	}
	return true
}

// portText takes the quotes off a number.
func portText(s string) string {
	if bare := strings.Trim(s, `"`); wholeNumber.MatchString(bare) {
		return strings.TrimLeft(bare, "0")
	}
	return s
}

// ttl writes how long a service may be silent.
func (c *conversion) ttl(indent int, n *node, at string) {
	const shortest = 3 * time.Second
	s, ok := c.seconds(n, at)
	if !ok {
		c.leave(indent, n, at, "is no length of time")
		return
	}
	if d, err := time.ParseDuration(s); err == nil && d < shortest {
		c.note(n, at, "is 3s now in the catalog, the shortest there")
		s = "3s"
	}
	c.out.add(indent, "ttl: "+s)
}

func (c *conversion) meta(indent int, n *node, at string) {
	if n.kind != object {
		c.leave(indent, n, at, "is no section")
		return
	}
	c.out.add(indent, "meta:")
	c.members(indent+2, n, func(e entry) {
		if s, ok := single(e.value); ok && e.key != "" {
			c.out.add(indent+2, scalar(e.key)+": "+c.scalar(e.value, s, at+"."+e.key))
			return
		}
		c.leave(indent+2, e.value, at+"."+e.key, "is no name with a text")
	})
}

// extras writes what only Consul has.
func (c *conversion) extras(indent int, n *node, at string) {
	if n.kind != object {
		c.leave(indent, n, at, "is no section")
		return
	}
	c.members(indent, n, func(e entry) {
		at := at + "." + e.key
		switch s, _ := single(e.value); {
		case e.key == "deregisterCriticalServiceAfter" && s == "":
		case e.key == "deregisterCriticalServiceAfter":
			c.time(indent, "deregister_after", e.value, at, c.duration)
		case e.key == "enableTagOverride" && s == "false":
		case e.key == "enableTagOverride":
			c.leave(indent, e.value, at, "has no equal: tags that others change are changed back")
		default:
			c.leave(indent, e.value, at, unknownKey)
		}
	})
}

var selector = regexp.MustCompile(`^(static:[^\s/]+|[A-Za-z0-9_.@-]{1,15}(:inet6?|\[[0-9]{1,4}\])?)$`)

// findsNothing says whether a text is none of the ways to find an address.
func findsNothing(s string) bool {
	_, err := netip.ParsePrefix(s)
	return !templated(s) && err != nil && !selector.MatchString(s)
}

// words writes a list of texts, or a single one, without those that are wrong. It says
// whether it did: at least one must be there whatever the template chooses.
func (c *conversion) words(indent int, key string, n *node, at string, wrong func(string) bool) bool {
	all := []entry{{value: n}}
	if n.kind == list {
		all = n.entries
	}
	where, sure := branches(all), 0
	var items []string
	for i, e := range all {
		if s, ok := single(e.value); ok && !wrong(s) && len(where[i]) == 0 {
			sure++
			if !n.conditional() {
				items = append(items, c.scalar(e.value, s, at))
			}
		}
	}
	switch {
	case len(all) == 0:
		return false
	case sure == 0 && n.conditional() && noneWrong(all, wrong):
		c.perhaps(indent, key, all, at)
		if key == "address" {
			c.note(n, at, "is eth0 or inet now if none of these is there")
		}
		return true
	case sure == 0 && n.conditional():
		c.leave(indent, n, at, noBetween)
		return false
	case sure == len(all):
		c.items(indent, key, items)
		return true
	}
	if sure > 0 {
		c.out.add(indent, key+":")
		indent += 2
	}
	for _, e := range all {
		c.comments(indent, e)
		switch s, ok := single(e.value); {
		case e.action != "":
			c.out.control(indent, e.action)
		case !ok || wrong(s):
			c.leave(indent, e.value, at, "is none of the words that can stand here")
		default:
			c.out.add(indent, "- "+c.scalar(e.value, s, at))
		}
	}
	return sure > 0
}

// noneWrong says whether entries hold nothing but actions and texts that are right.
func noneWrong(all []entry, wrong func(string) bool) bool {
	for _, e := range all {
		if s, ok := single(e.value); e.action == "" && (!ok || wrong(s)) {
			return false
		}
	}
	return true
}

// perhaps writes a list in which there may be nothing, which only a line can say.
func (c *conversion) perhaps(indent int, key string, all []entry, at string) {
	var b strings.Builder
	for _, e := range all {
		c.comments(indent, e)
		if e.action != "" {
			b.WriteString("{{ " + oneLine(body(e.action)) + " }}")
			continue
		}
		s, _ := single(e.value)
		b.WriteString(c.scalar(e.value, s, at) + ", ")
	}
	if key == "address" {
		b.WriteString("eth0, inet")
	}
	c.out.add(indent, key+": ["+b.String()+"]")
}
