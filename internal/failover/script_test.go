package failover

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts plays the stories in testdata: small clusters whose coordinator and network are quick. Each line is what
// happens; what follows it, indented, is what the members do then. `-rewrite` writes down what they do now; read the diff.
//
// A line is one of:
//
//	cluster NAME... [mode=M] [acks=N] [lost=D] [backup] [standby]   boots these; TTL 2s, Missing 2s, Forget 60s
//	formed NAME... [the same]         the same, and 4s later; what they do meanwhile is not told
//	run DURATION                      time passes: a step of each member every 100ms
//	archive N                         another cluster's archive, which a standby cluster follows, has so much more
//	commit N                          the primary's clients write so much: told is which is acknowledged
//	crash|boot|destroy NAME...        an instance ends at once | starts again | ends with its disk; it may be a new one
//	kill|hang|wake NAME               the server dies | does not answer | answers again
//	pause-agent|resume-agent NAME     the agent sleeps, its server does not
//	stop NAME                         the instance is to end in order
//	full|empty NAME                   its disk is full | is not any more
//	broken|whole NAME                 no server can be started from its files | one can
//	deaf|hearing NAME                 it receives nothing, though it asks | it does again
//	fed|unfed NAME                    it applies more and more of an archive | it does not any more
//	cut|join NAME NAME|store          neither reaches the other | both do again
//	coordinator away|back|lost        does not answer | does | has no record any more
//	coordinator old NAME              shows this one, once, the record before
//	coordinator mute NAME             what it is told by this one is done, but it does not answer; join ends that
//	coordinator slow|quick            what it is told is done later | now, and what was told until now
//	tags NAME [nofailover] [nosync] [priority=N] [replicatefrom=NAME] [delayed=D]
//	config NAME [mode=M] [acks=N]     its configuration is another one
//	switchover [NAME] [force]         somebody asks for it
//	withdraw                          it is taken back
//	failover paused|resumed
//	sluggish NAME                     what it does to its server takes a second from now on
//	odd NAME                          its log cannot be compared with another's
//	foreign NAME                      its files are another database's
//	show                              the record, and how each member is
//	revision                          how often the record was written in its epoch
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return // what another test has found
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s := &story{cut: map[string]bool{}}
			for line := range strings.Lines(d.Input) {
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				fmt.Fprintln(&s.out, line)
				if err := s.line(strings.Fields(line)); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			return s.out.String()
		})
	})
}

// story is a small cluster.
type story struct {
	out     strings.Builder
	now     time.Duration
	nodes   []*node
	record  *Record
	before  *Record
	stale   string // who is shown, once, the record before
	beats   map[uint64]uint64
	away    bool
	cut     map[string]bool
	slow    bool
	late    []func()
	values  int   // of commits
	archive []int // another cluster's
	forks   int
	acked   int
}

func (s *story) tell(format string, args ...any) {
	fmt.Fprintf(&s.out, "    [%s] "+format+"\n", append([]any{s.now}, args...)...)
}

func (s *story) node(name string) *node {
	for _, n := range s.nodes {
		if n.name == name {
			return n
		}
	}
	panic("there is no " + name)
}

func (s *story) byID(id string) *node {
	for _, n := range s.nodes {
		if n.disk.ID == id && n.on {
			return n
		}
	}
	return nil
}

func (s *story) line(f []string) error {
	switch args := f[1:]; f[0] {
	case "cluster":
		s.cluster(args)
	case "formed":
		before := s.out.String()
		s.cluster(args)
		err := s.line([]string{"run", "4s"})
		s.out.Reset()
		s.out.WriteString(before)
		return err
	case "run":
		d, err := time.ParseDuration(args[0])
		for end := s.now + d; s.now < end; {
			s.tick()
		}
		return err
	case "archive":
		n, err := strconv.Atoi(args[0])
		for range n {
			s.values++
			s.archive = append(s.archive, s.values)
		}
		return err
	case "commit":
		return s.commit(args[0])
	case "cut", "join":
		s.cut[args[0]+" "+args[1]], s.cut[args[1]+" "+args[0]] = f[0] == "cut", f[0] == "cut"
	case "coordinator":
		s.coordinator(args[0], args[1:])
	case "switchover":
		w := Switchover{}
		for _, a := range args {
			if a == "force" {
				w.Force = true
			} else {
				w.To = a
			}
		}
		s.wish(func(r *Record) { r.Switchover = &w })
	case "withdraw":
		s.wish(func(r *Record) { r.Switchover = nil })
	case "failover":
		s.wish(func(r *Record) { r.Paused = args[0] == "paused" })
	case "revision":
		s.out.WriteString(fmt.Sprintf("    revision %d\n", s.record.Revision))
	case "show":
		s.show()
	case "tags", "config":
		s.node(args[0]).configure(args[1:])
	default:
		for _, name := range args {
			if !s.node(name).happen(f[0]) {
				return fmt.Errorf("nobody knows what that is")
			}
		}
	}
	return nil
}

func (s *story) cluster(args []string) {
	s.beats = map[uint64]uint64{}
	var names, options []string
	for _, a := range args {
		if strings.Contains(a, "=") || a == "backup" || a == "standby" {
			options = append(options, a)
		} else {
			names = append(names, a)
		}
	}
	for _, name := range names {
		n := &node{s: s, name: name, cfg: Config{
			Name: name, Self: Member{Host: name}, Mode: On, Acks: 1, TTL: 2 * time.Second, Missing: 2 * time.Second,
			Forget: time.Minute, Compare: comparePositions,
		}}
		n.configure(options)
		s.nodes = append(s.nodes, n)
		n.boot()
	}
}

// comparePositions orders numbers; what else there is cannot be compared.
func comparePositions(a, b string) (int, bool) {
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return x - y, err1 == nil && err2 == nil
}

func (s *story) coordinator(how string, who []string) {
	switch how {
	case "mute":
		s.cut["store "+who[0]] = true
	case "slow", "quick":
		s.slow = how == "slow"
		for _, do := range s.late {
			do()
		}
		s.late = nil
	case "away", "back":
		s.away = how == "away"
	case "lost":
		s.record, s.before = nil, nil
	case "old":
		s.stale = who[0]
	}
}

func (s *story) wish(change func(*Record)) {
	r := s.record.Next()
	change(r)
	s.before, s.record = s.record, r
}

// commit has the primary's clients write, and tells what is acknowledged of it within a second.
func (s *story) commit(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for _, p := range s.nodes {
		if p.on && p.up && p.primary && p.open {
			for range n {
				s.values++
				p.log = append(p.log, s.values)
			}
			return s.line([]string{"run", "1s"})
		}
	}
	s.tell("nobody accepts it")
	return nil
}

func (s *story) reaches(a, b string) bool { return !s.cut[a+" "+b] }

func (s *story) tick() {
	s.now += 100 * time.Millisecond
	for _, n := range s.nodes {
		if n.on {
			n.serve()
		}
	}
	for _, n := range s.nodes {
		if n.on && !n.asleep {
			n.live()
		}
	}
}

func (s *story) show() {
	r := s.record
	if r == nil {
		fmt.Fprintln(&s.out, "    no record")
	} else {
		fmt.Fprintf(&s.out, "    epoch %d %s, primary %s, mode %s, %s\n", r.Epoch, r.Phase, r.Primary, r.Mode, text(r.Set))
	}
	for _, n := range s.nodes {
		fmt.Fprintf(&s.out, "    %s: %s\n", n.name, n)
	}
}
