package slots

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"drover/internal/volume/protocol"
)

// TestScripts plays the conversations in testdata: each line is what happens, what
// follows it indented is what the chooser wants done. `-rewrite` writes down what it
// does now; read the diff.
//
// A line is one of:
//
//	config N [spread=S] [ttl=DURATION]
//	boot [own=I]
//	head I free|released|held|absent|away [tag=T] [ttl=DURATION]   what is in the store
//	+DURATION                                      time passes, with a Tick at the end
//	read I                                         the read under way is answered
//	reads                                          all are, by number
//	watch DURATION                                 time passes, ticks come when wanted, reads are answered at once
//	ended I [unfit]
//	status
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
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

type script struct {
	c     *Chooser
	now   Time
	ttl   time.Duration
	heads []stored
	asked map[int]Time
	quiet bool // reads are not told
	out   strings.Builder
}

type stored struct {
	seen   *protocol.Seen // nil: the store does not answer
	absent bool
}

func (s *script) line(f []string) error {
	opt := map[string]string{}
	for _, word := range f[1:] {
		k, v, _ := strings.Cut(word, "=")
		opt[k] = v
	}
	number := func(text string) int { n, _ := strconv.Atoi(text); return n }
	switch cmd := f[0]; {
	case cmd == "config":
		s.ttl, _ = time.ParseDuration(opt["ttl"])
		s.ttl = max(s.ttl, 10*time.Second)
		s.c = New(Config{Slots: number(f[1]), TTL: s.ttl, Spread: uint64(number(opt["spread"]))})
		s.now, s.asked = 0, map[int]Time{}
		s.heads = make([]stored, number(f[1]))
		for i := range s.heads {
			s.put(i, protocol.Free, "new", s.ttl)
		}
	case cmd == "boot":
		own := None
		if text, ok := opt["own"]; ok {
			own = number(text)
		}
		s.step(Boot{Own: own})
	case cmd == "head":
		ttl := s.ttl
		if text, ok := opt["ttl"]; ok {
			ttl, _ = time.ParseDuration(text)
		}
		switch i := number(f[1]); f[2] {
		case "absent":
			s.heads[i] = stored{absent: true}
		case "away":
			s.heads[i] = stored{}
		default:
			s.put(i, protocol.HeadState(f[2]), opt["tag"], ttl)
		}
	case cmd == "read":
		return s.answer(number(f[1]))
	case cmd == "reads":
		return s.answerAll()
	case cmd == "ended":
		_, unfit := opt["unfit"]
		s.step(Ended{Slot: number(f[1]), Unfit: unfit})
	case cmd == "status":
		fmt.Fprintf(&s.out, "    %+v\n", s.c.Status())
	case cmd == "watch":
		d, err := time.ParseDuration(f[1])
		s.watch(s.now + d)
		return err
	default:
		d, err := time.ParseDuration(cmd[1:])
		s.now += d
		s.step(Tick{})
		return err
	}
	return nil
}

func (s *script) put(i int, state protocol.HeadState, tag string, ttl time.Duration) {
	s.heads[i] = stored{seen: &protocol.Seen{
		Head: protocol.Head{State: state, TTL: protocol.Duration(ttl)}, Tag: protocol.Tag(tag),
	}}
}

func (s *script) step(in Input) {
	for _, a := range s.c.Step(s.now, in) {
		switch a := a.(type) {
		case ReadHead:
			s.asked[a.Slot] = s.now
			if !s.quiet {
				fmt.Fprintf(&s.out, "    [%s] read %d\n", s.now, a.Slot)
			}
		case Try:
			clear(s.asked)
			seen := "nothing"
			if a.Watch.Tag != "" {
				seen = fmt.Sprintf("%s for %s", a.Watch.Tag, a.Watch.Sent-a.Watch.First)
			}
			fmt.Fprintf(&s.out, "    [%s] try %d, seen %s\n", s.now, a.Slot, seen)
		}
	}
}

func (s *script) answer(i int) error {
	sent, ok := s.asked[i]
	if !ok {
		return fmt.Errorf("no read of slot %d is under way", i)
	}
	delete(s.asked, i)
	s.step(HeadRead{Slot: i, Sent: sent, Seen: s.heads[i].seen, Absent: s.heads[i].absent})
	return nil
}

func (s *script) answerAll() error {
	for len(s.asked) > 0 {
		for i := range s.heads {
			if _, ok := s.asked[i]; ok {
				if err := s.answer(i); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// watch lets time pass; the reads are counted.
func (s *script) watch(until Time) {
	s.quiet = true
	defer func() { s.quiet = false }()
	_ = s.answerAll()
	for {
		at, ok := s.c.Deadline()
		if !ok || at > until {
			s.now = until
			return
		}
		s.now = at
		s.step(Tick{})
		_ = s.answerAll()
	}
}

// Every slot is read often enough for an observation to count, however many there are,
// and few slots are read each second.
func TestPace(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		for _, n := range []int{1, 3, 100, 1000} {
			c := New(Config{Slots: n, TTL: ttl})
			seen := &protocol.Seen{Head: protocol.Head{TTL: protocol.Duration(ttl)}}
			pace := c.pace(&slot{seen: seen})
			if pace > ttl/4 || n <= 3 && pace != min(ttl/5, time.Second) {
				t.Errorf("%d slots with a TTL of %s are read every %s", n, ttl, pace)
			}
			if pace < ttl/4 && time.Duration(n)*time.Second/pace > readsPerSecond {
				t.Errorf("%d slots with a TTL of %s are read every %s", n, ttl, pace)
			}
		}
	}
}
