package containerpilot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// telemetry writes the address of the metrics, and those of the application: of the
// list metrics in version 3, sensors in version 2.
func (c *conversion) telemetry(n *node, key string) {
	if n.kind != object {
		c.leave(0, n, "telemetry", "is no section")
		return
	}
	if n.get("port") == nil {
		c.out.add(0, `listen: "0.0.0.0:9090"`)
	}
	if c.catalog && n.get("tags") == nil {
		const what = "registered the service containerpilot, which " + noTelemetry
		c.note(n, "telemetry", what)
		c.out.comment(0, "containerpilot: telemetry "+what)
	}
	c.each(0, n, func(e entry) {
		c.comments(0, e)
		at := "telemetry." + e.key
		switch e.key {
		case "port":
			s, _ := single(e.value)
			if n, err := strconv.Atoi(s); (err != nil || n < 1 || n > 65535) && !templated(s) {
				c.leave(0, e.value, at, "is no port")
				return
			}
			c.out.add(0, "listen: "+c.scalar(e.value, "0.0.0.0:"+s, at))
		case "interfaces":
			c.leave(0, e.value, at, "has no equal: listen names an address")
		case "tags":
			c.leave(0, e.value, at, noTelemetry)
		case key:
			c.metrics(e.value, at)
		default:
			c.leave(0, e.value, at, unknownKey)
		}
	})
}

func (c *conversion) metrics(n *node, at string) {
	if n.kind != list {
		c.leave(0, n, at, "is no list")
		return
	}
	c.out.add(0, "metrics:")
	names, i := map[string]bool{}, 0
	c.each(2, n, func(e entry) {
		c.comments(2, e)
		at := fmt.Sprintf("%s[%d]", at, i)
		i++
		name := metricName(e.value)
		switch {
		case e.value.kind != object || e.value.conditional():
			c.leave(2, e.value, at, noBetween)
		case !templated(name) && !validMetric(name):
			c.leave(2, e.value, at, "has no valid name: letters, digits and _, and none that begins with drover_, go_ or process_")
		case names[name]:
			c.leave(2, e.value, at, "has the name of another metric")
		default:
			names[name] = true
			c.metric(name, e.value, at)
		}
	})
}

var metricForm = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func validMetric(name string) bool { return len(name) <= 128 && metricForm.MatchString(name) }

// metricName joins the parts that were given.
func metricName(n *node) string {
	var given []string
	for _, key := range []string{"namespace", "subsystem", "name"} {
		if s, ok := single(n.get(key)); ok && s != "" {
			given = append(given, s)
		}
	}
	name := strings.Join(given, "_")
	for _, own := range []string{"drover_", "go_", "process_"} {
		if strings.HasPrefix(name, own) {
			return ""
		}
	}
	return name
}

func (c *conversion) metric(name string, n *node, at string) {
	c.out.add(2, scalar(name)+":")
	kind, _ := single(n.get("type"))
	switch kind {
	case "counter", "gauge", "histogram":
	case "summary":
		c.note(n.get("type"), at+".type", "has no equal: it is a histogram now")
		kind = "histogram"
	default:
		kind = "gauge"
		if t := n.get("type"); t != nil {
			c.leave(4, t, at+".type", "is no type of metric; it is a gauge now")
		}
	}
	c.out.add(4, "type: "+kind)
	for _, e := range n.entries {
		c.comments(4, e)
		switch e.key {
		case "namespace", "subsystem", "name", "type":
		case "help":
			if s, ok := single(e.value); ok {
				c.out.add(4, "help: "+c.scalar(e.value, s, at+".help"))
			}
		case "check":
			c.command(4, "command", e.value, at+".check")
		case "poll":
			c.time(4, "every", e.value, at+".poll", c.seconds)
		case "timeout":
			c.time(4, "timeout", e.value, at+".timeout", c.duration)
		default:
			c.leave(4, e.value, at+"."+e.key, unknownKey)
		}
	}
}
