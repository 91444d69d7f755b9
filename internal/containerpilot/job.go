package containerpilot

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// job is one that is told apart before anything is written, for jobs name one another.
type job struct {
	node  *node
	path  string // as in "jobs[2]"
	name  string // as the source has it; others say it in source
	key   string // its name in drover.yaml
	runs  bool   // it has a command, or waits
	waits bool   // it has none, and is there for its service and its check
	check bool   // it has a health check that runs
	hook  bool   // it runs when another one stops
	grace string // of its stop; "": nothing said
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	notOfNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
	// serviceForm is what Consul's DNS can ask for.
	serviceForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
)

func validName(name string) bool { return len(name) <= 63 && nameForm.MatchString(name) }

func validService(name string) bool { return len(name) <= 63 && serviceForm.MatchString(name) }

// nameOf is the name of a job: the one that was given, or its program's.
func nameOf(n, command *node) (string, bool) {
	if s, ok := single(n); ok && s != "" {
		return s, true
	}
	words, ok := texts(command)
	if !ok || len(words) == 0 {
		return "job", false
	}
	first, _, _ := strings.Cut(strings.TrimSpace(words[0]), " ")
	return first, false
}

// take gives a job a name that is valid and its own.
func (c *conversion) take(n *node, name, at string, given bool) string {
	key := name
	if !given {
		key = path.Base(name)
	}
	free := c.free(cleanName(key))
	if given && free != name {
		c.note(n, at+".name", "is now "+strconv.Quote(free)+": names are unique, and of letters, digits and . _ -")
	}
	return free
}

// cleanName makes a valid name, as far as that can be known.
func cleanName(name string) string {
	switch {
	case templated(name):
		var b strings.Builder
		for _, p := range parts(name) {
			if !p.action {
				p.text = notOfNames.ReplaceAllString(p.text, "-")
			}
			b.WriteString(p.text)
		}
		return b.String()
	case !validName(name):
		name = strings.Trim(notOfNames.ReplaceAllString(name, "-"), "-._")
		if name = name[:min(len(name), 50)]; name == "" {
			return "job"
		}
	}
	return name
}

// free takes a name, or the first like it that nothing has.
func (c *conversion) free(key string) string {
	free := key
	for i := 2; c.names[free]; i++ {
		tail := fmt.Sprintf("-%d", i)
		free = key + tail
		if !templated(key) {
			free = key[:min(len(key), 63-len(tail))] + tail
		}
	}
	c.names[free] = true
	return free
}

// named finds the job that a source names; nil if there is none.
func (c *conversion) named(name string) *job {
	for _, j := range c.jobs {
		if sameText(j.name, name) {
			return j
		}
	}
	return nil
}

// called writes the name of the job that a source names.
func (j *job) called(source string) string {
	if j.key == j.name {
		return source
	}
	return j.key
}

// begin writes the name of a job's section.
func (c *conversion) begin(indent int, j *job) {
	c.out.add(indent, scalar(j.key)+":")
}

// milestones are what a job waits for once: by event.
var milestones = map[string]string{"healthy": "healthy", "exitSuccess": "succeeded"}

// jobEvents are those of a job.
var jobEvents = map[string]string{
	"healthy": "healthy", "unhealthy": "unhealthy", "exitSuccess": "succeeded", "exitFailed": "failed",
	"stopping": "stopping", "stopped": "stopped",
}

// instanceEvents are those of the instance.
var instanceEvents = map[string]string{"shutdown": "shutdown", "enterMaintenance": "maintenance:on", "exitMaintenance": "maintenance:off"}

// when is a job's condition.
type when struct {
	source, event string
	each          bool
	interval      *node
	timeout       *node
}

func readWhen(n *node) (w when, ok bool) {
	if n == nil || n.kind != object || n.conditional() {
		return w, n == nil
	}
	w.source, _ = single(n.get("source"))
	w.interval, w.timeout = n.get("interval"), n.get("timeout")
	if s, given := single(n.get("once")); given {
		w.event = s
	} else if s, given := single(n.get("each")); given {
		w.event, w.each = s, true
	}
	return w, true
}

// when writes a job's condition.
func (c *conversion) when(indent int, j *job, n *node) {
	at := j.path + ".when"
	w, ok := readWhen(n)
	if !ok {
		c.leave(indent, n, at, noBetween)
		return
	}
	for _, e := range n.entries {
		if !contains([]string{"source", "once", "each", "interval", "timeout"}, e.key) {
			c.leave(indent, e.value, at+"."+e.key, unknownKey)
		}
	}
	if w.timeout != nil {
		c.leave(indent, w.timeout, at+".timeout", "has no equal: a job waits as long as it takes")
	}
	word := "once"
	if w.each {
		word = "on"
	}
	switch ofWatch := strings.HasPrefix(w.source, "watch."); {
	case w.interval != nil:
		c.interval(indent, j, w.interval)
	case templated(w.event):
		c.leave(indent, n, at, noTemplate)
	case w.source == "SIGHUP" || w.source == "SIGUSR2":
		c.out.add(indent, "on: [\"signal:"+strings.TrimPrefix(w.source, "SIG")+"\"]")
	case ofWatch:
		c.whenWatch(indent, j, n, w, word)
	case (w.source == "" || w.source == "global") && w.event == "startup":
		return // as without a condition
	case instanceEvents[w.event] != "":
		c.out.add(indent, word+": ["+scalar(instanceEvents[w.event])+"]")
	case jobEvents[w.event] == "":
		c.leave(indent, n, at, "is no condition; the job starts with the others")
	default:
		c.whenJob(indent, j, n, w)
	}
}

