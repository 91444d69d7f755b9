package containerpilot

import "fmt"

// The jobs that version 2 has by place, not by name.
const (
	mainName     = "main"
	preStartName = "preStart"
)

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
			c.leave(0, e.value, e.key, noCatalog)
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
	c.section(parts["backends"], "backends", c.backend)
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

// services writes the checks of services, and keeps the rest as comments.
func (c *conversion) services(n *node) {
	if n == nil || n.kind != list {
		if n != nil {
			c.leave(4, n, "services", "is no list")
		}
		return
	}
	checks := false
	for _, e := range n.entries {
		checks = checks || e.value.get("health") != nil
	}
	indent := 4
	if checks {
		c.out.add(4, "checks:")
		indent = 6
	}
	names := map[string]bool{}
	i := 0
	c.each(indent, n, func(e entry) {
		c.comments(indent, e)
		at := fmt.Sprintf("services[%d]", i)
		i++
		if e.value.kind != object || e.value.conditional() {
			c.leave(indent, e.value, at, noBetween)
			return
		}
		c.service(indent, e.value, at, names)
	})
}

func (c *conversion) service(indent int, n *node, at string, names map[string]bool) {
	k := check{n.get("health"), n.get("poll"), n.get("ttl"), n.get("timeout")}
	inner := indent
	if k.exec != nil {
		name, _ := nameOf(n.get("name"), k.exec)
		if !templated(name) && !validName.MatchString(name) || names[name] {
			name = fmt.Sprintf("service-%d", len(names))
		}
		names[name] = true
		c.out.add(indent, scalar(name)+":")
		inner = indent + 2
		c.checkBody(inner, k, at, "poll", "health")
	}
	for _, e := range n.entries {
		c.comments(inner, e)
		at := at + "." + e.key
		switch e.key {
		case "health", "poll", "ttl", "timeout":
			if k.exec == nil {
				c.leave(inner, e.value, at, noRegister)
			}
		case "name":
			if k.exec == nil {
				c.leave(inner, e.value, at, noRegister)
			}
		case "port", "interfaces", "tags", "consul":
			c.leave(inner, e.value, at, noRegister)
		default:
			c.leave(inner, e.value, at, unknownKey)
		}
	}
}

// listed begins a job of a list; ok is false if it has no command.
func (c *conversion) listed(n *node, at, name, command string, given bool) bool {
	if n.get(command) == nil {
		c.leave(2, n, at, "has no command")
		return false
	}
	c.out.add(2, scalar(c.take(n, name, at, given))+":")
	c.command(4, "command", n.get(command), at+"."+command)
	return true
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
	if !c.listed(n, at, name, "command", given) {
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
	if !c.listed(n, at, name, "command", given) {
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

// backend writes the command for a change of other services.
func (c *conversion) backend(n *node, at string) {
	service, _ := nameOf(n.get("name"), nil)
	name := "onChange-" + service
	if !c.listed(n, at, name, "onChange", templated(service)) {
		return
	}
	c.out.add(4, "on: ["+c.scalar(n, "changed:"+service, at+".name")+"]")
	if t := n.get("timeout"); t != nil {
		c.time(4, "timeout", t, at+".timeout", c.duration)
	}
	c.note(n, at, noWatch+"; until then this job runs only when it is started by hand")
	for _, e := range n.entries {
		if e.key == "poll" || e.key == "tag" {
			c.leave(4, e.value, at+"."+e.key, noWatch)
		}
	}
	c.known(n, at, "name", "poll", "onChange", "tag", "timeout")
}
