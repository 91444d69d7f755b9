package failover

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// node is a member of a story: its disk, its server, its agent.
type node struct {
	s    *story
	name string
	cfg  Config
	ids  int

	on, asleep, stopping bool

	disk                     Persistent
	system                   string
	replica, full, deaf, odd bool
	broken, sluggish         bool
	fed, archive             bool
	applied                  int
	backup, unsure           bool
	log                      []int

	up, hung, primary, open bool
	answers                 time.Duration
	upstream                string
	set                     SyncSet
	flushed                 map[string]int

	state State
	obs   Observation
	last  string // what was told last
	why   string // the reason among it
	do    func() // what is under way, until
	until time.Duration
}

func (n *node) boot() {
	n.on, n.asleep, n.stopping = true, false, false
	n.state, n.obs, n.do, n.last = State{Persistent: n.disk}, Observation{Answers: map[string]Answer{}}, nil, ""
}

func (n *node) kill() {
	n.up, n.hung, n.primary, n.open, n.upstream, n.set, n.archive = false, false, false, false, "", SyncSet{}, false
}

func (n *node) configure(options []string) {
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "mode":
			n.cfg.Mode = Mode(value)
		case "acks":
			n.cfg.Acks = number
		case "lost":
			n.cfg.Lost, _ = time.ParseDuration(value)
		case "backup":
			n.backup = true
		case "standby":
			n.cfg.Standby = true
		case "nofailover":
			n.cfg.Self.Tags.NoFailover = true
		case "nosync":
			n.cfg.Self.Tags.NoSync = true
		case "delayed":
			n.cfg.Self.Tags.Delayed, _ = time.ParseDuration(value)
		case "replicatefrom":
			n.cfg.Self.Tags.ReplicateFrom = value
		case "priority":
			n.cfg.Self.Tags.Priority = number
		}
	}
}

// happen is something that happens to it; false: nobody knows what that is.
func (n *node) happen(what string) bool {
	switch what {
	case "boot":
		n.boot()
	case "crash":
		n.kill()
		n.on, n.do = false, nil
	case "destroy":
		n.kill()
		n.on, n.do, n.disk, n.system, n.replica, n.log = false, nil, Persistent{}, "", false, nil
	case "kill":
		n.kill()
	case "hang", "wake":
		n.hung = what == "hang"
	case "pause-agent", "resume-agent":
		n.asleep = what == "pause-agent"
	case "stop":
		n.stopping = true
	case "full", "empty":
		n.full = what == "full"
	case "deaf", "hearing":
		n.deaf = what == "deaf"
	case "unsure", "sure":
		n.unsure = what == "unsure"
	case "broken", "whole":
		n.broken = what == "broken"
	case "fed", "unfed":
		n.fed = what == "fed"
	case "sluggish":
		n.sluggish = true
	case "odd":
		n.odd = true
	case "foreign":
		n.system, n.log = "other", []int{-1}
	default:
		return false
	}
	return true
}

// source is where the server receives from now; nil: from nobody.
func (n *node) source() *node {
	up := n.s.byID(n.upstream)
	if !n.up || n.hung || n.deaf || up == nil || !up.up || up.hung || !up.primary && n.cfg.Self.Tags.ReplicateFrom != up.name || !n.s.reaches(n.name, up.name) ||
		len(n.log) > len(up.log) || !slices.Equal(n.log, up.log[:len(n.log)]) {
		return nil
	}
	return up
}

// serve is what the server does by itself.
func (n *node) serve() {
	if up := n.source(); up != nil && n.s.now >= n.answers {
		n.log = slices.Clone(up.log)
		up.flushed[n.disk.ID] = len(n.log)
	}
	if n.up && !n.hung && !n.deaf && n.archive && n.s.now >= n.answers {
		n.log = slices.Clone(n.s.archive)
	}
	if !n.up || n.hung || !n.primary || !n.open {
		return
	}
	for i, v := range n.log {
		have := 0
		for _, id := range n.set.Members {
			if n.flushed[id] > i {
				have++
			}
		}
		if v > n.s.acked && have >= n.set.Acks {
			n.s.acked = v
			n.s.tell("%s acknowledges commit %d", n.name, v)
		}
	}
}

