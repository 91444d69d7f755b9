package protocol

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts plays the conversations in testdata: each line is what happens,
// what follows it indented is what the machine wants done. `-rewrite` writes
// down what it does now; read the diff.
//
// A line is one of:
//
//	config [strict] [adopt] [discard] [final] [warm] [leave] [retired] [detached] [mutant=NAME]   a new machine (ttl 10s, margin 2s), an empty head
//	head FIELD=VALUE...          what is in the store now, by another's hand
//	boot [files] [sameboot] [markers] [role=…] [claim=…] [intended-claim=…] [last=…] [intended=…] [synced] [intended-synced] [restoring] [seen=EPOCH/SEQ]
//	+DURATION                    time passes, with a Tick at the end
//	ticks DURATION               time passes, with a Tick whenever the machine wants one
//	read [failed|missing] [sent=-DURATION]
//	put ok|landed|lost           a 2xx; an unclear answer to a put that landed; to one that did not
//	recorded|locked|diverged|restored|exited|captured|check … [failed]
//	serve                        every request of the machine is answered well until it wants nothing but time
//	backup N; handover N GRACE; condemn N PACKS epoch/seq; forgive N PACKS; stop GRACE; main-exited
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newScript()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "play" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			w.out.Reset()
			for line := range strings.Lines(d.Input) {
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				fmt.Fprintln(&w.out, line)
				if err := w.line(line); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			return w.out.String()
		})
	})
}

type script struct {
	m     *Machine
	now   Time
	store Seen
	tags  int
	ids   int
	locks int
	snaps int
	put   *PutHead
	asked map[string]bool
	out   strings.Builder
}

func newScript() *script {
	w := &script{}
	w.config(nil)
	return w
}

type args map[string]string

func parse(fields []string) args {
	a := args{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		a[k] = v
	}
	return a
}

func (a args) has(k string) bool { _, ok := a[k]; return ok }

func (w *script) config(fields []string) {
	a := parse(fields)
	cfg := Config{
		Volume: "data", Self: Holder{ID: "A"}, TTL: 10 * time.Second, Margin: 2 * time.Second, Fence: FenceHistory,
		AdoptFiles: a.has("adopt"), DiscardImageFiles: a.has("discard"), Detached: a.has("detached"), FinalCommit: a.has("final"), Warm: a.has("warm"), Leave: a.has("leave"), Retired: a.has("retired"),
		Mutant: Mutant(a["mutant"]),
		NewID:  func() string { w.ids++; return "id" + strconv.Itoa(w.ids) },
	}
	if a.has("strict") {
		cfg.Fence = FenceStrict
	}
	out := w.out
	*w = script{m: New(cfg), asked: map[string]bool{}, out: out}
	w.store = Seen{Head: Head{Version: 1, Volume: "data", State: Free, TTL: Duration(cfg.TTL)}, Tag: "t0"}
}

func (w *script) line(line string) error {
	fields := strings.Fields(line)
	cmd, rest := fields[0], fields[1:]
	a := parse(rest)
	switch {
	case cmd == "config":
		w.config(rest)
		return nil
	case cmd == "head":
		return w.head(a)
	case cmd == "boot":
		return w.boot(a)
	case strings.HasPrefix(cmd, "+"):
		d, err := time.ParseDuration(cmd[1:])
		w.now += d
		w.step(Tick{})
		return err
	case cmd == "ticks":
		d, err := time.ParseDuration(rest[0])
		w.ticks(w.now + d)
		return err
	case cmd == "serve":
		return w.serve()
	case cmd == "backup", cmd == "handover", cmd == "condemn", cmd == "forgive", cmd == "stop", cmd == "main-exited":
		return w.want(cmd, rest)
	}
	return w.answer(cmd, a)
}

func (w *script) head(a args) error {
	h := &w.store.Head
	for k, v := range a {
		n, _ := strconv.ParseUint(v, 10, 64)
		switch k {
		case "state":
			h.State = HeadState(v)
		case "epoch":
			h.Epoch = n
		case "seq":
			h.Seq = n
		case "claim":
			h.Claim = v
		case "write":
			h.Write = v
		case "snapshot":
			h.Snapshot = v
		case "holder":
			h.Holder = Holder{ID: v, Lock: "lock-of-" + v}
		case "version":
			h.Version = int(n)
		case "volume":
			h.Volume = v
		case "condemned":
			h.Condemned = strings.Split(v, ",")
		default:
			return fmt.Errorf("unknown field %q", k)
		}
	}
	w.tags++
	w.store.Tag = Tag("t" + strconv.Itoa(w.tags))
	return nil
}

