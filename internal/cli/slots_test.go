package cli

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"drover/client"
	"drover/internal/repo/fstest"
)

// member is one instance of several that share slots.
type member struct {
	*machine // for commands
	own      machine
	disk     string
	slots    int
	run      *process
}

func (m *machine) member(name string, slots int) *member {
	m.t.Helper()
	one := m.with("DROVER_SOCKET="+m.dir+"/s"+name, "DROVER_DATA_DIR="+m.dir+"/data"+name, "DROVER_ID="+name, "DROVER_OWNERSHIP=slot", fmt.Sprint("DROVER_SLOTS=", slots))
	b := &member{machine: one, own: *one, disk: m.dir + "/disk" + name, slots: slots}
	b.own.disk = b.disk
	fstest.Must(m.t, os.Mkdir(b.disk, 0o755), os.Mkdir(m.dir+"/data"+name, 0o755))
	m.t.Cleanup(func() {
		if b.run != nil {
			_ = b.run.cmd.Process.Kill()
		}
		if m.t.Failed() && b.run != nil {
			<-b.run.ended
			m.t.Log(name + ": " + b.run.errs.String())
		}
	})
	return b
}

func (b *member) start() {
	b.run = b.own.start("run", "--state", b.dir+"/state", "--", "sh", "-c", "echo $DROVER_SLOT >"+b.dir+"/state/slot; exec sleep 600")
}

// startWith starts it with another number of slots.
func (b *member) startWith(slots int) {
	b.slots = slots
	b.own.env = append(b.own.env, fmt.Sprint("DROVER_SLOTS=", slots))
	b.start()
}

func (b *member) kill() {
	b.t.Helper()
	fstest.Must(b.t, b.run.cmd.Process.Kill())
	<-b.run.ended
	b.run = nil
}

// holds waits until the instance runs in the slot.
func (b *member) holds(slot int) client.Status {
	b.t.Helper()
	st := b.status(fmt.Sprintf("holder of slot %d", slot), func(s client.Status) bool {
		return s.Role == "holder" && s.Slot != nil && *s.Slot == slot && s.Volume == fmt.Sprintf("data-%d", slot) && s.Slots == b.slots
	})
	b.status("the job has said its slot", func(client.Status) bool {
		text, err := os.ReadFile(b.disk + "/slot")
		return err == nil && string(text) == fmt.Sprintln(slot)
	})
	return st
}

func (b *member) has(name, want string) {
	b.t.Helper()
	text, err := os.ReadFile(b.disk + "/" + name)
	if want == "" && os.IsNotExist(err) {
		return
	}
	if err != nil || string(text) != want {
		b.t.Errorf("%s is %q, %v, want %q", name, text, err, want)
	}
}

// waits waits until the instance is a spare and all slots are held.
func (b *member) waits() {
	b.t.Helper()
	b.status("spare", func(s client.Status) bool {
		return s.Role == "spare" && s.Slots == b.slots && strings.Contains(s.Message, fmt.Sprintf("%d of %d are held", b.slots, b.slots))
	})
}

// testSlots: each instance has a slot with its own data, a spare takes the slot of one
// that dies, one that restarts takes its own back, and what it had not committed of a
// slot that another has meanwhile is kept with that slot.
func testSlots(t *testing.T, m *machine) {
	m = m.with("DROVER_TTL=3s")
	a, b, c, d := m.member("a", 3), m.member("b", 3), m.member("c", 3), m.member("d", 3)
	for slot, one := range []*member{a, b, c} {
		one.start()
		one.holds(slot)
		fstest.Write(t, one.disk+"/who", fmt.Sprint("slot ", slot))
		one.is(0, "committed", "backup")
	}
	d.start()
	d.waits()
	d.is(1, "3 of 3 are held", "backup")

	// A spare has the dead one's slot, and what was committed of it.
	fstest.Write(t, b.disk+"/late", "not committed")
	b.kill()
	d.holds(1)
	d.has("who", "slot 1")
	d.has("late", "")

	// Who restarts in place goes on with its files, committed or not.
	fstest.Write(t, c.disk+"/late", "of slot 2")
	c.kill()
	c.start()
	if st := c.holds(2); st.RTO != nil {
		t.Errorf("it restored for %v s what it had", *st.RTO)
	}
	c.has("late", "of slot 2")

	// The dead one comes back: its slot is another's, and there is no free one. What it
	// had is kept as diverged of its slot, and comes into no other.
	b.start()
	b.waits()
	d.is(0, "diverged", "snapshots", "--volume", "data-1", "--all")
	for _, slot := range []string{"data-0", "data-2"} {
		if got := d.do("snapshots", "--volume", slot, "--all"); got.code != 0 || len(got.out) == 0 {
			t.Errorf("%+v", got)
		}
	}

	// Planned: the spare has what the holder had, and that one waits for another slot.
	fstest.Write(t, a.disk+"/late", "of slot 0")
	a.is(0, "b has the volume in epoch 2", "takeover")
	b.holds(0)
	b.has("who", "slot 0")
	b.has("late", "of slot 0")
	a.waits()

	// An orderly end frees a slot at once.
	fstest.Write(t, d.disk+"/more", "of slot 1")
	d.run.signal(syscall.SIGTERM)
	d.run.wait()
	d.run = nil
	a.holds(1)
	a.has("more", "of slot 1")
	a.has("late", "")
}