func (n *node) observe() {
	o, s := &n.obs, n.s
	o.Now, o.Clock, o.Busy, o.Backup, o.Unsure, o.Stopping = s.now, time.Unix(0, 0).UTC(), n.do != nil, n.backup && !n.unsure, n.unsure, n.stopping
	o.Disk = &Disk{Empty: n.system == "", System: n.system, Replica: n.replica}
	o.Process, o.Database, o.Asked = Down, nil, s.now
	switch {
	case !n.up:
		return
	case s.now < n.answers:
		o.Process = Starting
		return
	}
	if o.Process = Up; n.hung {
		return
	}
	db := &Database{
		Primary: n.primary, Received: strconv.Itoa(len(n.log)), Upstream: n.upstream, Receiving: n.source() != nil,
		Detached: n.upstream == "" && !n.archive, Archive: n.archive, Set: n.set, Open: n.open,
	}
	if n.fed {
		n.applied++
		db.Applied = strconv.Itoa(n.applied)
	}
	if n.odd {
		db.Received += "?"
	}
	if n.full {
		db.Incident = "the disk is full"
	}
	for _, id := range slices.Sorted(maps.Keys(n.flushed)) {
		if r := s.byID(id); r != nil && r.source() == n {
			db.Replicas = append(db.Replicas, Replica{ID: id, Flushed: strconv.Itoa(n.flushed[id]), Streaming: true})
		}
	}
	o.Database = db
}

// exchange reads the record, beats, and asks the others.
func (n *node) exchange() {
	s, o, d := n.s, &n.obs, n.obs.Answers
	if s.reaches(n.name, "store") && s.reaches("store", n.name) && !s.away {
		o.Known, o.Record, o.Sent, o.Got = true, s.record, s.now, s.now
		if s.stale == n.name {
			o.Record, s.stale = s.before, ""
		}
		if o.Record != nil {
			o.Beat = s.beats[o.Record.Epoch]
		}
	}
	for _, other := range s.nodes {
		if other == n || !other.on || other.asleep || !s.reaches(n.name, other.name) {
			continue
		}
		other.observe()
		a := other.state.Answer(other.disk.Epoch, other.obs)
		a.Sent, a.Got = s.now, s.now
		d[a.ID] = a
		if n.state.leads != 0 && n.state.leads == other.disk.Epoch {
			other.obs.Alive, other.obs.AliveEpoch = s.now, n.state.leads
		}
	}
}

func (n *node) live() {
	if n.do != nil && n.s.now >= n.until {
		n.do()
		n.do = nil
	}
	n.observe()
	n.exchange()
	id := fmt.Sprintf("%s.%d", n.name, n.ids+1)
	state, d := Step(n.cfg, n.state, n.obs, id)
	if n.state = state; state.ID == id {
		n.ids++
	}
	if d.Beat != 0 && n.s.reaches(n.name, "store") && n.s.reaches("store", n.name) && !n.s.away {
		n.s.beats[d.Beat]++
		n.obs.Beaten, n.obs.BeatenEpoch = n.s.now, d.Beat
	}
	var told []string
	for _, a := range d.Actions {
		told = append(told, n.text(a))
	}
	told = slices.DeleteFunc(told, func(s string) bool { return s == "" })
	quiet := len(told) == 0 && (d.Why == "" || d.Why == n.why)
	if n.why = d.Why; d.Why != "" {
		told = append(told, "("+d.Why+")")
	}
	if line := strings.Join(told, "; "); line != n.last {
		if n.last = line; !quiet {
			n.s.tell("%s: %s", n.name, line)
		}
	}
	for _, a := range d.Actions {
		n.act(a)
	}
}

func (n *node) during(d time.Duration, do func()) { n.until, n.do = n.s.now+d, do }

func (n *node) act(a Action) {
	switch a := a.(type) {
	case Persist:
		n.disk = a.Persistent
		return
	case Write:
		seen := n.obs.Record
		swap := func() {
			if seen == n.s.record {
				n.s.before, n.s.record = n.s.record, a.Record
			}
		}
		switch {
		case n.s.slow:
			n.s.late = append(n.s.late, swap)
		case n.s.reaches(n.name, "store") && !n.s.away:
			swap()
		}
		return
	case Kill:
		n.kill()
		return
	}
	if n.do != nil {
		return
	}
	switch a := a.(type) {
	case Init:
		n.during(300*time.Millisecond, func() { n.system, n.log, n.replica = "made by "+n.name, nil, false })
	case Restore:
		n.during(300*time.Millisecond, func() { n.system, n.log, n.replica = "of the backup", nil, false })
	case Clone:
		n.renew(a.From, a.ID)
	case Rewind:
		n.renew(a.From, a.ID)
	case Seed:
		n.remake(a.ID, func() bool {
			n.system, n.log, n.replica = "the source's", slices.Clone(n.s.archive), true
			return true
		})
	case Start:
		n.archive = a.Archive
		n.up, n.answers, n.primary, n.upstream, n.set = true, n.s.now+300*time.Millisecond, !a.Standby, a.Upstream, a.Set
		n.replica, n.flushed = n.replica || a.Standby, map[string]int{}
		if n.broken {
			n.kill()
		}
	default:
		if n.sluggish {
			n.during(time.Second, func() { n.change(a) })
			return
		}
		n.change(a)
	}
}