func (w *script) boot(a args) error {
	l := Local{FilesPresent: a.has("files"), SameBoot: a.has("sameboot"), MarkersMatch: a.has("markers")}
	if a.has("role") {
		r := Record{
			Volume: "data", Role: Role(a["role"]), Claim: a["claim"], IntendedClaim: a["intended-claim"],
			Last: a["last"], Intended: a["intended"], SyncedLast: a.has("synced"), SyncedIntended: a.has("intended-synced"),
			Restoring: a.has("restoring"),
		}
		if r.Role == "none" {
			r.Role = RoleNone
		}
		if s, ok := a["seen"]; ok {
			if _, err := fmt.Sscanf(s, "%d/%d", &r.SeenEpoch, &r.SeenSeq); err != nil {
				return err
			}
		}
		l.Record = &r
	}
	w.step(Boot{Local: l})
	return nil
}

func (w *script) want(cmd string, rest []string) error {
	if cmd == "main-exited" {
		w.step(JobsExited{Main: true})
		return nil
	}
	if cmd == "stop" {
		d, err := time.ParseDuration(rest[0])
		w.step(StopWanted{Grace: d})
		return err
	}
	n, err := strconv.ParseUint(rest[0], 10, 64)
	if err != nil {
		return err
	}
	switch cmd {
	case "backup":
		w.step(BackupWanted{Request: n})
	case "handover":
		d, err := time.ParseDuration(rest[1])
		w.step(HandOverWanted{Request: n, Grace: d})
		return err
	case "condemn":
		in := CondemnWanted{Request: n, Packs: strings.Split(rest[1], ",")}
		_, err = fmt.Sscanf(rest[2], "%d/%d", &in.Epoch, &in.Seq)
		w.step(in)
	case "forgive":
		w.step(ForgiveWanted{Request: n, Packs: strings.Split(rest[1], ",")})
	}
	return err
}

var errScript = errors.New("it was so written")

func (a args) err() error {
	if a.has("failed") {
		return errScript
	}
	return nil
}

// answer gives the answer to a request of the machine that must be outstanding.
func (w *script) answer(cmd string, a args) error {
	asks := map[string]string{
		"read": "read", "put": "put", "recorded": "record", "locked": "lock", "diverged": "diverged",
		"restored": "restore", "captured": "capture", "check": "check", "exited": "jobs",
	}
	what, ok := asks[cmd]
	switch {
	case !ok:
		return errors.New("unknown line")
	case !w.asked[what]:
		return fmt.Errorf("the machine did not ask for this")
	}
	delete(w.asked, what)
	sent := w.now
	if s, ok := a["sent"]; ok {
		d, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		sent += d
	}
	switch cmd {
	case "read":
		w.step(w.reading(a, sent))
	case "put":
		w.step(w.putting(a, sent))
	case "recorded":
		w.step(RecordWritten{Err: a.err()})
	case "locked":
		w.locks++
		w.step(Locked{Lock: "lock" + strconv.Itoa(w.locks), Err: a.err()})
	case "diverged":
		w.step(DivergedSaved{Snapshot: "d", Err: a.err()})
	case "restored":
		w.step(Restored{Synced: a.has("synced"), Untouched: a.has("untouched"), Err: a.err()})
	case "captured":
		w.step(w.captured(a))
	case "check":
		w.step(LockChecked{Present: !a.has("gone"), Err: a.err()})
	case "exited":
		w.step(JobsExited{})
	}
	return nil
}

func (w *script) reading(a args, sent Time) HeadRead {
	switch {
	case a.has("failed"):
		return HeadRead{Sent: sent, Err: errScript}
	case a.has("missing"):
		return HeadRead{Sent: sent, Missing: true}
	}
	s := w.store
	return HeadRead{Sent: sent, Seen: &s}
}

func (w *script) putting(a args, sent Time) HeadPut {
	if (a.has("ok") || a.has("landed")) && w.put.Base == w.store.Tag {
		w.tags++
		w.store = Seen{Head: w.put.Head, Tag: Tag("t" + strconv.Itoa(w.tags))}
		if a.has("ok") {
			return HeadPut{Sent: sent, OK: true, Tag: w.store.Tag}
		}
	}
	return HeadPut{Sent: sent, Err: errScript}
}

func (w *script) captured(a args) Captured {
	c := Captured{
		Synced: a.has("synced"), Unchanged: a.has("unchanged"), Transient: a.has("transient"), Err: a.err(),
	}
	if c.Transient {
		c.Err = errScript
	}
	if c.Err == nil && !c.Unchanged {
		w.snaps++
		c.Snapshot = "s" + strconv.Itoa(w.snaps)
		if s, ok := a["snapshot"]; ok {
			c.Snapshot = s
		}
		c.Tree = "tree-of-" + c.Snapshot
	}
	if p, ok := a["packs"]; ok {
		c.Packs = strings.Split(p, ",")
	}
	return c
}

