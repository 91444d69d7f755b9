package containerpilot

import (
	"fmt"
	"path"
	"strings"
)

// The jobs that version 2 has by place, not by name.
const (
	mainName     = "main"
	preStartName = "preStart"
)

// hooks are the commands around the application's.
var hooks = []string{preStartName, "onStart", "preStop", "postStop"}

// isNothing says whether a value holds no word of a command.
func isNothing(n *node) bool {
	s, ok := single(n)
	return ok && strings.TrimSpace(s) == "" || n.kind == list && len(n.entries) == 0 || n.kind == word && n.text == "null"
}

// placeholder stands where the application's command should: it fails, and says why.
const placeholder = `echo 'drover.yaml: write the command of the application into jobs.main' >&2; exit 64`

// version2 converts a configuration around an application on the command line.
func (c *conversion) version2(root *node) {
	parts := map[string]*node{}
	for _, e := range root.entries {
		switch {
		case e.action != "":
			c.noteAt(e.at, "", e.action, "stands between the keys of the file and cannot be kept: what it chooses is taken as if it held")
		case parts[e.key] != nil:
			c.leave(0, e.value, e.key, "is there twice; the first is kept")
		case contains(hooks, e.key) && isNothing(e.value):
			c.leave(0, e.value, e.key, "is no command: nothing runs there")
		default:
			parts[e.key] = e.value
		}
		c.comments(0, e)
	}
	if parts[preStartName] == nil {
		parts[preStartName] = parts["onStart"]
	}
	for _, e := range root.entries {
		switch e.key {
		case "consul", "etcd":
			c.catalog2(parts, e)
		case "logging":
			c.logging(e.value)
		case "telemetry":
			c.telemetry(e.value, "sensors")
		case "", "preStart", "onStart", "preStop", "postStop", "stopTimeout", "services", "backends", "tasks", "coprocesses":
		default:
			c.leave(0, e.value, e.key, unknownKey)
		}
	}
	c.out.add(0, "jobs:")
	for _, name := range []string{mainName, preStartName, "preStop", "postStop"} {
		c.names[name] = true
	}
	if n := parts[preStartName]; n != nil {
		c.out.add(2, preStartName+":")
		c.command(4, "command", n, preStartName)
	}
	c.application(parts)
	for _, h := range [][2]string{{"preStop", "before_stop"}, {"postStop", "after_stop"}} {
		if n := parts[h[0]]; n != nil {
			c.out.add(2, h[0]+":")
			c.command(4, "command", n, h[0])
			c.out.add(4, h[1]+": "+mainName)
		}
	}
	after := parts[preStartName] != nil
	c.section(parts["coprocesses"], "coprocesses", func(n *node, at string) { c.coprocess(n, at, after) })
	c.section(parts["tasks"], "tasks", func(n *node, at string) { c.task(n, at, after) })
	c.others(parts["services"])
	c.section(parts["backends"], "backends", func(n *node, at string) { c.backend(n, at, after) })
	c.watches2(parts["backends"])
}

// catalog2 writes where the catalog is: Consul, if there is one, else etcd.
func (c *conversion) catalog2(parts map[string]*node, e entry) {
	_, hasConsul := consulServer(parts["consul"])
	switch {
	case parts[e.key] != e.value:
		// That was said.
	case e.key == "consul":
		c.consul(e.value)
	case hasConsul:
		c.leave(0, e.value, e.key, "is left out: there is consul")
	default:
		c.etcd(e.value)
	}
}

// section calls fn for every object of a list, in the place of a job.
func (c *conversion) section(n *node, at string, fn func(n *node, at string)) {
	if n == nil {
		return
	}
	if n.kind != list {
		c.leave(2, n, at, "is no list")
		return
	}
	i := 0
	c.each(2, n, func(e entry) {
		c.comments(2, e)
		at := fmt.Sprintf("%s[%d]", at, i)
		i++
		if e.value.kind != object || e.value.conditional() {
			c.leave(2, e.value, at, noBetween)
			return
		}
		fn(e.value, at)
	})
}