// change is done to a running server.
func (n *node) change(a Action) {
	if !n.up || n.hung {
		return
	}
	switch a := a.(type) {
	case Stop:
		n.kill()
	case Follow:
		n.upstream, n.archive = a.Upstream, false
	case Synchronize:
		n.set = a.Set
		n.state = n.state.Synchronized(strconv.Itoa(len(n.log)))
	case Keep:
		n.state = n.state.Kept(a.IDs)
	case Promote:
		n.primary, n.open, n.replica, n.flushed = true, false, false, map[string]int{}
		n.s.forks--
		n.log = append(n.log, n.s.forks) // what a promotion writes
	case Admit:
		n.open = a.Clients
	}
}

func (n *node) renew(from, id string) {
	n.remake(id, func() bool {
		up := n.s.byID(from)
		if up == nil || !up.primary {
			return false
		}
		n.system, n.log, n.replica = up.system, slices.Clone(up.log), true
		return true
	})
}

func (n *node) remake(id string, how func() bool) {
	n.ids++
	n.state = n.state.Renewing(id)
	n.disk = n.state.Persistent
	n.kill()
	n.during(300*time.Millisecond, func() {
		if how() {
			n.state = n.state.Renewed(id)
			n.disk = n.state.Persistent
		}
	})
}

func (n *node) String() string {
	switch {
	case !n.on:
		return "off"
	case !n.up:
		return fmt.Sprintf("%s, down, log %d", n.disk.ID, len(n.log))
	case n.primary:
		return fmt.Sprintf("%s, primary, open %v, log %d, waits for %s", n.disk.ID, n.open, len(n.log), text(n.set))
	case n.archive:
		return fmt.Sprintf("%s, applies the archive, log %d", n.disk.ID, len(n.log))
	}
	return fmt.Sprintf("%s, replica of %q, log %d", n.disk.ID, n.upstream, len(n.log))
}

// text is a set, for readers.
func text(s SyncSet) string { return fmt.Sprintf("%d of %v", s.Acks, s.Members) }

// text is an action, for readers; empty: it is not told.
func (n *node) text(a Action) string {
	switch a := a.(type) {
	case Persist, Keep:
		return ""
	case Write:
		list := differences(n.obs.Record, a.Record)
		if len(list) == 0 {
			return "write the same again"
		}
		return "write " + strings.Join(list, ", ")
	case Kill:
		return "KILL, " + a.Reason
	case Synchronize:
		return "wait for " + text(a.Set)
	case Start:
		switch {
		case !a.Standby:
			return "start as primary, wait for " + text(a.Set)
		case a.Archive:
			return "start, applying the archive"
		case a.Upstream == "":
			return "start, following nobody"
		}
		return "start, following " + a.Upstream
	case Follow:
		if a.Upstream == "" {
			return "follow nobody"
		}
		return "follow " + a.Upstream
	case Clone:
		return "clone " + a.From + " as " + a.ID
	case Seed:
		return "seed as " + a.ID
	case Rewind:
		return "rewind to " + a.From + " as " + a.ID
	case Admit:
		if a.Clients {
			return "admit clients"
		}
		return "admit no clients"
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "failover."))
}

// differences are what a write changes.
func differences(old, now *Record) []string {
	if old == nil {
		old = &Record{}
	}
	var list []string
	add := func(name string, a, b any) {
		if fmt.Sprint(a) != fmt.Sprint(b) {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%s %v", name, b)))
		}
	}
	add("epoch", old.Epoch, now.Epoch)
	add("", old.Phase, now.Phase)
	add("primary", old.Primary, now.Primary)
	add("candidate", old.Candidate, now.Candidate)
	add("mode", old.Mode, now.Mode)
	add("set", text(old.Set), text(now.Set))
	add("members", slices.Sorted(maps.Keys(old.Members)), slices.Sorted(maps.Keys(now.Members)))
	for name, m := range now.Members {
		if was, ok := old.Members[name]; ok && was != m {
			list = append(list, "member "+name+" is "+m.ID)
		}
	}
	if (old.Switchover == nil) != (now.Switchover == nil) {
		list = append(list, "switchover ended")
	}
	if n := len(now.History); n > 0 && (len(old.History) == 0 || old.History[len(old.History)-1].Epoch != now.History[n-1].Epoch) {
		list = append(list, fmt.Sprintf("reign: %s from %q", now.History[n-1].Reason, now.History[n-1].From))
	}
	return list
}