// serve answers all that is asked, in a fixed order, until nothing is.
func (w *script) serve() error {
	order := []struct{ ask, line string }{
		{"jobs", "exited"},
		{"record", "recorded"}, {"lock", "locked"}, {"diverged", "diverged"}, {"restore", "restored synced"},
		{"capture", "captured synced"}, {"check", "check present"}, {"put", "put ok"}, {"read", "read"},
	}
	for range 100 {
		next := ""
		for _, o := range order {
			if w.asked[o.ask] {
				next = o.line
				break
			}
		}
		if next == "" {
			return nil
		}
		fmt.Fprintf(&w.out, "- %s\n", next)
		if err := w.line(next); err != nil {
			return err
		}
	}
	return errors.New("no end")
}

func (w *script) ticks(until Time) {
	for {
		at, ok := w.m.Deadline()
		if !ok || at > until {
			w.now = until
			w.step(Tick{})
			return
		}
		if at <= w.now {
			fmt.Fprintf(&w.out, "! deadline %s is past at %s\n", at, w.now)
			return
		}
		w.now = at
		w.step(Tick{})
	}
}

func (w *script) step(in Input) {
	for _, a := range w.m.Step(w.now, in) {
		fmt.Fprintf(&w.out, "    %s%s\n", w.stamp(), w.describe(a))
	}
}

func (w *script) stamp() string { return fmt.Sprintf("[%s] ", w.now) }

func (w *script) describe(a Action) string {
	ask := func(what, text string) string {
		if w.asked[what] && what != "jobs" {
			text += " !! while one is under way"
		}
		w.asked[what] = true
		return text
	}
	switch a := a.(type) {
	case ReadHead:
		return ask("read", "read head")
	case PutHead:
		w.put = &a
		text := fmt.Sprintf("put head on %s: %s", a.Base, headText(a.Head))
		if a.Repeat {
			text = fmt.Sprintf("put the same bytes again on %s: write %s", a.Base, a.Head.Write)
		}
		return ask("put", text)
	case WriteRecord:
		return ask("record", "record: "+recordText(a))
	case TakeLock:
		return ask("lock", strings.TrimSpace("take lock "+orNone("instead of ", a.Predecessor)))
	case DropLock:
		return "drop lock"
	case CheckLock:
		return ask("check", "check lock")
	case SaveDiverged:
		return ask("diverged", fmt.Sprintf("save diverged from %s: %s", a.Head.Snapshot, a.Reason))
	case Restore:
		return ask("restore", fmt.Sprintf("restore %q", a.Head.Snapshot)+orNone(" upon ", a.Base)+flag(" as a copy", a.Follow))
	case StartJobs:
		return "start jobs"
	case StopJobs:
		return ask("jobs", "stop jobs")
	case KillJobs:
		return ask("jobs", "KILL jobs: "+a.Reason)
	case Capture:
		return ask("capture", "capture"+flag(" fresh", a.Fresh)+flag(" force", a.Force))
	case Cancel:
		return "cancel"
	case Reply:
		if a.Err != nil {
			return fmt.Sprintf("reply to %v: error: %v", a.Requests, a.Err)
		}
		return fmt.Sprintf("reply to %v: committed %s", a.Requests, a.Head.Snapshot)
	case Became:
		return fmt.Sprintf("became %s%s%s", a.Status.Phase, flag(" (ambiguous)", a.Status.Ambiguous), orNone(": ", a.Status.Reason))
	case Exit:
		return fmt.Sprintf("exit: %v", a.Err)
	}
	return fmt.Sprintf("unknown action %T", a)
}

func orNone(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func flag(text string, set bool) string {
	if set {
		return text
	}
	return ""
}

func headText(h Head) string {
	return fmt.Sprintf("%s epoch %d claim %s seq %d%s%s write %s", h.State, h.Epoch, h.Claim, h.Seq,
		orNone(" snapshot ", h.Snapshot), orNone(" condemned ", strings.Join(h.Condemned, ",")), h.Write)
}

func recordText(w WriteRecord) string {
	r := w.Record
	role := string(r.Role)
	if role == "" {
		role = "none"
	}
	return "role " + role + orNone(" claim ", r.Claim) + orNone(" intended claim ", r.IntendedClaim) +
		orNone(" last ", r.Last) + flag(" (synced)", r.SyncedLast) +
		orNone(" intended ", r.Intended) + flag(" (synced)", r.SyncedIntended) +
		flag(" restoring", r.Restoring) + flag(" with fresh markers", w.Markers)
}