// application writes the job of the command line, with the checks of the services.
func (c *conversion) application(parts map[string]*node) {
	c.out.add(2, mainName+":")
	c.out.add(4, "main: true")
	if len(c.opt.Command) == 0 {
		c.noteAt(0, "", "", "is not in this file: the command of the application, which ContainerPilot 2 has on its command line. Write it into jobs.main, or convert again with -- COMMAND")
		c.out.comment(4, "containerpilot: write the command of the application here")
		c.out.add(4, "command: "+doubleQuoted(placeholder))
	} else {
		items := make([]string, len(c.opt.Command))
		for i, s := range c.opt.Command {
			items[i] = scalar(s)
		}
		c.items(4, "command", items)
	}
	c.out.add(4, "output: raw")
	if parts[preStartName] != nil {
		c.out.add(4, "after: {"+preStartName+": succeeded}")
	}
	if n := parts["stopTimeout"]; n != nil {
		grace, ok := c.seconds(n, "stopTimeout")
		switch s, _ := single(n); {
		case s == "-1":
			c.out.add(4, "stop: {signal: KILL}")
		case ok:
			c.out.add(4, "stop: {grace: "+grace+"}")
		default:
			c.leave(4, n, "stopTimeout", "is no length of time")
		}
	}
	c.services(parts["services"])
}

// ownService is the service that the application itself is: the first that is there
// whatever the template chooses, and is registered, if any is. nil: none.
func (c *conversion) ownService(n *node) *node {
	if n == nil || n.kind != list || !c.catalog {
		return nil
	}
	var first *node
	where := branches(n.entries)
	for i, e := range n.entries {
		switch {
		case e.action != "" || len(where[i]) > 0 || e.value.kind != object || e.value.conditional():
		case registers(e.value):
			return e.value
		case first == nil:
			first = e.value
		}
	}
	return first
}

// services writes the service that the application is, and its check. If none is
// registered, all have only their checks.
func (c *conversion) services(n *node) {
	if n == nil || n.kind != list {
		if n != nil {
			c.leave(4, n, "services", "is no list")
		}
		return
	}
	own, checks := c.ownService(n), false
	for _, e := range n.entries {
		checks = checks || e.value.get("health") != nil && (e.value == own || !c.catalog)
	}
	indent := 4
	if checks {
		c.out.add(4, "checks:")
		indent = 6
	}
	names, i := map[string]bool{}, 0
	for _, e := range n.entries {
		if e.action != "" {
			if !c.catalog {
				c.control(indent, e)
			}
			continue
		}
		at := fmt.Sprintf("services[%d]", i)
		i++
		if c.catalog && e.value != own {
			continue
		}
		c.comments(indent, e)
		if e.value.kind != object || e.value.conditional() {
			c.leave(indent, e.value, at, noBetween)
			continue
		}
		c.checkOf(indent, e.value, at, names)
		if c.catalog {
			c.serviceOf(4, e.value, at)
			continue
		}
		c.serviceOf(indent, e.value, at)
	}
}

// checkOf writes the check of a service, if it has one.
func (c *conversion) checkOf(indent int, n *node, at string, names map[string]bool) {
	k := check{n.get("health"), n.get("poll"), n.get("ttl"), n.get("timeout")}
	if k.exec == nil {
		return
	}
	name, _ := nameOf(n.get("name"), k.exec)
	if !templated(name) && !validName(name) || names[name] {
		name = fmt.Sprintf("service-%d", len(names))
	}
	names[name] = true
	c.out.add(indent, scalar(name)+":")
	c.checkBody(indent+2, k, at, "poll", "health")
}

// serviceOf writes how a service is registered, and keeps the rest as comments.
func (c *conversion) serviceOf(indent int, n *node, at string) {
	checked, why := n.get("health") != nil, ""
	if !c.catalog {
		why = noCatalog
	}
	given, _ := nameOf(n.get("name"), n.get("health"))
	j := job{name: given, key: cleanName(path.Base(given))}
	for _, e := range n.entries {
		if contains(serviceKeys, e.key) {
			c.serviceKey(indent, n, j.service(), at, e, why)
			continue
		}
		c.comments(indent, e)
		at := at + "." + e.key
		switch e.key {
		case "health":
		case "name", "ttl":
			switch {
			case checked:
			case why != "":
				c.leave(indent, e.value, at, why)
			case !registers(n) && e.key == "ttl":
				c.leave(indent, e.value, at, noPort)
			}
		case "poll", "timeout":
			if !checked {
				c.leave(indent, e.value, at, noHeartbeat)
			}
		default:
			c.leave(indent, e.value, at, unknownKey)
		}
	}
}