// interval writes that a job runs at the start, and then at turns.
func (c *conversion) interval(indent int, j *job, n *node) {
	at := j.path + ".when.interval"
	every, ok := c.duration(n, at)
	if !ok {
		c.leave(indent, n, at, "is no length of time")
		return
	}
	if tooShort(every) {
		c.note(n, at, "is 100ms now, the shortest interval")
		every = "100ms"
	}
	c.out.add(indent, "every: "+every)
	c.out.add(indent, "once: [startup]")
	if j.node.get("timeout") == nil {
		c.out.add(indent, "timeout: "+every)
	}
}

// whenJob writes a condition on what becomes of another job.
func (c *conversion) whenJob(indent int, j *job, n *node, w when) {
	at := j.path + ".when"
	on := c.named(w.source)
	switch {
	case on == nil && templated(w.source):
		c.note(n, at, "must make the name of a job, or Drover does not start")
		on = &job{name: w.source, key: w.source, check: true}
	case on == nil || !on.runs:
		c.never(indent, j, n, "waits for what is no job with a command, and never started")
		return
	case j.hook && on.hook:
		c.never(indent, j, n, "is of the stop of a job that itself runs when another stops")
		return
	}
	if j.hook {
		c.out.add(indent, map[string]string{"stopping": "before_stop", "stopped": "after_stop"}[w.event]+": "+scalar(on.called(w.source)))
		if on.grace != "" && w.event == "stopping" && j.node.get("timeout") == nil {
			c.out.add(indent, "timeout: "+on.grace)
		}
		return
	}
	milestone, once := milestones[w.event]
	if once && !w.each && on.node != nil && !on.hook && !c.comesAfter(on, j) {
		if w.event == "healthy" && !on.check {
			milestone = "ready"
			c.note(n, at, "waits for the health of a job without a health check: it waits until that is ready")
		}
		c.out.add(indent, "after: {"+scalar(on.called(w.source))+": "+milestone+"}")
		return
	}
	if w.each && w.event == "healthy" {
		c.note(n, at, "was at each check that passed, and is at each turn from unhealthy to healthy now")
	}
	word := "once"
	if w.each {
		word = "on"
	}
	c.out.add(indent, word+": ["+scalar(jobEvents[w.event]+":"+on.called(w.source))+"]")
}

// never writes a job whose condition cannot come true: it must not run with the others.
func (c *conversion) never(indent int, j *job, n *node, why string) {
	c.leave(indent, n, j.path+".when", why+"; "+byHand+j.key)
	c.out.add(indent, "on: ["+scalar("webhook:"+j.key)+"]")
}

// comesAfter says whether j waits, by whatever way round, for other, or is it.
func (c *conversion) comesAfter(j, other *job) bool {
	for range c.jobs {
		if j == nil || j == other {
			return j == other
		}
		w, _ := readWhen(j.node.get("when"))
		if w.each || w.interval != nil || milestones[w.event] == "" {
			return false
		}
		j = c.named(w.source)
	}
	return true // a circle
}

// restarts writes how often a job starts again.
func (c *conversion) restarts(indent int, n *node, at string, atTurns bool) {
	s, ok := single(n)
	count, err := strconv.ParseFloat(s, 64)
	switch {
	case !ok, templated(s):
		c.leave(indent, n, at, noTemplate)
	case s == "unlimited" && atTurns, s == "never" && !atTurns:
	case s == "unlimited":
		c.out.add(indent, "restart: always")
	case err != nil && s != "never" || count < 0 || count > 1<<30:
		c.leave(indent, n, at, "is no number of restarts")
	case atTurns:
		c.leave(indent, n, at, "has no equal: an end to the turns of a job")
	case count >= 1:
		c.out.add(indent, fmt.Sprintf("restart: {policy: always, count: %d}", int(count)))
	}
}

// check is what a health check needs.
type check struct {
	exec, every, ttl, timeout *node
}

// checkBody writes a check; at names where it is from.
func (c *conversion) checkBody(indent int, k check, at, everyKey, execKey string) {
	c.command(indent, "exec", k.exec, at+"."+execKey)
	if k.every != nil {
		c.time(indent, "every", k.every, at+"."+everyKey, c.seconds)
	}
	switch {
	case k.timeout != nil:
		c.time(indent, "timeout", k.timeout, at+".timeout", c.duration)
	case k.every != nil:
		if every, ok := c.seconds(k.every, at+"."+everyKey); ok {
			c.out.add(indent, "timeout: "+every)
		}
	}
	c.threshold(indent, k, at)
}

// threshold makes a time to live a number of failures.
func (c *conversion) threshold(indent int, k check, at string) {
	if k.ttl == nil {
		return
	}
	ttl, _ := single(k.ttl)
	every, _ := single(k.every)
	if !wholeNumber.MatchString(ttl) || !wholeNumber.MatchString(every) {
		c.leave(indent, k.ttl, at+".ttl", "has no equal but threshold, a number of failures: 3 is Drover's own")
		return
	}
	life, _ := strconv.Atoi(ttl)
	period, _ := strconv.Atoi(every)
	c.out.add(indent, fmt.Sprintf("threshold: %d", max(1, life/max(1, period))))
}
