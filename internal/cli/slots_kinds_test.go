package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/proctree"
	"drover/internal/repo/fstest"
)

// keeps checks that a diverged snapshot of a slot has a file.
func (b *member) keeps(slot, name, want string) {
	b.t.Helper()
	var list []client.Snapshot
	got := b.do("snapshots", "--all", "--json", "--volume", slot)
	if err := json.Unmarshal([]byte(got.out), &list); err != nil {
		b.t.Fatalf("%+v: %v", got, err)
	}
	var found []string
	for _, sn := range list {
		if !sn.Diverged || sn.Committed {
			continue
		}
		target := b.dir + "/kept-" + sn.ID
		b.is(0, "restored", "restore", sn.ID, "--volume", slot, "--target", target)
		text, _ := os.ReadFile(target + b.dir + "/state/" + name)
		found = append(found, string(text))
	}
	if strings.Join(found, ";") != want {
		b.t.Errorf("diverged of %s have %s with %q, want %q", slot, name, found, want)
	}
}

// testSlotsStrictly: with fence strict, who restarts in place waits for a TTL and then
// has its slot and its newer files; who slept for longer than that has lost the slot,
// and its job is dead before it does anything else.
func testSlotsStrictly(t *testing.T, m *machine) {
	const ttl = 3 * time.Second
	m = m.with("DROVER_TTL=3s", "DROVER_FENCE=strict")
	a, b := m.member("a", 1), m.member("b", 1)
	a.start()
	a.holds(0)
	fstest.Write(t, a.disk+"/who", "slot 0")
	a.is(0, "committed", "backup")
	fstest.Write(t, a.disk+"/late", "first")
	a.kill()
	began := time.Now()
	a.start()
	a.holds(0)
	if took := time.Since(began); took < ttl {
		t.Errorf("it ran again %s after it was killed, with a TTL of %s", took, ttl)
	}
	a.has("late", "first")
	a.is(0, "committed", "backup")

	b.start()
	b.waits()
	fstest.Write(t, a.disk+"/late", "second")
	st := a.holds(0)
	agent := workerOf(t, st)
	job, _ := proctree.Lookup(st.Jobs[0].PID)
	fstest.Must(t, unix.Kill(agent, unix.SIGSTOP)) // its job runs on
	b.holds(0)
	b.has("late", "first")
	fstest.Must(t, unix.Kill(agent, unix.SIGCONT))
	a.waits()
	if now, ok := proctree.Lookup(job.PID); ok && now.Start == job.Start && now.Alive() {
		t.Error("the job of the one that lost its slot runs")
	}
	a.keeps("data-0", "late", "second")
	b.is(0, "committed", "backup")
}

// testSlotsMirror: each slot is mirrored as a volume of its own, whoever holds it.
func testSlotsMirror(t *testing.T, m *machine) {
	second := m.dir + "/second"
	m = m.with("DROVER_TTL=2s", "DROVER_MIRROR_STORE=file://"+second, "DROVER_MIRROR_PASSWORD=simsim",
		"DROVER_CONFIG="+m.write("drover.yaml", "mirror: {every: 1s}\n"))
	a, b, c := m.member("a", 2), m.member("b", 2), m.member("c", 2)
	mirrored := func(one *member, seq uint64) {
		t.Helper()
		one.status(fmt.Sprintf("the mirror has commit %d", seq), func(s client.Status) bool {
			return s.Seq == seq && s.Mirror != nil && s.Mirror.Known && s.Mirror.Behind == 0 && s.Mirror.Seq == seq && s.Mirror.Error == ""
		})
	}
	for slot, one := range []*member{a, b} {
		one.start()
		one.holds(slot)
		fstest.Write(t, one.disk+"/who", fmt.Sprint("slot ", slot))
		one.is(0, "committed", "backup")
		mirrored(one, 1)
	}
	c.start()
	c.waits()
	a.kill()
	c.holds(0)
	fstest.Write(t, c.disk+"/more", "of slot 0")
	c.is(0, "committed", "backup")
	mirrored(c, 2)

	there := m.with("DROVER_STORE=file://"+second, "DROVER_PASSWORD=simsim", "DROVER_MIRROR_STORE=", "DROVER_MIRROR_PASSWORD=", "DROVER_CONFIG=")
	for slot, files := range []map[string]string{{"who": "slot 0", "more": "of slot 0"}, {"who": "slot 1"}} {
		volume, target := fmt.Sprint("data-", slot), fmt.Sprint(m.dir, "/from-", slot)
		there.is(0, "restored", "restore", "--volume", volume, "--target", target)
		there.is(0, "no problem found", "verify", "--read-data", "--volume", volume)
		for name, want := range files {
			if text, err := os.ReadFile(target + m.dir + "/state/" + name); err != nil || string(text) != want {
				t.Errorf("%s in the mirror has %s with %q, %v", volume, name, text, err)
			}
		}
	}
}

// testFewerSlots: who had a slot that there is no more keeps what differs with that
// slot, and waits. When there are more again, the slot is what was committed of it.
func testFewerSlots(t *testing.T, m *machine) {
	m = m.with("DROVER_TTL=2s")
	a, b, c := m.member("a", 3), m.member("b", 3), m.member("c", 3)
	for slot, one := range []*member{a, b, c} {
		one.start()
		one.holds(slot)
		fstest.Write(t, one.disk+"/who", fmt.Sprint("slot ", slot))
		one.is(0, "committed", "backup")
	}
	fstest.Write(t, c.disk+"/late", "of slot 2")
	c.kill()
	c.startWith(2)
	c.waits()
	c.keeps("data-2", "late", "of slot 2")
	b.kill()
	b.startWith(2)
	b.holds(1)
	b.has("who", "slot 1")

	c.kill()
	c.startWith(3)
	c.holds(2)
	c.has("who", "slot 2")
	c.has("late", "")

	var all []client.Status
	got := m.do("status", "--all", "--json")
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || got.code != 0 || len(all) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for slot, holder := range []string{"a", "b", "c"} {
		if st := all[slot]; st.Volume != fmt.Sprint("data-", slot) || st.Holder != holder || st.State != "held" || st.Health != "ok" || st.Seq != 1 {
			t.Errorf("%+v", st)
		}
	}
}
