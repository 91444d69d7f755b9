package failover

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestANewerRecordIsRefused(t *testing.T) {
	if _, err := ParseRecord([]byte(`{"format":2,"epoch":1,"phase":"running"}`)); !errors.Is(err, ErrFormat) {
		t.Errorf("a record of format 2: %v", err)
	}
}

func TestARecordThatContradictsItselfIsRefused(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `{"format":1,"epoch":1,"phase":"resting"}`, `{"format":1,"epoch":0,"phase":"running"}`,
		`{"format":1,"epoch":1,"phase":"running","set":{"members":["a"],"acks":2}}`,
		`{"format":1,"epoch":1,"phase":"running","set":{"members":["a"],"acks":-1}}`,
		`{"format":1,"epoch":1,"phase":"running","mode":"sometimes"}`,
		`{"format":1,"epoch":1,"phase":"running","mode":"on","set":{"members":["b","a"],"acks":1}}`,
		`{"format":1,"epoch":1,"phase":"running","mode":"on","set":{"members":["a","a"],"acks":2}}`,
	} {
		if r, err := ParseRecord([]byte(text)); err == nil || r != nil {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	r := &Record{
		Epoch: 3, Revision: 9, Phase: Running, Primary: "a", Since: 3, System: "s", Mode: On, Set: SyncSet{Members: []string{"b", "c"}, Acks: 1},
		Members: map[string]Member{"m": {ID: "a", Host: "h", Port: 5432, Tags: Tags{NoSync: true, Priority: 2}}}, Paused: true,
		Switchover: &Switchover{To: "n", At: time.Unix(9, 0).UTC()}, History: []Reign{{Epoch: 3, Primary: "a", Reason: "failover", From: "7"}},
	}
	f.Add(r.Encode())
	f.Add([]byte(`{"format":1,"epoch":18446744073709551615,"phase":"electing","mode":"strict"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRecord(text)
		if err != nil {
			return
		}
		again, err := ParseRecord(r.Encode())
		if err != nil || string(again.Encode()) != string(r.Encode()) {
			t.Fatalf("it is not what it was: %v\n%s\n%s", err, r.Encode(), again.Encode())
		}
		if c := r.Clone(); !reflect.DeepEqual(c, r) {
			t.Fatalf("a copy is another one:\n%+v\n%+v", c, r)
		}
		_ = r.Set.quorum()
		_ = r.Name("a")
	})
}

// A copy shares nothing: whoever changes it changes no record that others read.
func TestACloneSharesNothing(t *testing.T) {
	r := &Record{
		Epoch: 1, Phase: Running, Set: SyncSet{Members: []string{"a"}, Acks: 1}, Members: map[string]Member{"m": {ID: "a"}},
		Switchover: &Switchover{To: "m"}, History: []Reign{{Epoch: 1}},
	}
	before := string(r.Encode())
	c := r.Clone()
	c.Set.Members[0], c.Members["m"], c.Switchover.To, c.History[0].Reason = "b", Member{}, "n", "x"
	if after := string(r.Encode()); after != before {
		t.Errorf("%s\n%s", before, after)
	}
}

// Restarts are forgotten before forks, and a fork that is forgotten is known to be.
func TestHistoryForgetsRestartsFirst(t *testing.T) {
	r := &Record{}
	for e := uint64(1); e <= MaxHistory; e++ {
		reigns(r, Reign{Epoch: e, From: fmt.Sprint(e)})
	}
	for e := uint64(1); e <= 3; e++ {
		reigns(r, Reign{Epoch: MaxHistory + e})
	}
	if len(r.History) != MaxHistory || r.Forgotten != 1 || r.History[0].Epoch != 2 || r.History[MaxHistory-1].Epoch != MaxHistory+3 {
		t.Errorf("after three restarts: %d reigns from %d to %d, forgotten %d", len(r.History), r.History[0].Epoch, r.History[MaxHistory-1].Epoch, r.Forgotten)
	}
	s := step{r: r, cfg: Config{Compare: comparePositions}}
	if at, strayed := s.within(0, "7"); at != "" || !strayed {
		t.Errorf("a lineage whose fork is forgotten is at %q, strayed %v", at, strayed)
	}
	if at, strayed := s.within(1, "7"); at != "2" || !strayed {
		t.Errorf("the next one is at %q, strayed %v", at, strayed)
	}
}

// What a member says of itself is of this epoch, and of what is written down.
func TestAnswersAreCareful(t *testing.T) {
	db := &Database{Received: "5", Detached: true}
	s := State{Persistent: Persistent{ID: "a", Epoch: 4, Lineage: 4}, sure: Persistent{ID: "a", Epoch: 4, Lineage: 3}}
	for name, c := range map[string]struct {
		written  uint64
		o        Observation
		detached bool
		epoch    uint64
	}{
		"detached":                    {4, Observation{Database: db}, true, 4},
		"something is under way":      {4, Observation{Database: db, Busy: true}, false, 4},
		"the epoch is not written":    {3, Observation{Database: db}, false, 3},
		"it follows":                  {4, Observation{Database: &Database{Received: "5", Upstream: "b", Detached: true}}, false, 4},
		"it does not know how far":    {4, Observation{Database: &Database{Detached: true}}, false, 4},
		"its server does not answer":  {4, Observation{}, false, 4},
		"it is no replica any longer": {4, Observation{Database: &Database{Received: "5", Detached: true, Primary: true}}, false, 4},
	} {
		a := s.Answer(c.written, c.o)
		if a.Detached != c.detached || a.Epoch != c.epoch || a.Lineage != 3 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if !strings.Contains(fmt.Sprint(s.Answer(4, Observation{Process: Down})), "true") {
		t.Error("that the server does not run is not told")
	}
}