// others writes the services that the application is not: each is a job that waits.
func (c *conversion) others(n *node) {
	own := c.ownService(n)
	if n == nil || n.kind != list || !c.catalog {
		return
	}
	c.section(n, "services", func(n *node, at string) {
		if n == own {
			return
		}
		name, given := nameOf(n.get("name"), n.get("health"))
		c.out.add(2, scalar(c.take(n, name, at, given))+":")
		c.wait(4, n, at)
		c.out.add(4, "after: {"+mainName+": started}")
		if n.get("health") != nil {
			c.out.add(4, "checks:")
		}
		c.checkOf(6, n, at, map[string]bool{})
		c.serviceOf(4, n, at)
	})
}

// listed begins a job of a list, and returns its name; "" if it has no command.
func (c *conversion) listed(n *node, at, name, command string, given bool) (key string) {
	if n.get(command) == nil {
		c.leave(2, n, at, "has no command")
		return ""
	}
	key = c.take(n, name, at, given)
	c.out.add(2, scalar(key)+":")
	c.command(4, "command", n.get(command), at+"."+command)
	return key
}

// known leaves what is none of the keys.
func (c *conversion) known(n *node, at string, keys ...string) {
	for _, e := range n.entries {
		c.comments(4, e)
		if !contains(keys, e.key) {
			c.leave(4, e.value, at+"."+e.key, unknownKey)
		}
	}
}

func (c *conversion) afterPreStart(after bool) {
	if after {
		c.out.add(4, "after: {"+preStartName+": succeeded}")
	}
}

func (c *conversion) coprocess(n *node, at string, after bool) {
	name, given := nameOf(n.get("name"), n.get("command"))
	if c.listed(n, at, name, "command", given) == "" {
		return
	}
	c.afterPreStart(after)
	if r := n.get("restarts"); r != nil {
		c.restarts(4, r, at+".restarts", false)
	}
	c.known(n, at, "name", "command", "restarts")
}

func (c *conversion) task(n *node, at string, after bool) {
	name, given := nameOf(n.get("name"), n.get("command"))
	if c.listed(n, at, name, "command", given) == "" {
		return
	}
	c.afterPreStart(after)
	every, ok := "", false
	if f := n.get("frequency"); f != nil {
		if every, ok = c.duration(f, at+".frequency"); !ok {
			c.leave(4, f, at+".frequency", "is no length of time")
		}
		if tooShort(every) {
			c.note(f, at+".frequency", "is 100ms now, the shortest interval")
			every = "100ms"
		}
	}
	if ok {
		c.out.add(4, "every: "+every)
	}
	if t := n.get("timeout"); t != nil {
		c.time(4, "timeout", t, at+".timeout", c.duration)
	} else if ok {
		c.out.add(4, "timeout: "+every)
	}
	c.known(n, at, "name", "command", "frequency", "timeout")
}

// backend writes the command for a change of other services, which were not looked at
// before preStart had ended.
func (c *conversion) backend(n *node, at string, after bool) {
	service, _ := nameOf(n.get("name"), nil)
	w := watchOf(n)
	if c.catalog && w != nil && n.get("onChange") != nil {
		w.key = c.watchKey(w.name)
		c.watches = append(c.watches, w)
	}
	name := "onChange-" + service
	key := c.listed(n, at, name, "onChange", templated(service))
	if key == "" {
		return
	}
	if w != nil && c.catalog {
		c.out.add(4, "on: ["+c.scalar(n, "changed:"+w.key, at+".name")+"]")
	} else {
		c.onWatch(4, key, n, at, "changed", service, "on")
	}
	c.afterPreStart(after)
	if t := n.get("timeout"); t != nil {
		c.time(4, "timeout", t, at+".timeout", c.duration)
	}
	if !c.catalog {
		c.known(n, at, "name", "poll", "onChange", "tag", "timeout")
	}
}

// watches2 writes what the jobs of the backends wait for.
func (c *conversion) watches2(n *node) {
	if len(c.watches) == 0 {
		return
	}
	c.out.add(0, "watches:")
	i := 0
	for _, e := range n.entries {
		if e.action != "" {
			c.out.control(2, e.action)
			continue
		}
		for _, w := range c.watches {
			if w.node == e.value {
				c.watch(w, fmt.Sprintf("backends[%d]", i), "poll")
			}
		}
		i++
	}
}
