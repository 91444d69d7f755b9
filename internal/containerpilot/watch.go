package containerpilot

import (
	"strconv"
	"strings"
)

// watch is one that is told apart before anything is written, for jobs name them.
type watch struct {
	node *node  // nil: no list has it, only a job names it
	name string // of the service
	key  string // its name in drover.yaml; "": it is there already
	tag  string
	dc   string
	sure bool // it is there whatever the template chooses
}

// What is said of watches.
const (
	noPolling = "has no equal: a watch hears of a change at once, and nothing polls"
	byHand    = "the job runs only by hand: drover webhook "
	seeToName = "must make the name of a watch, or Drover does not start"
)

var watchEvents = []string{"changed", "healthy", "unhealthy"}

// addWatch gives a watch a name that no job and no other watch has. Two of the same
// name keep it if the template chooses between them.
func (c *conversion) addWatch(w *watch) *watch {
	c.watches = append(c.watches, w)
	for _, other := range c.watches {
		switch {
		case other == w || other.key == "" || !sameText(other.name, w.name):
		case !other.sure || !w.sure:
			w.key = other.key
			return w
		case other.tag == w.tag && other.dc == w.dc:
			return w
		}
	}
	w.key = c.watchKey(w.name)
	return w
}

// watchKey is a name that no job and no watch has.
func (c *conversion) watchKey(name string) string {
	key := cleanName(name)
	if c.names[key] {
		if key = "watch-" + key; !templated(key) {
			key = key[:min(len(key), 63)]
		}
	}
	return c.free(key)
}

// sameText says whether two names are the same. Inside a range {{ $.X }} is what
// {{ .X }} is outside, and blanks at the ends of an action are nothing.
func sameText(a, b string) bool { return plainActions(a) == plainActions(b) }

func plainActions(s string) string {
	var b strings.Builder
	for _, p := range parts(s) {
		if p.action {
			p.text = "{{" + strings.ReplaceAll(oneLine(body(p.text)), "$.", ".") + "}}"
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// watchOf reads one; nil if it is none.
func watchOf(n *node) *watch {
	if n == nil || n.kind != object {
		return nil
	}
	name, ok := single(n.get("name"))
	if !ok || strings.TrimSpace(name) == "" {
		return nil
	}
	w := &watch{node: n, name: name}
	w.tag, _ = single(n.get("tag"))
	w.dc, _ = single(n.get("dc"))
	return w
}

// findWatches looks at all watches of version 3, and at the jobs that name them.
func (c *conversion) findWatches(root *node) {
	if !c.catalog {
		return
	}
	outer := branches(root.entries)
	for i, top := range root.entries {
		if top.key != "watches" || top.value.kind != list {
			continue
		}
		inner := branches(top.value.entries)
		for k, e := range top.value.entries {
			if w := watchOf(e.value); w != nil {
				w.sure = len(outer[i])+len(inner[k]) == 0
				c.addWatch(w)
			}
		}
	}
	listed := len(c.watches)
	for _, j := range c.jobs {
		w, _ := readWhen(j.node.get("when"))
		name, of := strings.CutPrefix(w.source, "watch.")
		switch {
		case !of || !j.runs || w.interval != nil || !contains(watchEvents, w.event) || strings.TrimSpace(name) == "":
		case len(c.watchesOf(name)) > 0, templated(name) && (listed > 0 || strings.Contains(strings.ReplaceAll(name, "$.", "."), "$")):
		default:
			c.addWatch(&watch{name: strings.ReplaceAll(name, "$.", "."), sure: true})
		}
	}
}

// watchesOf are those that a job means by a name.
func (c *conversion) watchesOf(name string) (keys []string) {
	for _, w := range c.watches {
		if w.key == "" || !sameText(w.name, name) {
			continue
		}
		key := w.key
		if key == w.name {
			key = name
		}
		if !contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// whenWatch writes a condition on what a watch sees.
func (c *conversion) whenWatch(indent int, j *job, n *node, w when, word string) {
	at := j.path + ".when"
	name := strings.TrimPrefix(w.source, "watch.")
	if !contains(watchEvents, w.event) {
		c.leave(indent, n, at, "is no event of a watch; the job starts with the others")
		return
	}
	if w.each && w.event == "healthy" {
		c.note(n, at, "was at each change that left an instance, and is at the first instance after none now")
	}
	c.onWatch(indent, j.key, n, at, w.event, name, word)
}

// onWatch writes that a job runs at an event of a watch.
func (c *conversion) onWatch(indent int, job string, n *node, at, event, name, word string) {
	keys := c.watchesOf(name)
	if len(keys) == 0 && c.catalog && templated(name) && len(c.watches) > 0 {
		c.note(n, at, seeToName)
		keys = []string{name}
	}
	if len(keys) == 0 {
		why := noCatalog
		if c.catalog {
			why = "has no watch that this can be of"
		}
		c.leave(indent, n, at, why+"; until then "+byHand+job)
		c.out.add(indent, "on: ["+c.scalar(n, "webhook:"+job, at)+"]")
		return
	}
	var causes []string
	for _, key := range keys {
		causes = append(causes, c.scalar(n, event+":"+key, at))
	}
	c.items(indent, word, causes)
}

// watches3 writes the watches of a list.
func (c *conversion) watches3(n *node) {
	switch {
	case n.kind != list:
		c.leave(0, n, "watches", "is no list")
		return
	case c.catalog:
		c.out.add(0, "watches:")
	}
	i := 0
	c.each(2, n, func(e entry) {
		at := "watches[" + strconv.Itoa(i) + "]"
		i++
		c.comments(2, e)
		for _, w := range c.watches {
			if w.node == e.value {
				c.watch(w, at, "interval")
				return
			}
		}
		if c.catalog {
			c.leave(2, e.value, at, "has no name of a service")
			return
		}
		c.leave(0, e.value, at, noCatalog)
	})
	c.missingWatches()
}

// missingWatches writes those that only jobs name, once.
func (c *conversion) missingWatches() {
	for _, w := range c.watches {
		if w.node == nil {
			c.out.comment(2, "containerpilot: a job waits for this one, and no list had it")
			c.out.add(2, scalar(w.key)+": "+scalar(w.name))
		}
	}
}

// watch writes one; poll is the key of its interval.
func (c *conversion) watch(w *watch, at, poll string) {
	const indent = 4
	if w.key == "" {
		c.leave(2, w.node, at, "is there already")
		return
	}
	if w.key != w.name {
		c.leave(2, w.node.get("name"), at+".name", "is now "+strconv.Quote(w.key)+": names are unique among jobs and watches, and of letters, digits and . _ -")
	}
	c.out.add(2, scalar(w.key)+":")
	c.out.add(indent, "service: "+c.scalar(w.node, w.name, at+".name"))
	c.each(indent, w.node, func(e entry) {
		c.comments(indent, e)
		at := at + "." + e.key
		s, ok := single(e.value)
		switch {
		case e.key == "name", e.key == "onChange", e.key == "timeout":
		case e.key == poll:
			c.leave(indent, e.value, at, noPolling)
		case ok && e.key == "tag" && s != "":
			c.out.add(indent, "tag: "+c.scalar(e.value, s, at))
		case ok && e.key == "dc" && s != "":
			c.out.add(indent, "datacenter: "+c.scalar(e.value, s, at))
		case e.key == "tag" || e.key == "dc":
			if !ok {
				c.leave(indent, e.value, at, "is no text")
			}
		default:
			c.leave(indent, e.value, at, unknownKey)
		}
	})
}
