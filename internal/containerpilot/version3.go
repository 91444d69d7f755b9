package containerpilot

import (
	"fmt"
	"strings"
	"time"
)

// version3 converts a configuration of jobs.
func (c *conversion) version3(root *node) {
	c.findJobs(root)
	c.findWatches(root)
	listed, where := false, branches(root.entries)
	for i, e := range root.entries {
		if e.key == "consul" && len(where[i]) > 0 {
			c.noteAt(e.at, "consul", hiddenText, "stands between actions: where it is not there, no service and no watch can be, and Drover does not start")
		}
		listed = listed || e.key == "watches" && e.value.kind == list
	}
	c.each(0, root, func(e entry) {
		c.comments(0, e)
		switch e.key {
		case "consul":
			c.consul(e.value)
		case "logging":
			c.logging(e.value)
		case "stopTimeout":
			// The grace of every job.
		case "jobs":
			c.jobs3(root, e.value)
		case "watches":
			c.watches3(e.value)
		case "control":
			c.socket(e.value)
		case "telemetry":
			c.telemetry(e.value, "metrics")
		default:
			c.leave(0, e.value, e.key, unknownKey)
		}
	})
	if !listed && len(c.watches) > 0 {
		c.out.add(0, "watches:")
		c.missingWatches()
	}
}

// findJobs looks at all jobs before any is written.
func (c *conversion) findJobs(root *node) {
	for _, top := range root.entries {
		if top.key != "jobs" || top.value.kind != list {
			continue
		}
		i := 0
		for _, e := range top.value.entries {
			if e.action != "" {
				continue
			}
			at := fmt.Sprintf("jobs[%d]", i)
			i++
			if e.value.kind != object {
				continue
			}
			name, given := nameOf(e.value.get("name"), e.value.get("exec"))
			j := &job{node: e.value, path: at, name: name}
			j.check = e.value.get("health").get("exec") != nil
			w, _ := readWhen(e.value.get("when"))
			j.hook = w.interval == nil && (w.event == "stopping" || w.event == "stopped")
			j.waits = e.value.get("exec") == nil && !j.hook && (j.check || c.catalog && registers(e.value))
			j.runs = j.waits || e.value.get("exec") != nil
			if j.runs {
				j.key = c.take(e.value, name, at, given)
			}
			if n := e.value.get("stopTimeout"); n != nil {
				j.grace, _ = c.duration(n, at+".stopTimeout")
			}
			c.jobs = append(c.jobs, j)
		}
	}
}

// jobs3 writes them.
func (c *conversion) jobs3(root, n *node) {
	if n.kind != list {
		c.leave(0, n, "jobs", "is no list")
		return
	}
	c.out.add(0, "jobs:")
	i := 0
	c.each(2, n, func(e entry) {
		c.comments(2, e)
		at := fmt.Sprintf("jobs[%d]", i)
		i++
		for _, j := range c.jobs {
			if j.node != e.value {
				continue
			}
			if !j.runs {
				c.leave(2, e.value, at, "has no command, no check and nothing to register")
				return
			}
			c.job3(j, root.get("stopTimeout"))
			return
		}
		c.leave(2, e.value, at, "is no job")
	})
}

// job3 writes one job.
func (c *conversion) job3(j *job, stopTimeout *node) {
	const indent = 4
	c.begin(2, j)
	if j.waits {
		c.wait(indent, j.node, j.path)
	}
	w, _ := readWhen(j.node.get("when"))
	c.each(indent, j.node, func(e entry) {
		if contains(serviceKeys, e.key) {
			c.serviceKey(indent, j.node, j.service(), j.path, e, c.unregistered(j))
			return
		}
		c.comments(indent, e)
		at := j.path + "." + e.key
		switch e.key {
		case "name":
		case "exec":
			c.command(indent, "command", e.value, at)
		case "when":
			c.when(indent, j, e.value)
		case "restarts":
			c.restarts(indent, e.value, at, w.interval != nil)
		case "timeout":
			c.time(indent, "timeout", e.value, at, c.duration)
		case "stopTimeout":
			c.stopTimeout(indent, j, e.value, at)
		case "health":
			c.health(indent, j, e.value, at)
		case "logging":
			c.raw(indent, e.value, at)
		default:
			c.leave(indent, e.value, at, unknownKey)
		}
	})
	if stopTimeout != nil && !j.hook && w.interval == nil {
		if grace, ok := c.seconds(stopTimeout, "stopTimeout"); ok {
			c.out.add(indent, "stop: {grace: "+grace+"}")
		}
	}
}

// wait gives a job without a command one that does nothing, as long as it is let. As
// with ContainerPilot, the instance does not end by itself beside it.
func (c *conversion) wait(indent int, n *node, at string) {
	c.note(n, at, "has no command, and is a job that waits: the image needs tail for it")
	c.out.comment(indent, "containerpilot: it had no command, only a service or a check")
	c.out.add(indent, "command: [tail, -f, /dev/null]")
}

// unregistered says why a job is not registered; "": it can be.
func (c *conversion) unregistered(j *job) string {
	switch {
	case j.hook:
		return noHook
	case !c.catalog:
		return noCatalog
	}
	return ""
}

// service is the name of the service that a job is.
func (j *job) service() string {
	if validService(j.name) {
		return j.name
	}
	if templated(j.key) {
		return j.key
	}
	return strings.TrimRight(j.key, "-._")
}

