package app

import (
	"os"
	"strings"
	"testing"
)

// One agent in a slot: its job knows the slot, a backup is of the slot's volume, and a
// hand-over without a taker goes on there.
func TestSlotOfOneAgent(t *testing.T) {
	w := newWorkshop(t)
	r := w.run("ownership: slot\nslots: 2\nbackup: {consistency: live}", "sh", "-c", `echo "$DROVER_SLOT" >"$ACKS"; exec sleep 600`)
	r.until("the job says its slot", func() bool {
		text, err := os.ReadFile(r.acks)
		return err == nil && string(text) == "0\n"
	})
	if b, err := r.Backup(t.Context(), false); err != nil || b.Seq != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := r.HandOver(t.Context(), patience); err == nil || !strings.Contains(err.Error(), "no standby took the volume") {
		t.Errorf("%v", err)
	}
	s, err := r.Status(t.Context())
	if err != nil || s.Slot == nil || *s.Slot != 0 || s.Volume != "data-0" || s.Slots != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	r.end()
	if list, err := w.ops("DROVER_VOLUME", "data-0").Snapshots(t.Context(), false); err != nil || len(list) == 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestVolumeOfEachInstance(t *testing.T) {
	w := newWorkshop(t)
	r := w.run("ownership: each", "sleep", "600")
	if s, err := r.Status(t.Context()); err != nil || s.Volume != "data-test" {
		t.Errorf("%+v, %v", s, err)
	}
}
