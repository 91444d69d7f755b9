package lifetime

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The scripts under testdata have these commands; the time stands where it was unless
// at=D is given:
//
//	new [poll=D]                                       begins anew
//	watch id=N | unwatch id=N | tick                   an input
//	login | extend | check | probe | fetch | renew | look     the outcome of an action:
//	   [id=N] [sent=D] [failure=WORD] [ttl=D] [full=D] [renewable] [checkable] [life=WORD] [gen=N]
//	run until=D                                        ticks when it asks for one, up to a time or an action
//
// The jitter is that of seed 1.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, s.command)
	})
}

type script struct {
	m   *Machine
	now time.Duration
}

func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	if d.Cmd == "new" {
		s.m, s.now = New(5*time.Minute, 1), 0
	}
	in, sent := Input{Generation: -1}, time.Duration(-1)
	until := s.now
	for _, arg := range d.CmdArgs {
		value := strings.Join(arg.Vals, "")
		switch arg.Key {
		case "poll":
			s.m.poll = duration(t, value)
		case "at":
			s.now = duration(t, value)
		case "until":
			until = duration(t, value)
		case "sent":
			sent = duration(t, value)
		case "ttl":
			in.TTL = duration(t, value)
		case "full":
			in.Full = duration(t, value)
		case "id":
			fmt.Sscan(value, &in.ID)
		case "gen":
			fmt.Sscan(value, &in.Generation)
		case "renewable":
			in.Renewable = true
		case "checkable":
			in.Checkable = true
		case "failure":
			in.Failure = Failure(index(t, failureNames[:], value))
		case "life":
			in.Life = Life(index(t, lifeNames[:], value))
		default:
			t.Fatalf("unknown word %q", arg.Key)
		}
	}
	if in.Sent = sent; sent < 0 {
		in.Sent = s.now
	}
	if in.Generation < 0 {
		in.Generation = s.m.token.generation
	}
	switch d.Cmd {
	case "new":
		return s.show(nil)
	case "run":
		return s.run(until)
	}
	in.What = What(index(t, whatNames[:], d.Cmd))
	return s.show(s.m.Step(in, s.now))
}

// run ticks when the machine asks for it, until it acts.
func (s *script) run(until time.Duration) string {
	for range 1000 {
		at, ok := s.m.Next()
		if !ok || at > until {
			s.now = until
			return s.show(nil)
		}
		s.now = max(s.now, at)
		if actions := s.m.Step(Input{What: Tick}, s.now); len(actions) > 0 {
			return s.show(actions)
		}
	}
	return "it ticks without end\n"
}

func (s *script) show(actions []Action) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v:", s.now.Round(time.Millisecond))
	for _, a := range actions {
		switch a.What {
		case Fetch, Renew, Look, Forget:
			fmt.Fprintf(&b, " %v %d", a.What, a.ID)
		default:
			fmt.Fprintf(&b, " %v", a.What)
		}
	}
	if at, ok := s.m.Next(); ok {
		fmt.Fprintf(&b, " next %v", at.Round(time.Millisecond))
	}
	if s.m.gate.away {
		b.WriteString(" away")
	}
	return b.String() + "\n"
}

func index(t *testing.T, names []string, name string) int {
	i := slices.Index(names, name)
	if i < 0 {
		t.Fatalf("unknown word %q", name)
	}
	return i
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