// stopTimeout: how long a job's stop waits for another is how long that may take.
func (c *conversion) stopTimeout(indent int, j *job, n *node, at string) {
	for _, other := range c.jobs {
		if w, _ := readWhen(other.node.get("when")); other.hook && w.source == j.name && w.event == "stopping" {
			return // it is there
		}
	}
	c.leave(indent, n, at, "has no effect: no job runs before this one stops")
}

// health writes a job's check.
func (c *conversion) health(indent int, j *job, n *node, at string) {
	k := check{n.get("exec"), n.get("interval"), n.get("ttl"), n.get("timeout")}
	switch {
	case n.kind != object || n.conditional():
		c.leave(indent, n, at, noBetween)
		return
	case j.hook:
		c.leave(indent, n, at, "has no equal: a check of a job that runs when another stops")
		return
	case k.exec == nil:
		c.unchecked(indent, j, n, at)
		return
	}
	c.out.add(indent, "checks:")
	c.out.add(indent+2, "health:")
	for _, e := range n.entries {
		c.comments(indent+4, e)
	}
	c.checkBody(indent+4, k, at, "interval", "exec")
	for _, e := range n.entries {
		switch e.key {
		case "exec", "interval", "ttl", "timeout":
		case "logging":
			c.leave(indent+4, e.value, at+".logging", "has no equal: what a check prints is shown when it fails")
		default:
			c.leave(indent+4, e.value, at+"."+e.key, unknownKey)
		}
	}
}

// unchecked keeps what is said of a check without a command: only its time to live, and
// that with the service.
func (c *conversion) unchecked(indent int, j *job, n *node, at string) {
	kept := c.unregistered(j) == "" && registers(j.node)
	c.members(indent, n, func(e entry) {
		switch {
		case e.key == "ttl" && kept:
		case e.key == "interval" && kept:
			c.leave(indent, e.value, at+".interval", noHeartbeat)
		default:
			c.leave(indent, e.value, at+"."+e.key, "has no effect: nothing is checked")
		}
	})
}

// raw writes what becomes of a job's output.
func (c *conversion) raw(indent int, n *node, at string) {
	switch s, _ := single(n.get("raw")); {
	case n.kind != object || n.conditional() || templated(s):
		c.leave(indent, n, at, noTemplate)
	case s == "true":
		c.out.add(indent, "output: raw")
	}
}

// levels are ContainerPilot's, and what Drover has for them.
var levels = map[string]string{"debug": "debug", "info": "info", "warn": "warn", "warning": "warn", "error": "error", "fatal": "error", "panic": "error"}

// logging writes how the agent logs.
func (c *conversion) logging(n *node) {
	if n.kind != object {
		c.leave(0, n, "logging", "is no section")
		return
	}
	c.out.add(0, "log:")
	c.each(2, n, func(e entry) {
		c.comments(2, e)
		at, s := "logging."+e.key, ""
		if e.value != nil {
			s, _ = single(e.value)
		}
		level := levels[strings.ToLower(s)]
		switch {
		case e.key == "level" && level != "":
			c.out.add(2, "level: "+level)
		case e.key == "format" && formats[strings.ToLower(s)] != "":
			c.out.add(2, "format: "+formats[strings.ToLower(s)])
		case (e.key == "level" || e.key == "format") && templated(s):
			c.lowered(e.key, e.value, s, at)
		case e.key == "output" && s == "stderr":
		case e.key == "output":
			c.leave(2, e.value, at, "has no equal: the agent logs to stderr")
		case e.key == "level" || e.key == "format":
			c.leave(2, e.value, at, "is none of Drover's")
		default:
			c.leave(2, e.value, at, unknownKey)
		}
	})
}

// formats are ContainerPilot's, and what Drover has for them.
var formats = map[string]string{"default": "text", "text": "text", "json": "json"}

// lowered writes a word that ContainerPilot took in capitals, whatever its template
// prints. A word of the text must be a whole one.
func (c *conversion) lowered(key string, n *node, s, at string) {
	words, small := levels, " | toLower }}"
	if key == "format" {
		words, small = formats, ` | toLower | replaceAll "default" "text" }}`
	}
	var b strings.Builder
	for _, p := range parts(s) {
		switch word := words[strings.ToLower(strings.TrimSpace(p.text))]; {
		case p.action && isControl(p.text):
			b.WriteString(p.text)
		case p.action:
			b.WriteString("{{ " + body(p.text) + small)
		case word == "":
			c.leave(2, n, at, noTemplate+": Drover's words are in small letters")
			return
		default:
			b.WriteString(word)
		}
	}
	c.mustBeSet(n, s, at)
	c.out.add(2, key+": "+scalar(b.String()))
}

// maxSocket is the longest path of one that systems take.
const maxSocket = 107

// socket writes where the agent is spoken to.
func (c *conversion) socket(n *node) {
	s, ok := single(n.get("socket"))
	if !ok || n.conditional() || len(s) > maxSocket || !strings.HasPrefix(s, "/") && !templated(s) {
		c.leave(0, n, "control", "has no equal")
		return
	}
	c.out.add(0, "socket: "+c.scalar(n.get("socket"), s, "control.socket"))
	c.note(n.get("socket"), "control.socket", "answers Drover's own requests there, not ContainerPilot's: see docs/containerpilot.md")
}

// tooShort says whether an interval is shorter than Drover takes.
func tooShort(every string) bool {
	d, err := time.ParseDuration(every)
	return err == nil && d < 100*time.Millisecond
}
